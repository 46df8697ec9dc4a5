"""The command line: each option is a short name for a key of the configuration. Imports nothing slow."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count, zip_longest
from typing import Any, NamedTuple, NoReturn

from configs import secrets
from configs.uri import HIDDEN, Uri, looks_like_an_address, shown, shown_text
from pipeline.command.config import load_settings, parse_assignment
from pipeline.errors import UsageError
from pipeline.settings import MOST_SOURCES, Settings

DESCRIPTION = "Detect and track objects in video files and cameras with CenterNet."

EPILOG = """\
sources:
  street.mp4                   a video file
  rtsp://user:password@host/1  a camera; http:// and https:// too
  0 or /dev/video0             a USB camera
  frames/ or 'frames/*.jpg'    images
  lavfi:testsrc2               a test pattern
  rtsp://${USER}:${file:X}@h/1 with ${NAME} of the environment, or the first line of a file

run_pipeline.py doctor         is all there that a run would need? With SOURCE: what does it send, and how regularly
run_pipeline.py ctl --help     words for a run that goes on: list, add, remove, pause, set, save, stop
run_pipeline.py profile --help where the time of a run goes, what would make it faster, and how many cameras it could be

exit codes:
  0 done   2 wrong usage or configuration   3 the source failed   4 a stage or an output failed
  130 stopped before the end of a file
"""


class Option(NamedTuple):
    """A flag and the key that it sets; `{source}` in a key stands for the source's id. `kind` bool takes no value.

    `value` is what a flag without one sets; None where it must have one.
    """

    flag: str
    key: str
    kind: type
    help: str
    value: Any = None


OPTIONS = (
    Option("--score", "infer.score_threshold", float, "report objects from this score on, 0 to 1"),
    Option("--classes", "postprocess.classes", list, "only these classes, for example person,car"),
    Option("--max-rate", "sources.{source}.max_rate", float, "look at so many frames a second at most, of each source"),
    Option("--every", "sources.{source}.every", int, "look at one frame of so many, and predict tracks in between"),
    Option("--max-frames", "sources.{source}.max_frames", int, "stop after so many frames"),
    Option(
        "--out",
        "deliver.video",
        str,
        "write the overlay video to this .mp4, .mkv or .mov; {source} in it stands for each source",
    ),
    Option("--jsonl", "deliver.jsonl", str, "write one JSON object a frame; - is standard output"),
    Option("--mot", "deliver.mot", str, "write confirmed tracks in MOTChallenge format"),
    Option("--also", "deliver.also", list, "more outputs, KIND:PATH or scheme://address; may be given again"),
    Option("--show", "deliver.show", bool, "show the video in a window; q ends", True),
    Option("--no-overlay", "deliver.overlay", bool, "do not draw boxes into video and window", False),
    Option(
        "--realtime", "sources.{source}.realtime", bool, "play a file at its own speed, dropping what is late", True
    ),
    Option("--rtsp-transport", "sources.{source}.rtsp_transport", str, "tcp or udp"),
    Option("--model", "infer.model", str, "the network"),
    Option("--weights", "infer.weights", str, "a checkpoint for it, or its name in python -m models.zoo"),
    Option("--input", "infer.input_size", str, "what the network sees, WIDTHxHEIGHT, for example 640x384"),
    Option("--engine", "infer.engine", str, "auto, eager, compile, cuda_graphs, onnxruntime or openvino"),
    Option("--precision", "infer.precision", str, "auto, fp32, bf16 or fp16"),
    Option("--shadow", "infer.shadow", int, "compute every so many frames in fp32, too, and tell how far the two part"),
    Option("--device", "infer.device", str, "auto, cpu, cuda or cuda:N"),
    Option(
        "--serve", "serve.at", str, "the live page and the metrics, at HOST:PORT (127.0.0.1:8080)", "127.0.0.1:8080"
    ),
    Option("--log", "run.log", str, "text, or json: what is told on standard error, for whoever collects logs"),
    Option("--placement", "run.placement", str, "processes, or threads for small machines and debuggers"),
)


SOURCE_OPTIONS = tuple(option for option in OPTIONS if option.key.startswith("sources."))


class Command(NamedTuple):
    """What the user asked for; `config` is the file that it came from, if there was one; `read` does so again."""

    settings: Settings
    config: str | None
    read: Callable[[], Settings]
    watch: bool
    validate: bool
    verbose: bool


def parse(arguments: list[str]) -> Command:
    """Raises UsageError for anything wrong but an unknown option or --help, which end the program as usual."""
    given = read_line(_parser(), arguments)
    if given.watch and (not given.config or given.sources):
        raise UsageError("--watch goes with --config FILE, for it follows the sources there; give no other SOURCE")
    read = partial(settings_of, named(given.sources, given.name), given, OPTIONS, given.config, given.set)
    settings = read()
    if not settings.sources and not given.watch:
        raise UsageError("give a source: run_pipeline.py SOURCE, or sources: in --config")
    if len(settings.sources) > MOST_SOURCES:
        raise UsageError(f"got {len(settings.sources)} sources, at most {MOST_SOURCES} run at the same time")
    return Command(settings, given.config, read, given.watch, given.validate, given.verbose)


def settings_of(
    sources: dict[str, str],
    given: argparse.Namespace,
    options: Iterable[Option],
    config: str | None = None,
    more: Iterable[str] = (),
) -> Settings:
    """What the file `config` says, then `sources` by their ids, the options given and `more` assignments."""
    assignments: list[tuple[str, Any]] = []
    if sources:
        assignments.append(("sources", {name: {"uri": uri} for name, uri in sources.items()}))
    for option in options:
        value = getattr(given, option.flag.strip("-").replace("-", "_"))
        if value is not None:
            assignments += [(key, value) for key in _keys(option, list(sources))]
    return load_settings(config, assignments + [parse_assignment(text) for text in more])


def named(uris: list[str], names: list[str]) -> dict[str, str]:
    """Sources by their ids: the names given, in order, then what each address is called by itself."""
    if len(names) > len(uris):
        raise UsageError(
            f"got {len(names)} names for {len(uris)} sources on the command line; one --name each, in order"
        )
    sources: dict[str, str] = {}
    for uri, name in zip_longest(uris, names):
        if name in sources:
            raise UsageError(f"--name {shown(name)} is given twice; each source needs its own")
        usual = name or _name_of(uri)
        free = (f"{usual}-{number}" if number > 1 else usual for number in count(1))
        sources[next(name for name in free if name not in sources)] = uri
    return sources


def _name_of(uri: str) -> str:
    with suppress(secrets.SecretError):  # told of when it is read
        return secrets.filled(Uri(uri)).name
    return Uri(uri).name


def hide_secrets_from_process_list() -> None:
    """What `ps` shows of this process: its command line, each word as an error would show it."""
    words = [shown_text(word) for word in sys.argv]
    if words != sys.argv:
        from setproctitle import setproctitle

        setproctitle(" ".join([sys.executable, *words]))


def check_name(name: str | None) -> None:
    """Raises UsageError for what cannot be a source's id."""
    if name is not None:
        load_settings(None, [("sources", {name: {"uri": "-"}})])


def read_line(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Raises UsageError, which shows nothing of a value that may be a secret."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{shown(argument)} is not UTF-8; give the file a name that is") from None
    given, surplus = parser.parse_known_args(arguments)
    unknown = [word.partition("=")[0] for word in surplus if word.startswith("-")]
    if unknown:
        option = unknown[0] if re.fullmatch(r"[\w-]+", unknown[0]) else HIDDEN
        raise UsageError(f"there is no option {option}; --help lists them")
    if surplus:
        raise UsageError(f"what is {shown(surplus[0])}? Give sources before the options (--help lists them)")
    return given


def _keys(option: Option, source_ids: list[str]) -> list[str]:
    if "{source}" not in option.key:
        return [option.key]
    if not source_ids:
        raise UsageError(f"{option.flag} goes with a SOURCE on the command line; in a --config it is {option.key}")
    return [option.key.format(source=source_id) for source_id in source_ids]


class Parser(argparse.ArgumentParser):
    """One whose errors are ours: one line, and nothing of a value that may be a secret."""

    def error(self, message: str) -> NoReturn:
        # Only of a flag that takes no value, and of a word that is none of a list, does argparse quote one.
        text, quotes, _ = message.partition(": ignored explicit argument")
        if quotes:
            raise UsageError(f"{text} takes no value")
        text, quotes, _ = message.partition(": invalid choice: ")
        raise UsageError(f"{text}: allowed is {' or '.join(self._choices())}" if quotes else text)

    def _choices(self) -> list[str]:
        return [choice for action in self._actions for choice in action.choices or ()]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="run_pipeline.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="where frames come from, see below")
    parser.add_argument(
        "--name", action="append", default=[], metavar="X", help="what a source is called, in their order"
    )
    add_options(parser, OPTIONS)
    parser.add_argument("--config", metavar="FILE", help="a YAML file, for example configs/default.yaml")
    parser.add_argument("--watch", action="store_true", help="follow that file: sources come, go and change with it")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set any key of the configuration"
    )
    parser.add_argument("--validate", action="store_true", help="check configuration and source, run nothing")
    parser.add_argument("--verbose", action="store_true", help="tracebacks with errors")
    return parser


def add_options(parser: argparse.ArgumentParser, options: Iterable[Option]) -> None:
    for option in options:
        if option.kind is bool:
            parser.add_argument(option.flag, action="store_const", const=option.value, help=option.help)
        else:
            more: dict[str, Any] = {"action": "extend"} if option.kind is list else {}
            if option.value is not None:
                more = {"nargs": "?", "const": option.value}
            reading, metavar = READ[option.kind], _METAVARS[option.kind]
            parser.add_argument(option.flag, type=reading, metavar=metavar, help=option.help, **more)


def _number(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"got {shown(text)}, allowed is {what}") from None

    return read


def _names(text: str) -> list[str]:
    if looks_like_an_address(text):
        return [text]  # given by mistake; its parts would tell what the whole does not
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"got {shown(text)}, allowed are names with commas between them")
    return names


READ: dict[type, Any] = {float: _number(float), int: _number(int), list: _names, str: str}
_METAVARS = {float: "X", int: "N", list: "A,B", str: "X"}
