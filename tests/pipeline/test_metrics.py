"""Counting and timing: right, and in memory that does not grow."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.messages import Hop
from pipeline.flow.metrics import Durations, Meter
from tests.kit.bench import header_of


def test_nothing_measured_is_all_zeros() -> None:
    q = Durations().quantiles()
    assert (q.count, q.p50_ms, q.p99_ms, q.max_ms) == (0, 0.0, 0.0, 0.0)


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300))
def test_quantiles_are_within_one_percent(durations_ns: list[int]) -> None:
    durations = Durations()
    for duration_ns in durations_ns:
        durations.add(duration_ns)
    q = durations.quantiles()
    exact_ms = np.percentile(np.array(durations_ns) / 1e6, (50, 95, 99), method="inverted_cdf")
    for got, want in zip((q.p50_ms, q.p95_ms, q.p99_ms), exact_ms, strict=True):
        assert got == pytest.approx(want, rel=0.011, abs=2e-3)
    assert q.max_ms == max(durations_ns) / 1e6
    assert q.mean_ms == pytest.approx(np.mean(durations_ns) / 1e6)


def test_a_negative_duration_counts_as_none() -> None:
    durations = Durations()
    durations.add(-5)
    assert durations.quantiles().max_ms == 0.0


def test_a_meter_does_not_grow_with_the_run() -> None:
    meter = Meter(owns_process=True)

    def size_after(frames: int) -> int:
        for seq in range(frames):
            header = header_of(seq, trace=[Hop("infer", seq, seq + 1000)])
            meter.passed(header)
            meter.delivered(header, seq + 2000)
        return sum(sys.getsizeof(part) for part in (meter._recent_working._samples, meter._working._buckets))

    assert size_after(2000) == size_after(20000)


def test_what_happens_often_is_told_in_few_lines_and_exactly_at_the_end() -> None:
    meter, told = Meter(owns_process=False), []
    for _ in range(137):
        meter.tally("refused")
        told += meter.report(0, 0.0).warnings
    assert list(dict.fromkeys(told)) == ["refused: at least 1", "refused: at least 10", "refused: at least 100"]
    meter.is_over = True
    assert meter.report(0, 0.0).warnings == ["refused: 137"]


def test_waiting_is_what_lies_between_two_stages() -> None:
    meter = Meter(owns_process=False)
    meter.passed(header_of(trace=[Hop("decode", 0, 10_000_000), Hop("infer", 30_000_000, 70_000_000)]))
    meter.passed(header_of(captured_ns=5_000_000, trace=[Hop("decode", 6_000_000, 10_000_000)]))
    report = meter.report(3, 0.5)
    assert (report.frames, report.queue_depth, report.busy_seconds) == (2, 3, 0.5)
    assert (report.working.max_ms, report.working.mean_ms) == (40, pytest.approx(22))
    assert (report.waiting.max_ms, report.waiting.mean_ms) == (20, pytest.approx(10.5))


def test_what_shares_a_process_tells_of_no_process() -> None:
    report = Meter(owns_process=False).report(0, 0.0)
    assert report.cpu_seconds is None and report.peak_memory_bytes is None
    assert Meter(owns_process=True).report(0, 0.0).peak_memory_bytes > 1 << 20


def test_rounds_are_counted_by_their_size() -> None:
    meter = Meter(owns_process=False)
    for size in (1, 8, 8):
        meter.round_given(size)
    assert meter.report(0, 0.0).rounds == {1: 1, 8: 2}
