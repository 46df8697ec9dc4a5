"""What every source gives: facts about itself, frames in order with their times, and how it ended."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from av.video.frame import VideoFrame

from pipeline.pixels import turned
from pipeline.settings import SourceSettings
from pipeline.sources.address import Kind

Stopped = Callable[[], bool]
LONGEST_SLEEP_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What was known once the first frame was decoded; None where the container does not tell.

    width and height are those of the first frame, upright; later frames carry their own.
    """

    source_id: str
    kind: Kind
    is_live: bool
    width: int
    height: int
    frames_per_second: float | None
    frame_count: int | None
    duration_seconds: float | None


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """A decoded frame, still in the decoder's pixels.

    pts_seconds       from the start of the source, never decreasing
    captured_ns       time.monotonic_ns() when the demuxer handed out the frame's packet, or the frame was due
    captured_unix     seconds since 1970 at the same moment
    rotation_degrees  the clockwise turn (0, 90, 180, 270) that sets `video_frame` upright
    width, height     after that turn
    """

    video_frame: VideoFrame
    pts_seconds: float
    captured_ns: int
    captured_unix: float
    width: int
    height: int
    rotation_degrees: int

    @classmethod
    def of(cls, frame: VideoFrame, pts_seconds: float, captured_ns: int, captured_unix: float) -> Self:
        # FFmpeg tells by how much the picture was turned counterclockwise; anything but quarter turns is ignored.
        rotation_degrees = round(-frame.rotation / 90) % 4 * 90
        width, height = turned(frame.width, frame.height, rotation_degrees)
        return cls(frame, pts_seconds, captured_ns, captured_unix, width, height, rotation_degrees)


class Source(ABC):
    """An open source; close it, or use it as a context manager. One thread at a time.

    failure          after `frames` has ended: why the end was not a clean one, else None
    decode_errors    packets and frames that were damaged
    skipped_packets  live packets left out, up to a key frame, because the reader was more than two seconds behind
    """

    info: SourceInfo

    def __init__(self, settings: SourceSettings) -> None:
        self.failure: str | None = None
        self.decode_errors = 0
        self.skipped_packets = 0
        self._settings = settings

    def frames(self, stopped: Stopped) -> Iterator[CapturedFrame]:
        """Frames until the end, `max_frames`, or soon (0.5 s) after `stopped()` is true. Call it once."""
        frames = self._decoded(stopped)
        if self._settings.realtime:
            frames = _paced(frames, stopped)
        return islice(frames, self._settings.max_frames)

    @abstractmethod
    def _decoded(self, stopped: Stopped) -> Iterator[CapturedFrame]:
        """Frames as fast as they come, the one decoded at opening first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file, connection or camera. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _paced(frames: Iterator[CapturedFrame], stopped: Stopped) -> Iterator[CapturedFrame]:
    """Each frame when it is due, counted from the first, so that nothing drifts; captured when due, as by a camera."""
    start_ns: int | None = None
    for frame in frames:
        pts_ns = round(frame.pts_seconds * 1e9)
        if start_ns is None:
            start_ns = time.monotonic_ns() - pts_ns
        due_ns = start_ns + pts_ns
        while (wait_seconds := (due_ns - time.monotonic_ns()) / 1e9) > 0:
            if stopped():
                return
            time.sleep(min(wait_seconds, LONGEST_SLEEP_SECONDS))
        yield replace(frame, captured_ns=due_ns, captured_unix=time.time() + wait_seconds)
