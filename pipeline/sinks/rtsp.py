"""RTSP: the pictures of one source, with what is drawn on them, published to a server as H.264.

A server that is away is called again and again by a thread of its own. Frames that come meanwhile are missed, and so
are those that the connection is too slow for: nothing waits here, and nobody waits for this sink. Knows no stage.
"""

import base64
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import av
import av.error
from av.packet import Packet

from configs.uri import Uri
from pipeline.backoff import Backoff
from pipeline.errors import OutputError
from pipeline.flow.results import FrameResult
from pipeline.settings import EncoderSettings
from pipeline.sinks import Image, Missed, Sink, Target
from pipeline.sinks.announce import Session, SessionError
from pipeline.sinks.encoder import TIME_BASE
from pipeline.sinks.h264 import PictureEncoder, check_encoder, copied, give_back_freed_memory, split_units

__all__ = ["RtspSink", "check_encoder", "open_sink"]

LONGEST_WAIT_SECONDS = 10.0
_PAYLOAD_TYPE = 96
_PACKET_BYTES = 1400  # of an RTP packet, so that whoever passes it on by UDP need not cut it
_RTCP_TYPES = range(200, 205)


def open_sink(target: Target) -> Sink:
    return RtspSink(Uri(target.path), target.frames_per_second, target.encoder, target.warn)


class RtspSink(Sink):
    """Publishes in the size of the first picture, as `PictureEncoder` does. A server that refuses or is lost is no
    failure: that is told by `warn`.

    Raises OutputError when the encoder fails.
    """

    def __init__(
        self,
        uri: Uri,
        frames_per_second: float | None = None,
        encoder_settings: EncoderSettings | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`frames_per_second` is only a hint for the encoder."""
        self._uri, self._frames_per_second, self._warn = uri, frames_per_second, warn
        self._encoder_settings = encoder_settings or EncoderSettings()
        self._encoder: PictureEncoder | None = None
        self._line: _Line | None = None
        self._on_air: _OnAir | None = None

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        """Raises Missed while there is no session, or one that has not yet sent the frame before."""
        if image_bgr is not None:
            self._publish(image_bgr, frame.pts_seconds)

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        self._publish(image_bgr, pts_seconds)

    def _publish(self, image_bgr: Image, pts_seconds: float) -> None:
        try:
            if self._encoder is None or self._line is None:
                self._encoder, self._line = self._open(*image_bgr.shape[:2])
            self._look_for_a_session(self._encoder, self._line)
            if not self._on_air or not self._on_air.session.is_ready():
                raise Missed
            self._on_air.send(self._encoder.encode(image_bgr, pts_seconds))
        except SessionError as error:
            self._lose(error)
            raise Missed from None
        except (OSError, av.error.FFmpegError) as error:
            raise OutputError(f"cannot encode for {self._uri.shown}: {error.strerror}") from error

    def _open(self, height: int, width: int) -> "tuple[PictureEncoder, _Line]":
        encoder = PictureEncoder(self._encoder_settings, self._frames_per_second, height, width)
        self.way = encoder.words
        return encoder, _Line(self._uri, _description(encoder.parameter_sets), self._warn)

    def _look_for_a_session(self, encoder: PictureEncoder, line: "_Line") -> None:
        if self._on_air is None and (session := line.answered()):
            encoder.ask_key()
            self._on_air = _OnAir(session, encoder)
            self.way = f"in {line.sessions} session{'s' * (line.sessions > 1)}, {encoder.words}"

    def _lose(self, error: SessionError) -> None:
        assert self._on_air and self._line
        self._on_air.close()
        self._on_air.session.abort()
        self._on_air = None
        self._line.lost(error)

    def close(self) -> None:
        on_air, line, encoder = self._on_air, self._line, self._encoder
        self._on_air = self._line = self._encoder = None
        if line:
            line.close()
        with suppress(SessionError, OSError, av.error.FFmpegError):
            packets = encoder.flush() if encoder else []
            if on_air and on_air.session.is_ready():
                on_air.send(packets)
        if on_air:
            on_air.close()
            on_air.session.close()
        del encoder, on_air
        give_back_freed_memory()


class _Line:
    """Sessions with one server, one after the other, each opened by a thread of its own: at once, then ever more
    slowly."""

    def __init__(self, uri: Uri, description: str, warn: Callable[[str], None]) -> None:
        self._uri, self._description, self._warn = uri, description, warn
        self._backoff = Backoff(longest_seconds=LONGEST_WAIT_SECONDS)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._answered: Session | None = None
        self._answered_at = 0.0
        self.sessions = 0
        self._call()

    def answered(self) -> Session | None:
        """A session that is new, once."""
        with self._lock:
            session, self._answered = self._answered, None
        if session:
            self.sessions += 1
            self._answered_at = time.monotonic()
        return session

    def lost(self, error: SessionError) -> None:
        """The session that was answered is over."""
        self._tell(error)
        self._backoff.went_well_for(time.monotonic() - self._answered_at)
        self._call()

    def close(self) -> None:
        with self._lock:
            self._closed.set()
            session, self._answered = self._answered, None
        if session:
            session.close()

    def _call(self) -> None:
        threading.Thread(target=self._call_until_answered, name="calls a server", daemon=True).start()

    def _call_until_answered(self) -> None:
        assert self._uri.network
        while not self._closed.wait(self._backoff.next_seconds(time.monotonic())):
            try:
                session = Session(self._uri.network, self._description)
            except SessionError as error:
                self._tell(error)
                continue
            with self._lock:
                if not self._closed.is_set():
                    self._answered = session
                    return
            session.close()

    def _tell(self, error: SessionError) -> None:
        if not self._closed.is_set():
            self._warn(f"{self._uri.shown} {error}; it is tried again, and misses what comes meanwhile")


class _OnAir:
    """A session from its first key frame on: FFmpeg's RTP packets, as RTSP carries them (RFC 2326, section 10.12)."""

    def __init__(self, session: Session, encoder: PictureEncoder) -> None:
        self.session, self._encoder = session, encoder
        self._first_ticks: int | None = None
        self._carried = _Carried()
        payload = {"payload_type": str(_PAYLOAD_TYPE)}
        self._container = av.open(self._carried, "w", format="rtp", buffer_size=_PACKET_BYTES, options=payload)
        sides = {"width": encoder.stream.width, "height": encoder.stream.height}
        self._stream = self._container.add_mux_stream("h264", time_base=TIME_BASE, **sides)

    def send(self, packets: list[Packet]) -> None:
        """What an encoder gives for its last picture. Raises SessionError."""
        if self._first_ticks is None:
            self._first_ticks = self._encoder.now_ticks
        for packet in packets:
            if packet.pts is not None and packet.pts >= self._first_ticks:  # earlier ones are from before the session
                # Whoever joins later has missed the description.
                sets = self._encoder.parameter_sets if packet.is_keyframe else b""
                own = copied(packet, self._first_ticks, sets)
                own.stream = self._stream
                self._container.mux(own)
        self.session.send(self._carried.take())

    def close(self) -> None:
        with suppress(OSError, av.error.FFmpegError):
            self._container.close()


class _Carried:
    """A file to FFmpeg: each write is one packet, RTP on the first channel, RTCP on the second."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, packet: bytes) -> int:
        self._bytes += struct.pack("!cBH", b"$", packet[1] in _RTCP_TYPES, len(packet)) + packet
        return len(packet)

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken


def _description(parameter_sets: bytes) -> str:
    """SDP of one H.264 stream (RFC 8866 and 6184)."""
    units = split_units(parameter_sets)
    sets = ",".join(base64.b64encode(unit).decode() for unit in units)
    profile = next((unit[1:4].hex() for unit in units if unit[0] & 31 == 7), "42001f")
    lines = [
        "v=0",
        "o=- 0 0 IN IP4 0.0.0.0",
        "s=CenterStream",
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        f"m=video 0 RTP/AVP {_PAYLOAD_TYPE}",
        f"a=rtpmap:{_PAYLOAD_TYPE} H264/{TIME_BASE.denominator}",
        f"a=fmtp:{_PAYLOAD_TYPE} packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}",
        "a=control:streamid=0",
    ]
    return "\r\n".join(lines) + "\r\n"
