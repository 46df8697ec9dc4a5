"""The command `run_pipeline.py ctl`: words for a run that goes on, from its command line to what is printed of the
answer. Knows no run but by `pipeline.control.words`, and imports nothing slow.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from configs.uri import Uri, shown
from pipeline.command import cli
from pipeline.command.config import load_settings, parse_assignment
from pipeline.control import words as control
from pipeline.errors import EXIT_DONE, StageError, UsageError
from pipeline.settings import Settings

# What `set` takes, and the key of the configuration that has the same rule.
TUNABLE = {
    "score": "infer.score_threshold",
    "classes": "postprocess.classes",
    "max_rate": "sources.{source}.max_rate",
    "every": "sources.{source}.every",
}
WORDS = {
    "list": "each source: its state, how fast it is, and what became of its frames",
    "look": "all that the run knows of itself, as JSON",
    "add": "one more source",
    "remove": "take no more frames of a source, and forget it",
    "pause": "take no frames of a source for now; a camera is left",
    "resume": "go on with a source that is paused",
    "set": "change what is looked for in a source, and how often",
    "save": "write the zones and lines of a source, as they are now, into the run's --config",
    "stop": "stop the run, as by Ctrl-C",
}
GONE_SECONDS = 15.0
LOOK_SECONDS = 0.1
TITLES = ("source", "state", "since", "frames/s", "captured", "delivered", "dropped", "outages", "address")
LEFT_ALIGNED = ("source", "state", "since", "address")


def main(arguments: list[str]) -> int:
    """Raises UsageError for what is wrong or refused, StageError where no answer comes in time."""
    given = cli.read_line(_parser(), arguments)
    request = _REQUESTS[given.word](given)
    run = control.find_run(getattr(given, "run", None))
    answer = control.tell(run, request)
    if isinstance(answer, control.Sources):
        print(table(answer.rows))
        return EXIT_DONE
    if isinstance(answer, control.View):
        print(msgspec.json.encode(answer).decode())
        return EXIT_DONE
    if isinstance(request, control.Remove):
        _wait_until_gone(run, request.source_id)
    print(answer.text)
    return EXIT_DONE


def _parser() -> argparse.ArgumentParser:
    which = cli.Parser(add_help=False)
    which.add_argument(
        "--run", type=cli.READ[int], metavar="PID", default=argparse.SUPPRESS, help="which run, where there are several"
    )
    parser = cli.Parser(
        prog="run_pipeline.py ctl", description="Words for a run that goes on.", parents=[which], allow_abbrev=False
    )
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    for word, what in WORDS.items():
        each = words.add_parser(word, help=what, parents=[which], allow_abbrev=False)
        if word == "add":
            each.add_argument("source", metavar="SOURCE", help="as on the command line of a run")
            each.add_argument("--name", metavar="X", help="what it is called")
            cli.add_options(each, cli.SOURCE_OPTIONS)
        elif word not in ("list", "look", "stop"):
            each.add_argument("name", metavar="NAME")
        if word == "set":
            each.add_argument("changes", nargs="+", metavar="KEY=VALUE", help=f"of {', '.join(TUNABLE)}")
    return parser


# -- from a line to a request


def _add(given: argparse.Namespace) -> control.Add:
    cli.check_name(given.name)
    name = given.name or "source"
    settings = cli.settings_of({name: _from_anywhere(given.source)}, given, cli.SOURCE_OPTIONS)
    return control.Add(settings.sources[name], given.name)


def _from_anywhere(text: str) -> str:
    """A path from this folder on, as one that the run can find from its own."""
    is_other = Uri(text).network or text.isdecimal() or text.startswith(("lavfi:", "${")) or not text.strip()
    return text if is_other else str(Path(text).absolute())


def _tune(given: argparse.Namespace) -> control.Tune:
    name = _name(given)
    changes: dict[str, Any] = {}
    for text in given.changes:
        key, _, value = text.partition("=")
        if key not in TUNABLE:
            raise UsageError(f"set: got {shown(text)}, allowed is KEY=VALUE with a key of {', '.join(TUNABLE)}")
        changes[key] = cli.READ[list](value) if key == "classes" and value else parse_assignment(text)[1]
    checked = _checked(name, changes)
    source = checked.sources[name]
    return control.Tune(
        name,
        score=checked.infer.score_threshold if "score" in changes else None,
        classes=checked.postprocess.classes if "classes" in changes else None,
        max_rate=(source.max_rate or 0.0) if "max_rate" in changes else None,
        every=source.every if "every" in changes else None,
    )


def _checked(name: str, changes: dict[str, Any]) -> Settings:
    changes = changes | ({"classes": []} if changes.get("classes", []) is None else {})
    assignments = [(TUNABLE[key].format(source=name), value) for key, value in changes.items()]
    return load_settings(None, [("sources", {name: {"uri": "-"}}), *assignments])


def _name(given: argparse.Namespace) -> str:
    cli.check_name(given.name)
    return str(given.name)


_REQUESTS: dict[str, Callable[[argparse.Namespace], control.Request]] = {
    "list": lambda given: control.List(),
    "look": lambda given: control.Look(),
    "add": _add,
    "remove": lambda given: control.Remove(_name(given)),
    "pause": lambda given: control.Hold(_name(given), True),
    "resume": lambda given: control.Hold(_name(given), False),
    "set": _tune,
    "save": lambda given: control.Save(_name(given)),
    "stop": lambda given: control.End(),
}


# -- from an answer to what is printed


def _wait_until_gone(run: Path, source_id: str) -> None:
    """Its frames that are on their way are delivered first; then its name and place are free."""
    deadline = time.monotonic() + GONE_SECONDS
    while time.monotonic() < deadline:
        answer = control.tell(run, control.List())
        assert isinstance(answer, control.Sources)
        if not any(row.source_id == source_id for row in answer.rows):
            return
        time.sleep(LOOK_SECONDS)
    raise StageError(f"{source_id} was told to end, and has not within {GONE_SECONDS:g} s; ctl list shows when it has")


def table(rows: list[control.Row]) -> str:
    lines = [TITLES, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(TITLES))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = (
        cell.ljust(width) if title in LEFT_ALIGNED else cell.rjust(width)
        for cell, width, title in zip(cells, widths, TITLES, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _cells(row: control.Row) -> tuple[str, ...]:
    state = f"{row.state}: {row.cause}" if row.cause else row.state
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.since_unix))
    counts = (row.captured, row.delivered, row.dropped, row.outages)
    return (row.source_id, state, since, f"{row.frames_per_second:.1f}", *map(str, counts), row.address)
