"""Live sources that are lost and come back, on real servers: killed, frozen, restarted, changed; and what is told."""

import contextlib
import http.server
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import backoff as backoffs
from pipeline.sources import (
    CapturedFrame,
    Item,
    LeftOut,
    Signal,
    Source,
    SourceInfo,
    SourceSettings,
    open_source,
    returning,
    video,
)
from pipeline.sources.watch import View
from tests.kit import media
from tests.kit.harness import free_port, wait_until
from tests.kit.reading import frames_of, luma, never, read
from tests.kit.servers import StartServer

SECRET = "pa55w0rd"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for the next attempt."""
    monkeypatch.setattr(backoffs, "LONGEST_SECONDS", 0.4)


class Reader:
    """Takes what a source gives, as it comes."""

    def __init__(self, source: Source) -> None:
        self.taken: list[Item] = []
        self.source = source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for item in self.source.frames(self._stop.is_set):
            self.taken.append(item)

    @property
    def frames(self) -> list[CapturedFrame]:
        return [item for item in list(self.taken) if isinstance(item, CapturedFrame)]

    @property
    def signals(self) -> list[Signal]:
        return [item for item in list(self.taken) if isinstance(item, Signal)]

    @property
    def infos(self) -> list[SourceInfo]:
        return [item for item in list(self.taken) if isinstance(item, SourceInfo)]

    def wait_for_frames(self, more: int = 5) -> None:
        enough = len(self.frames) + more
        wait_until(lambda: len(self.frames) >= enough, what=f"{more} more frames")

    def wait_for_signal(self, state: str, cause: str = "") -> None:
        found = f"the signal {state} with {cause!r}"
        wait_until(lambda: any(s.state == state and cause in s.cause for s in self.signals), what=found)

    def wait_for_end(self) -> None:
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self._stop.set()
        self.wait_for_end()


@contextmanager
def reading(uri: str, patiently: bool = False, **settings: object) -> Iterator[Reader]:
    """A source that is read by another thread; open and read time-outs are short."""
    waits = {"open_timeout_seconds": 2.0, "read_timeout_seconds": 1.0}
    with open_source(SourceSettings(uri=uri, **waits | settings), "door", patiently=patiently) as source:  # type: ignore[arg-type]
        reader = Reader(source)
        try:
            yield reader
        finally:
            reader.stop()


def assert_time_goes_on(frames: list[CapturedFrame]) -> None:
    assert all(before.pts_seconds < after.pts_seconds for before, after in itertools.pairwise(frames))
    assert all(before.captured_ns <= after.captured_ns for before, after in itertools.pairwise(frames))


# ------------------------------------------------------------------------------------------------- lost, and back


def test_a_server_that_is_killed_and_started_again(rtsp_server: StartServer) -> None:
    server = rtsp_server(loop=True)
    with reading(server.url) as reader:
        reader.wait_for_frames()
        server.kill()
        reader.wait_for_signal("lost", "refuses the connection")
        before = len(reader.frames)
        rtsp_server(loop=True, port=server.port)
        reader.wait_for_frames()
    *lost, back = reader.signals
    assert [signal.state for signal in lost] == ["lost"] * len(lost)
    assert back.state == "live" and back.cause == "" and back.outage is not None
    outage = back.outage
    assert (outage.state, outage.start_unix, outage.end_unix) == ("lost", lost[0].at_unix, back.at_unix)
    assert "refuses the connection" in outage.cause
    assert outage.attempts >= 2
    frames = reader.frames
    assert_time_goes_on(frames)
    last, first = frames[before - 1], frames[before]
    gap_seconds = (first.captured_ns - last.captured_ns) / 1e9
    assert first.pts_seconds - last.pts_seconds == pytest.approx(gap_seconds, abs=1e-5)
    assert outage.end_unix - outage.start_unix == pytest.approx(gap_seconds, abs=0.01)  # two looks at two clocks
    assert first.video_frame.key_frame
    health = reader.source.health
    assert health.reconnects == 1
    assert health.seconds_lost == pytest.approx(gap_seconds, abs=1e-3)
    assert len(reader.infos) == 1
    assert reader.source.failure is None


def test_nothing_is_given_while_it_is_lost(play_server: StartServer) -> None:
    server = play_server(loop=True)
    with reading(server.url) as reader:
        reader.wait_for_frames()
        server.kill()
        reader.wait_for_signal("lost")
        taken = list(reader.taken)
        time.sleep(1)
        assert all(isinstance(item, Signal) for item in reader.taken[len(taken) :])
        assert reader.source.health.seconds_lost >= 1


def test_a_server_that_freezes_and_thaws(rtsp_server: StartServer) -> None:
    server = rtsp_server(loop=True)
    with reading(server.url, open_timeout_seconds=0.5) as reader:
        reader.wait_for_frames()
        server.freeze()
        reader.wait_for_signal("lost", "no data for 1 s")
        reader.wait_for_signal("lost", "did not answer within 0.5 s")
        server.thaw()
        reader.wait_for_signal("live")
        reader.wait_for_frames()
    assert_time_goes_on(reader.frames)
    assert reader.source.health.reconnects == 1


def test_a_stream_that_ends_is_opened_again_at_once(play_server: StartServer, clip: Path) -> None:
    expected = [luma(frame) for frame in read(clip)[0]]
    source = open_source(SourceSettings(uri=play_server(speed=10).url, max_frames=200), "door")
    with source:
        taken = list(source.frames(never))
    frames = [item for item in taken if isinstance(item, CapturedFrame)]
    assert [luma(frame) for frame in frames] == expected + expected[:70]
    lost, back = (item for item in taken if isinstance(item, Signal))
    assert (lost.state, lost.cause) == ("lost", "the server or camera ended the stream")
    assert back.outage is not None and back.outage.attempts == 1
    assert taken.index(frames[129]) < taken.index(lost) < taken.index(back) < taken.index(frames[130])
    assert_time_goes_on(frames)


def test_signals_do_not_count_as_frames(play_server: StartServer) -> None:
    with open_source(SourceSettings(uri=play_server(speed=10).url, max_frames=131), "door") as source:
        assert len(list(frames_of(source))) == 131


@pytest.mark.parametrize(
    ("changed", "cause"),
    [({"user": "cam", "password": SECRET}, "refuses the user or password"), ({"name": "other"}, "knows no such path")],
    ids=["a password", "another path"],
)
def test_why_a_source_does_not_come_back_is_said(changed: dict[str, str], cause: str, play_server: StartServer) -> None:
    server = play_server(loop=True)
    with reading(server.url_for("cam", "wr0ng")) as reader:
        reader.wait_for_frames()
        server.kill()
        reader.wait_for_signal("lost")
        other = play_server(loop=True, port=server.port, **changed)
        reader.wait_for_signal("lost", cause)
        other.kill()
        play_server(loop=True, port=server.port)
        reader.wait_for_signal("live")
        reader.wait_for_frames()
    told = " ".join(map(repr, reader.signals))
    assert "wr0ng" not in told and SECRET not in told and "/clip" not in told
    assert "\n" not in told


def test_a_live_page_of_pictures_is_opened_again(tmp_path: Path) -> None:
    picture = media.write_picture(tmp_path / "picture.jpg", media.noise(1, 64, 48)[0]).read_bytes()
    part = b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture)
    page = served(lambda: [part] * 5, "multipart/x-mixed-replace;boundary=--x")
    with page as url, open_source(SourceSettings(uri=url, max_frames=14), "door") as source:
        frames = [item for item in frames_of(source) if isinstance(item, CapturedFrame)]
    assert len(frames) == 14 and source.health.reconnects >= 2
    assert_time_goes_on(frames)


def test_a_source_is_given_up_after_its_time(play_server: StartServer) -> None:
    server = play_server(loop=True)
    with reading(server.url, give_up_seconds=0.8) as reader:
        reader.wait_for_frames()
        server.kill()
        reader.wait_for_end()
    assert (reader.source.failure or "").endswith("given up after 0.8 s")
    assert "refuses the connection" in (reader.source.failure or "")
    assert reader.signals[-1].state == "lost"


def test_a_source_that_is_back_before_its_time_is_not_given_up(play_server: StartServer) -> None:
    with reading(play_server(speed=20).url, give_up_seconds=0.01) as reader:
        reader.wait_for_frames(300)
    assert reader.source.failure is None and reader.source.health.reconnects >= 2


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever does not try at once waits for almost an hour."""
    monkeypatch.setattr(backoffs, "LONGEST_SECONDS", 3000.0)
    monkeypatch.setattr(backoffs, "FIRST_SECONDS", 3000.0)
    monkeypatch.setattr(returning, "Backoff", lambda: backoffs.Backoff(draw=lambda low, high: high))


@pytest.mark.usefixtures("hours")
def test_after_steady_frames_each_loss_is_the_first(play_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoffs, "STEADY_SECONDS", 0.3)
    with reading(play_server(speed=20).url) as reader:  # 130 frames take 0.65 s
        reader.wait_for_frames(300)


@pytest.mark.usefixtures("hours")
def test_after_a_flicker_it_is_not(play_server: StartServer) -> None:
    with reading(play_server(speed=20).url) as reader:
        wait_until(lambda: len([s for s in reader.signals if s.state == "lost"]) == 2, what="two losses")
        time.sleep(0.5)
        assert len(reader.signals) == 3 and reader.signals[-1].state == "lost"


@pytest.mark.usefixtures("hours")
def test_a_stop_breaks_the_longest_wait(play_server: StartServer) -> None:
    server = play_server(loop=True)
    with reading(server.url) as reader:
        reader.wait_for_frames()
        server.kill()
        reader.wait_for_signal("lost")
        time.sleep(0.5)  # what is tried at once fails, in whichever way a server that ends fails
        reader.stop()
    assert reader.source.failure is None


# ------------------------------------------------------------------------------------------------ opened patiently


def test_a_source_that_is_not_there_yet_is_waited_for(play_server: StartServer) -> None:
    port = free_port()
    with reading(f"rtsp://127.0.0.1:{port}/clip", patiently=True) as reader:
        reader.wait_for_signal("lost", "refuses the connection")
        play_server(loop=True, port=port)
        reader.wait_for_frames()
    lost, back, info, *frames = reader.taken
    assert isinstance(lost, Signal) and isinstance(back, Signal) and isinstance(info, SourceInfo)
    assert (lost.state, back.state, info.width, info.kind) == ("lost", "live", 768, "rtsp")
    assert back.outage is not None and back.outage.attempts >= 1
    assert all(isinstance(frame, CapturedFrame) for frame in frames)
    assert reader.frames[0].pts_seconds == 0
    assert reader.source.info == info
    assert reader.source.health.reconnects == 0


def test_a_source_that_is_there_gives_no_signal(play_server: StartServer) -> None:
    with reading(play_server(loop=True).url, patiently=True) as reader:
        reader.wait_for_frames()
    assert isinstance(reader.taken[0], SourceInfo) and not reader.signals


def test_a_source_that_never_comes_is_given_up_in_time() -> None:
    with reading(f"rtsp://127.0.0.1:{free_port()}/clip", patiently=True, give_up_seconds=0.5) as reader:
        reader.wait_for_end()
    assert (reader.source.failure or "").endswith("given up after 0.5 s")
    assert not reader.frames and not reader.infos


def test_a_file_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(returning.SourceError, match="no such file"):
        open_source(SourceSettings(uri=str(tmp_path / "none.mp4")), "door", patiently=True)


def test_a_file_on_a_web_server_ends_and_is_not_opened_again(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.noise(20, 64, 48), container_options={"movflags": "faststart"})
    data = path.read_bytes()
    with served(lambda: [data], "video/mp4", length=len(data)) as url, reading(url, patiently=True) as reader:
        reader.wait_for_end()
    assert len(reader.frames) == 20 and len(reader.infos) == 1 and not reader.signals
    assert reader.source.failure is None and not reader.source.info.is_live


# ----------------------------------------------------------------------------------------------- what has changed


def test_another_size_and_rate_are_told_before_the_first_frame_of_them(
    play_server: StartServer, tmp_path: Path
) -> None:
    small = media.write_video(tmp_path / "small.mp4", media.noise(60, 64, 48))
    large = media.write_video(tmp_path / "large.mp4", media.noise(60, 96, 80), time_base=Fraction(1, 20))
    server = play_server(file=small, loop=True)
    with reading(server.url) as reader:
        reader.wait_for_frames()
        server.kill()
        play_server(file=large, loop=True, port=server.port)
        wait_until(lambda: len(reader.infos) == 2, what="another info")
        reader.wait_for_frames()
    first, second = reader.infos
    assert (first.width, first.height, first.frames_per_second) == (64, 48, 10)
    assert (second.width, second.height, second.frames_per_second) == (96, 80, 20)
    at = reader.taken.index(second)
    for items, info in ((reader.taken[:at], first), (reader.taken[at:], second)):
        sizes = {(item.width, item.height) for item in items if isinstance(item, CapturedFrame)}
        assert sizes == {(info.width, info.height)}
    assert reader.source.info == second


def test_another_size_in_the_middle_is_told_too(play_server: StartServer, tmp_path: Path) -> None:
    parts = [media.write_video(tmp_path / f"{w}.h264", media.noise(20, w, h)) for w, h in ((64, 48), (96, 80))]
    both = media.join(tmp_path / "both.h264", *parts)
    with open_source(SourceSettings(uri=play_server(file=both, speed=2).url, max_frames=40), "door") as source:
        taken = list(source.frames(never))
    assert [(item.width, item.height) for item in taken if isinstance(item, SourceInfo)] == [(64, 48), (96, 80)]
    assert source.health.reconnects == 0


def test_what_no_longer_decodes_is_opened_again(play_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "VAIN_SECONDS", 0.7)
    server = play_server(loop=True, sound_frames=20)
    with reading(server.url) as reader:
        reader.wait_for_signal("lost", "nothing has decoded for 0.7 s although packets come")
        reader.wait_for_signal("live")
        reader.wait_for_frames()
    assert reader.source.health.undecoded_packets > 0
    assert_time_goes_on(reader.frames)


@pytest.mark.parametrize("codec", ["libx265", "mpeg2video"])
def test_another_codec_in_the_middle_is_opened_again(
    codec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "VAIN_SECONDS", 0.7)
    pictures = [np.roll(media.noise(1, 160, 120)[0], 2 * n, 1) for n in range(60)]
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    before = media.write_video(tmp_path / "before.ts", pictures, options={"g": "10", "bf": "0"}).read_bytes()
    after = media.write_video(
        tmp_path / "after.ts", pictures, codec, options={"g": "10", "bf": "0", **quiet}
    ).read_bytes()
    visits = itertools.count()

    def body() -> Iterator[bytes]:
        for part in ([before] if next(visits) == 0 else []) + [after] * 20:
            for at in range(0, len(part), 188 * 40):
                yield part[at : at + 188 * 40]
                time.sleep(0.02)

    with served(body, "video/mp2t") as url, reading(url) as reader:
        reader.wait_for_signal("lost", "nothing has decoded for 0.7 s")
        reader.wait_for_signal("live")
        reader.wait_for_frames(20)
    assert_time_goes_on(reader.frames)


# ----------------------------------------------------------------------------------------------------- key frames


@pytest.fixture
def rare_keys(tmp_path: Path) -> Path:
    """100 pictures of noise that moves, with a key frame every ten seconds."""
    options = {"g": "100", "keyint_min": "100", "sc_threshold": "0", "bf": "0"}
    return media.write_video(tmp_path / "rare.mp4", media.noise(100, 64, 48), options=options)


def test_a_stream_joined_between_key_frames_begins_with_one(gst_server: StartServer, rare_keys: Path) -> None:
    expected = [luma(frame) for frame in read(rare_keys)[0]]
    server = gst_server(file=rare_keys, loop=True, speed=5)
    with reading(server.url) as viewer:  # one who stays lets the next join in the middle
        viewer.wait_for_frames(30)
        with reading(server.url) as late:
            late.wait_for_frames(10)
        assert late.frames[0].video_frame.key_frame
        assert [luma(frame) for frame in late.frames[:10]] == expected[:10]
        assert late.source.health.undecoded_packets > 0


def seen(frame: CapturedFrame) -> bytes:
    """The luma without what lies at the end of its lines."""
    return frame.video_frame.to_ndarray(format="gray").tobytes()


@pytest.mark.parametrize("codec", ["mpeg2video", "mpeg4", "libx265", "libx264"])
def test_no_guess_at_a_picture_is_given_before_a_key_frame(codec: str, tmp_path: Path) -> None:
    """A stream over HTTP that begins anywhere, as it does after a reconnect."""
    pictures = [np.roll(media.noise(1, 320, 240)[0], 2 * n, 1) for n in range(60)]
    options = {"g": "30", "bf": "0", "b": "3000000"}
    if codec == "libx265":
        options["x265-params"] = "log-level=none:keyint=30:min-keyint=30:scenecut=0:bframes=0"
    path = media.write_video(tmp_path / "a.ts", pictures, codec, options=options)
    expected = {seen(frame) for frame in read(path)[0]}
    data = path.read_bytes()
    middle = len(data) // 4 // 188 * 188
    stream = served(lambda: [data[: 188 * 3], data[middle:]], "video/mp2t")
    with stream as url, open_source(SourceSettings(uri=url, reconnect=False), "door") as source:
        frames = [item for item in frames_of(source) if isinstance(item, CapturedFrame)]
    assert 20 < len(frames) <= 31
    assert {seen(frame) for frame in frames} <= expected
    assert source.health.undecoded_packets > 5


# ------------------------------------------------------------------------------------------------ frozen, and grey


EVEN = {"g": "10", "qp": "20"}  # no encoder that is short of bits smears the pictures


def test_a_picture_that_stands_still_is_told_and_given(play_server: StartServer, tmp_path: Path) -> None:
    moving, still = media.noise(20, 64, 48), media.noise(1, 64, 48) * 40
    path = media.write_video(tmp_path / "a.mp4", [*moving, *still, *moving], options=EVEN)
    with reading(play_server(file=path, speed=2).url, frozen_seconds=1.0, max_frames=80) as reader:
        reader.wait_for_end()
    frozen, back = reader.signals
    assert (frozen.state, frozen.cause, back.state) == ("frozen", "the picture has not changed for 1 s", "live")
    assert back.outage is not None and back.outage.state == "frozen" and back.outage.attempts == 0
    assert back.outage.end_unix - back.outage.start_unix == pytest.approx(2.0, abs=0.7)
    assert len(reader.frames) == 80
    assert reader.source.health.seconds_lost == 0


def test_a_picture_in_which_nothing_is_seen_is_told_and_given(play_server: StartServer, tmp_path: Path) -> None:
    moving, grey = media.noise(20, 64, 48), media.grey_steps(1, 64, 48) * 40
    path = media.write_video(tmp_path / "a.mp4", [*moving, *grey, *moving], options=EVEN)
    with reading(play_server(file=path, speed=2).url, grey_seconds=0.5, max_frames=80) as reader:
        reader.wait_for_end()
    assert [signal.state for signal in reader.signals] == ["grey", "live"]
    assert len(reader.frames) == 80


def test_time_grows_for_who_looks_at_pictures_that_are_coded_in_another_order(
    play_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[float] = []

    class Watch(returning.PictureWatch):
        def look(self, samples_hw: NDArray[np.uint8], is_key: bool, at_seconds: float) -> View:
            moments.append(at_seconds)
            return super().look(samples_hw, is_key, at_seconds)

    monkeypatch.setattr(returning, "PictureWatch", Watch)
    options = {"bf": "3", "b-pyramid": "normal", "b_strategy": "0"}
    path = media.write_video(tmp_path / "a.mp4", media.grey_steps(20, 64, 48), options=options)
    with open_source(SourceSettings(uri=play_server(file=path).url, max_frames=20), "door") as source:
        arrived = [item.captured_ns for item in frames_of(source) if isinstance(item, CapturedFrame)]
    assert arrived != sorted(arrived)
    assert len(moments) == 20 and moments == sorted(moments)


def test_a_frozen_source_may_be_lost(play_server: StartServer, tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.noise(1, 64, 48) * 40, options=EVEN)
    server = play_server(file=path, loop=True)
    with reading(server.url, frozen_seconds=1.0) as reader:
        reader.wait_for_signal("frozen")
        server.kill()
        reader.wait_for_signal("lost")
        play_server(file=path, loop=True, port=server.port)
        reader.wait_for_signal("live")
    ended = [signal.outage.state for signal in reader.signals if signal.outage]
    assert ended[:2] == ["frozen", "lost"]


# ------------------------------------------------------------------------------------------------ the sender's clock


def test_a_sender_that_tells_its_time_is_believed_about_nothing_else(play_server: StartServer) -> None:
    began_ns = time.monotonic_ns()
    ahead_seconds = 7200.0
    with reading(play_server(loop=True, clock_ahead=ahead_seconds).url) as reader:
        reader.wait_for_frames(20)
    frames = reader.frames
    assert_time_goes_on(frames)
    by_sender = [frame for frame in frames if frame.clock == "sender"]
    assert len(by_sender) >= 15
    for frame in by_sender:
        age_seconds = (time.monotonic_ns() - frame.captured_ns) / 1e9
        assert frame.captured_unix - ahead_seconds == pytest.approx(time.time() - age_seconds, abs=1.5)
    steps = [(a.captured_unix, b.captured_unix) for a, b in itertools.pairwise(by_sender)]
    assert all(before < after for before, after in steps)
    assert all(began_ns < frame.captured_ns < time.monotonic_ns() for frame in frames)


def test_the_time_of_a_real_server_is_now(gst_server: StartServer) -> None:
    with reading(gst_server(loop=True, speed=2).url) as reader:
        wait_until(lambda: len([frame for frame in reader.frames if frame.clock == "sender"]) > 5, what="its time")
    for before, after in itertools.pairwise(frame for frame in reader.frames if frame.clock == "sender"):
        step_seconds = after.pts_seconds - before.pts_seconds
        assert after.captured_unix - before.captured_unix == pytest.approx(step_seconds, abs=0.02)
    for frame in reader.frames:
        assert frame.captured_unix == pytest.approx(
            time.time() - (time.monotonic_ns() - frame.captured_ns) / 1e9, abs=2
        )


def test_a_sender_that_has_no_idea_of_the_time_is_not_believed(play_server: StartServer) -> None:
    since_1900_seconds = -2_208_988_800
    with reading(play_server(loop=True, clock_ahead=since_1900_seconds).url) as reader:
        reader.wait_for_frames(10)
    assert {frame.clock for frame in reader.frames} == {"arrival"}
    assert all(frame.captured_unix == pytest.approx(time.time(), abs=60) for frame in reader.frames)


def test_without_a_time_from_the_sender_it_is_that_of_the_arrival(play_server: StartServer, clip: Path) -> None:
    with reading(play_server(loop=True).url) as reader:
        reader.wait_for_frames()
    assert {frame.clock for frame in reader.frames} == {"arrival"}
    assert {frame.clock for frame in read(clip, max_frames=3)[0]} == {"arrival"}
    assert {frame.clock for frame in read(clip, max_frames=3, realtime=True)[0]} == {"due"}


# ----------------------------------------------------------------------------------------------------------- HTTP


@contextmanager
def served(body: Callable[[], Iterable[bytes]], content_type: str, length: int | None = None) -> Iterator[str]:
    """The address of a server that sends this to everybody who asks, and hangs up."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            if length is not None:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            with contextlib.suppress(OSError):  # the client was quicker
                for part in body():
                    self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/a"
        server.shutdown()


def test_what_is_left_out_has_its_place_in_time(play_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.sources import late

    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    with open_source(SourceSettings(uri=play_server(speed=4).url, max_frames=200), "door") as source:
        taken = []
        for item in frames_of(source):
            taken.append(item)
            if len(taken) in (3, 140):
                time.sleep(1)
    left_out = [item for item in taken if isinstance(item, LeftOut)]
    assert left_out and source.health.reconnects == 1
    for before, after in itertools.pairwise(taken):
        assert after.pts_seconds - before.pts_seconds > -0.5
