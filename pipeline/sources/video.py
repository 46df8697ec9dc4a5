"""Decodes one container: a file, a stream, a camera or a test pattern."""

import time
from collections.abc import Iterator
from fractions import Fraction

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.sources.address import Address
from pipeline.sources.base import CapturedFrame, Source, SourceInfo, Stopped
from pipeline.sources.container import duration_seconds, open_container, read_failure, read_packets, stamp_of
from pipeline.sources.live import KEY_FRAME_SECONDS, LiveReader

MISSING_SECONDS = 1.0  # a file whose last frame comes so much before its declared end was cut off
BACKWARDS_SECONDS = 1.0  # a time stamp that jumps back further starts a new clock
DEFAULT_FRAMES_PER_SECOND = 25.0
FASTEST_FRAMES_PER_SECOND = 1000


class FileReader:
    """Packets of a container that never blocks for long."""

    is_live = False
    has_time_stamps = True
    skipped_packets = 0

    def __init__(self, address: Address, settings: SourceSettings) -> None:
        self.failure: str | None = None
        self._container, self.stream = open_container(address, settings)
        self.duration_seconds = duration_seconds(self._container)
        self._settings = settings

    def packets(self, stopped: Stopped) -> Iterator[Packet]:
        try:
            for packet in read_packets(self._container, self.stream):
                if stopped():
                    return
                yield packet
        except av.error.FFmpegError as error:
            self.failure = read_failure(error, self._settings)

    def close(self) -> None:
        self._container.close()


class VideoSource(Source):
    """A container read by a `FileReader` or, where reading may block, a `LiveReader`."""

    def __init__(self, address: Address, settings: SourceSettings, source_id: str, stopped: Stopped) -> None:
        """Raises SourceError when it cannot be opened or its first frame cannot be decoded."""
        super().__init__(settings)
        self._address = address
        self._ended = False
        self._reader: FileReader | LiveReader
        if address.may_block:
            self._reader = LiveReader(address, settings, stopped)
        else:
            self._reader = FileReader(address, settings)
        try:
            self._begin(source_id, stopped)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._reader.close()

    def _begin(self, source_id: str, stopped: Stopped) -> None:
        reader = self._reader
        # Frame threads give a file the most throughput; a live source would wait one frame for each thread.
        reader.stream.thread_type = "SLICE" if reader.is_live else "AUTO"
        rate = _frames_per_second(reader.stream)
        self._time_base = reader.stream.time_base or Fraction(1)
        start = None if reader.is_live else reader.stream.start_time
        start_seconds = None if start is None else float(start * self._time_base)
        self._clock = _Clock(1 / (rate or DEFAULT_FRAMES_PER_SECOND), start_seconds)
        deadline = time.monotonic() + KEY_FRAME_SECONDS
        self._stopped = lambda: stopped() or (reader.is_live and time.monotonic() > deadline)
        self._frames = self._decode_all()
        self._first = next(self._frames, None)
        if self._first is None:
            raise SourceError(f"{self._address.shown} {self._why_nothing(stopped)}")
        self.info = SourceInfo(
            source_id=source_id,
            kind=self._address.kind,
            is_live=reader.is_live or self._settings.realtime or self._is_realtime_pattern(),
            width=self._first.width,
            height=self._first.height,
            frames_per_second=rate,
            frame_count=reader.stream.frames or None,
            duration_seconds=reader.duration_seconds,
        )

    def _is_realtime_pattern(self) -> bool:
        return self._address.kind == "pattern" and "realtime" in self._address.url

    def _why_nothing(self, stopped: Stopped) -> str:
        if stopped():
            return "was being opened when the run stopped"
        if self._reader.failure:
            return f"gave no frame: {self._reader.failure}"
        if self._reader.is_live and not self._ended:
            return f"sent nothing that decodes for {KEY_FRAME_SECONDS:g} s"
        return f"holds no frame that decodes ({self.decode_errors} damaged packets)"

    def _decoded(self, stopped: Stopped) -> Iterator[CapturedFrame]:
        self._stopped = stopped
        if self._first is not None:
            first, self._first = self._first, None
            yield first
        yield from self._frames

    def _decode_all(self) -> Iterator[CapturedFrame]:
        for packet in self._reader.packets(lambda: self._stopped()):
            self.skipped_packets = self._reader.skipped_packets
            yield from self._decode(packet)
        if self._stopped():
            return
        yield from self._decode(None)
        self._ended = True
        self.failure = self._live_failure() if self._reader.is_live else self._file_failure()

    def _decode(self, packet: Packet | None) -> Iterator[CapturedFrame]:
        if packet is not None and packet.is_corrupt:
            self.decode_errors += 1
        try:
            frames = self._reader.stream.decode(packet)
        except av.error.FFmpegError:
            self.decode_errors += 1
            return
        for frame in frames:
            self.decode_errors += frame.is_corrupt
            yield self._captured(frame)

    def _captured(self, frame: VideoFrame) -> CapturedFrame:
        # A decoder that loses the stamp (none known) still has a moment close to it.
        captured_ns, captured_unix = stamp_of(frame) or (time.monotonic_ns(), time.time())
        if self._reader.has_time_stamps:
            # Not `frame.time`: frames that come when the decoder is flushed do not know their time base.
            pts_seconds = None if frame.pts is None else float(frame.pts * self._time_base)
        else:
            pts_seconds = captured_ns / 1e9
        return CapturedFrame.of(frame, self._clock.seconds(pts_seconds), captured_ns, captured_unix)

    def _live_failure(self) -> str:
        return self._reader.failure or "the server or camera ended the stream"

    def _file_failure(self) -> str | None:
        reasons = [self._reader.failure] if self._reader.failure else []
        if self.decode_errors:
            reasons.append(f"{self.decode_errors} packets or frames are damaged")
        declared_seconds, seen_seconds = _declared_seconds(self._reader), self._clock.end_seconds
        if declared_seconds is not None and seen_seconds < declared_seconds - MISSING_SECONDS:
            reasons.append(f"it ends at {seen_seconds:.1f} s of {declared_seconds:.1f} s")
        return "; ".join(reasons) or None


class _Clock:
    """Time stamps of frames as seconds from the start of the source, never decreasing."""

    def __init__(self, period_seconds: float, start_seconds: float | None) -> None:
        """Without a start the first time stamp is taken for it."""
        self._period_seconds = period_seconds
        self._last_seconds = -period_seconds
        self._start_seconds = start_seconds

    @property
    def end_seconds(self) -> float:
        return self._last_seconds + self._period_seconds

    def seconds(self, pts_seconds: float | None) -> float:
        """From the start; one frame period after the last where `pts_seconds` is missing or a new clock begins."""
        self._last_seconds = max(round(self._since_start(pts_seconds), 6), self._last_seconds, 0.0)
        return self._last_seconds

    def _since_start(self, pts_seconds: float | None) -> float:
        if pts_seconds is None:
            return self.end_seconds
        if self._start_seconds is None or pts_seconds - self._start_seconds < self._last_seconds - BACKWARDS_SECONDS:
            self._start_seconds = pts_seconds - self.end_seconds
        return pts_seconds - self._start_seconds


def _frames_per_second(stream: VideoStream) -> float | None:
    """The container's rate where it is a believable one; some RTSP servers tell their 90 kHz clock instead."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and 0 < rate <= FASTEST_FRAMES_PER_SECOND:
            return float(rate)
    return None


def _declared_seconds(reader: FileReader | LiveReader) -> float | None:
    """How long the video should be. The container's length counts only where no other stream may be the longer one."""
    stream = reader.stream
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return reader.duration_seconds if len(stream.container.streams) == 1 else None
