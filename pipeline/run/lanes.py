"""Threads that work side by side, and for how long each has been at it. Knows nothing of their work."""

import threading
import time
from collections.abc import Callable


class Lanes:
    """Threads that work side by side. The first exception ends all and is raised by `join`."""

    def __init__(self, tell_end: Callable[[], None]) -> None:
        """`tell_end()` is called when the last has ended."""
        self._tell_end = tell_end
        self.taking = threading.Lock()
        self.over = False
        self._threads: list[threading.Thread] = []
        self._busy_since: dict[int, float] = {}
        self._running = 0
        self._counting = threading.Lock()
        self.have_ended = False
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None], count: int) -> None:
        self._running = count
        for number in range(count):
            thread = threading.Thread(target=self._guard, args=(work,), name=f"lane-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failure = self._failure or error
            self.over = True
        with self._counting:
            self._running -= 1
            if not self._running:
                self.have_ended = True
                self._tell_end()

    def busy(self) -> "_Busy":
        """While a lane works: `with lanes.busy(): …`"""
        return _Busy(self._busy_since)

    def busy_seconds(self) -> float:
        """For how long the lane that has worked longest without a pause has done so."""
        since = list(self._busy_since.values())
        return time.monotonic() - min(since) if since else 0.0

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self._failure:
            raise self._failure


class _Busy:
    def __init__(self, since: dict[int, float]) -> None:
        self._since = since

    def __enter__(self) -> None:
        self._since[threading.get_ident()] = time.monotonic()

    def __exit__(self, *_: object) -> None:
        del self._since[threading.get_ident()]
