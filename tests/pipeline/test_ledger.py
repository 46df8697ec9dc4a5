"""The ledger: every frame captured has one fate, and no count dies with a process."""

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.fates import DELIVERED, FAILED, FATES, LATE, LOST, NEWER, UNHEARD, Drop
from pipeline.flow.ledger import LAST_TOLD, Ledger, Page, create_ledger
from pipeline.flow.messages import Audit
from tests.kit.places import ROOT

PLACES = 3


@pytest.fixture
def spec():
    return create_ledger(PLACES)


@pytest.fixture
def ledger(spec) -> Ledger:
    return Ledger(spec)


def test_a_page_adds_up(ledger) -> None:
    for number in range(10):
        ledger.capture(1, number / 10, number)
    for seq, fate in enumerate((DELIVERED, DELIVERED, DELIVERED, FAILED, NEWER, NEWER, LATE)):
        ledger.tell(1, fate, seq)
    page = ledger.page(1)
    assert page == Page(captured=10, delivered=3, failed=1, dropped={NEWER: 2, LATE: 1})
    assert page.dropped_frames == 3 and page.in_flight == 3


def test_what_was_taken_over_and_audited_is_on_the_page_and_pages_add_up(ledger) -> None:
    ledger.tell_taken_over(1)
    ledger.tell_taken_over(1)
    ledger.tell_audit(1, Audit(objects=5, missed=1))
    ledger.tell_audit(1, Audit(objects=0, missed=0))
    page = ledger.page(1)
    assert page == Page(taken_over=2, audits=2, audited_objects=5, missed_objects=1) and ledger.page(0) == Page()
    both = page.plus(Page(3, 2, 1, {LATE: 1}, 1, 1, 4, 2))
    assert both == Page(3, 2, 1, {LATE: 1}, 3, 3, 9, 3)


def test_frames_without_result_are_those_that_failed_or_were_lost(ledger) -> None:
    for seq, fate in enumerate((DELIVERED, NEWER, LATE, FAILED, LOST["track"], UNHEARD)):
        ledger.tell(1, fate, seq)
    assert (ledger.without_result(0), ledger.without_result(1)) == (0, 3)


@given(st.lists(st.tuples(st.integers(0, PLACES - 1), st.sampled_from(FATES)), max_size=50))
def test_each_fate_of_each_source_is_counted_once_and_by_itself(told: list[tuple[int, Drop]]) -> None:
    spec = create_ledger(PLACES)
    ledger = Ledger(spec)
    os.close(spec.fd)
    for seq, (place, fate) in enumerate(told):
        ledger.capture(place, 0.0, 0)
        ledger.tell(place, fate, seq)
    for place in range(PLACES):
        fates = [fate for where, fate in told if where == place]
        page = ledger.page(place)
        assert (page.captured, page.in_flight) == (len(fates), 0)
        assert (page.delivered, page.failed) == (fates.count(DELIVERED), fates.count(FAILED))
        others = {fate: fates.count(fate) for fate in set(fates) - {DELIVERED, FAILED}}
        assert page.dropped == others


def test_there_is_no_fate_but_those_that_have_words(ledger) -> None:
    with pytest.raises(KeyError):
        ledger.tell(0, Drop("decode", "somehow"), 0)
    assert ledger.page(0) == Page()


def test_where_a_source_was_when_it_was_lost(ledger) -> None:
    assert ledger.last_capture(2) == (0.0, 0)
    ledger.capture(2, 1.25, 77)
    ledger.capture(2, 1.5, 99)
    assert ledger.last_capture(2) == (1.5, 99) and ledger.captured(2) == 2
    assert ledger.last_capture(1) == (0.0, 0)


def test_each_stage_in_order_has_its_own_next_frame(ledger) -> None:
    ledger.arrive(0, "track", 12)
    ledger.arrive(0, "deliver", 10)
    ledger.arrive(1, "track", 3)
    assert [ledger.next_seq(0, "track"), ledger.next_seq(0, "deliver")] == [12, 10]
    assert [ledger.next_seq(1, "track"), ledger.next_seq(1, "deliver"), ledger.next_seq(2, "track")] == [3, 0, 0]


def test_a_new_source_finds_nothing_of_the_one_before(ledger) -> None:
    for place in (0, 1):
        ledger.capture(place, 1.0, 5)
        ledger.tell(place, UNHEARD, 0)
        ledger.arrive(place, "deliver", 1)
    ledger.clear(0)
    ledger.arrive(0, "track", 1)
    assert ledger.untold(0, "track") == [0] and ledger.untold(1, "deliver") == []
    assert ledger.page(0) == Page() and ledger.next_seq(0, "deliver") == 0 and ledger.last_capture(0) == (0.0, 0)
    assert ledger.page(1).captured == 1 and ledger.next_seq(1, "deliver") == 1


def test_what_a_process_counted_before_it_was_killed_stays_counted(spec, ledger) -> None:
    code = f"""
import os, signal
from pipeline.flow.fates import NEWER
from pipeline.flow.ledger import Ledger, LedgerSpec
ledger = Ledger(LedgerSpec({spec.fd}, {PLACES}))
for number in range(3):
    ledger.capture(1, number / 2, number)
ledger.tell(1, NEWER, 0)
ledger.arrive(1, "track", 2)
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], pass_fds=[spec.fd], cwd=ROOT)
    assert ledger.page(1) == Page(captured=3, dropped={NEWER: 1})
    assert ledger.last_capture(1) == (1.0, 2) and ledger.next_seq(1, "track") == 2
    assert ledger.untold(1, "track") == [1]


def test_what_came_and_was_not_told_is_known_of_the_last_frames(ledger) -> None:
    assert ledger.untold(0, "deliver") == []
    for seq in range(3 * LAST_TOLD):
        if seq % 1000:
            ledger.tell(0, DELIVERED, seq)
    ledger.arrive(0, "deliver", 3 * LAST_TOLD)
    assert ledger.untold(0, "deliver") == [9000, 10000, 11000, 12000]
