"""When a lost source is opened again, without a source: limits, jitter, and when it begins anew."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.backoff import LONGEST_SECONDS, STEADY_SECONDS, Backoff


def longest() -> Backoff:
    """Draws the limit each time."""
    return Backoff(draw=lambda low, high: high)


def test_at_once_then_twice_as_long_each_time_up_to_half_a_minute() -> None:
    backoff = longest()
    assert [backoff.next_seconds() for _ in range(10)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_sources_that_were_lost_together_come_back_apart() -> None:
    site = [Backoff() for _ in range(50)]
    waits = [[backoff.next_seconds() for _ in range(4)] for backoff in site]
    assert {wait[0] for wait in waits} == {0}
    assert all(len({wait[attempt] for wait in waits}) > 40 for attempt in (1, 2, 3))


@given(attempts=st.integers(1, 5000), share=st.floats(0, 1))
def test_a_wait_is_never_longer_than_the_longest(attempts: int, share: float) -> None:
    backoff = Backoff(draw=lambda low, high: low + share * (high - low))
    assert all(0 <= backoff.next_seconds() <= LONGEST_SECONDS for _ in range(attempts))


@given(came=st.lists(st.floats(0, STEADY_SECONDS, exclude_max=True), max_size=20))
def test_frames_that_come_for_a_moment_change_nothing(came: list[float]) -> None:
    backoff, other = longest(), longest()
    for seconds in came:
        backoff.frames_came_for(seconds)
        assert backoff.next_seconds() == other.next_seconds()


@given(attempts=st.integers(1, 100), seconds=st.floats(STEADY_SECONDS, 1e6))
def test_frames_that_came_for_a_while_let_it_begin_anew(attempts: int, seconds: float) -> None:
    backoff = longest()
    for _ in range(attempts):
        backoff.next_seconds()
    backoff.frames_came_for(seconds)
    assert [backoff.next_seconds(), backoff.next_seconds()] == [0, 0.5]
