"""What a stage counts and times, in memory that does not grow with the length of the run.

Knows no stage and no socket. Durations come in nanoseconds of the monotonic clock.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Mapping

import numpy as np

from pipeline.messages import FrameHeader, Hop, OutputCounts, Quantiles, Report, SourceCounts, StreamStart

_SMALLEST_MS = 1e-3
_GROWTH = 1.01  # each bucket is 1 % wider than the one before: every quantile is within 1 %
_BUCKETS = math.ceil(math.log(1e7 / _SMALLEST_MS, _GROWTH))  # up to 10,000 s


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
        samples_ms = np.array([duration_ns for _, duration_ns in self._fresh()], float) / 1e6
        if samples_ms.size == 0:
            return Quantiles()
        p50_ms, p95_ms, p99_ms = np.percentile(samples_ms, (50, 95, 99))
        mean_ms, max_ms = samples_ms.mean(), samples_ms.max()
        return Quantiles(samples_ms.size, *map(float, (mean_ms, p50_ms, p95_ms, p99_ms, max_ms)))


class Meter:
    """One stage's counts and timings; several threads may use it."""

    def __init__(self, stage: str, owns_process: bool) -> None:
        self._stage = stage
        self._owns_process = owns_process
        self._cpu_before = 0.0
        self._lock = threading.Lock()
        self._frames = 0
        self._working, self._waiting, self._latency = Durations(), Durations(), Durations()
        self._recent_working, self._recent_latency = Recent(), Recent()
        self._sources: dict[str, SourceCounts] = {}
        self._streams: dict[str, StreamStart] = {}
        self._outputs: dict[str, OutputCounts] = {}
        self._warnings: list[str] = []
        self._tally: dict[str, int] = {}

    def _page(self, source_id: str) -> SourceCounts:
        return self._sources.setdefault(source_id, SourceCounts())

    def begin(self) -> None:
        """Loading is over: CPU time counts from here."""
        self._cpu_before = time.process_time()

    def opened(self, stream: StreamStart) -> None:
        with self._lock:
            self._streams[stream.source_id] = stream

    def captured(self, source_id: str) -> None:
        with self._lock:
            self._page(source_id).captured += 1

    def passed(self, header: FrameHeader) -> None:
        """The frame's last hop, this stage's own, is complete."""
        hop = header.trace[-1]
        came_ns = header.trace[-2].left_ns if len(header.trace) > 1 else header.captured_ns
        with self._lock:
            self._frames += 1
            page = self._page(header.source_id)
            page.highest = max(page.highest, header.seq)
            self._working.add(hop.left_ns - hop.entered_ns)
            self._recent_working.add(hop.left_ns - hop.entered_ns)
            self._waiting.add(hop.entered_ns - came_ns)

    def delivered(self, header: FrameHeader, now_ns: int) -> None:
        with self._lock:
            page = self._page(header.source_id)
            if header.failure is None:
                page.delivered += 1
            else:
                page.failed += 1
            self._latency.add(now_ns - header.captured_ns)
            self._recent_latency.add(now_ns - header.captured_ns)

    def dropped(self, source_id: str, seq: int, reason: str) -> None:
        with self._lock:
            page = self._page(source_id)
            page.highest = max(page.highest, seq)
            page.dropped[reason] = page.dropped.get(reason, 0) + 1

    def output_opened(self, output: str) -> None:
        with self._lock:
            self._outputs[output] = OutputCounts()

    def output_took(self, output: str) -> None:
        with self._lock:
            self._outputs[output].frames += 1

    def output_failed(self, output: str, problem: str) -> None:
        with self._lock:
            self._outputs.setdefault(output, OutputCounts()).problem = problem

    def output_gone(self, output: str) -> None:
        with self._lock:
            self._outputs[output].is_gone = True

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

    def report(self, queue_depth: int, is_last: bool = False) -> Report:
        with self._lock:
            return Report(
                stage=self._stage,
                frames=self._frames,
                frames_per_second=self._recent_working.per_second(),
                queue_depth=queue_depth,
                cpu_seconds=time.process_time() - self._cpu_before if self._owns_process else None,
                working=self._working.quantiles(),
                waiting=self._waiting.quantiles(),
                recent_working=self._recent_working.quantiles(),
                latency=self._latency.quantiles(),
                recent_latency=self._recent_latency.quantiles(),
                sources=self._sources,
                streams=self._streams,
                outputs=self._outputs,
                warnings=self._warnings + tally_lines(self._tally, is_last),
            )


def tally_lines(tally: Mapping[str, int], is_last: bool) -> list[str]:
    """A line for each text with its count, which until the last is a power of ten: few lines tell of many."""
    if is_last:
        return [f"{text}: {count}" for text, count in tally.items()]
    return [f"{text}: at least {10 ** (len(str(count)) - 1)}" for text, count in tally.items()]


def hop(stage: str, entered_ns: int) -> Hop:
    """This stage's part of a frame's trace, ending now."""
    return Hop(stage, entered_ns, time.monotonic_ns())
