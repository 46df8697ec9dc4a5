"""What every source gives: facts about itself, frames in order with their times, what befell it, and how it ended."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Self

from av.video.frame import VideoFrame

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.source_address import Address, Kind
from pipeline.sources.late import LeftOut, Pace
from pipeline.sources.pixels import turned
from pipeline.sources.signals import Health, Signal

Stopped = Callable[[], bool]
WhoseClock = Literal["sender", "arrival", "due"]
LONGEST_SLEEP_SECONDS = 0.1


class OpeningStopped(SourceError):
    """The run was stopped while the source was being opened: nobody waits for it any more."""

    def __init__(self, address: Address) -> None:
        super().__init__(f"{address.shown} was being opened when the run stopped")


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What was known once a frame was decoded; None where the container does not tell.

    width and height are those of that frame, upright; later frames carry their own.
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
    captured_unix     seconds since 1970 at the moment that `clock` tells
    clock             sender: when the camera's own clock says that the picture was taken, right or wrong; arrival: when
                      it came here; due: when it was due, where a recording is paced
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
    clock: WhoseClock = "arrival"

    @classmethod
    def of(
        cls,
        frame: VideoFrame,
        pts_seconds: float,
        captured_ns: int,
        captured_unix: float,
        clock: WhoseClock = "arrival",
    ) -> Self:
        # FFmpeg tells by how much the picture was turned counterclockwise; anything but quarter turns is ignored.
        rotation_degrees = round(-frame.rotation / 90) % 4 * 90
        width, height = turned(frame.width, frame.height, rotation_degrees)
        return cls(frame, pts_seconds, captured_ns, captured_unix, width, height, rotation_degrees, clock)


Item = CapturedFrame | LeftOut | Signal | SourceInfo


class Source(ABC):
    """An open source; close it, or use it as a context manager. One thread at a time.

    info      as in the last `SourceInfo` that was given; a source opened patiently has it from its first frame on
    failure   after `frames` has ended: why the end was not a clean one, else None
    health    what was counted so far
    """

    info: SourceInfo

    def __init__(self, settings: SourceSettings) -> None:
        self.failure: str | None = None
        self.health = Health()
        self._settings = settings
        self._is_paced = settings.realtime
        self._pace = Pace()

    def frames(self, stopped: Stopped) -> Iterator[Item]:
        """Frames until the end, `max_frames`, or soon (0.5 s) after `stopped()` is true. Call it once.

        Where it does not wait, a `LeftOut` stands for each frame that came too late to be decoded. A `SourceInfo` comes
        before the first frame, and wherever it is another for the frames after it. A `Signal` comes where the source is
        lost, is back, or shows a picture that does not live.
        """
        frames = self.decoded(stopped)
        if self._is_paced:
            frames = _paced(frames, self._pace, stopped)
        yield self.info
        yield from at_most(frames, self._settings.max_frames)

    def troubles(self) -> list[str]:
        """What was damaged, and what became of it."""
        told = []
        if self.health.damaged_frames:
            told.append(f"{self.health.damaged_frames} frames were delivered although their data are damaged")
        if self.health.undecoded_packets:
            told.append(f"{self.health.undecoded_packets} packets did not decode")
        return told

    @abstractmethod
    def decoded(self, stopped: Stopped) -> Iterator[CapturedFrame | LeftOut]:
        """Frames as fast as they come, without limit, the one decoded at opening first."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file, connection or camera. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def at_most(items: Iterator[Item], count: int | None) -> Iterator[Item]:
    """All items up to the frame of that number; None: all."""
    for item in items:
        yield item
        if count is not None and isinstance(item, CapturedFrame | LeftOut):
            count -= 1
            if not count:
                return


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
            yield replace(frame, captured_ns=due_ns, captured_unix=time.time() + wait_seconds, clock="due")
