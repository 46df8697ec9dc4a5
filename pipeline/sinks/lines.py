"""A text file that grows by whole lines, each on its way to the disk before the next is made. Knows no format.

Nothing waits in this process: whatever was appended can be read even after `kill -9`.
"""

import errno
import os
import select

from configs.uri import shown_text
from pipeline.errors import OutputError

STANDARD_OUTPUT = "-"
# Not to wait for the reader of a pipe: one that never comes would hold up everything.
_OPEN = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class LineFile:
    """Write-only; `-` is standard output. An existing file is replaced, or (`goes_on`) written on after its last line.

    Raises OutputError when it cannot be opened, or written on (disk full, the reader of a pipe gone).
    """

    def __init__(self, path: str, goes_on: bool = False) -> None:
        self._name = "standard output" if path == STANDARD_OUTPUT else shown_text(path)
        try:
            # A duplicate, so that closing this does not close the process's own standard output.
            how = _OPEN | (os.O_APPEND if goes_on else os.O_TRUNC)
            self._descriptor = os.dup(1) if path == STANDARD_OUTPUT else os.open(path, how, 0o666)
            os.set_blocking(self._descriptor, True)
        except OSError as error:
            raise self._cannot_write(error) from error

    def append(self, line: bytes) -> None:
        """Write `line`, which ends with a newline."""
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            raise self._cannot_write(error) from error

    def check(self) -> None:
        """For who has nothing to write: raises OutputError when the reader of a pipe has gone."""
        poll = select.poll()
        poll.register(self._descriptor, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise self._cannot_write(BrokenPipeError())

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cannot_write(self, error: OSError) -> OutputError:
        reason = "its reader has gone" if isinstance(error, BrokenPipeError) else error.strerror
        if error.errno == errno.ENXIO:
            reason = "it is a pipe that nobody reads; start its reader first"
        return OutputError(f"cannot write {self._name}: {reason}")
