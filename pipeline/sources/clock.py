"""Time as sources tell it, made sound: time stamps that always grow, and when a packet came in truth.

Knows no container and no decoder: stamps come as seconds, moments as nanoseconds of the monotonic clock.
"""

JUMP_SECONDS = 10.0  # FFmpeg, too, takes a longer leap for a new clock where a format's clock may begin anew
LONGEST_GAP_SECONDS = 30 * 3600.0  # and this where it may not: a frame an hour is slow, not wrong
BACKWARDS_SECONDS = 1.0  # a time stamp that jumps back further starts a new clock
NUDGE_SECONDS = 0.001
HELD_BACK_SECONDS = 1.0  # a packet that comes so much later than its time stamp says was held back on its way


class Clock:
    """Time stamps as seconds from the start of the source, each later than the one before.

    A stamp is repaired where it is missing, does not grow, or leaps ahead too far. One that steps back a little is
    moved just behind the last. Two of those in a row, or a leap, are a new clock: time goes on one period after the
    last frame, or after what has passed meanwhile, and counts from there.

    repaired    stamps that were not taken as they were
    began_anew  whether a new clock began: what the container says of its length is worth nothing then
    """

    def __init__(self, period_seconds: float, start_seconds: float | None, longest_gap_seconds: float) -> None:
        """Without a start the first time stamp is taken for it."""
        self.repaired = 0
        self.began_anew = False
        self._period_seconds = period_seconds
        self._start_seconds = start_seconds
        self._longest_gap_seconds = longest_gap_seconds
        self._last_seconds = -period_seconds
        self._stumbled = False

    @property
    def end_seconds(self) -> float:
        return self._last_seconds + self._period_seconds

    def seconds(self, pts_seconds: float | None, passed_seconds: float = 0.0) -> float:
        """From the start, to the microsecond. `passed_seconds` went by since the last stamp, where that is known."""
        self._last_seconds = max(0.0, round(self._after_last(pts_seconds, passed_seconds), 6))
        return self._last_seconds

    def _after_last(self, pts_seconds: float | None, passed_seconds: float) -> float:
        next_seconds = max(self.end_seconds, self._last_seconds + passed_seconds)
        if pts_seconds is None:
            self.repaired += self._start_seconds is not None  # where no frame has a stamp, none is missing
            return next_seconds
        if self._start_seconds is None:
            self._start_seconds = pts_seconds - self.end_seconds
        step_seconds = round(pts_seconds - self._start_seconds - self._last_seconds, 6)
        if 0 < step_seconds <= self._longest_gap_seconds + passed_seconds:
            self._stumbled = False
            return self._last_seconds + step_seconds
        return self._repaired(pts_seconds, step_seconds, next_seconds)

    def _repaired(self, pts_seconds: float, step_seconds: float, next_seconds: float) -> float:
        self.repaired += 1
        if -BACKWARDS_SECONDS <= step_seconds <= 0 and not self._stumbled:
            self._stumbled = True
            return self._last_seconds + NUDGE_SECONDS
        self.began_anew = True
        self._start_seconds = pts_seconds - next_seconds
        return next_seconds


class Arrivals:
    """When the packets of a live source came in truth, which is not always when they were handed out.

    The demuxer holds a picture until the next one begins, and a network may hold back several. Such a packet comes
    long after its time stamp says, seen from the one before: it is told to have come when it was due.
    """

    def __init__(self) -> None:
        self._dts_seconds: float | None = None
        self._now_ns = 0
        self._due_ns = 0
        self._held_back = False

    def captured_ns(self, dts_seconds: float | None, now_ns: int) -> int:
        """The moment, never after `now_ns`, for a packet that is handed out at `now_ns`."""
        step_ns = _step_ns(self._dts_seconds, dts_seconds)
        due_ns = now_ns if step_ns is None else self._due_ns + step_ns
        # What was held back comes in a burst. A packet that took its time came from a clock that stood still.
        bursts = not self._held_back or (step_ns is not None and now_ns - self._now_ns < step_ns)
        self._held_back = now_ns - due_ns > HELD_BACK_SECONDS * 1e9 and bursts
        # A segment that comes ahead of its time makes up for the silence after it, unless the clock leapt.
        ahead = now_ns < due_ns < now_ns + JUMP_SECONDS * 1e9
        self._due_ns = due_ns if self._held_back or ahead else now_ns
        self._dts_seconds, self._now_ns = dts_seconds, now_ns
        return min(self._due_ns, now_ns)


def _step_ns(before_seconds: float | None, seconds: float | None) -> int | None:
    """From one time stamp to the next; None where one is missing or the clock ran backwards."""
    if before_seconds is None or seconds is None or seconds < before_seconds:
        return None
    return round((seconds - before_seconds) * 1e9)
