"""A text file that grows by whole lines, each on its way to the disk before the next is made. Knows no format.

Nothing waits in this process: whatever was appended can be read even after `kill -9`.
"""

import errno
import os
import select
import stat
from contextlib import suppress
from pathlib import Path

from configs.uri import shown_text
from pipeline.errors import OutputError

STANDARD_OUTPUT = "-"
# Not to wait for the reader of a pipe: one that never comes would hold up everything.
_OPEN = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
_READ_BYTES = 1 << 16


class LineFile:
    """Write-only; `-` is standard output. An existing file is replaced, or (`goes_on`) written on after its last whole
    line: what stands behind it was cut off when its writer was killed, and is taken away.

    is_file     a file on a disk that is this run's alone; else a device, a pipe or standard output
    size_bytes  of a file

    Raises OutputError when it cannot be opened, or written on (disk full, the reader of a pipe gone).
    """

    def __init__(self, path: str, goes_on: bool = False) -> None:
        self._name = "standard output" if path == STANDARD_OUTPUT else shown_text(path)
        self.is_file = False
        try:
            # A duplicate, so that closing this does not close the process's own standard output.
            how = _OPEN | (0 if goes_on else os.O_TRUNC)
            self._descriptor = os.dup(1) if path == STANDARD_OUTPUT else os.open(path, how, 0o666)
            os.set_blocking(self._descriptor, True)
            self.is_file = path != STANDARD_OUTPUT and stat.S_ISREG(os.fstat(self._descriptor).st_mode)
            if self.is_file and goes_on:
                os.ftruncate(self._descriptor, _whole_lines_bytes(path))
            self.size_bytes = os.lseek(self._descriptor, 0, os.SEEK_END) if self.is_file else 0
        except OSError as error:
            raise self._cannot_write(error) from error

    def append(self, line: bytes, over: bytes = b"") -> None:
        """Write `line`, which ends with a newline; `over` is what the file ends with, and gives way to it.

        A file that cannot be written on is left as it was.
        """
        rest = memoryview(line)
        try:
            start = os.lseek(self._descriptor, -len(over), os.SEEK_END) if self.is_file else 0
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            if self.is_file and len(rest) < len(line):
                self._take_back(start, over)
            raise self._cannot_write(error) from error
        self.size_bytes = start + len(line)

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

    def _take_back(self, start: int, over: bytes) -> None:
        with suppress(OSError):
            os.pwrite(self._descriptor, over, start)
            os.ftruncate(self._descriptor, start + len(over))

    def _cannot_write(self, error: OSError) -> OutputError:
        reason = "its reader has gone" if isinstance(error, BrokenPipeError) else error.strerror
        if error.errno == errno.ENXIO:
            reason = "it is a pipe that nobody reads; start its reader first"
        return OutputError(f"cannot write {self._name}: {reason}")


def _whole_lines_bytes(path: str) -> int:
    """Of a file, up to and with its last newline."""
    with Path(path).open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _READ_BYTES)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
