"""Trackers side by side, ours and those that one can install, on identical detections.

    python -m benchmarks.mot [DATA] [--peers-venv DIR] [--only NAME ...] [--groups GROUP ...] [--jobs N]
                             [--set KEY=VALUE ...] [--variant NAME KEY=VALUE ...] [--sequences] [--check] [--no-speed]

DATA is a folder of `GROUP/SEQUENCE/{det.txt,gt.txt,info.json}` (`sequences.py`; docs/tracking.md says more), by default
`mot` in $CENTERSTREAM_DATA. Beside it a synthetic family is made. `--only ours` is for development; `--set` changes its
settings, `--variant` runs it once more with others (`crossval.py` chooses among them). Peers and TrackEval have
an environment of their own:

    uv venv benchmarks/mot/.venv
    uv pip install --python benchmarks/mot/.venv/bin/python -r benchmarks/mot/requirements.txt

What it lacks is named. Without TrackEval HOTA and its parts are by `hota.py`, the rest by motmetrics; `--check`
compares both with TrackEval's. The last line is one JSON object; `--json FILE` writes it, too.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, ROOT, finish, machine
from benchmarks.mot import sequences, synthetic
from benchmarks.mot.ours import thresholds
from benchmarks.mot.peers import PEERS
from benchmarks.mot.trackers import OURS, Thresholds

FEW = 20  # frames, of which a 99th percentile tells nothing
CHECKED = ("HOTA", "MOTA", "IDF1", "switches")
# Threads that spin would take the other job's core.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

Figures = dict[str, Any]  # of a tracker, by group


def main() -> None:
    given = parse()
    here = machine("numba")
    print(f"{here}, load {os.getloadavg()[0]:.1f}")
    runs = {OURS: given.set} | {f"{OURS}:{name}": words for name, *words in given.variant}
    runs |= {name: [] for name in PEERS}
    runs = {name: words for name, words in runs.items() if not given.only or name.startswith(tuple(given.only))}
    python = environment(given.peers_venv)
    told: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = prepare(given.data, given.groups, Path(place))
        alike = Thresholds(*given.thresholds) if given.thresholds else thresholds()
        work = Work(python, folder, Path(place), alike, given.check)
        with ThreadPoolExecutor(given.jobs) as pool:
            for name, figures in zip(runs, pool.map(work.measured, runs, runs.values()), strict=True):
                told[name] = figures
                print(one_line(name, figures), file=sys.stderr, flush=True)
        if given.speed:
            for name in runs:
                told[name] |= work.run(name, "time", "--thresholds", *map(str, alike), *set_words(runs[name]))
    print(table(told))
    margins = {group: margin for group in groups_of(told) if (margin := margin_of(group, told))}
    if margins:
        print(margin_table(margins))
    if given.sequences:
        print(table({name: each_sequence(figures) for name, figures in told.items()}))
    if given.speed:
        print(speed_table(told))
    for figures in told.values():
        for group in figures.get("groups", {}).values():
            del group["drawn"]
    result = {"benchmark": "mot", "machine": here, "thresholds": alike._asdict(), "trackers": told, "margins": margins}
    if given.json:
        given.json.write_text(json.dumps(result))
    finish(result)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mot", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", nargs="?", type=Path, default=DATA / "mot")
    parser.add_argument("--peers-venv", type=Path, default=ROOT / "benchmarks/mot/.venv", metavar="DIR")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="trackers whose names begin so")
    parser.add_argument("--groups", nargs="+", metavar="GROUP", help="groups whose names begin so")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trackers at once; they are timed alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of ours: track.high_score=0.4")
    parser.add_argument("--variant", nargs="+", action="append", default=[], metavar="WORD", help="NAME KEY=VALUE ...")
    parser.add_argument("--thresholds", nargs=3, type=float, metavar=("LOW", "HIGH", "NEW"), help="of the peers")
    parser.add_argument("--sequences", action="store_true", help="every sequence, too")
    parser.add_argument("--check", action="store_true", help="compare TrackEval's figures with those of motmetrics")
    parser.add_argument("--speed", action=argparse.BooleanOptionalAction, default=True, help="time an update")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def environment(venv: Path) -> Path | None:
    python = venv / "bin/python"
    if python.exists():
        return python
    print(
        f"without peers and TrackEval: no environment {venv}; the top of benchmarks/mot/__main__.py says how to make it"
    )
    return None


def prepare(data: Path, groups: list[str] | None, place: Path) -> Path:
    """A folder with the sequences that every tracker is given."""
    folder = place / "sequences"

    def wanted(group: str) -> bool:
        return not groups or group.startswith(tuple(groups))

    try:
        for sequence in sequences.prepared(data.resolve()):
            if wanted(sequence.group):
                sequences.write(sequence, folder)
    except ValueError as error:
        sys.exit(str(error))
    if wanted(synthetic.GROUP):
        for sequence in synthetic.sequences():
            sequences.write(sequence, folder)
    if not folder.exists():
        sys.exit(f"no group whose name begins with {' or '.join(groups or [])}")
    return folder


def set_words(assignments: list[str]) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


class Work:
    """Starts each tracker, and what scores it, in the Python that has its packages."""

    def __init__(self, peers: Path | None, folder: Path, place: Path, alike: Thresholds, check: bool) -> None:
        self._peers, self._folder, self._place, self._alike, self._check = peers, folder, place, alike, check
        self._trackeval = peers is not None and has_module(peers, "trackeval")

    def measured(self, name: str, assignments: list[str]) -> dict[str, Any]:
        """Its package and its figures by group, or why there are none."""
        tracks = self._place / name
        words = ["--thresholds", *map(str, self._alike), *set_words(assignments)]
        told = self.run(name, "follow", str(self._folder), str(tracks), *words)
        if "missing" in told:
            return told
        figures = self._scored(tracks, "trackeval" if self._trackeval else "motmetrics")
        if self._check and self._trackeval:
            told["check"] = differences(figures, self._scored(tracks, "motmetrics"))
        return told | {"groups": figures}

    def run(self, name: str, *words: str) -> dict[str, Any]:
        """A peer that fails is named with its error, and the rest goes on."""
        command = ["-m", "benchmarks.mot.follow", name, *words]
        if name.startswith(OURS):
            return last_line([sys.executable, *command])
        if self._peers is None:
            return {"missing": "no environment for peers"}
        try:
            return last_line([str(self._peers), *command])
        except Failed as error:
            return {"missing": str(error).splitlines()[-1]}

    def _scored(self, tracks: Path, by: str) -> Figures:
        python = self._peers if by == "trackeval" else sys.executable
        return last_line([str(python), "-m", "benchmarks.mot.score", str(self._folder), str(tracks), "--by", by])


def has_module(python: Path, module: str) -> bool:
    code = f"import importlib.util as i, sys; sys.exit(i.find_spec({module!r}) is None)"
    return not subprocess.run([str(python), "-c", code]).returncode


class Failed(Exception):
    """A process ended with an error, which is the last line."""


def last_line(command: list[str]) -> dict[str, Any]:
    """Raises Failed."""
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command[1:5])} … ended with {done.returncode}:\n{done.stderr[-2000:].strip()}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def differences(figures: Figures, others: Figures) -> dict[str, float]:
    """The largest of any sequence."""
    pairs = [
        (one, others[group]["sequences"][name])
        for group, some in figures.items()
        for name, one in some["sequences"].items()
    ]
    return {key: round(max(abs(one[key] - other[key]) for one, other in pairs), 3) for key in CHECKED}


def each_sequence(figures: dict[str, Any]) -> dict[str, Any]:
    """The same shape, every sequence a group of its own."""
    groups = figures.get("groups", {})
    each = {f"{group}/{name}": one for group, some in groups.items() for name, one in some["sequences"].items()}
    return figures | ({"groups": each} if groups else {})


def mean(figures: Figures, key: str) -> float:
    """Over the groups, each as much as any other."""
    return sum(some[key] for some in figures.values()) / len(figures)


def one_line(name: str, told: dict[str, Any]) -> str:
    if "missing" in told:
        return f"{name}: missing, {told['missing']}"
    figures = told["groups"]
    keys = [key for key in ("HOTA", "DetA", "AssA", "MOTA", "IDF1") if key in next(iter(figures.values()))]
    switches = sum(some["switches"] for some in figures.values())
    means = ", ".join(f"{key} {mean(figures, key):.1f}" for key in keys)
    largest = f"; by motmetrics at most {told['check']} away" if "check" in told else ""
    return f"{name}: {means}, switches {switches}{largest}"


def groups_of(told: dict[str, dict[str, Any]]) -> list[str]:
    return next((list(one["groups"]) for one in told.values() if "groups" in one), [])


def margin_of(group: str, told: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """How much more HOTA ours has there than the best other, and between what and what 95 of 100 draws of the group's
    sequences have it. None where one of the two is missing, and where there are too few sequences to draw."""
    figures = {name: one["groups"][group] for name, one in told.items() if "groups" in one}
    others = {name: one["HOTA"] for name, one in figures.items() if name.partition(":")[0] != OURS}
    if OURS not in figures or not others or not figures[OURS]["drawn"]:
        return None
    best = max(others, key=lambda name: others[name])
    differences = np.subtract(figures[OURS]["drawn"], figures[best]["drawn"])
    low, high = np.percentile(differences, [2.5, 97.5]).round(2).tolist()
    return {"best_other": best, "HOTA": round(figures[OURS]["HOTA"] - others[best], 2), "low": low, "high": high}


def margin_table(margins: dict[str, dict[str, Any]]) -> str:
    rows = [["HOTA of ours above", "the best other", "", "in 95 of 100 draws of the sequences"]]
    for group, margin in margins.items():
        ends = f"{margin['low']:+.1f} to {margin['high']:+.1f}"
        rows.append([group, margin["best_other"], f"{margin['HOTA']:+.1f}", ends])
    return columns(rows) + "\n"


def table(told: dict[str, dict[str, Any]]) -> str:
    """A row for each tracker, the best mean first, HOTA / IDF1 of each group in a column, a star at the best HOTA; then
    the means of all measures, and who is missing."""
    some = {name: one["groups"] for name, one in told.items() if "groups" in one}
    missing = [one_line(name, one) for name, one in told.items() if "groups" not in one]
    if not some:
        return "\n".join(missing)
    groups = groups_of(told)
    first = "HOTA" if all("HOTA" in figures[group] for figures in some.values() for group in groups) else "MOTA"
    best = {group: max(figures[group][first] for figures in some.values()) for group in groups}
    ordered = sorted(some, key=lambda name: -mean(some[name], first))
    rows = [["", "", *(group.partition("-")[0] for group in groups)]]
    rows += [[f"{first} / IDF1", "mean", *(group.partition("-")[2] for group in groups)]]
    for name in ordered:
        figures = some[name]
        cells = [
            f"{'*' * (figures[group][first] == best[group])}{figures[group][first]:.1f} / {figures[group]['IDF1']:.1f}"
            for group in groups
        ]
        rows.append([name, f"{mean(figures, first):.1f} / {mean(figures, 'IDF1'):.1f}", *cells])
    return "\n".join([columns(rows), "", *(one_line(name, told[name]) for name in ordered), *missing])


def speed_table(told: dict[str, dict[str, Any]]) -> str:
    """p50 and p99 of an update in milliseconds, by number of objects."""
    some = {name: one["times"] for name, one in told.items() if "times" in one}
    sizes = sorted({size for times in some.values() for size in times}, key=int)
    rows = [["p50, p99 in ms", *(f"{int(size):,} objects" for size in sizes)]]
    for name, times in some.items():
        cells = [times.get(size, {"none": "too slow"}) for size in sizes]
        rows.append([name, *map(time_shown, cells)])
    return columns(rows)


def time_shown(cell: dict[str, Any]) -> str:
    if "none" in cell:
        return str(cell["none"])
    few = cell["count"] < FEW
    return f"{cell['p50']:.3g} ({cell['count']} frames)" if few else f"{cell['p50']:.3g}, {cell['p99']:.3g}"


def columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(str(error))
