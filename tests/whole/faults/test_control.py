"""Many sources come and go while another runs: nothing of them stays. CENTERSTREAM_ADDS says how many, 1000 take nine
minutes; `make faults` does a thousand, `make check` fewer.

`python -m tests.whole.faults.test_control 50` does it with fifty, and prints what it found.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.control import words as control
from pipeline.control.words import Add, List, Remove, Sources
from pipeline.settings import SourceSettings
from tests.kit.control import PATTERN, ControlledRun, running
from tests.kit.harness import nursery_pids, wait_until, worker_pids
from tests.kit.places import CLIP

SOURCES = int(os.environ.get("CENTERSTREAM_ADDS", "150"))
AT_A_TIME = 4
# Of the first, in which libraries still take what they keep: nothing is concluded from them.
WARM_UP = 12
MIB = 1 << 20
# What a process may have grown by: little for each source, in an allocator that keeps what it has freed.
GROWTH_BYTES = 24 * MIB


@dataclass(frozen=True)
class Holdings:
    """What a process has, besides its processor."""

    descriptors: int
    threads: int
    memory_bytes: int


def holdings(pid: int) -> Holdings:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    own_bytes = (int(status["RssAnon"].split()[0])) << 10
    return Holdings(len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]), own_bytes)  # noqa: PTH208


def lasting(run: ControlledRun) -> dict[str, Holdings]:
    """Of the supervisor, the nursery, and all workers that stay."""
    pids = {"supervisor": run.process.pid} | nursery_pids(run.process.pid) | worker_pids(run.process.pid)
    stay = {name for name in pids if name == "decode:door" or not name.startswith("decode:")}
    return {name: holdings(pids[name]) for name in sorted(stay)}


def files(run: ControlledRun) -> set[str]:
    """Temporary files and sockets."""
    return {str(path) for path in run.folder.rglob("*") if path != run.lines}


def short_sources(count: int) -> Iterator[SourceSettings]:
    uris = (f"{PATTERN}:duration=0.5", str(CLIP))
    for number in range(count):
        yield SourceSettings(uri=uris[number % len(uris)], max_frames=5)  # type: ignore[arg-type]


class Driver:
    """Asks as ctl does, without a process for each word."""

    def __init__(self, run: ControlledRun) -> None:
        (self._path,) = run.folder.glob(f"{control.FOLDER_PREFIX}*/{control.SOCKET}")

    def states(self) -> dict[str, str]:
        answer = control.tell(self._path, List())
        assert isinstance(answer, Sources)
        return {row.source_id: row.state for row in answer.rows}

    def live(self, batch: list[SourceSettings], first: int) -> list[float]:
        """All at the same time, each from its beginning to the last trace of it; how long each took, in seconds."""
        began: dict[str, float] = {}
        took = []
        for number, source in enumerate(batch, first):
            began[f"s{number}"] = time.monotonic()
            control.tell(self._path, Add(source, f"s{number}"))
        deadline = time.monotonic() + 120
        while began:
            states = self.states()
            for name, state in states.items():
                if state == "ended" and name in began:
                    control.tell(self._path, Remove(name))
            for name in [name for name in began if name not in states]:
                took.append(time.monotonic() - began.pop(name))
            assert time.monotonic() < deadline, states
            time.sleep(0.05)
        return took


@dataclass
class Outcome:
    before: dict[str, Holdings]
    after: dict[str, Holdings]
    files_before: set[str]
    files_after: set[str]
    seconds: list[float]
    seqs: list[int]
    code: int
    errors: str


def go(count: int) -> Outcome:
    with running(PATTERN.replace("rate=10", "rate=2"), "--name", "door", "--realtime") as run:
        run.wait_for("door", "live")
        driver = Driver(run)
        sources = list(short_sources(WARM_UP + count))
        for first in range(0, WARM_UP, AT_A_TIME):
            driver.live(sources[first : first + AT_A_TIME], first)
        settle(run)
        before, files_before = lasting(run), files(run)
        seconds: list[float] = []
        for first in range(WARM_UP, len(sources), AT_A_TIME):
            seconds += driver.live(sources[first : first + AT_A_TIME], first)
        settle(run)
        after, files_after = lasting(run), files(run)
        assert list(driver.states()) == ["door"]
        run.say("stop")
        code, errors = run.end()
        seqs = [line["seq"] for line in run.frames("door")]
    return Outcome(before, after, files_before, files_after, seconds, seqs, code, errors)


def settle(run: ControlledRun) -> None:
    """Connections of those that ended are closed a moment later."""
    run.wait_until_frames("door", 4)
    wait_until(lambda: len(worker_pids(run.process.pid)) == 6, what="the workers that stay")


def told(outcome: Outcome) -> str:
    lines = []
    for name, then in outcome.before.items():
        now = outcome.after[name]
        grown = (now.memory_bytes - then.memory_bytes) / MIB
        lines.append(
            f"{name:12} descriptors {then.descriptors} → {now.descriptors}  threads {then.threads} → {now.threads}  "
            f"memory {then.memory_bytes / MIB:.0f} MiB {grown:+.1f}"
        )
    took = outcome.seconds
    lines.append(f"{len(took)} sources, each {statistics.median(took):.1f} s (at most {max(took):.1f} s)")
    return "\n".join(lines)


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_of_many_sources_that_came_and_went_nothing_stays() -> None:
    check(go(SOURCES))


def check(outcome: Outcome) -> None:
    print(told(outcome))
    assert outcome.code == 0, outcome.errors
    assert outcome.seqs == list(range(len(outcome.seqs)))
    assert outcome.files_after == outcome.files_before
    for name, then in outcome.before.items():
        now = outcome.after[name]
        assert (name, now.descriptors, now.threads) == (name, then.descriptors, then.threads)
        assert now.memory_bytes - then.memory_bytes < GROWTH_BYTES, name
    accounts = [line for line in outcome.errors.splitlines() if " captured = " in line]
    assert len(accounts) == 22  # the last twenty, the sum of those before, and the one that stayed
    assert all(" 0 without result + " in line and line.endswith(" + 0 in flight") for line in accounts), accounts


if __name__ == "__main__":
    check(go(int(sys.argv[1])))
