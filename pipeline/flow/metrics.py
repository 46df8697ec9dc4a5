"""What a stage counts and times, in memory that does not grow with the length of the run.

Knows no stage and no socket; what became of frames is in the ledger. Durations come in nanoseconds of the monotonic
clock.
"""

import math
import resource
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from pipeline.flow.messages import FrameHeader, Gpu, Histogram, Hop, OutputCounts, Quantiles, Report

_SMALLEST_MS = 1e-3
_GROWTH = 1.01  # each bucket is 1 % wider than the one before: every quantile is within 1 %
_BUCKETS = math.ceil(math.log(1e7 / _SMALLEST_MS, _GROWTH))  # up to 10,000 s


# Of the histograms that are told of.
BOUNDS_MS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0)


class Tally:
    """Durations counted by `BOUNDS_MS`."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_MS) + 1)
        self._sum_ms = 0.0

    def add(self, duration_ns: int) -> None:
        duration_ms = max(duration_ns, 0) / 1e6
        self._counts[bisect_left(BOUNDS_MS, duration_ms)] += 1
        self._sum_ms += duration_ms

    def histogram(self) -> Histogram:
        *at_most, count = accumulate(self._counts)
        return Histogram(tuple(at_most), count, self._sum_ms)


class Durations:
    """A histogram with logarithmic buckets from 1 µs to 10,000 s: constant memory, quantiles within 1 %."""

    def __init__(self) -> None:
        self._buckets = np.zeros(_BUCKETS + 1, np.int64)
        self._sum_ms = 0.0
        self._max_ms = 0.0

    def add(self, duration_ns: int) -> None:
        duration_ms = max(duration_ns, 0) / 1e6
        bucket = int(math.log(max(duration_ms, _SMALLEST_MS) / _SMALLEST_MS, _GROWTH) + 0.5)
        self._buckets[min(bucket, _BUCKETS)] += 1
        self._sum_ms += duration_ms
        self._max_ms = max(self._max_ms, duration_ms)

    def quantiles(self) -> Quantiles:
        count = int(self._buckets.sum())
        if count == 0:
            return Quantiles()
        cumulated = np.cumsum(self._buckets)
        places = [int(np.searchsorted(cumulated, math.ceil(q * count))) for q in (0.5, 0.95, 0.99)]
        p50_ms, p95_ms, p99_ms = (min(_SMALLEST_MS * _GROWTH**place, self._max_ms) for place in places)
        return Quantiles(count, self._sum_ms / count, p50_ms, p95_ms, p99_ms, self._max_ms)


class Recent:
    """The last few hundred durations, for a live display."""

    def __init__(self, seconds: float = 5.0, at_most: int = 512) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, int]] = deque(maxlen=at_most)

    def add(self, duration_ns: int) -> None:
        self._samples.append((time.monotonic(), duration_ns))

    def _fresh(self) -> list[tuple[float, int]]:
        oldest = time.monotonic() - self._seconds
        while self._samples and self._samples[0][0] < oldest:
            self._samples.popleft()
        return list(self._samples)

    def per_second(self) -> float:
        samples = self._fresh()
        if len(samples) < 2:
            return 0.0
        return (len(samples) - 1) / max(time.monotonic() - samples[0][0], 1e-9)

    def quantiles(self) -> Quantiles:
        return quantiles_of([duration_ns / 1e6 for _, duration_ns in self._fresh()])


def quantiles_of(durations_ms: Sequence[float]) -> Quantiles:
    """Of all of them, exactly."""
    if not durations_ms:
        return Quantiles()
    values_ms = np.sort(np.array(durations_ms, float))
    # Not np.percentile: its first call imports 50 ms of NumPy's masked arrays, in each process and beside the frames.
    ranks = np.array((0.50, 0.95, 0.99)) * (values_ms.size - 1)
    p50_ms, p95_ms, p99_ms = np.interp(ranks, np.arange(values_ms.size), values_ms)
    mean_ms, max_ms = values_ms.mean(), values_ms.max()
    return Quantiles(values_ms.size, *map(float, (mean_ms, p50_ms, p95_ms, p99_ms, max_ms)))


class Meter:
    """One worker's timings and what it warns of; several threads may use it."""

    def __init__(self, owns_process: bool) -> None:
        self.is_over = False
        self.figures: Callable[[], dict[str, float]] = dict
        self.gpu: Callable[[], Gpu | None] = lambda: None
        self._owns_process = owns_process
        self._cpu_before = 0.0
        self._lock = threading.Lock()
        self._frames = 0
        self._working, self._waiting, self._latency = Durations(), Durations(), Durations()
        self._work, self._ages = Tally(), dict[str, Tally]()
        self._recent_working, self._recent_latency = Recent(), Recent()
        self._rounds: dict[int, int] = {}
        self._outputs: dict[str, OutputCounts] = {}
        self._warnings: list[str] = []
        self._tally: dict[str, int] = {}

    def begin(self) -> None:
        """Loading is over: CPU time counts from here."""
        self._cpu_before = time.process_time()

    def passed(self, header: FrameHeader) -> None:
        """The frame's last hop, this stage's own, is complete."""
        hop = header.trace[-1]
        came_ns = header.trace[-2].left_ns if len(header.trace) > 1 else header.captured_ns
        with self._lock:
            self._frames += 1
            self._working.add(hop.left_ns - hop.entered_ns)
            self._work.add(hop.left_ns - hop.entered_ns)
            self._recent_working.add(hop.left_ns - hop.entered_ns)
            self._waiting.add(hop.entered_ns - came_ns)

    def delivered(self, header: FrameHeader, now_ns: int) -> None:
        with self._lock:
            self._latency.add(now_ns - header.captured_ns)
            self._ages.setdefault(header.source_id, Tally()).add(now_ns - header.captured_ns)
            self._recent_latency.add(now_ns - header.captured_ns)

    def round_given(self, size: int) -> None:
        with self._lock:
            self._rounds[size] = self._rounds.get(size, 0) + 1

    def output(self, name: str, path: str) -> OutputCounts:
        """The counts of an output, which writes them itself."""
        with self._lock:
            return self._outputs.setdefault(name, OutputCounts(path))

    def close_outputs(self, source_id: str) -> dict[str, OutputCounts]:
        """The counts of a source's own outputs, which are counted here no longer; nor are its ages."""
        with self._lock:
            self._ages.pop(source_id, None)
            names = [name for name in self._outputs if name.endswith(f" ({source_id})")]
            return {name: self._outputs.pop(name) for name in names}

    def warn(self, text: str) -> None:
        """A line for the user; told once."""
        with self._lock:
            if text not in self._warnings:
                self._warnings.append(text)

    def tally(self, text: str) -> None:
        """A warning of something that may happen often; told with its count."""
        with self._lock:
            self._tally[text] = self._tally.get(text, 0) + 1

    def recent_per_second(self) -> float:
        with self._lock:
            return self._recent_working.per_second()

    def report(self, queue_depth: int, busy_seconds: float) -> Report:
        with self._lock:
            return Report(
                frames=self._frames,
                frames_per_second=self._recent_working.per_second(),
                queue_depth=queue_depth,
                busy_seconds=busy_seconds,
                cpu_seconds=time.process_time() - self._cpu_before if self._owns_process else None,
                peak_memory_bytes=peak_memory_bytes() if self._owns_process else None,
                working=self._working.quantiles(),
                waiting=self._waiting.quantiles(),
                recent_working=self._recent_working.quantiles(),
                latency=self._latency.quantiles(),
                recent_latency=self._recent_latency.quantiles(),
                rounds=dict(self._rounds),
                figures=self.figures(),
                outputs=dict(self._outputs),
                warnings=self._warnings + tally_lines(self._tally, self.is_over),
                ages={source_id: tally.histogram() for source_id, tally in self._ages.items()},
                work=self._work.histogram(),
                memory_bytes=memory_bytes() if self._owns_process else None,
                gpu=self.gpu(),
            )


def memory_bytes() -> int | None:
    """What this process has resident, shared memory that it touched included; None where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not Linux
        return None


def peak_memory_bytes() -> int:
    """The most that this process has had resident, shared memory that it touched included."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Not getrusage there: it counts what the parent had when it started us.
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) << 10


def tally_lines(tally: Mapping[str, int], is_last: bool) -> list[str]:
    """A line for each text with its count, which until the last is a power of ten: few lines tell of many."""
    if is_last:
        return [f"{text}: {count}" for text, count in tally.items()]
    return [f"{text}: at least {10 ** (len(str(count)) - 1)}" for text, count in tally.items()]


def hop(stage: str, entered_ns: int) -> Hop:
    """This stage's part of a frame's trace, ending now."""
    return Hop(stage, entered_ns, time.monotonic_ns())
