"""For how long each worker has not been heard. Knows no worker, no socket and no clock of its own."""

# More than this between two looks, and we ourselves were stopped: Ctrl-Z, a paused container, a terminal that holds us.
LONGEST_STEP_SECONDS = 1.0


class Heartbeats:
    """The silence of each name in seconds, in time that we ourselves were awake.

    Our own absence says nothing of others, so between two looks at most `LONGEST_STEP_SECONDS` count. Hear what waits
    before you look: it may have been said in the meantime.
    """

    def __init__(self) -> None:
        self._silent_seconds: dict[str, float] = {}
        self._looked_at: float | None = None

    def heard(self, name: str) -> None:
        self._silent_seconds[name] = 0.0

    def look(self, now_seconds: float) -> None:
        """Time has passed, until `now_seconds` of a monotonic clock."""
        passed = 0.0 if self._looked_at is None else now_seconds - self._looked_at
        self._looked_at = now_seconds
        for name in self._silent_seconds:
            self._silent_seconds[name] += min(passed, LONGEST_STEP_SECONDS)

    def forget(self, name: str) -> None:
        self._silent_seconds.pop(name, None)

    def silence(self, name: str) -> float:
        """Seconds since `name` was heard; 0 for one that never was."""
        return self._silent_seconds.get(name, 0.0)
