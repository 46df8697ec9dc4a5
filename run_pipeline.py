#!/usr/bin/env python3
"""Video in, tracked objects out: parse, check, build, run, report."""

import os
import signal
import sys
from pathlib import Path

# Before the imports: Ctrl-C in the first tenth of a second is a quiet end too.
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))


def main() -> int:
    from pipeline import cli
    from pipeline.errors import CenterStreamError

    try:
        command = cli.parse(sys.argv[1:])
        from pipeline import preflight

        preflight.check(command.settings)
        if command.validate:
            from pipeline.validate import validate

            return validate(command.settings)
        from pipeline.console import Console
        from pipeline.supervisor import Supervisor

        with Console(command.settings, command.verbose) as console:
            state = Supervisor(command.settings, console.update).run()
        console.summarise(state)
        return state.exit_code
    except CenterStreamError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def use_own_environment() -> None:
    """Started by a Python without our dependencies: go on in the .venv that `make setup` made beside this file."""
    python = Path(__file__).resolve().parent / ".venv" / "bin" / "python"
    if not python.exists():
        sys.exit("error: the dependencies are not installed; run `make setup` first")
    if Path(sys.prefix) == python.parent.parent:
        sys.exit("error: .venv is not complete; run `make setup` again")
    os.execv(python, [str(python), *sys.argv])


if __name__ == "__main__":
    try:
        import msgspec  # noqa: F401
    except ModuleNotFoundError:
        use_own_environment()
    sys.exit(main())
