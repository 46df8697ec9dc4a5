"""Every error a user can cause or meet, and the exit code of each. Knows nothing of stages or sockets.

    CenterStreamError            1   the root; never raised itself
    ├── UsageError               2   a wrong option, configuration key, value, class name or weights file
    ├── SourceError              3   a source that cannot be opened, ends early or is lost
    └── StageError               4   a stage that died, hung or failed
        └── OutputError          4   an output that cannot be written (disk full, no permission)

A message is one line for the person who reads it: what was given, what is allowed, what to do.
Credentials in a URL are replaced before they get into a message (`redact`).
"""

import re

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


_CREDENTIALS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@'\"]*(?:@[^/\s@'\"]*)*@")


def redact(text: str) -> str:
    """`text` with the user and password of every URL in it replaced by `***`.

    A password may itself hold an `@`: everything up to the last `@` before the path goes.
    """
    return _CREDENTIALS.sub(r"\1***@", text)
