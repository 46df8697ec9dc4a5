"""Every error a user can cause or meet, and the exit code of each. Knows nothing of stages or sockets.

    CenterStreamError            1   the root; never raised itself
    ├── UsageError               2   a wrong option, configuration key, value, class name or weights file
    ├── SourceError              3   a source that cannot be opened, ends early or is lost
    └── StageError               4   a stage that died, hung or failed
        └── OutputError          4   an output that cannot be written (disk full, no permission)

A message is one line for the person who reads it: what was given, what is allowed, what to do. What a user gave gets
into it by `configs.uri.shown` alone, and what a library says only where it cannot hold an address.
"""

import traceback
from pathlib import Path

EXIT_DONE = 0
EXIT_INTERRUPTED = 130


class CenterStreamError(Exception):
    """Root of the tree; `exit_code` is what the command ends with."""

    exit_code = 1


class UsageError(CenterStreamError):
    """The command, the configuration or a file named in them is wrong; nothing has run."""

    exit_code = 2


class SourceError(CenterStreamError):
    """A source cannot be opened, gives nothing that decodes, or was lost."""

    exit_code = 3


class StageError(CenterStreamError):
    """A stage died, hung, or raised what it should not."""

    exit_code = 4


class OutputError(StageError):
    """An output cannot be written; the other outputs go on."""


def place_of(error: BaseException) -> str:
    """The kind of an error that nobody foresaw, and where it came up; not its message, which may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {_short(frames[-1])}" if frames else ""
    return f"{type(error).__name__}{where}"


def way_of(error: BaseException) -> str:
    """The calls that led to an error and to what caused it, for --verbose: places only, no message and no value."""
    lines: list[str] = []
    while True:
        lines += [f"  {_short(frame)}: {frame.line}" for frame in traceback.extract_tb(error.__traceback__)]
        lines.append(type(error).__name__)
        cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if cause is None:
            return "\n".join(lines)
        lines.append("caused by")
        error = cause


def _short(frame: traceback.FrameSummary) -> str:
    return f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}"
