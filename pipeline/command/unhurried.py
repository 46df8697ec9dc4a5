"""Words on their way to a terminal, for which nobody waits: it may stand still (Ctrl-S, a stalled connection).
Knows not what is written."""

import queue
import threading
from contextlib import suppress
from typing import TextIO

MOST_WAITING = 1000


class Unhurried:
    """A stream in front of another, to which a thread of its own hands on what is written.

    With MOST_WAITING writes on their way what comes is lost: nobody reads that far back.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self.encoding = stream.encoding
        threading.Thread(target=self._hand_on, name="terminal", daemon=True).start()

    def write(self, text: str) -> int:
        with suppress(queue.Full):
            self._waiting.put_nowait(text)
        return len(text)

    def flush(self) -> None:
        """Each write is flushed when its turn comes."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def is_behind(self) -> bool:
        """Whether something that was written is not out yet."""
        return self._waiting.unfinished_tasks > 0

    def wait(self) -> None:
        """Until all is out, however long that takes."""
        self._waiting.join()

    def _hand_on(self) -> None:
        while True:
            text = self._waiting.get()
            self._stream.write(text)
            self._stream.flush()
            self._waiting.task_done()
