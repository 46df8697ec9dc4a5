"""How long to wait before a lost source, or a lost server, is tried again. Knows neither, and does not wait itself."""

import random
from collections.abc import Callable

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
SHARE = 1 / 3  # of the time that it has been lost for, at most: who was away for long may be away for longer
STEADY_SECONDS = 5.0  # frames that have come for so long are no flicker between two losses


class Backoff:
    """No wait before the first attempt; then any time between a half and the whole of a limit, which grows with the
    time since the first loss, from 0.5 s to 30 s (or `longest_seconds`): exponentially, for each wait adds its share to
    it.

    Each wait is drawn: cameras that were lost at the same moment, as when their switch restarts, do not come back at
    the same moment for ever.
    """

    def __init__(
        self, draw: Callable[[float, float], float] = random.uniform, longest_seconds: float | None = None
    ) -> None:
        self._draw = draw
        self._longest_seconds = longest_seconds
        self._lost_at: float | None = None

    def next_seconds(self, now_seconds: float) -> float:
        """The wait before the next attempt, at `now_seconds` of a monotonic clock."""
        if self._lost_at is None:
            self._lost_at = now_seconds
            return 0.0
        longest_seconds = self._longest_seconds or LONGEST_SECONDS
        limit_seconds = min(max(SHARE * (now_seconds - self._lost_at), FIRST_SECONDS), longest_seconds)
        return self._draw(limit_seconds / 2, limit_seconds)

    def went_well_for(self, seconds: float) -> None:
        """The time is counted anew where the source was steady."""
        if seconds >= STEADY_SECONDS:
            self._lost_at = None
