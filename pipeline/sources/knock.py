"""Whether a host that could not be reached can be reached again: asked with a bare connection, once a second or so,
which costs an ailing server nothing. Knows no protocol.
"""

import random
import socket
import threading
import time
from collections.abc import Callable

# From one knock to the next, any time between: cameras lost together do not all knock together.
TRIED_EVERY_SECONDS = (0.5, 1.0)
ANSWER_SECONDS = 1.0


class Knocks:
    """Knocks from a thread of its own, for a name server may not answer for long, until it is answered or closed.

    answered  it was not at first, and now is. A server that is there but refuses, or keeps silent, has not come back
    """

    def __init__(self, host: str, port: int, reach: Callable[[str, int], bool] | None = None) -> None:
        self.answered = threading.Event()
        self._host, self._port = host, port
        self._reach = reach or can_be_reached
        self._closed = threading.Event()
        threading.Thread(target=self._knock, name="knocks", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _knock(self) -> None:
        was_missed = False
        while True:
            began = time.monotonic()
            if self._reach(self._host, self._port):
                if was_missed:
                    self.answered.set()
                return
            was_missed = True
            if self._closed.wait(wait_seconds(time.monotonic() - began)):
                return


def wait_seconds(asked_seconds: float, draw: Callable[[float, float], float] = random.uniform) -> float:
    """Before the next knock, after one of so long: who is cut off may answer right after an answer was given up."""
    return max(0.0, draw(*TRIED_EVERY_SECONDS) - asked_seconds)


def can_be_reached(host: str, port: int) -> bool:
    """Whether somebody takes a connection there."""
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError:
        return False
    return True
