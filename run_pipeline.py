#!/usr/bin/env python3
"""Video in, tracked objects out: parse, check, build, run, report."""

import _signal
import os

if __name__ == "__main__":
    # Whoever changes their mind in the first tenth of a second gets a quiet end, too, until the supervisor drains. Both
    # modules are there when Python starts: whatever else is imported takes longer. A hang-up may be ignored, by nohup.
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        if number != _signal.SIGHUP or _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, lambda *_: os._exit(130))

import signal
import sys
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

from configs import startup


def main() -> int:
    from pipeline.command import cli
    from pipeline.command.logline import error_line
    from pipeline.errors import CenterStreamError, place_of, way_of

    cli.hide_secrets_from_process_list()
    is_log = False
    try:
        if not sys.argv[1:]:
            from pipeline.command import welcome

            return welcome.main()
        if sys.argv[1:2] == ["ctl"]:
            from pipeline.command import ctl

            return ctl.main(sys.argv[2:])
        if sys.argv[1:2] == ["profile"]:
            from pipeline.command import profile

            return profile.main(sys.argv[2:])
        if sys.argv[1:2] == ["doctor"]:
            from pipeline.command import doctor

            return doctor.main(sys.argv[2:])
        command = cli.parse(sys.argv[1:])
        is_log = command.settings.run.log == "json"
        from pipeline.run.nursery import Nursery

        wants_processes = command.settings.run.placement == "processes" and not command.validate
        with closing(Nursery()) if wants_processes else nullcontext() as nursery:  # it loads while we check
            from pipeline.command import preflight

            settings = preflight.check(command.settings, command.config)
            if command.validate:
                from pipeline.command.validate import validate

                return validate(settings)
            from pipeline.command.console import Console
            from pipeline.command.log import Log
            from pipeline.control.follow import Watched
            from pipeline.run.supervisor import Supervisor

            with Log(command.settings) if is_log else Console(command.verbose) as console:
                check = partial(preflight.check_one, config=command.config)
                read = partial(preflight.read_again, command.read)
                watched = Watched(command.config, read) if command.watch and command.config else None
                state = Supervisor(settings, console.update, check, watched, command.config, nursery).run()
        for number in (signal.SIGINT, signal.SIGTERM):  # what is over may tell how it went
            signal.signal(number, signal.SIG_IGN)
        console.summarise(state)
        return state.exit_code
    except CenterStreamError as error:
        print(error_line(str(error), is_log), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        text = f"a fault of CenterStream's own: {place_of(error)}; please report it"
        print(error_line(text, is_log), file=sys.stderr)
        if "--verbose" in sys.argv:
            print(way_of(error), file=sys.stderr)
        return CenterStreamError.exit_code


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
    startup.run(main, at_once=True)
