"""What is known of a run: each source with its page of the ledger, and how it went in the end."""

import pytest
from msgspec.structs import replace

from pipeline.control.runstate import LAST_OUTAGES, LAST_PROBLEMS, RunState, SourceState
from pipeline.errors import SourceError, StageError
from pipeline.flow.fates import DELIVERED, NEWER, Drop
from pipeline.flow.ledger import Ledger, Page, create_ledger
from pipeline.flow.messages import EndOfStream, Outage
from pipeline.settings import SourceSettings
from tests.kit.bench import live, signal_of, start_of


@pytest.fixture
def state() -> RunState:
    sources = {name: SourceState(SourceSettings(uri="x"), place) for place, name in enumerate(["door", "yard"])}
    return RunState(sources=sources, book=Ledger(create_ledger(2)))


def capture(state: RunState, place: int, *fates: Drop | None) -> None:
    """A frame for each fate; None: it is on its way."""
    for seq, fate in enumerate(fates):
        state.book.capture(place, 0.0, 0)
        if fate:
            state.book.tell(place, fate, seq)


def test_each_source_has_its_own_page(state) -> None:
    assert state.ledger() == {}
    capture(state, 0, DELIVERED, DELIVERED, NEWER, None)
    capture(state, 1, NEWER)
    assert state.ledger() == {"door": Page(4, 2, 0, {NEWER: 1}), "yard": Page(1, 0, 0, {NEWER: 1})}
    assert state.ledger()["door"].in_flight == 1


def test_a_source_that_was_removed_keeps_its_page(state) -> None:
    capture(state, 0, DELIVERED)
    state.gone["gate"] = SourceState(SourceSettings(uri="x"), 1, page=Page(7, 7))
    assert state.ledger() == {"gate": Page(7, 7), "door": Page(1, 1)}


def test_frames_that_no_stage_can_account_for_have_a_fate_when_it_is_known_why(state) -> None:
    capture(state, 0, DELIVERED, None, None)
    state.lost = "lost when stage track was killed"
    page = state.ledger()["door"]
    assert page.in_flight == 0 and page.dropped == {Drop("run", state.lost): 2}


def test_a_source_is_what_was_told_of_it_last() -> None:
    source = SourceState(SourceSettings(uri="x"), 0)
    assert source.state == "opening" and source.told() == []
    source.hear(live())
    assert source.state == "live"
    source.hear(signal_of("lost", 5))
    assert source.state == "lost" and source.told() == [live(), signal_of("lost", 5)]
    source.hear(EndOfStream("door", 0, 9))
    assert source.state == "ended" and source.told()[-1] == EndOfStream("door", 0, 9)


def test_a_source_says_why_its_state_is_what_it_is() -> None:
    source = SourceState(SourceSettings(uri="x"), 0)
    assert source.cause == ""
    source.hear(replace(signal_of("lost", 5), cause="no data for 5 s"))
    assert source.cause == "no data for 5 s"
    source.hear(EndOfStream("door", 0, 9))
    assert source.cause == ""
    source.hear(EndOfStream("door", 0, 9, "lost for 60 s and given up"))
    assert source.cause == "lost for 60 s and given up"


def test_the_last_outages_are_remembered_and_all_are_counted() -> None:
    source = SourceState(SourceSettings(uri="x"), 0)
    for number in range(LAST_OUTAGES + 5):
        back = signal_of("live", number)
        outage = Outage("lost", "", number, number + 1.0, 1)
        source.hear(type(back)(back.source_id, 0, number, "live", "", 0.0, outage))
    assert source.outage_count == LAST_OUTAGES + 5 and len(source.outages) == LAST_OUTAGES
    assert source.outages[-1].start_unix == LAST_OUTAGES + 4


@pytest.mark.parametrize(
    ("starts", "endless", "interrupted", "code"),
    [
        ([start_of()], False, False, 0),
        ([start_of()], False, True, 130),
        ([live()], False, True, 0),
        ([live(), start_of("yard", 1)], False, True, 130),
        ([], True, True, 0),
        ([], False, True, 130),
    ],
)
def test_only_what_has_an_end_can_be_stopped_before_it(starts, endless, interrupted, code, state) -> None:
    for start in starts:
        state.sources[start.source_id].hear(start)
    state.interrupted, state.endless = interrupted, endless
    assert state.exit_code == code


def test_the_first_problem_decides_the_exit_code(state) -> None:
    for problem in (SourceError("gone"), StageError("broken")):
        state.add_problem(problem)
    assert state.exit_code == 3


@pytest.mark.parametrize("count", [0, 1, LAST_PROBLEMS + 1, LAST_PROBLEMS + 2, 5 * LAST_PROBLEMS])
def test_of_many_problems_the_first_and_the_last_are_kept(count: int, state) -> None:
    for number in range(count):
        state.add_problem(SourceError(str(number)))
    kept = [int(str(problem)) for problem in state.problems]
    assert kept == [*range(min(count, 1)), *range(max(1, count - LAST_PROBLEMS), count)]


def test_what_is_warned_of_often_is_one_line(state) -> None:
    assert [state.count("odd") for _ in range(12)] == list(range(12))
    assert state.warnings == ["odd: at least 10"]
    state.ended_at = 1.0
    assert state.warnings == ["odd: 12"]
