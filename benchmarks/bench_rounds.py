"""Rounds before the network: are they full, what does a window add, is everybody served, and what does a frame cost?

    python benchmarks/bench_rounds.py

Sources, lanes and a clock that are only numbers, around the pipeline's own `Rounds`: a minute of each case, of which
the first five seconds, in which it learns the pace, do not count. Beside it the same without windows, which takes what
there is whenever a lane is free. Only the cost a frame is real time. The last line is one JSON object.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import finish, machine

from pipeline.flow.rounds import Figures, Rounds
from tests.kit.lanes import MS, SECOND, File, Log, Source, simulate

INTERVAL_NS = 100 * MS
MOST = 8
TUNED_NS, MINUTE_NS = 5 * SECOND, 60 * SECOND
PHASES = {"in phase": 0, "out of phase": INTERVAL_NS // 8}


class Greedy(Rounds):
    """Never waits: who does not know how long rounds take has no reason to."""

    def served(self, size: int, busy_ns: int) -> None:
        pass


def eight(step_ns: int, jitter: float = 0.0, count: int = 8) -> list[Source | File]:
    return [Source(f"s{i}", INTERVAL_NS, i * step_ns, jitter) for i in range(count)]


def taking(fixed_ms: float, each_ms: float, lanes: int) -> Callable[[int], int]:
    """How long a round takes where so many lanes share a device."""
    return lambda size: round((fixed_ms + each_ms * size) * lanes * MS)


def run(rounds: Rounds, sources: list[Source | File], lanes: int, service_ns: Callable[[int], int]) -> Log:
    return simulate(rounds, sources, lanes, service_ns, MINUTE_NS).after(TUNED_NS)


def row(log: Log, figures: Figures) -> dict[str, Any]:
    """The figures of a case; ages in milliseconds from the capture to the end of the round."""
    done_ms = np.array([each.done_ns - each.captured_ns for each in log.served if each.source != "file"]) / MS
    names = sorted({each.source for each in log.served} - {"file"})
    counts = {name: log.count(name) for name in names}
    return {
        "full_share": round(log.share_of(MOST), 3),
        "full_where_allowed": round(figures.full, 3),
        "mean_size": round(statistics.mean(size for _, size in log.sizes), 2),
        "window_p95_ms": round(figures.window_p95_ns / MS, 1),
        "frames_per_s": round(len(log.served) / ((MINUTE_NS - TUNED_NS) / SECOND), 1),
        "least_to_most": round(min(counts.values()) / max(counts.values()), 3),
        "file_frames_per_s": round(log.count("file") / ((MINUTE_NS - TUNED_NS) / SECOND), 1),
        "age_ms_mean": round(float(done_ms.mean()), 1),
        "age_ms_p95": round(float(np.percentile(done_ms, 95)), 1),
        "busy": round(log.busy_ns / MINUTE_NS, 2),
    }


def cases() -> dict[str, tuple[list[Source | File], int, tuple[float, float]]]:
    """Sources at 10 frames a second, lanes, and the milliseconds of a round: fixed, and for each frame."""
    found: dict[str, tuple[list[Source | File], int, tuple[float, float]]] = {}
    for lanes in (1, 2):
        for phase, step_ns in PHASES.items():
            for jitter in (0.0, 0.1, 0.3):
                name = f"8 sources {phase}, jitter {jitter:.0%}, lanes {lanes}, load 0.95"
                found[name] = eight(step_ns, jitter), lanes, (50, 5.6)
            found[f"8 sources {phase}, jitter 10%, lanes {lanes}, load 0.74"] = eight(step_ns, 0.1), lanes, (50, 3)
            found[f"8 sources {phase}, lanes {lanes}, twice too much"] = eight(step_ns), lanes, (80, 15)
    out = PHASES["out of phase"]
    found["8 sources out of phase, lanes 1, small rounds will do"] = eight(out), 1, (20, 2)
    found["8 sources out of phase, lanes 1, batches hardly pay, load 0.9"] = eight(out), 1, (10, 10)
    found["one of 30 frames/s among seven of 1, lanes 1"] = (
        [Source("fast", 33 * MS), *(Source(f"slow{i}", SECOND, i * 130 * MS) for i in range(7))],
        1,
        (200, 5),
    )
    found["7 live and a file, lanes 1, too much"] = [*eight(out, count=7), File("file", 6)], 1, (50, 20)
    found["2 live and a file, lanes 1"] = [*eight(out, count=2), File("file", 6)], 1, (20, 10)
    return found


def cost_us(count: int, frames: int) -> float:
    """Microseconds a frame of one of so many sources: put, taken in a full round, served."""
    rounds: Rounds[int] = Rounds(MOST, 1)
    names = [f"s{i}" for i in range(count)]
    for name in names:
        rounds.open(name, "latest")
    started = time.perf_counter()
    for k in range(frames):
        rounds.put(names[k % count], k, k * MS, k * MS)
        if k % MOST == MOST - 1:
            rounds.take(k * MS, 1)
            rounds.served(MOST, 7 * MS)
    return (time.perf_counter() - started) / frames * 1e6


def costs(frames: int) -> dict[int, float]:
    """The medians of nine turns, all in turn, so that a busy moment hits all of them alike."""
    taken: dict[int, list[float]] = {8: [], 64: [], 1000: []}
    for _ in range(9):
        for count, times in taken.items():
            times.append(cost_us(count, frames))
    return {count: round(statistics.median(times), 2) for count, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40_000, help="for the cost of each, in each of nine turns")
    frames = parser.parse_args().frames
    results: dict[str, Any] = {}
    for name, (sources, lanes, (fixed_ms, each_ms)) in cases().items():
        service_ns, here = taking(fixed_ms, each_ms, lanes), {}
        for kind, rounds in (("ours", Rounds(MOST, 1)), ("greedy", Greedy(MOST, 1))):
            log = run(rounds, sources, lanes, service_ns)
            here[kind] = row(log, rounds.figures)
        results[name] = here
        print(f"{name}: a round of b takes {fixed_ms * lanes:g} + {each_ms * lanes:g} b ms")
        for kind, figures in here.items():
            print(f"  {kind:6}", ", ".join(f"{key} {value}" for key, value in figures.items()))
    cost = costs(frames)
    print("µs a frame by sources:", ", ".join(f"{count}: {us}" for count, us in cost.items()))
    finish({"benchmark": "rounds", "machine": machine(), "cases": results, "us_a_frame_by_sources": cost})


if __name__ == "__main__":
    main()
