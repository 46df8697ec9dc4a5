"""What is left out because the reader is behind: a source that does not wait must not grow old. Knows no container."""

import time
from dataclasses import dataclass

LATE_SECONDS = 2.0  # what is later is left out
FRESH_SECONDS = 0.5  # what ends a gap is no later, else the next gap would follow at once
KEY_FRAME_SECONDS = 20.0  # no source is waited for longer than this to send a key frame


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A frame that came too late to be decoded, in its place among the others. `pts_seconds` is about its time."""

    pts_seconds: float
    reason: str = f"more than {LATE_SECONDS:g} s late, or before the next fresh key frame"


def is_late(behind_seconds: float) -> bool:
    """Whether a frame comes too late to be looked at."""
    return behind_seconds > LATE_SECONDS


class Lateness:
    """Which coded frames are left out: those that are late, and those after them up to a fresh key frame.

    A stream with hardly any key frames goes on after KEY_FRAME_SECONDS without one. Its decoder gives nothing until it
    has recovered, and damaged pictures for a while, which is better than nothing for the rest of the stream.
    """

    def __init__(self) -> None:
        self._key_frame_deadline: float | None = None

    def fall_behind(self) -> None:
        """A frame is left out: none after it can be decoded before a key frame."""
        if self._key_frame_deadline is None:
            self._key_frame_deadline = time.monotonic() + KEY_FRAME_SECONDS

    def leaves_out(self, behind_seconds: float, is_key_frame: bool) -> bool:
        """Whether to leave out the next frame, which is so late."""
        if is_late(behind_seconds):
            self.fall_behind()
            return True
        if self._key_frame_deadline is None:
            return False
        if (is_key_frame and behind_seconds <= FRESH_SECONDS) or time.monotonic() > self._key_frame_deadline:
            self._key_frame_deadline = None
        return self._key_frame_deadline is not None


class Pace:
    """When the frames of a recording are due, counted from the first, so that nothing drifts."""

    def __init__(self) -> None:
        self._start_ns: int | None = None

    def due_ns(self, pts_seconds: float) -> int:
        """On the monotonic clock; the first frame asked for is due now."""
        pts_ns = round(pts_seconds * 1e9)
        if self._start_ns is None:
            self._start_ns = time.monotonic_ns() - pts_ns
        return self._start_ns + pts_ns

    def behind_seconds(self, pts_seconds: float) -> float:
        """How late a frame is; 0 before the first was asked for, and for ever where nothing is paced."""
        if self._start_ns is None:
            return 0.0
        return (time.monotonic_ns() - self._start_ns) / 1e9 - pts_seconds
