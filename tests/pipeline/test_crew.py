"""When a worker that died is started again: at once, then ever more slowly, and never where that is hopeless."""

from pipeline.run.crew import (
    FIRST_WAIT_SECONDS,
    HOPELESS_DEATHS,
    LONGEST_WAIT_SECONDS,
    MOST_RESTARTS,
    WITHIN_SECONDS,
    Restarts,
)


def deaths(restarts: Restarts, *moments: float) -> list[float | None]:
    """What each is answered, of a worker that was ready in between."""
    waits = []
    for moment in moments:
        restarts.was_ready()
        waits.append(restarts.died(moment))
    return waits


def test_a_worker_is_started_again_at_once() -> None:
    restarts = Restarts()
    assert deaths(restarts, 0.0, 1.0, 2.0, 3.0, 4.0) == [0.0] * MOST_RESTARTS
    assert restarts.count == MOST_RESTARTS


def test_who_dies_more_than_five_times_a_minute_is_started_ever_more_slowly() -> None:
    restarts = Restarts()
    deaths(restarts, *[float(number) for number in range(MOST_RESTARTS)])
    assert deaths(restarts, 10.0, 12.0, 15.0, 20.0, 29.0) == [FIRST_WAIT_SECONDS, 2.0, 4.0, 8.0, 16.0]


def test_the_longest_wait_is_a_minute() -> None:
    restarts = Restarts()
    waits = deaths(restarts, *[number * 0.1 for number in range(20)])
    assert max(waits) == waits[-1] == LONGEST_WAIT_SECONDS


def test_who_dies_seldom_is_started_at_once_for_ever() -> None:
    restarts = Restarts()
    moments = [number * WITHIN_SECONDS / MOST_RESTARTS for number in range(100)]
    assert deaths(restarts, *moments) == [0.0] * 100


def test_after_a_calm_time_it_is_as_if_nothing_had_been() -> None:
    restarts = Restarts()
    deaths(restarts, *[number * 0.1 for number in range(12)])
    assert deaths(restarts, 1000.0) == [0.0]
    assert deaths(restarts, 1000.1, 1000.2, 1000.3, 1000.4, 1000.5)[-1] == FIRST_WAIT_SECONDS


def test_who_was_never_ready_between_so_many_deaths_is_given_up() -> None:
    restarts = Restarts()
    waits = [restarts.died(1000.0 * number) for number in range(HOPELESS_DEATHS)]
    assert waits == [0.0] * (HOPELESS_DEATHS - 1) + [None]


def test_one_good_start_gives_it_hope_again() -> None:
    restarts = Restarts()
    for number in range(HOPELESS_DEATHS - 1):
        assert restarts.died(1000.0 * number) is not None
    restarts.was_ready()
    assert restarts.died(10_000.0) is not None
