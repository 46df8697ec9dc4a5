"""Decodes one container: a file, a stream, a camera or a test pattern."""

import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import av
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.source_address import Address
from pipeline.sources.base import CapturedFrame, OpeningStopped, Source, SourceInfo, Stopped
from pipeline.sources.clock import JUMP_SECONDS, LONGEST_GAP_SECONDS, Clock
from pipeline.sources.coded import CodedPackets, Onlooker
from pipeline.sources.container import (
    Stamp,
    dts_seconds,
    duration_seconds,
    may_begin_anew,
    open_container,
    read_failure,
    read_packets,
    stamp_of,
)
from pipeline.sources.late import KEY_FRAME_SECONDS, Lateness, LeftOut
from pipeline.sources.live import LiveReader
from pipeline.sources.signals import Health

MISSING_SECONDS = 1.0  # a file whose last frame comes so much before its declared end was cut off
DEFAULT_FRAMES_PER_SECOND = 25.0
FASTEST_FRAMES_PER_SECOND = 1000
ENDED = "the server or camera ended the stream"
VAIN_SECONDS = 5.0  # packets of a stream that give no picture for so long are no longer those it was opened for


class FileReader:
    """Packets of a container that never blocks for long."""

    is_live = False
    has_time_stamps = True

    def __init__(self, address: Address, settings: SourceSettings) -> None:
        self.failure: str | None = None
        self._container, self.stream = open_container(address, settings)
        self.duration_seconds = duration_seconds(self._container)
        self.may_begin_anew = may_begin_anew(self._container)
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

    def __init__(
        self,
        address: Address,
        settings: SourceSettings,
        source_id: str,
        stopped: Stopped,
        health: Health | None = None,
        onlooker: Onlooker | None = None,
    ) -> None:
        """Counts into `health`. Raises SourceError when it cannot be opened or its first frame cannot be decoded."""
        super().__init__(settings)
        self.health = health or self.health
        self._address = address
        self._ended = False
        self._reader: FileReader | LiveReader
        if address.may_block:
            self._reader = LiveReader(address, settings, stopped)
        else:
            self._reader = FileReader(address, settings)
        is_h264 = self._reader.stream.codec_context.name == "h264"
        shows = onlooker is not None and is_h264 and self._reader.is_live
        self._coded = CodedPackets(self._reader.stream, onlooker) if onlooker and shows else None
        self._is_upright = False
        try:
            self._begin(source_id, stopped)
        except BaseException:
            self.close()
            raise

    @property
    def comes_by_itself(self) -> bool:
        """Whether it has no end of its own; a file on a server has one."""
        return self._reader.is_live

    def close(self) -> None:
        self._reader.close()

    def _begin(self, source_id: str, stopped: Stopped) -> None:
        reader = self._reader
        # Frame threads give a file the most throughput; a live source would wait one frame for each thread.
        reader.stream.thread_type = "SLICE" if reader.is_live else "AUTO"
        if self._settings.decoder_threads:
            reader.stream.codec_context.thread_count = self._settings.decoder_threads
        self._codec_name = reader.stream.codec_context.name
        self._is_paced = self._is_paced and not reader.is_live  # what comes by itself has its own pace
        rate = frames_per_second(reader.stream)
        self._time_base = reader.stream.time_base or Fraction(1)
        start = None if reader.is_live else reader.stream.start_time
        self._clock = self._new_clock(rate, None if start is None else float(start * self._time_base))
        self._packet_clock = self._new_clock(rate, None)  # in the order of decoding
        self._late = Lateness()
        self._in_gap = False
        self._left_out_seconds = 0.0
        self._last_captured_ns: int | None = None
        self._vain_since_ns: int | None = None
        self._has_key = not reader.is_live  # a file gives whatever decodes
        deadline = time.monotonic() + KEY_FRAME_SECONDS
        self._stopped = lambda: stopped() or (reader.is_live and time.monotonic() > deadline)
        self._frames = self._decode_all()
        self._early = list(self._until_decoded())
        if not self._early or not isinstance(first := self._early[-1], CapturedFrame):
            raise self._nothing(stopped)
        self.info = SourceInfo(
            source_id=source_id,
            kind=self._address.kind,
            is_live=reader.is_live or self._settings.realtime or self._is_realtime_pattern(),
            width=first.width,
            height=first.height,
            frames_per_second=rate,
            frame_count=reader.stream.frames or None,
            duration_seconds=reader.duration_seconds,
        )

    def _is_realtime_pattern(self) -> bool:
        return self._address.kind == "pattern" and "realtime" in self._address.url

    def _new_clock(self, frames_per_second: float | None, start_seconds: float | None) -> Clock:
        period_seconds = 1 / (frames_per_second or DEFAULT_FRAMES_PER_SECOND)
        jump_seconds = max(JUMP_SECONDS, 2 * period_seconds)
        longest_gap_seconds = jump_seconds if self._reader.may_begin_anew else LONGEST_GAP_SECONDS
        return Clock(period_seconds, start_seconds, longest_gap_seconds)

    def _until_decoded(self) -> Iterator[CapturedFrame | LeftOut]:
        """What comes up to the first frame that decodes."""
        for frame in self._frames:
            yield frame
            if isinstance(frame, CapturedFrame):
                return

    def _nothing(self, stopped: Stopped) -> SourceError:
        if stopped():
            return OpeningStopped(self._address)
        if self._reader.failure:
            why = f"gave no frame: {self._reader.failure}"
        elif self._reader.is_live and not self._ended:
            why = f"sent nothing that decodes for {KEY_FRAME_SECONDS:g} s"
        else:
            why = f"holds no frame that decodes ({self.health.undecoded_packets} damaged packets)"
        return SourceError(f"{self._address.shown} {why}")

    def decoded(self, stopped: Stopped) -> Iterator[CapturedFrame | LeftOut]:
        self._stopped = stopped
        while self._early:
            yield self._early.pop(0)
        yield from self._frames

    def _decode_all(self) -> Iterator[CapturedFrame | LeftOut]:
        for packet in self._reader.packets(lambda: self._stopped()):
            seconds = self._clock.end_seconds if packet is None else self._packet_clock.seconds(dts_seconds(packet))
            if packet is None or self._late.leaves_out(self._pace.behind_seconds(seconds), self._stands_alone(packet)):
                yield from self._begin_gap()
                self._miss_coded()
                self._left_out_seconds = max(0.0, seconds - self._clock.end_seconds)
                yield LeftOut(seconds)
            else:
                self._end_gap(packet)
                self._show_coded(packet)
                yield from self._decode(packet)
                if self._is_in_vain(packet):
                    self._reader.failure = f"nothing has decoded for {VAIN_SECONDS:g} s although packets come"
                    break
        if self._stopped():
            return
        yield from self._decode(None)
        self._ended = True
        self.failure = self._live_failure() if self._reader.is_live else self._file_failure()

    def _show_coded(self, packet: Packet) -> None:
        if self._coded and self._is_upright:  # it cannot be turned
            self._coded.offer(packet)

    def _miss_coded(self) -> None:
        if self._coded:
            self._coded.miss()

    def _begin_gap(self) -> Iterator[CapturedFrame]:
        """Frames that the decoder still holds come before those that are left out, and know nothing of what follows."""
        if not self._in_gap:
            self._in_gap = True
            self._vain_since_ns = None
            yield from self._decode(None)
            self._reader.stream.codec_context.flush_buffers()

    def _end_gap(self, packet: Packet) -> None:
        if self._in_gap and not self._stands_alone(packet):
            # Without a key frame a decoder would keep its pictures to itself for the rest of the stream.
            self._reader.stream.codec_context.flags |= Flags.output_corrupt
        self._in_gap = False

    def _stands_alone(self, packet: Packet) -> bool:
        """Whether it decodes without those before it; a test pattern's do, and are not marked so."""
        return packet.is_keyframe or self._address.kind == "pattern"

    def _decode(self, packet: Packet | None) -> Iterator[CapturedFrame]:
        try:
            frames = self._reader.stream.decode(packet)
            is_sound = self._is_sound(packet, bool(frames))
        except av.error.FFmpegError:
            frames, is_sound = [], False
        if not is_sound:
            self.health.undecoded_packets += 1
            return
        for frame in frames:
            self._vain_since_ns = None
            yield self._captured(frame)

    def _is_sound(self, packet: Packet | None, gave_frames: bool) -> bool:
        """Whether what was decoded is no guess at a picture whose key frame was missed."""
        # H.264's decoder gives nothing before it has recovered, also where no packet is marked as a key frame.
        if packet is None or self._stands_alone(packet) or (gave_frames and self._codec_name == "h264"):
            self._has_key = True
        return self._has_key

    def _is_in_vain(self, packet: Packet) -> bool:
        """Whether a stream that gave frames has long sent packets that give none."""
        stamp = stamp_of(packet)
        if not self._reader.is_live or self._last_captured_ns is None or stamp is None:
            return False
        if self._vain_since_ns is None:
            self._vain_since_ns = stamp.captured_ns
        return stamp.captured_ns - self._vain_since_ns > VAIN_SECONDS * 1e9

    def _captured(self, frame: VideoFrame) -> CapturedFrame:
        # A decoder that loses the stamp (none known) still has a moment close to it.
        stamp = stamp_of(frame) or Stamp(time.monotonic_ns(), time.time(), is_damaged=False)
        self.health.damaged_frames += frame.is_corrupt or stamp.is_damaged
        before = self._clock.repaired
        pts_seconds = self._clock.seconds(self._pts_seconds(frame, stamp), self._passed_seconds(stamp))
        self.health.repaired_times += self._clock.repaired - before
        captured = CapturedFrame.of(frame, pts_seconds, stamp.captured_ns, stamp.captured_unix)
        self._is_upright = not captured.rotation_degrees
        if stamp.sender_unix is not None:
            return replace(captured, captured_unix=stamp.sender_unix, clock="sender")
        return captured

    def _pts_seconds(self, frame: VideoFrame, stamp: Stamp) -> float | None:
        if not self._reader.has_time_stamps:
            return stamp.captured_ns / 1e9
        # Not `frame.time`: frames that come when the decoder is flushed do not know their time base.
        return None if frame.pts is None else float(frame.pts * self._time_base)

    def _passed_seconds(self, stamp: Stamp) -> float:
        """Since the frame before: by its arrival, or by what was left out of a file, which is no leap of its clock."""
        left_out_seconds, self._left_out_seconds = self._left_out_seconds, 0.0
        last_ns, self._last_captured_ns = self._last_captured_ns, stamp.captured_ns
        if not self._reader.is_live:
            return left_out_seconds
        return 0.0 if last_ns is None else max(0.0, (stamp.captured_ns - last_ns) / 1e9)

    def _live_failure(self) -> str:
        return self._reader.failure or ENDED

    def _file_failure(self) -> str | None:
        reasons = [self._reader.failure] if self._reader.failure else []
        reasons += self.troubles()
        declared_seconds, seen_seconds = _declared_seconds(self._reader), self._seen_seconds()
        was_cut = declared_seconds is not None and seen_seconds < declared_seconds - MISSING_SECONDS
        if was_cut and not self._clock.began_anew:
            reasons.append(f"it ends at {seen_seconds:.1f} s of {declared_seconds:.1f} s")
        return "; ".join(reasons) or None

    def _seen_seconds(self) -> float:
        return (self._packet_clock if self._in_gap else self._clock).end_seconds


def frames_per_second(stream: VideoStream) -> float | None:
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
