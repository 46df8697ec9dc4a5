"""The soak: eight cameras, random faults, an hour, and what grows.

    python -m tests.whole.soak --minutes 60 --out docs/soak        # docs/soak.svg, docs/soak.json

Before the hour each camera does everything once that it will do at random moments later: what a decoder takes for its
first H.265 or its first larger picture it keeps, and an hour in which that comes late would look like a leak of 2 MB.
Then a fault every half minute: a camera hangs up, freezes, changes size, codec or time stamps, asks for a password; a
worker is killed or stopped. Every ten seconds: resident memory of its own (RssAnon), descriptors and threads of every
process, leased slots, files of the run. Videos go on in a next file six times in all, so that an hour tells what days
do at the default of an hour. At the end: growth an hour after the warm-up (Theil-Sen, for processes that lived long
enough to tell), age of frames in the first and in the last part, and the witness. The last line is JSON; exit code 1
when a bound is broken.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tests.kit.harness import wait_until
from tests.whole.faults.rig import Options, Run, run_of
from tests.whole.witness.account import Allowed

EVERY_SECONDS = 10.0
FAULT_SECONDS = 30.0
GROWTH_MB_AN_HOUR = 2.0
AGE_RATIO = 1.10
CAMERA_FAULTS = (
    "hangup now",
    "frozen on; frozen off",
    "size 640x480; size 320x240",
    "codec h265; codec h264",
    "stamps 86400",
    "stamps -86400",
    "gop 50; gop 10",
    "password s3cret; password off",
)
WARM_SECONDS = 12.0
# These come back as others, so that their memory begins anew; all else lives as long as the run.
VICTIMS = ("decode:cam6", "decode:cam7", "infer:0", "track")


@dataclass
class Life:
    """One process, from its first sample to its last."""

    worker: str
    seconds: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def growth(self, warm_seconds: float) -> dict[str, float] | None:
        """An hour, of each; None for one that lived too short after the warm-up."""
        warm = [i for i, at in enumerate(self.seconds) if at - self.seconds[0] >= warm_seconds]
        if len(warm) < 2 or self.seconds[warm[-1]] - self.seconds[warm[0]] < warm_seconds:
            return None
        at = [self.seconds[i] for i in warm]
        columns = {"memory_mb": self.memory_mb, "descriptors": self.descriptors, "threads": self.threads}
        return {name: 3600 * slope(at, [column[i] for i in warm]) for name, column in columns.items()}


def slope(x: list[float], y: list[float]) -> float:
    """The median of all slopes between two points (Theil-Sen): a few odd samples change nothing."""
    step = max(1, len(x) // 200)
    pairs = combinations(list(zip(x, y, strict=True))[::step], 2)
    return statistics.median((y1 - y0) / (x1 - x0) for (x0, y0), (x1, y1) in pairs)


def status_of(pid: int) -> dict[str, int] | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        facts = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)
                 if name in ("RssAnon", "Threads")}  # fmt: skip
        facts["descriptors"] = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except (OSError, ValueError):
        return None
    return facts if "RssAnon" in facts else None


class Soak:
    """Samples and faults of one run."""

    def __init__(self, run: Run, seed: int) -> None:
        self._run = run
        self._draw = random.Random(seed)
        self.began = time.monotonic()
        self.lives: dict[int, Life] = {}
        self.files: list[tuple[float, int]] = []
        self.faults: list[tuple[float, str]] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def sample(self) -> None:
        pids = {"supervisor": self._run.process.pid} | self._run.workers()
        for worker, pid in pids.items():
            if facts := status_of(pid):
                life = self.lives.setdefault(pid, Life(worker))
                life.seconds.append(self.seconds)
                life.memory_mb.append(facts["RssAnon"] / 1024)
                life.descriptors.append(facts["descriptors"])
                life.threads.append(facts["Threads"])
        folders = Path(tempfile.gettempdir()).glob("centerstream-*")
        self.files.append((self.seconds, sum(len(list(folder.iterdir())) for folder in folders)))

    def warm_up(self) -> None:
        """Everything that a camera may do, by all of them."""
        cameras = [f"cam{number}" for number in range(len(self._run.sources))]
        for words in CAMERA_FAULTS:
            self._tell([f"{camera} {words}" for camera in cameras])
            time.sleep(WARM_SECONDS)
        self.began = time.monotonic()

    def fault(self) -> None:
        camera = f"cam{self._draw.randrange(len(self._run.sources))}"
        blows = [(worker, number) for worker in VICTIMS for number in (signal.SIGKILL, signal.SIGSTOP)]
        if self._draw.random() < 0.3:
            worker, number = self._draw.choice(blows)
            self.faults.append((self.seconds, f"{worker} {number.name}"))
            if worker in (pids := self._run.workers()):
                os.kill(pids[worker], number)
            return
        text = f"{camera} {self._draw.choice(CAMERA_FAULTS)}"
        self.faults.append((self.seconds, text))
        self._tell([text])

    def _tell(self, texts: list[str]) -> None:
        """What a camera and a fault are; one that is over after a while is told so then."""
        for number in range(max(len(text.split("; ")) for text in texts)):
            if number:
                time.sleep(4.0)
            for text in texts:
                camera, words = text.split(" ", 1)
                self._run.site.tell(f"{camera} {words.split('; ')[number]}")

    def go_on(self, seconds: float) -> None:
        next_fault = FAULT_SECONDS
        while self.seconds < seconds:
            self.sample()
            if self.seconds >= next_fault and self.seconds < seconds - FAULT_SECONDS:
                next_fault += FAULT_SECONDS
                self.fault()
            print(f"\r{self.seconds / 60:5.1f} min, {len(self.faults)} faults", end="", file=sys.stderr)
            time.sleep(EVERY_SECONDS)
        print(file=sys.stderr)


def ages_ms(run: Run, since: float, until: float) -> list[float]:
    """Of the frames with a result that were captured between two moments (seconds since 1970)."""
    lines = (line for line in run.lines() if line.get("status") == "ok")
    return [line["latency_ms"] for line in lines if since <= line["captured_unix"] < until]


def figures(soak: Soak, run: Run, minutes: float, began_unix: float) -> dict[str, Any]:
    part = min(600.0, 60 * minutes / 6)
    growths = [(life.worker, growth) for life in soak.lives.values() if (growth := life.growth(part))]
    first = ages_ms(run, began_unix, began_unix + part)
    last = ages_ms(run, began_unix + 60 * minutes - part, began_unix + 60 * minutes)
    first_p99, last_p99 = (float(np.percentile(ages, 99)) if ages else float("nan") for ages in (first, last))
    return {
        "minutes": minutes,
        "cameras": len(run.sources),
        "faults": len(soak.faults),
        "growth_an_hour": {worker: {k: round(v, 3) for k, v in growth.items()} for worker, growth in growths},
        "age_p99_ms_first": round(first_p99, 1),
        "age_p99_ms_last": round(last_p99, 1),
        "segments": len(run.videos()),
        "files_first_and_last": [soak.files[0][1], soak.files[-1][1]],
    }


def broken(told: dict[str, Any]) -> Iterator[str]:
    """The bounds that do not hold."""
    for worker, growth in told["growth_an_hour"].items():
        if growth["memory_mb"] > GROWTH_MB_AN_HOUR:
            yield f"{worker} grows by {growth['memory_mb']:.1f} MB an hour"
        for name in ("descriptors", "threads"):
            if growth[name] > 0.5:
                yield f"{worker} grows by {growth[name]:.1f} {name} an hour"
    if not told["age_p99_ms_last"] <= AGE_RATIO * told["age_p99_ms_first"]:
        yield f"age p99 went from {told['age_p99_ms_first']} to {told['age_p99_ms_last']} ms"
    before, after = told["files_first_and_last"]
    if after > before + 2:
        yield f"files of the run went from {before} to {after}"


def svg(soak: Soak, run: Run, minutes: float, began_unix: float) -> str:
    """Memory of each process, and the age of frames, over time."""
    width, height = 900, 300
    by_worker: dict[str, list[Life]] = defaultdict(list)
    for life in soak.lives.values():
        by_worker[life.worker].append(life)
    most_mb = max(max(life.memory_mb) for life in soak.lives.values())
    colours = [f"hsl({360 * i // len(by_worker)} 70% 42%)" for i in range(len(by_worker))]
    parts = [_axes(0, "own memory in MB", most_mb, minutes, width, height)]
    for number, (colour, (worker, lives)) in enumerate(zip(colours, by_worker.items(), strict=True)):
        for life in lives:
            points = zip(life.seconds, life.memory_mb, strict=True)
            parts.append(_line([(s / 60 / minutes, mb / most_mb) for s, mb in points], colour, 0, width, height))
        parts.append(f'<text x="{width + 70}" y="{20 + 14 * number}" fill="{colour}">{worker}</text>')
    bins = [ages_ms(run, began_unix + 30 * i, began_unix + 30 * (i + 1)) for i in range(int(2 * minutes))]
    curves = {50: "#888", 99: "#c33"}
    levels = {q: [float(np.percentile(ages, q)) if ages else 0.0 for ages in bins] for q in curves}
    most_ms = max(levels[99], default=1.0) or 1.0
    top = height + 60
    parts.append(_axes(top, "age in ms: p50 grey, p99 red; faults are ticks", most_ms, minutes, width, height))
    for q, colour in curves.items():
        points = [((i + 0.5) / len(bins), ms / most_ms) for i, ms in enumerate(levels[q])]
        parts.append(_line(points, colour, top, width, height))
    for seconds, _ in soak.faults:
        x = 60 + width * seconds / 60 / minutes
        parts.append(f'<path d="M{x:.0f} {top + height} v8" stroke="#36c"/>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 220} {2 * height + 120}"'
    return f'{head} font-family="sans-serif" font-size="11">{"".join(parts)}</svg>\n'


def _axes(top: float, title: str, most: float, minutes: float, width: int, height: int) -> str:
    return (
        f'<rect x="60" y="{top + 20}" width="{width}" height="{height - 20}" fill="none" stroke="#ccc"/>'
        f'<text x="60" y="{top + 14}">{title}</text><text x="10" y="{top + 30}">{most:.0f}</text>'
        f'<text x="10" y="{top + height}">0</text><text x="{width}" y="{top + height + 20}">{minutes:g} min</text>'
    )


def _line(points: list[tuple[float, float]], colour: str, top: float, width: int, height: int) -> str:
    way = " ".join(f"{60 + width * x:.1f},{top + height - (height - 20) * y:.1f}" for x, y in points)
    return f'<polyline points="{way}" fill="none" stroke="{colour}"/>'


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    deliver = {"segment_minutes": given.minutes / 6}
    site = ("--rate", given.rate)
    options = Options(given.cameras, site=site, deliver=deliver, allowed=Allowed(damage=True), suffix=".mkv")
    with tempfile.TemporaryDirectory() as folder, run_of(Path(folder), "soak", options) as run:
        soak = Soak(run, given.seed)
        soak.warm_up()
        began_unix = time.time()
        soak.go_on(60 * given.minutes)
        wait_until(lambda: set(VICTIMS) <= set(run.workers()), what="all workers")
        told = figures(soak, run, given.minutes, began_unix)
        told["broken"] = list(broken(told))
        given.out.with_suffix(".svg").write_text(svg(soak, run, given.minutes, began_unix))
        given.out.with_suffix(".json").write_text(json.dumps(told | {"fault_list": soak.faults}, indent=1) + "\n")
    print(json.dumps(told))
    return 1 if told["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
