"""How the commands of `models` and `train` end: what is wrong with the input is one line and exit code 2, never a
traceback. Knows no command."""

import sys
from collections.abc import Callable

BAD_INPUT = 2


def exit_code(work: Callable[[], int | None]) -> int:
    """Does `work`; the exit code is what it returns (None is 0), or 2 where it raises ValueError or OSError."""
    try:
        return work() or 0
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except ValueError as error:
        return _fail(str(error))


def _fail(text: str) -> int:
    print(f"error: {text}", file=sys.stderr)
    return BAD_INPUT
