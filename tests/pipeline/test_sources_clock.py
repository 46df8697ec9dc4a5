"""Time stamps of every bad kind, packets that come when they like, and what is too late: all without a video."""

import itertools

import pytest

from pipeline.sources import late
from pipeline.sources.clock import Arrivals, Clock
from pipeline.sources.late import Lateness

PERIOD = 0.1


def clock(start_seconds: float | None = 0.0, longest_gap_seconds: float = 10.0) -> Clock:
    return Clock(PERIOD, start_seconds, longest_gap_seconds)


# stamps → seconds from the start, stamps repaired
STAMPS: dict[str, tuple[list[float | None], list[float], int]] = {
    "sound": ([5.0, 5.1, 5.15, 9.0], [0, 0.1, 0.15, 4.0], 0),
    "missing": ([5.0, None, 5.2, None], [0, 0.1, 0.2, 0.3], 2),
    "all missing": ([None, None, None], [0, 0.1, 0.2], 0),
    "the first missing": ([None, 5.0, 5.1], [0, 0.1, 0.2], 0),
    "one twice": ([5.0, 5.1, 5.1, 5.2], [0, 0.1, 0.101, 0.2], 1),
    "one out of order": ([5.0, 5.2, 5.1, 5.3], [0, 0.2, 0.201, 0.3], 1),
    "standing still": ([5.0, 5.0, 5.0, 5.0], [0, 0.001, 0.101, 0.201], 3),
    "one far off": ([5.0, 5.1, 9999.0, 5.3, 5.4], [0, 0.1, 0.2, 0.3, 0.4], 2),
    "a leap": ([5.0, 5.1, 9999.0, 9999.1], [0, 0.1, 0.2, 0.3], 1),
    "a leap back": ([5.0, 5.1, 2.0, 2.1], [0, 0.1, 0.2, 0.3], 1),
    "a gap": ([5.0, 5.1, 15.0], [0, 0.1, 10.0], 0),
}


@pytest.mark.parametrize(("stamps", "expected", "repaired"), STAMPS.values(), ids=STAMPS)
def test_time_always_grows(stamps: list[float | None], expected: list[float], repaired: int) -> None:
    ours = clock(start_seconds=None)
    assert [ours.seconds(stamp) for stamp in stamps] == pytest.approx(expected)
    assert ours.repaired == repaired


def test_a_counter_that_ran_over_goes_on() -> None:
    ours = clock(start_seconds=None)
    full = 2**33 / 90_000
    seconds = [ours.seconds((full - 0.5 + n / 10) % full) for n in range(10)]
    assert seconds == pytest.approx([n / 10 for n in range(10)], abs=2e-5)


def test_a_new_clock_begins_after_what_has_passed() -> None:
    ours = clock()
    assert [ours.seconds(0.0), ours.seconds(0.1, 0.1)] == [0, 0.1]
    assert ours.seconds(-500.0, 3.0) == pytest.approx(3.1)
    # As long a gap as has passed is none, however long.
    assert ours.seconds(-440.0, 60.0) == pytest.approx(63.1)


def arrivals(*came: tuple[float | None, float]) -> list[float]:
    """When packets came in truth, of those with (time stamp, moment of arrival) in seconds."""
    ours = Arrivals()
    return [ours.captured_ns(stamp, round(1e9 * moment)) / 1e9 for stamp, moment in came]


# (time stamp, handed out) → came
ARRIVALS: dict[str, tuple[list[tuple[float | None, float]], list[float]]] = {
    "a little late": ([(0, 50), (0.1, 50.9)], [50, 50.9]),
    "held back": ([(0, 50), (0.1, 50.1), (0.2, 55)], [50, 50.1, 50.2]),
    "a backlog in a burst": ([(0, 50), (1, 54), (2, 54), (3, 54), (4, 54), (5, 55)], [50, 51, 52, 54, 54, 55]),
    "a clock that stood still": ([(0, 50), (0.1, 55), (0.2, 55.1), (0.3, 55.2)], [50, 50.1, 55.1, 55.2]),
    "a clock set back": ([(900, 50), (0, 55), (0.1, 55.1)], [50, 55, 55.1]),
    "a clock that leapt": ([(0, 50), (900, 55), (900.1, 55.1)], [50, 55, 55.1]),
    "no stamps": ([(None, 50), (None, 55), (3, 60)], [50, 55, 60]),
    "segments": ([(0, 50), (3, 50), (5.9, 50), (6, 56), (9, 56), (12, 62)], [50, 50, 50, 56, 56, 62]),
}


@pytest.mark.parametrize(("came", "expected"), ARRIVALS.values(), ids=ARRIVALS)
def test_a_packet_came_when_it_was_due_where_it_was_held_back(
    came: list[tuple[float | None, float]], expected: list[float]
) -> None:
    moments = arrivals(*came)
    assert moments == pytest.approx(expected)
    assert all(moment <= handed_out for moment, (_, handed_out) in zip(moments, came, strict=True))


def test_a_slower_clock_of_a_camera_is_not_late() -> None:
    moments = arrivals(*[(n * 0.999, float(n)) for n in range(5000)])
    assert all(b - a == pytest.approx(1) for a, b in itertools.pairwise(moments))


# (seconds behind, whether it is a key frame) → whether it is left out
LATE: dict[str, list[tuple[float, bool, bool]]] = {
    "in time": [(0.0, True, False), (1.9, False, False), (1.9, True, False)],
    "late": [(0.0, True, False), (2.1, False, True), (0.1, False, True), (0.1, True, False), (0.1, False, False)],
    "a late key frame": [(2.1, True, True), (0.0, True, False)],
    "a key frame that is late soon": [(2.1, False, True), (1.9, True, True), (0.4, True, False)],
}


@pytest.mark.parametrize("frames", LATE.values(), ids=LATE)
def test_a_gap_begins_with_what_is_late_and_ends_at_a_fresh_key_frame(frames: list[tuple[float, bool, bool]]) -> None:
    lateness = Lateness()
    for behind_seconds, is_key_frame, left_out in frames:
        assert lateness.leaves_out(behind_seconds, is_key_frame) == left_out


def test_a_gap_ends_at_last_without_a_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "KEY_FRAME_SECONDS", -1.0)
    lateness = Lateness()
    assert lateness.leaves_out(2.1, False)
    assert not lateness.leaves_out(0.0, False)
