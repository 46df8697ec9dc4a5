"""A text file that grows by whole lines, each on its way to the disk before the next is made. Knows no format.

Nothing waits in this process: whatever was appended can be read even after `kill -9`.
"""

import os

from configs.uri import shown_text
from pipeline.errors import OutputError

STANDARD_OUTPUT = "-"
_REPLACE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class LineFile:
    """Write-only; `-` is standard output, an existing file is replaced.

    Raises OutputError when it cannot be opened, or written on (disk full, the reader of a pipe gone).
    """

    def __init__(self, path: str) -> None:
        self._name = "standard output" if path == STANDARD_OUTPUT else shown_text(path)
        try:
            # A duplicate, so that closing this does not close the process's own standard output.
            self._descriptor = os.dup(1) if path == STANDARD_OUTPUT else os.open(path, _REPLACE, 0o666)
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

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _cannot_write(self, error: OSError) -> OutputError:
        reason = "its reader has gone" if isinstance(error, BrokenPipeError) else error.strerror
        return OutputError(f"cannot write {self._name}: {reason}")
