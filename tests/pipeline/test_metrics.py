"""Counting and timing: right, and in memory that does not grow."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages import FrameHeader, Hop, Report, SourceCounts
from pipeline.metrics import Durations, Meter
from pipeline.runstate import RunState


def test_nothing_measured_is_all_zeros() -> None:
    q = Durations().quantiles()
    assert (q.count, q.p50_ms, q.p99_ms, q.max_ms) == (0, 0.0, 0.0, 0.0)


@settings(deadline=None)
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
    meter = Meter("infer", owns_process=True)

    def size_after(frames: int) -> int:
        for seq in range(frames):
            header = FrameHeader("door", seq, 0.0, 0, 0.0, 1, 1, trace=[Hop("infer", seq, seq + 1000)])
            meter.passed(header)
            meter.delivered(header, seq + 2000)
        return sum(sys.getsizeof(part) for part in (meter._recent_working._samples, meter._working._buckets))

    assert size_after(2000) == size_after(20000)


def test_what_happens_often_is_told_in_few_lines_and_exactly_at_the_end() -> None:
    meter, told = Meter("infer", owns_process=False), []
    for _ in range(137):
        meter.tally("refused")
        told += meter.report(0).warnings
    assert list(dict.fromkeys(told)) == ["refused: at least 1", "refused: at least 10", "refused: at least 100"]
    assert meter.report(0, is_last=True).warnings == ["refused: 137"]


def report(stage: str, **counts) -> Report:
    base = Meter(stage, owns_process=False).report(0)
    base.sources = {"door": SourceCounts(**counts)}
    return base


def test_the_ledger_balances_over_stages() -> None:
    state = RunState()
    assert state.ledger() == {}
    state.reports = {
        "decode": report("decode", captured=10, highest=9, dropped={"no slot": 1}),
        "infer": report("infer", highest=9, dropped={"queue full": 2}),
        "deliver": report("deliver", highest=9, delivered=5, failed=1),
    }
    page = state.ledger()["door"]
    assert (page.captured, page.delivered, page.failed, page.in_flight) == (10, 5, 1, 1)
    state.lost = "lost when stage track was killed"
    page = state.ledger()["door"]
    assert page.in_flight == 0 and page.dropped["run", state.lost] == 1


def test_what_a_killed_decoder_did_not_report_others_saw() -> None:
    state = RunState()
    state.reports = {
        "decode": report("decode", captured=3, highest=2),
        "deliver": report("deliver", highest=7, delivered=8),
    }
    assert state.ledger()["door"].captured == 8
