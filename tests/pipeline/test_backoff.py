"""When a lost source is opened again, without a source: limits, jitter, and when it begins anew."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.backoff import LONGEST_SECONDS, STEADY_SECONDS, Backoff


def longest() -> Backoff:
    """Draws the limit each time."""
    return Backoff(draw=lambda low, high: high)


def waits(backoff: Backoff, attempts: int, attempt_seconds: float = 0.1, now_seconds: float = 1000.0) -> list[float]:
    """Each wait, where every attempt fails after a moment."""
    told = []
    for _ in range(attempts):
        told.append(backoff.next_seconds(now_seconds))
        now_seconds += told[-1] + attempt_seconds
    return told


def test_at_once_then_ever_longer_up_to_half_a_minute() -> None:
    told = waits(longest(), 30)
    assert told[:3] == [0, 0.5, 0.5] and told[-1] == 30
    grown = [after / before for before, after in pairwise(told) if before > 0.5 and after < 30]
    assert len(grown) > 8 and all(1.3 < growth < 1.5 for growth in grown)


def test_who_was_away_for_a_while_is_not_waited_for_longer_than_a_third_of_it() -> None:
    backoff = longest()
    backoff.next_seconds(0.0)
    assert backoff.next_seconds(4.0) < 2.0 and backoff.next_seconds(30.0) == 10.0


def test_the_longest_wait_may_be_another_one() -> None:
    assert waits(Backoff(draw=lambda low, high: high, longest_seconds=10.0), 30)[-1] == 10


def test_sources_that_were_lost_together_come_back_apart() -> None:
    site = [waits(Backoff(), 4) for _ in range(50)]
    assert {told[0] for told in site} == {0}
    assert all(len({told[attempt] for told in site}) > 40 for attempt in (1, 2, 3))


@given(attempts=st.integers(1, 500), share=st.floats(0, 1))
def test_a_wait_is_never_longer_than_the_longest_and_never_none(attempts: int, share: float) -> None:
    backoff = Backoff(draw=lambda low, high: low + share * (high - low))
    assert all(0.25 <= seconds <= LONGEST_SECONDS for seconds in waits(backoff, attempts)[1:])


@given(came=st.lists(st.floats(0, STEADY_SECONDS, exclude_max=True), max_size=20))
def test_frames_that_come_for_a_moment_change_nothing(came: list[float]) -> None:
    backoff, other = longest(), longest()
    for number, seconds in enumerate(came):
        backoff.went_well_for(seconds)
        assert backoff.next_seconds(10.0 * number) == other.next_seconds(10.0 * number)


@given(attempts=st.integers(1, 100), seconds=st.floats(STEADY_SECONDS, 1e6))
def test_frames_that_came_for_a_while_let_it_begin_anew(attempts: int, seconds: float) -> None:
    backoff = longest()
    waits(backoff, attempts)
    backoff.went_well_for(seconds)
    assert waits(backoff, 2, now_seconds=5000.0) == [0, 0.5]
