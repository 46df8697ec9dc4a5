"""The command `run_pipeline.py profile`: from its command line to the report. Knows the order in which things are told,
and leaves measuring to `pipeline.profile`.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console as Terminal
from rich.table import Table
from rich.text import Text

from configs.uri import shown, shown_text
from pipeline.command import cli, preflight
from pipeline.command.console import Console
from pipeline.command.files import check_inputs, check_outputs
from pipeline.errors import EXIT_DONE, EXIT_INTERRUPTED, OutputError, UsageError
from pipeline.profile.alone import Apart
from pipeline.profile.chrome import trace_events
from pipeline.profile.record import CameraRun, Cameras, Figure, Profile
from pipeline.profile.report import page
from pipeline.profile.session import Session
from pipeline.settings import Settings

LONGEST_SECONDS = 3600.0
BEST = "best.yaml"
# Of a run's own options those that would mean something else here.
LEFT_OUT = ("--out", "--show")
OPTIONS = tuple(option for option in cli.OPTIONS if option.flag not in LEFT_OUT)


class Wish(NamedTuple):
    """`given` are the settings as they were given, `settings` with what the model itself says. `apply` is the file for
    the best configuration, None where none is wanted; `config` the file of the settings."""

    given: Settings
    settings: Settings
    config: str | None
    seconds: float
    max_age_ms: float
    folder: Path
    apply: Path | None
    cores: tuple[int, ...]
    verbose: bool


def main(arguments: list[str]) -> int:
    """Raises CenterStreamError; what was measured before is written all the same."""
    wish = parse(arguments)
    wish = wish._replace(settings=preflight.check(wish.settings, wish.config))
    _make_folder(wish)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # under nohup it outlives its terminal
            signal.signal(number, signal.default_int_handler)
    own = Path(tempfile.mkdtemp(prefix=".profile-", dir=wish.folder))
    try:
        with Apart() as apart:
            show = partial(Console, wish.verbose)
            session = Session(wish.settings, wish.seconds, wish.max_age_ms, own, apart, _say, show)
            try:
                _do_all(session, wish)
            except KeyboardInterrupt:
                return _stopped(session, wish)
            finally:
                _write(session, wish.folder)
        assert session.profile
        _tell(session.profile, wish)
        return EXIT_DONE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        shutil.rmtree(own, ignore_errors=True)


def parse(arguments: list[str]) -> Wish:
    """Raises UsageError for anything wrong but --help."""
    given = cli.read_line(_parser(), arguments)
    sources = cli.named(given.sources, given.name)
    settings = cli.settings_of(sources, given, OPTIONS, given.config, given.set)
    if len(settings.sources) != 1:
        raise UsageError(f"profile takes one source, got {len(settings.sources)}: run_pipeline.py profile SOURCE")
    seconds = _within("--seconds", given.seconds, LONGEST_SECONDS)
    max_age_ms = _within("--max-age-ms", given.max_age_ms, 1e3 * LONGEST_SECONDS)
    cores = given.cores or []
    for count in cores:
        _within("--cores", count, 1024)
    folder = Path(given.out)
    apply = None if given.apply is None else Path(given.apply) if given.apply else folder / BEST
    if apply and apply.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--apply: got {shown(str(apply))}, allowed is a file that ends in .yaml")
    return Wish(settings, settings, given.config, seconds, max_age_ms, folder, apply, tuple(cores), given.verbose)


def _within(flag: str, value: float, most: float) -> float:
    if not 0 < value <= most:
        raise UsageError(f"{flag}: got {value:g}, allowed is more than 0, up to {most:g}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="run_pipeline.py profile",
        description="Where the time of a run goes, what would make it faster, and how many such cameras it could be.",
        epilog="Outputs that are asked for are written, and thrown away; --set deliver.video=x.mp4 is a run's --out.",
        allow_abbrev=False,
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="as on the command line of a run; one")
    parser.add_argument("--seconds", type=cli.READ[float], default=30.0, metavar="X", help="how long a run is measured")
    parser.add_argument(
        "--max-age-ms", type=cli.READ[float], default=500.0, metavar="X", help="age goal for counting cameras"
    )
    parser.add_argument("--out", default="profile", metavar="FOLDER", help="where the report goes")
    parser.add_argument(
        "--apply", nargs="?", const="", metavar="FILE", help="write the best configuration there, and prove it"
    )
    parser.add_argument(
        "--cores", type=cli.READ[int], action="append", metavar="N", help="estimate for a machine of so many, too"
    )
    parser.add_argument("--name", action="append", default=[], metavar="X", help="what the source is called")
    cli.add_options(parser, OPTIONS)
    parser.add_argument("--config", metavar="FILE", help="a YAML file with one source, or with none")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key")
    parser.add_argument("--verbose", action="store_true", help="tracebacks with errors")
    return parser


def _make_folder(wish: Wish) -> None:
    """Raises OutputError where it cannot be, or what will be in it cannot be written."""
    try:
        wish.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out: cannot make {shown_text(str(wish.folder))}: {error.strerror}") from None
    if not os.access(wish.folder, os.W_OK):
        raise OutputError(f"--out: cannot write into {shown_text(str(wish.folder))}: no permission")
    files = {name: str(wish.folder / name) for name in ("report.html", "report.json", "trace.json")}
    written = check_outputs(files | ({"--apply": str(wish.apply)} if wish.apply else {}))
    read = [Path(source.uri.reveal()) for source in wish.settings.sources.values() if not source.uri.network]
    check_inputs({"the source": read, "the configuration": [Path(wish.config)] if wish.config else []}, written)


def _do_all(session: Session, wish: Wish) -> None:
    steps: list[Callable[[], object]] = [
        session.measure_parts,
        session.measure_run,
        session.weigh_levers,
        lambda: _apply(session, wish),
        lambda: session.predict_cameras(wish.cores),
        session.prove_cameras,
    ]
    for step in steps:
        step()
        _write(session, wish.folder)
    assert session.profile
    session.profile.is_complete = True


def _apply(session: Session, wish: Wish) -> None:
    if wish.apply and not session.apply(wish.apply, wish.given):
        _say("nothing is worth changing; no file is written")


def _stopped(session: Session, wish: Wish) -> int:
    kept = f"; what was measured is in {shown_text(str(wish.folder))}" if session.profile else ""
    _say(f"stopped on request{kept}")
    return EXIT_INTERRUPTED


# -- what is written


def _write(session: Session, folder: Path) -> None:
    """Whole files, whenever it is stopped."""
    if session.profile is None:
        return
    _write_whole(folder / "report.json", msgspec.json.format(msgspec.json.encode(session.profile), indent=1) + b"\n")
    _write_whole(folder / "report.html", page(session.profile, session.lines).encode())
    _write_whole(folder / "trace.json", msgspec.json.encode(trace_events(session.lines)))


def _write_whole(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {shown_text(str(path))}: {error.strerror}") from None


# -- what is told


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _tell(profile: Profile, wish: Wish) -> None:
    terminal = Terminal(stderr=True, highlight=False, markup=False, emoji=False)
    if not terminal.is_terminal:
        terminal.width = 120
    terminal.print(_stage_table(profile))
    lines = [f"bottleneck: {profile.bottleneck}: {profile.bottleneck_why}", _throughput_line(profile)]
    for line in lines:
        terminal.print(Text(line), soft_wrap=True)
    terminal.print(_lever_table(profile))
    told = (
        [f"{profile.applied.change}, in {profile.applied.file}: {side_by_side(profile.applied.throughput)}"]
        if (profile.applied)
        else []
    )
    told += camera_lines(profile.cameras) if profile.cameras else []
    told += [f"note: {note}" for note in profile.notes]
    for line in [*told, f"report: {shown_text(str(wish.folder / 'report.html'))}"]:
        terminal.print(Text(line), soft_wrap=True)


def side_by_side(figure: Figure) -> str:
    """`predicted 41.2 (39.0 to 43.4) frames/s, measured 40.1: off by +3 %`."""
    text = f"predicted {figure.predicted:.1f} ({figure.low:.1f} to {figure.high:.1f}) frames/s"
    if figure.measured is None or figure.error is None:
        return text
    return f"{text}, measured {figure.measured:.1f}: off by {100 * figure.error:+.0f} %"


def _throughput_line(profile: Profile) -> str:
    text = f"throughput: {side_by_side(profile.throughput)}"
    run = profile.run
    if run and run.cores and run.for_its_cores:
        text += f"; the run kept {run.cores:.2f} cores busy, for which {run.for_its_cores:.1f} is predicted"
    return text


def camera_lines(cameras: Cameras) -> list[str]:
    """The promise, its proof, and what other machines are promised."""
    what = f"cameras like this one ({cameras.rate:g} frames/s, 95 % of ages below {cameras.max_age_ms:g} ms)"
    lines = [f"{what}: predicted {cameras.likely} ({cameras.low} to {cameras.high})" + _proof(cameras)]
    lines += [f"  {_camera_run(run)}" for run in cameras.runs]
    return lines + [
        f"  with {cores} such cores, an estimate: {likely} ({low} to {high})"
        for cores, (low, likely, high) in cameras.elsewhere.items()
    ]


def _proof(cameras: Cameras) -> str:
    if cameras.not_tried:
        return f", not tried: {cameras.not_tried}"
    return "" if cameras.proven is None else f", proven {cameras.proven}"


def _camera_run(run: CameraRun) -> str:
    how = "kept up" if run.keeps_up else "did not keep up"
    return f"{run.cameras} {how}: age p95 {run.age_p95_ms:.0f} ms, {100 * run.dropped_share:.1f} % dropped"


def _stage_table(profile: Profile) -> Table:
    table = Table("stage", box=None, header_style="bold", pad_edge=False)
    for title in ("alone frames/s", "CPU ms", "in the run: waiting p50", "p95", "working p50", "p95", "CPU ms"):
        table.add_column(title, justify="right")
    for stage, each in profile.stages.items():
        cells = [f"{each.capacity:.1f}", f"{each.alone.cpu_ms:.2f}"]
        if each.run:
            waiting, working = each.run.waiting, each.run.working
            cells += [f"{value:.2f}" for value in (waiting.p50_ms, waiting.p95_ms, working.p50_ms, working.p95_ms)]
            cells.append("–" if each.run_cpu_ms is None else f"{each.run_cpu_ms:.2f}")
        table.add_row(stage, *cells)
    return table


def _lever_table(profile: Profile) -> Table:
    table = Table("what would move it", "change", box=None, header_style="bold", pad_edge=False)
    for title in ("frames/s", "gain", "by", "results"):
        table.add_column(title, justify="right")
    for row in profile.levers:
        same = "the same" if row.keeps_results else "other"
        table.add_row(row.lever, row.change, f"{row.throughput:.1f}", f"{100 * row.gain:+.0f} %", row.how, same)
    return table
