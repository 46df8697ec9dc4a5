"""Opens a container with FFmpeg and hands out its video packets, each stamped when it came. Errors become words."""

import errno
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple, cast

import av
from av.container import InputContainer
from av.frame import Frame
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.source_address import Address
from pipeline.sources.clock import Arrivals


class Stamp(NamedTuple):
    """What a packet's frame must know of it: the moment it came, on both clocks, whether the demuxer found it damaged,
    which no decoder passes on, and when it was taken by the sender's clock, where it has told its time."""

    captured_ns: int
    captured_unix: float
    is_damaged: bool
    sender_unix: float | None = None


def open_container(address: Address, settings: SourceSettings) -> tuple[InputContainer, VideoStream]:
    """The container and its video stream, its decoder ready. Raises SourceError."""
    start = time.monotonic()
    try:
        container = av.open(
            address.url,
            format={"camera": "v4l2", "pattern": "lavfi"}.get(address.kind),
            options=_options(address, settings),
            timeout=(settings.open_timeout_seconds, settings.read_timeout_seconds) if address.may_block else None,
        )
    except (av.error.FFmpegError, OSError, ValueError) as error:
        # An interrupted open fails in many ways, as damaged data for one.
        waited_in_vain = address.may_block and time.monotonic() - start >= settings.open_timeout_seconds
        why = no_answer(settings) if waited_in_vain else _open_failure(error, address)
        raise SourceError(f"{address.shown} {why}") from None
    stream = container.streams.best("video")
    if (
        not isinstance(stream, VideoStream)
        or stream.codec_context is None
        or stream.disposition & av.stream.Disposition.attached_pic
    ):
        found = ", ".join(sorted({one.type for one in container.streams})) or "nothing"
        container.close()
        raise SourceError(f"{address.shown} has no video that can be decoded, only {found}")
    # Frames on their way carry the stamp of their packet through reordering and decoder threads.
    stream.codec_context.copy_opaque = True
    return container, stream


def has_time_stamps(container: InputContainer) -> bool:
    """Motion JPEG over HTTP has none; FFmpeg makes some up as if it ran at 25 frames per second."""
    return container.format.name != "mpjpeg"


def duration_seconds(container: InputContainer) -> float | None:
    return container.duration / av.time_base if container.duration else None


def may_begin_anew(container: InputContainer) -> bool:
    """Whether the format's clock may jump, as where transport streams were joined, or after 26.5 hours."""
    return av.format.Flags.ts_discont in av.format.Flags(container.format.flags)


def read_packets(container: InputContainer, stream: VideoStream, arrivals: Arrivals | None = None) -> Iterator[Packet]:
    """Video packets with their `Stamp` as `opaque`, by `arrivals` where they come by themselves.

    Raises FFmpegError where reading fails.
    """
    knows_time = False
    for packet in container.demux(stream):
        now_ns, now_unix = time.monotonic_ns(), time.time()
        sender_unix = _sender_unix(packet)
        # An empty packet, as in AVI for a frame left out, would tell the decoder that the stream has ended.
        if packet.size:
            captured_ns = arrivals.captured_ns(dts_seconds(packet), now_ns) if arrivals else now_ns
            captured_unix = now_unix - (now_ns - captured_ns) / 1e9
            # The demuxer puts the first time it has heard to the picture before the one it is of.
            packet.opaque = Stamp(captured_ns, captured_unix, packet.is_corrupt, sender_unix if knows_time else None)
            knows_time = sender_unix is not None
            yield packet


def _sender_unix(packet: Packet) -> float | None:
    """Seconds since 1970 by the sender's clock: FFmpeg reckons them from the RTCP reports of an RTSP server.

    A sender that knows no time tells 0, or the seconds since it was switched on, from 1900 on.
    """
    if not packet.has_sidedata("prft"):
        return None
    microseconds: int = struct.unpack_from("=q", bytes(packet.get_sidedata("prft")))[0]  # AVProducerReferenceTime
    return microseconds / 1e6 if microseconds > 0 else None


def dts_seconds(packet: Packet) -> float | None:
    """The packet's time in the order of decoding."""
    ticks = packet.pts if packet.dts is None else packet.dts
    return None if ticks is None or packet.time_base is None else float(ticks * packet.time_base)


def stamp_of(packet_or_frame: Packet | Frame) -> Stamp | None:
    """The `Stamp` of a packet, or of the packet a frame was decoded from."""
    return cast("Stamp | None", packet_or_frame.opaque)


def read_failure(error: Exception, settings: SourceSettings) -> str:
    """Why reading an open source ended."""
    if isinstance(error, (av.error.ExitError, av.error.TimeoutError)):
        return f"no data for {settings.read_timeout_seconds:g} s"
    return f"reading failed: {reason(error)}"


def no_answer(settings: SourceSettings) -> str:
    return f"did not answer within {settings.open_timeout_seconds:g} s"


def _options(address: Address, settings: SourceSettings) -> dict[str, str]:
    if address.kind == "rtsp":
        # The SDP names the codec: probing would only cost the first seconds.
        return {"rtsp_transport": settings.rtsp_transport, "probesize": "32", "analyzeduration": "0"}
    return {}


def _open_failure(error: Exception, address: Address) -> str:
    match error:
        case av.error.HTTPUnauthorizedError():
            return "refuses the user or password: put user:password@ before the host in the URL"
        case av.error.HTTPForbiddenError():
            return "is forbidden to this user"
        case av.error.HTTPNotFoundError():
            return "does not exist: the server knows no such path"
        case av.error.TimeoutError():
            return "cannot be reached: the connection timed out"
        case ConnectionRefusedError():
            return "refuses the connection: check host and port, and that the server runs"
        case PermissionError():
            return "may not be read by this user"
        case FileNotFoundError() if address.kind == "camera":
            return "does not exist: is it plugged in?"
        case av.error.InvalidDataError() if address.kind == "file":
            return "is not a video that can be read: it is empty, cut off, or another kind of file"
        case av.error.InvalidDataError():
            return "sends nothing that can be read as video"
    match getattr(error, "errno", None):
        case errno.EBUSY:
            return "is in use by another program"
        case errno.EIO if address.may_block:
            return "cannot be reached: check the host name and the network"
    return f"cannot be opened: {reason(error)}"


def reason(error: Exception) -> str:
    """FFmpeg's or the system's own word for it, without the address that an exception's text has beside it."""
    return " ".join(str(getattr(error, "strerror", None) or type(error).__name__).split())
