"""How long to wait before a lost source is opened again. Knows no source and does not wait itself."""

import random
from collections.abc import Callable

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
STEADY_SECONDS = 5.0  # frames that have come for so long are no flicker between two losses


class Backoff:
    """No wait before the first attempt; then any time up to a limit, which doubles from 0.5 s to 30 s.

    Each wait is drawn, from nothing to the limit: cameras that were lost at the same moment, as when their switch
    restarts, do not come back at the same moment for ever.
    """

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._attempts = 0

    def next_seconds(self) -> float:
        """The wait before the next attempt."""
        self._attempts += 1
        if self._attempts == 1:
            return 0.0
        doublings = min(self._attempts - 2, 16)
        return self._draw(0.0, min(LONGEST_SECONDS, FIRST_SECONDS * 2**doublings))

    def frames_came_for(self, seconds: float) -> None:
        """Attempts are counted anew where the source was steady."""
        if seconds >= STEADY_SECONDS:
            self._attempts = 0
