"""The rig: a site of cameras, the product on them, a fault, and what came of it as a row of a table.

    with run_of(tmp_path, "RTSP server killed") as run:   # frames of every camera come
        run.site.kill()
        run.fault_begins()
        …
        run.site.begin()
        run.fault_ends()                                  # waits for a frame captured after this moment
                                                          # at the end: stop, witness, row, checks

`recovery` is the time from the moment the cause had gone to the first line with a result of a frame captured after it.
Rows go to the file that CENTERSTREAM_FAULTS_TABLE names, if it does. CENTERSTREAM_FAULTS_SET has further KEY=VALUE
pairs for the product, with blanks between them; CENTERSTREAM_FAULTS_CAMERAS is the number of cameras. Knows the product
by its command line, its process list and its outputs.
"""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from tests.kit.harness import Leftovers, children, is_running, start, wait_until
from tests.whole.faults.network import Network
from tests.whole.witness.__main__ import table, witness
from tests.whole.witness.account import NOTHING, Account, Allowed
from tests.whole.witness.site import Site, running_site

CAMERAS = int(os.environ.get("CENTERSTREAM_FAULTS_CAMERAS", "2"))
TABLE = os.environ.get("CENTERSTREAM_FAULTS_TABLE")
MORE_SETTINGS = os.environ.get("CENTERSTREAM_FAULTS_SET", "").split()
HEADER = """\
# Faults

What was done to a run of {cameras} cameras of 10 frames/s, and what came of it; `make faults` writes this table.
*Back after* is the time from the moment the cause had gone to the first result of a frame captured after it. For a
worker that is its end: one that is stopped is ended when it was not heard for 3 s (*noticed*). A worker of inference
loads its model in that time; a camera that hangs up to change its codec is waited for until its next key frame, up to a
second. *Lost* counts the frames that have no result, by where and why; what a camera sent and never came is *in the
outage* that the run told of, or was *never captured*: lost on the network, or sent while nobody listened.
*Others* is the longest gap between two results of a camera that nothing was done to.

| fault | back after | lost | others | witness |
|---|---|---|---|---|
"""
SETTINGS: dict[str, Any] = {
    "infer": {"engine": "eager", "input_size": "320x256", "workers": 1, "threads": 1},
    "run": {"silent_seconds": 3.0},
}
SOURCE_SETTINGS: dict[str, Any] = {"open_timeout_seconds": 2.0, "read_timeout_seconds": 2.0}
READY_SECONDS = 90  # bounds of waiting, not figures
BACK_SECONDS = 30
END_SECONDS = 30


IsBack = Callable[[dict[str, Any]], bool]


@dataclass
class Fault:
    """One row."""

    name: str
    at_unix: float | None = None
    noticed_seconds: float | None = None
    recovery_seconds: dict[str, float] = field(default_factory=dict)
    verdict: str = "not reached"


class LineTail:
    """The JSON lines of a growing file, each read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self.lines: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._at)
                whole = file.read().rpartition(b"\n")[0]
            self._at += len(whole) + bool(whole)
            self.lines += [json.loads(line) for line in whole.splitlines()]
        return self.lines


class Run:
    """The product on a site of cameras, while a fault happens."""

    def __init__(self, folder: Path, site: Site, fault: Fault, options: "Options") -> None:
        self.site = site
        self.fault = fault
        self.sources = [f"cam{i}" for i in range(options.cameras)]
        self._options = options
        self._videos = options.videos or folder
        self.lines_path = folder / "all.jsonl"
        self._tail = LineTail(self.lines_path)
        config = folder / "run.yaml"
        config.write_text(yaml.safe_dump(self._config()))
        words = [word for pair in MORE_SETTINGS for word in ("--set", pair)]
        self._leftovers = Leftovers()
        self.process = start("--config", config, *words, before=options.before)
        self.errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def _config(self) -> dict[str, Any]:
        own = SOURCE_SETTINGS | self._options.source
        sources = {name: {"uri": self.site.url_of(i), **own} for i, name in enumerate(self.sources)}
        name = "{source}" if len(sources) > 1 else self.sources[0]
        deliver = {"video": str(self._videos / f"{name}{self._options.suffix}"), "jsonl": str(self.lines_path)}
        deliver |= self._options.deliver
        settings = SETTINGS | {"infer": SETTINGS["infer"] | self._options.infer}
        return {"sources": sources, "deliver": deliver, **settings}

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line.rstrip("\n"))

    # -- what the product is doing

    def videos(self) -> list[Path]:
        return videos_in(self._videos)

    def lines(self, source: str | None = None) -> list[dict[str, Any]]:
        return [line for line in self._tail.read() if source in (None, line["source"])]

    def results(self, source: str, since_unix: float = 0.0) -> list[dict[str, Any]]:
        """Lines with a result of frames captured since then."""
        lines = self.lines(source)
        return [line for line in lines if line.get("status") == "ok" and line["captured_unix"] >= since_unix]

    def pid_of(self, worker: str) -> int:
        """Of a worker by its id, such as decode:cam0, gather, infer:0."""
        pids = self.workers()
        assert worker in pids, f"there is no worker {worker}; there are {', '.join(pids)}"
        return pids[worker]

    def workers(self) -> dict[str, int]:
        return dict(sorted((name, pid) for pid in descendants(self.process.pid) if (name := worker_id(pid))))

    def wait_for_results(self, since_unix: float = 0.0, sources: Sequence[str] | None = None) -> None:
        """Until each source has three results captured since then."""
        for source in sources or self.sources:
            self.wait_for(lambda source=source: len(self.results(source, since_unix)) >= 3, f"results of {source}")

    def wait_for_signal(self, source: str, state: str) -> None:
        """Until the outputs tell of this state of the source, during the fault."""
        at_unix = self.fault.at_unix or 0.0

        def told() -> bool:
            signals = [line for line in self.lines(source) if line.get("kind") == "signal"]
            return any(line["state"] == state and line["at_unix"] >= at_unix - 1 for line in signals)

        self.wait_for(told, f"the signal {state} of {source}")

    def wait_until_told(self, text: str) -> None:
        """Until the product's standard error has `text`."""
        self.wait_for(lambda: any(text in line for line in self.errors), f"'{text}' on standard error")

    def wait_for(self, condition: Callable[[], bool], what: str, seconds: float = BACK_SECONDS) -> None:
        """Raises AssertionError when it does not come true in time, or the run ends before."""

        def ended_or_true() -> bool:
            return self.process.poll() is not None or condition()

        try:
            wait_until(ended_or_true, seconds, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.told()}") from None
        assert self.process.poll() is None, f"the run ended before {what}: {self.told()}"

    def told(self) -> str:
        return "\n".join(self.errors[-20:])

    # -- the fault

    def fault_begins(self) -> None:
        self.fault.at_unix = time.time()

    def fault_ends(
        self, sources: Sequence[str] | None = None, is_back: IsBack | None = None, gone_unix: float | None = None
    ) -> None:
        """The cause has gone, now or at `gone_unix`: measure when each of these sources gave a result again, of a frame
        captured since then and one of which `is_back` is true."""
        gone_unix = time.time() if gone_unix is None else gone_unix
        self.fault.at_unix = self.fault.at_unix or gone_unix
        for source in sources or self.sources:

            def back(source: str = source) -> list[dict[str, Any]]:
                return [line for line in self.results(source, gone_unix) if is_back is None or is_back(line)]

            self.wait_for(lambda back=back: len(back()) >= 3, f"results of {source} again")
            delivered_unix = back()[0]["captured_unix"] + back()[0]["latency_ms"] / 1e3
            seconds = self.fault.recovery_seconds
            seconds[source] = max(seconds.get(source, 0.0), delivered_unix - gone_unix)

    def is_after_outage(self, line: dict[str, Any]) -> bool:
        """Whether its source was live again before it, after the fault had begun."""
        at_unix = self.fault.at_unix or 0.0
        signals = [told for told in self.lines(line["source"]) if told.get("kind") == "signal"]
        return any(
            told["state"] == "live" and told["at_unix"] >= at_unix and told["seq"] <= line["seq"] for told in signals
        )

    def blow(self, workers: Sequence[str], number: signal.Signals) -> None:
        """A signal to workers; they must go, come back, and frames of all sources go through again. One that is stopped
        is ended by the product, and only then the cause has gone."""
        pids = [self.pid_of(worker) for worker in workers]
        self.fault_begins()
        for pid in pids:
            os.kill(pid, number)
        self.wait_for(lambda: not any(map(is_running, pids)), f"the end of {', '.join(workers)}")
        gone_unix = time.time()
        if number == signal.SIGSTOP and self.fault.at_unix:
            self.fault.noticed_seconds = gone_unix - self.fault.at_unix
        self.wait_for(lambda: set(workers) <= set(self.workers()), f"{', '.join(workers)} again")
        self.fault_ends(gone_unix=gone_unix)
        self.wait_for_results(time.time())

    # -- the end

    def end(self) -> None:
        """Stop, and check what every run must hold to; the row is written whatever comes out."""
        try:
            self._stop()
            accounts, problems = self._witness()
            problems += [f"{one.source}: {problem}" for one in accounts for problem in one.problems]
            self.fault.verdict = "all accounted for" if not problems else f"{len(problems)} findings"
            write_row(self.fault, lost(accounts), self._longest_gap())
            assert not problems, "\n".join([table(accounts), *problems[:20], self.told()])
        except BaseException:
            if self.fault.verdict == "not reached":
                write_row(self.fault, "", None)
            raise

    def _stop(self) -> None:
        pids = self.workers()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(END_SECONDS)
        self._reader.join(END_SECONDS)
        told = "\n".join(self.errors)
        assert "Traceback" not in told, told
        assert self.process.returncode == self._options.exit_code, f"exit code {self.process.returncode}: {self.told()}"
        self._leftovers.assert_none(pids, seconds=2)

    def _witness(self) -> tuple[list[Account], list[str]]:
        videos = [] if self._options.lines_only else self.videos()
        cameras: dict[str, int | None] = {source: i for i, source in enumerate(self.sources)}
        return witness([self.lines_path], videos, cameras, self.site.sent, self._options.allowed)

    def _longest_gap(self) -> float | None:
        """Between two results of a source that nothing was done to, from the fault on, in seconds."""
        others = [source for source in self.sources if source not in (self._options.hit or self.sources)]
        since_unix = (self.fault.at_unix or 0.0) - 1.0
        moments = [[line["captured_unix"] for line in self.results(source, since_unix)] for source in others]
        return max((later - earlier for own in moments for earlier, later in pairwise(own)), default=None)

    def kill(self) -> None:
        """Whatever is left of it."""
        for pid in [*descendants(self.process.pid), self.process.pid]:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(END_SECONDS)


@dataclass(frozen=True)
class Options:
    """What a fault needs of its run."""

    cameras: int = CAMERAS
    hit: Sequence[str] = ()  # the sources that something is done to; empty is all
    site: Sequence[object] = ("--rate", 10)
    source: dict[str, Any] = field(default_factory=dict)  # settings of each source
    infer: dict[str, Any] = field(default_factory=dict)  # settings of inference
    deliver: dict[str, Any] = field(default_factory=dict)  # settings of the outputs
    allowed: Allowed = NOTHING
    exit_code: int = 0
    before: Sequence[str] = ()  # the product's command: another that runs it
    network: Network | None = None
    videos: Path | None = None  # the folder of the videos
    suffix: str = ".mp4"  # of the videos
    lines_only: bool = False  # the videos are no witness


@contextmanager
def run_of(folder: Path, name: str, options: Options | None = None) -> Iterator[Run]:
    """The product on a site, with frames of every camera; in the end it is stopped, checked and written down."""
    options = options or Options()
    network = options.network
    where: dict[str, Any] = {"host": network.host, "before": network.before} if network else {}
    with ExitStack() as stack:
        words = ("--cameras", options.cameras, *options.site)
        site = stack.enter_context(running_site(folder / "sent.jsonl", *words, **where))
        run = Run(folder, site, Fault(name), options)
        stack.callback(run.kill)
        try:
            run.wait_for(lambda: all(map(run.results, run.sources)), "first results", READY_SECONDS)
            run.wait_for_results()
            yield run
        except BaseException:
            write_row(run.fault, "", None)
            raise
        run.end()


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def worker_id(pid: int) -> str | None:
    """What a worker's command line says it is, `… -m pipeline.run.worker <id>`; None for other processes."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()
    except OSError:
        return None
    return words[-1] if "pipeline.run.worker" in words and is_running(pid) else None


def videos_in(folder: Path) -> list[Path]:
    """cam0.mp4, cam0.1.mp4, … cam0.10.mp4."""

    def place(path: Path) -> tuple[str, int]:
        source, *number = path.stem.split(".")
        return source, int(number[0]) if number else 0

    return sorted([*folder.glob("cam*.mp4"), *folder.glob("cam*.mkv")], key=place)


def lost(accounts: Sequence[Account]) -> str:
    """Frames without a result, by where and why."""
    counts: Counter[str] = Counter()
    for one in accounts:
        counts.update(one.dropped)
        found = {
            "without result": one.by_status["failed"],
            "silent": one.silent,
            "without picture": len(one.without_picture),
            "in the outage": one.lost_in_outages,
            "never captured": one.lost_on_network,
        }
        counts.update({what: count for what, count in found.items() if count})
    return "; ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"


def write_row(fault: Fault, lost_frames: str, gap_seconds: float | None) -> None:
    back = f"{max(fault.recovery_seconds.values()):.1f} s" if fault.recovery_seconds else "–"
    back += "" if fault.noticed_seconds is None else f", noticed after {fault.noticed_seconds:.1f} s"
    gap = "–" if gap_seconds is None else f"{gap_seconds:.1f} s"
    row = f"| {fault.name} | {back} | {lost_frames or '–'} | {gap} | {fault.verdict} |\n"
    print(row, end="")
    if TABLE:
        path = Path(TABLE)
        head = "" if path.exists() else HEADER.format(cameras=CAMERAS)
        with path.open("a") as file:
            file.write(head + row)
