"""What every source gives: facts about itself, frames in order with their times, and how it ended."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

from av.video.frame import VideoFrame

from pipeline.errors import SourceError
from pipeline.pixels import turned
from pipeline.settings import SourceSettings
from pipeline.sources.address import Address, Kind
from pipeline.sources.late import LeftOut, Pace

Stopped = Callable[[], bool]
LONGEST_SLEEP_SECONDS = 0.1


class OpeningStopped(SourceError):
    """The run was stopped while the source was being opened: nobody waits for it any more."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"{address.shown} was being opened when the run stopped")


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

    pts_seconds       from the start of the source, always growing
    captured_ns       time.monotonic_ns() when the frame's packet came, or the frame was due
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

    failure             after `frames` has ended: why the end was not a clean one, else None
    damaged_frames      frames that were given although they, or their packets, were damaged
    undecoded_packets   packets that gave no frame because they were damaged
    repaired_times      time stamps that jumped, repeated, ran backwards or were missing
    """

    info: SourceInfo

    def __init__(self, settings: SourceSettings) -> None:
        self.failure: str | None = None
        self.damaged_frames = 0
        self.undecoded_packets = 0
        self.repaired_times = 0
        self._settings = settings
        self._is_paced = settings.realtime
        self._pace = Pace()

    def frames(self, stopped: Stopped) -> Iterator[CapturedFrame | LeftOut]:
        """Frames until the end, `max_frames`, or soon (0.5 s) after `stopped()` is true. Call it once.

        Where it does not wait, a `LeftOut` stands for each frame that came too late to be decoded.
        """
        frames = self._decoded(stopped)
        if self._is_paced:
            frames = _paced(frames, self._pace, stopped)
        return islice(frames, self._settings.max_frames)

    def troubles(self) -> list[str]:
        """What was damaged, and what became of it."""
        told = []
        if self.damaged_frames:
            told.append(f"{self.damaged_frames} frames were delivered although their data are damaged")
        if self.undecoded_packets:
            told.append(f"{self.undecoded_packets} packets did not decode")
        return told

    @abstractmethod
    def _decoded(self, stopped: Stopped) -> Iterator[CapturedFrame | LeftOut]:
        """Frames as fast as they come, the one decoded at opening first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file, connection or camera. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _paced(
    frames: Iterator[CapturedFrame | LeftOut], pace: Pace, stopped: Stopped
) -> Iterator[CapturedFrame | LeftOut]:
    """Each frame when it is due, also one that was left out; captured when due, as by a camera."""
    for frame in frames:
        due_ns = pace.due_ns(frame.pts_seconds)
        while (wait_seconds := (due_ns - time.monotonic_ns()) / 1e9) > 0:
            if stopped():
                return
            time.sleep(min(wait_seconds, LONGEST_SLEEP_SECONDS))
        if isinstance(frame, LeftOut):
            yield frame
        else:
            yield replace(frame, captured_ns=due_ns, captured_unix=time.time() + wait_seconds)
