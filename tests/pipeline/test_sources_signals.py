"""The states of a source and what it counts, without a source."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources import signals
from pipeline.sources.signals import Condition, Health, Outage, Signal

STATES = st.sampled_from(["live", "lost", "frozen", "grey"])


def test_a_loss_and_its_end_are_two_signals() -> None:
    condition = Condition()
    assert condition.become("live", "", 1) is None
    assert condition.become("lost", "ended", 5) == Signal("lost", "ended", 5)
    condition.attempt()
    assert condition.become("lost", "ended", 5) is None
    condition.attempt()
    assert condition.become("lost", "refused", 5) == Signal("lost", "refused", 5)
    condition.attempt()
    assert condition.become("live", "", 12) == Signal("live", "", 12, Outage("lost", "refused", 5, 12, 3))
    assert condition.become("live", "", 13) is None


def test_one_outage_may_end_in_another() -> None:
    condition = Condition()
    condition.become("frozen", "still", 3)
    assert condition.become("lost", "gone", 20) == Signal("lost", "gone", 20, Outage("frozen", "still", 3, 20, 0))
    condition.attempt()
    assert condition.become("live", "", 30) == Signal("live", "", 30, Outage("lost", "gone", 20, 30, 1))


def test_an_outage_that_began_before_the_one_that_was_seen_first_ends_it_no_earlier_than_it_began() -> None:
    condition = Condition()
    condition.become("frozen", "still", 10)
    grey = condition.become("grey", "nothing", 4)
    assert grey == Signal("grey", "nothing", 4, Outage("frozen", "still", 10, 10, 0))


@given(steps=st.lists(STATES, max_size=50))
def test_every_outage_is_told_once_at_its_end(steps: list) -> None:
    condition = Condition()
    told = [condition.become(state, "" if state == "live" else "why", moment) for moment, state in enumerate(steps)]
    given = [signal for signal in told if signal]
    assert [signal.state for signal in given] == [state for state, _ in itertools.groupby(["live", *steps])][1:]
    ended = [signal.outage.state for signal in given if signal.outage]
    assert ended == [signal.state for signal in given[:-1] if signal.state != "live"]


def test_the_seconds_of_a_loss_that_goes_on_count(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health()
    health.lose(10.0)
    health.lose(12.0)  # an attempt that failed: lost since the first
    monkeypatch.setattr(signals.time, "monotonic", lambda: 15.0)
    assert health.seconds_lost == 5.0
    health.come_back(16.0)
    assert health.seconds_lost == 6.0
    health.lose(20.0)
    health.come_back(21.0)
    assert health.seconds_lost == 7.0
