"""The command `run_pipeline.py doctor`: is all there that a run would need, and what would it meet? From its command
line to what is printed. Leaves the looking to `pipeline.doctor`, and knows the order in which things are told.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from rich.console import Console as Terminal
from rich.text import Text

from pipeline.command import cli, preflight
from pipeline.doctor.examine import Examination
from pipeline.doctor.finding import Finding, ok, problem
from pipeline.errors import EXIT_DONE, EXIT_INTERRUPTED, OutputError, SourceError, StageError, UsageError
from pipeline.settings import MOST_SOURCES, Settings

SECONDS, LONGEST_SECONDS = 4.0, 60.0
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}
LEVEL_WIDTH = max(map(len, STYLES))
SUBJECT_WIDTH, LONGEST_WORD = 16, len(": key frames")
EPILOG = """\
Give it the command line of your run, with doctor before it: options and --config are looked at, too.

exit codes:
  0 nothing is a problem   2 wrong usage or configuration   3 a source cannot be had   4 something else
"""


class Wish(NamedTuple):
    """`config` is the file that the settings are from; a source is heard for so many `seconds`."""

    settings: Settings
    config: str | None
    seconds: float
    as_json: bool


def main(arguments: list[str]) -> int:
    """Raises UsageError for what is wrong with the command line or the file of settings."""
    wish = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    machine: list[Finding] = []
    sources: list[Finding] = []
    width = max([SUBJECT_WIDTH, *(len(name) + LONGEST_WORD for name in wish.settings.sources)])
    try:
        with Examination(wish.settings, wish.seconds) as examination:
            for found, findings in ((machine, _of_machine(examination, wish)), (sources, examination.of_sources())):
                for finding in findings:
                    found.append(finding)
                    if not wish.as_json:
                        _tell(finding, width)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if wish.as_json:
        print(msgspec.json.format(msgspec.json.encode(machine + sources), indent=1).decode())
    else:
        print(_sum(machine + sources))
    return exit_code(machine, sources)


def parse(arguments: list[str]) -> Wish:
    """Raises UsageError for anything wrong but --help."""
    given = cli.read_line(_parser(), arguments)
    settings = cli.settings_of(cli.named(given.sources, given.name), given, cli.OPTIONS, given.config, given.set)
    if len(settings.sources) > MOST_SOURCES:
        raise UsageError(f"got {len(settings.sources)} sources, at most {MOST_SOURCES} run at the same time")
    if not 0 < given.seconds <= LONGEST_SECONDS:
        raise UsageError(f"--seconds: got {given.seconds:g}, allowed is more than 0, up to {LONGEST_SECONDS:g}")
    return Wish(settings, given.config, given.seconds, given.json)


def exit_code(machine: list[Finding], sources: list[Finding]) -> int:
    """What is wrong with a source counts first."""
    if any(finding.level == "problem" for finding in sources):
        return SourceError.exit_code
    return StageError.exit_code if any(finding.level == "problem" for finding in machine) else EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="run_pipeline.py doctor",
        description="Is all there that a run would need, and what would it meet? A line for each: ok, note or problem.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="as on the command line of a run; none is needed")
    parser.add_argument(
        "--seconds", type=cli.READ[float], default=SECONDS, metavar="X", help="how long a source is heard (4)"
    )
    parser.add_argument("--json", action="store_true", help="the findings as JSON: subject, level, text, advice")
    parser.add_argument("--name", action="append", default=[], metavar="X", help="what a source is called")
    cli.add_options(parser, cli.OPTIONS)
    parser.add_argument("--config", metavar="FILE", help="a YAML file, for example configs/default.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key")
    parser.add_argument("--verbose", action="store_true", help="tracebacks with errors")
    for flag in ("--watch", "--validate"):  # of the run's command line, and nothing to look at
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    return parser


def _of_machine(examination: Examination, wish: Wish) -> Iterator[Finding]:
    yield from examination.of_machine()
    yield _configuration(wish)


def _configuration(wish: Wish) -> Finding:
    """What is told before a run, but for the sources, which speak for themselves."""
    try:
        preflight.check(wish.settings, wish.config)
    except (UsageError, OutputError) as error:
        return problem("configuration", str(error))
    except SourceError:
        pass
    outputs = ", ".join(wish.settings.deliver.outputs()) or "none"
    return ok("configuration", f"read and checked; sources: {len(wish.settings.sources)}, outputs: {outputs}")


def _tell(finding: Finding, width: int) -> None:
    terminal = Terminal(file=sys.stdout, highlight=False, markup=False, emoji=False)
    line = Text(finding.level.ljust(LEVEL_WIDTH), STYLES[finding.level])
    advice = f"; {finding.advice}" if finding.advice else ""
    line.append(f"  {finding.subject.ljust(width)}  {finding.text}{advice}", style="not bold default")
    terminal.print(line, soft_wrap=True)


def _sum(found: list[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in found) for level in STYLES}
    return f"{counts['ok']} ok, {counts['note']} to note, {counts['problem']} that are problems"
