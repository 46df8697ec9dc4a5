"""One source, really opened and heard for a few seconds: what it sends, how regularly, how far from its own time, and
what that means for a run. Knows `sources`, and judges what `survey` heard there.
"""

import socket
from collections.abc import Iterator
from itertools import pairwise
from statistics import linear_regression, median, quantiles

from pipeline.doctor.finding import Finding, Question, note, ok, problem
from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.source_address import Address, parse_address
from pipeline.sources import open_source
from pipeline.sources.survey import Heard, Survey, survey

# A source whose second key frame is not there yet is heard so many times as long.
KEY_TIMES = 3.0
FAR_KEY_SECONDS = 4.0
SLOW_START_SECONDS = 3.0
# A server may begin with what it has kept: what comes in the first second says nothing of its pace.
BURST_SECONDS = 1.0
FEWEST_PACKETS = 10
UNEVEN_SECONDS = 0.25
# Seconds that a stream gets older, or younger, in a second.
DRIFT = 0.05
OTHER_RATE = 0.1
WRONG_CLOCK_SECONDS = 1.0
ANSWER_SECONDS = 3.0


def source(question: Question) -> Iterator[Finding]:
    """All there is to say of the one source that is asked for."""
    name, settings = question.source_id, question.settings.sources[question.source_id]
    try:
        address = parse_address(settings.uri)
        if address.kind == "images":
            yield from _images(name, settings)
            return
        heard = survey(settings, question.seconds, KEY_TIMES * question.seconds)
    except SourceError as error:
        yield problem(name, str(error), _what_to_try(settings))
        return
    yield from _all_of(name, settings, heard)


def _all_of(name: str, settings: SourceSettings, heard: Survey) -> Iterator[Finding]:
    if heard.first_frame_seconds is None:
        why = heard.failure or f"{len(heard.packets)} packets came, and none decodes"
        yield problem(name, f"{heard.shown}: no picture: {why}", "look whether another player shows it")
        return
    yield _opened(name, heard)
    if heard.failure and heard.comes_by_itself:
        yield problem(name, f"it was lost while it was heard: {heard.failure}", "look at the camera and the network")
    if heard.kind == "pattern":
        return
    yield from _order(name, heard)
    yield from _key_frames(name, heard)
    if heard.comes_by_itself:
        yield from _pace(name, heard)
        yield from _sender_clock(name, heard)


def _images(name: str, settings: SourceSettings) -> Iterator[Finding]:
    with open_source(settings, name) as images:
        info = images.info
        yield ok(name, f"{settings.uri.shown}: {info.frame_count} images, the first of {info.width}x{info.height}")


def _opened(name: str, heard: Survey) -> Finding:
    rate = f", {heard.frames_per_second:g} frames/s as it says" if heard.frames_per_second else ""
    codec = f"{heard.codec} {heard.profile}".strip()
    text = f"{heard.shown}: {codec}, {heard.width}x{heard.height}{rate}"
    if not heard.comes_by_itself:
        return ok(name, text)
    text = f"{text}; the first picture came after {heard.first_frame_seconds:.1f} s"
    if (heard.first_frame_seconds or 0.0) <= SLOW_START_SECONDS:
        return ok(name, text)
    opening = f"opening alone took {heard.opened_seconds:.1f} s, the rest is waiting for a key frame"
    return note(name, text, f"{opening}: set key frames 1 to 2 s apart in the camera")


# -- what it sends


def _order(name: str, heard: Survey) -> Iterator[Finding]:
    subject = f"{name}: B-frames"
    times = [each.pts for each in heard.packets if each.pts is not None]
    if any(later < earlier for earlier, later in pairwise(times)):
        if not heard.comes_by_itself:
            yield ok(subject, "some, which is no matter in a file")
            return
        late = f", about {heard.delay_frames} pictures" if heard.delay_frames else ""
        how = "switch B-frames off in the camera, or take its Baseline profile"
        yield note(subject, f"pictures come in another order than they are shown in: each waits for others{late}", how)
    elif heard.delay_frames and heard.comes_by_itself:
        text = f"none, but the stream says that there may be: the decoder holds {heard.delay_frames} pictures back"
        yield note(subject, text, "take another profile in the camera (Baseline), if that is too late")
    else:
        yield ok(subject, "none: good, no picture waits for another")


def _key_frames(name: str, heard: Survey) -> Iterator[Finding]:
    subject = f"{name}: key frames"
    at = [_time(each) for each in heard.packets if each.is_key]
    apart = [later - earlier for earlier, later in pairwise(at) if later > earlier]
    if not heard.comes_by_itself:
        if apart:
            yield ok(subject, f"{max(apart):.1f} s apart")
        return
    if len(at) == len(heard.packets):
        yield ok(subject, "each picture is one")
        return
    length = heard.packets[-1].arrived - heard.packets[0].arrived
    longest = max(apart, default=length)
    told = f"{longest:.1f} s apart" if apart else f"more than {length:.0f} s apart"
    if not at:
        told = f"none in {length:.0f} s: it refreshes its pictures in another way, or has very few"
    if apart and longest <= FAR_KEY_SECONDS:
        yield ok(subject, told)
    else:
        how = f"after a loss it takes up to {longest:.0f} s to see again; set 1 to 2 s in the camera"
        yield note(subject, told, how)


# -- its pace


def _pace(name: str, heard: Survey) -> Iterator[Finding]:
    if not heard.has_time_stamps:
        yield note(f"{name}: pace", f"it has no time stamps, so a picture's time is when it came{_came(heard)}")
        return
    steady = [each for each in heard.packets if each.arrived >= heard.packets[0].arrived + BURST_SECONDS]
    if len(steady) < FEWEST_PACKETS:
        yield note(
            f"{name}: pace",
            f"{len(heard.packets)} pictures came, too few to tell its pace",
            "hear it longer: --seconds",
        )
        return
    yield _rate(name, heard, steady)
    yield _lateness(name, steady)


def _rate(name: str, heard: Survey, steady: list[Heard]) -> Finding:
    subject, said = f"{name}: rate", heard.frames_per_second
    came = (len(steady) - 1) / max(1e-9, steady[-1].arrived - steady[0].arrived)
    size = 8e-3 * sum(each.size_bytes for each in steady[1:]) / max(1e-9, steady[-1].arrived - steady[0].arrived)
    text = f"{came:.1f} frames a second came, {size:.0f} kbit/s"
    if said and abs(came - said) > OTHER_RATE * said:
        return note(
            subject,
            f"{text}; the stream says {said:g}",
            "what comes counts; look in the camera if it is less than you want",
        )
    return ok(subject, text)


def _lateness(name: str, steady: list[Heard]) -> Finding:
    """How much later than their own time stamps packets come, seen from the promptest."""
    subject = f"{name}: times"
    arrived = [each.arrived for each in steady]
    # In the order of decoding times grow; those of showing, put in order, are the same but for a shift.
    stamps = sorted(_time(each) for each in steady)
    if stamps[-1] - stamps[0] <= 0:
        return note(
            subject, "its time stamps stand still, so a picture's time is when it came", "look at the camera's clock"
        )
    behind = [came - stamp for came, stamp in zip(arrived, stamps, strict=True)]
    drift = linear_regression(arrived, behind).slope
    line = [each - drift * came for each, came in zip(behind, arrived, strict=True)]
    late = [1e3 * (each - min(line)) for each in line]
    told = (
        f"95 % of pictures come within {quantiles(late, n=20)[-1]:.0f} ms of their time, all within {max(late):.0f} ms"
    )
    if drift > DRIFT:
        text = f"it gets {drift:.2f} s older in a second: what comes is ever further behind"
        return problem(
            subject, text, "the network or the camera is too slow for what it sends: a lower bit rate or frame rate"
        )
    if drift < -DRIFT:
        text = f"it comes {1 / (1 + drift):.2f} times as fast as its own time stamps say; {told}"
        return note(subject, text, "a server that sends a recording, or catches up; of a camera look at its clock")
    if max(late) > 1e3 * UNEVEN_SECONDS:
        return note(
            subject, told, "the network or the camera holds pictures back: look at Wi-Fi, switches, and its load"
        )
    return ok(subject, told)


def _sender_clock(name: str, heard: Survey) -> Iterator[Finding]:
    if heard.kind != "rtsp":
        return
    subject = f"{name}: clock"
    ahead = [each.sender_ahead for each in heard.packets if each.sender_ahead is not None]
    if not ahead:
        length = heard.packets[-1].arrived - heard.packets[0].arrived
        text = (
            f"it has not told its time in {length:.0f} s (no RTCP sender report): captured_unix is when a picture came"
        )
        yield note(subject, text, "nothing to do, unless cameras are compared: look for RTCP or NTP in its settings")
        return
    off = median(ahead)
    told = f"it tells its time (RTCP), {abs(off):.2f} s {'ahead of' if off > 0 else 'behind'} ours with the way here"
    if abs(off) > WRONG_CLOCK_SECONDS:
        yield note(
            subject, told, "captured_unix will be the camera's: set its clock, or let it ask a time server (NTP)"
        )
    else:
        yield ok(subject, f"{told}: captured_unix is when a picture was taken")


def _came(heard: Survey) -> str:
    length = heard.packets[-1].arrived - heard.packets[0].arrived
    return f"; {(len(heard.packets) - 1) / length:.1f} frames a second came" if length > 0 else ""


def _time(packet: Heard) -> float:
    """In the order of decoding, where that is told; 0 where nothing is."""
    return packet.dts if packet.dts is not None else packet.pts or 0.0


# -- what does not open


def _what_to_try(settings: SourceSettings) -> str:
    try:
        address = parse_address(settings.uri)
    except SourceError:
        return "look at its name; a relative path counts from the folder that you are in"
    if not address.host:
        return "look whether another player shows it"
    why = _why_not_reached(address)
    if why:
        return f"{address.host} port {address.port}: {why}"
    return (
        f"{address.host} port {address.port} takes connections, so look at path, user and password, and the transport"
    )


def _why_not_reached(address: Address) -> str | None:
    """What a bare connection says; None: it was taken."""
    try:
        socket.create_connection((address.host, address.port), ANSWER_SECONDS).close()
    except socket.gaierror:
        return "no such host: look at its name, and the name server"
    except TimeoutError:
        return "nobody answers: look whether it is on, in this network, and not behind a firewall"
    except ConnectionRefusedError:
        return "the host is there, and nothing listens on that port: look at the port, and whether it serves RTSP"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return None
