"""A source that has ended is forgotten: whoever kept something for it keeps nothing, and another may take its name."""

import threading
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from pipeline.control.runstate import LAST_GONE, RunState, SourceState
from pipeline.flow.fates import NO_SLOT, WORKER_LOST, Drop
from pipeline.flow.frame import Frame, Message
from pipeline.flow.ledger import Page
from pipeline.flow.messages import EndOfStream, FrameHeader, ModelCard, Start, StreamStart
from pipeline.flow.metrics import Meter
from pipeline.flow.order import InOrder
from pipeline.flow.sharedmem import Pool, create_pool
from pipeline.kinds import SINKS
from pipeline.outputs import Output, Ticket
from pipeline.overlay import Overlay
from pipeline.run.plan import Plan
from pipeline.settings import DeliverSettings, Settings, SourceSettings
from pipeline.sinks import Sink
from pipeline.stages.deliver import Deliver
from tests.kit.places import CLIP


class Counts:
    """How far each place has come, as the ledger knows it."""

    def __init__(self) -> None:
        self.next: dict[int, int] = {}

    def next_seq(self, place: int) -> int:
        return self.next.get(place, 0)

    def arrive(self, place: int, next_seq: int) -> None:
        self.next[place] = next_seq

    def passed_on(self, place: int) -> int:
        return 0

    def is_alive(self, place: int, seq: int) -> bool:
        return False


def start(seq: int = 0, place: int = 3) -> StreamStart:
    return StreamStart("gate", place, seq, True, "latest", 64, 48, 10.0, None, 0.3)


def frame(seq: int, **changes: object) -> Frame:
    return Frame(FrameHeader("gate", 3, seq, 0.0, 0, 0.0, 64, 48, **changes), {})  # type: ignore[arg-type]


def kinds(messages: list[Message]) -> list[str]:
    return [str(m.header.seq) if isinstance(m, Frame) else type(m).__name__ for m in messages]


def test_a_source_with_the_name_and_place_of_one_that_ended_begins_anew() -> None:
    counts = Counts()
    order = InOrder(counts)
    first = [order.put(message) for message in (start(), frame(0), frame(1), EndOfStream("gate", 3, 2))]
    assert [kinds(each) for each in first] == [["StreamStart"], ["0"], ["1"], ["EndOfStream"]]
    counts.next.clear()  # the place is given to another
    second = [order.put(message) for message in (start(), frame(0), EndOfStream("gate", 3, 1))]
    assert [kinds(each) for each in second] == [["StreamStart"], ["0"], ["EndOfStream"]]


def test_an_end_that_waits_for_a_frame_is_not_the_end_yet() -> None:
    order = InOrder(Counts())
    for message in (start(), EndOfStream("gate", 3, 2), frame(1)):
        order.put(message)
    assert kinds(order.put(frame(0))) == ["0", "1", "EndOfStream"]


def test_what_is_reclaimed_after_the_end_passes_and_leaves_nothing_behind() -> None:
    counts = Counts()
    order = InOrder(counts)
    for message in (start(), first := frame(0), EndOfStream("gate", 3, 1)):
        order.put(message)
    order.taken(first)
    late = frame(0, dropped=Drop("track", WORKER_LOST), reclaimed=True)
    assert kinds(order.put(late)) == ["0"]
    counts.next.clear()
    assert [kinds(order.put(m)) for m in (start(), frame(0))] == [["StreamStart"], ["0"]]


def test_the_overlay_draws_no_trail_of_a_source_that_had_the_name_before() -> None:
    overlay = Overlay()
    overlay._trails["gate"] = {1: [(0.1, 5.0, 5.0)]}
    overlay.forget("gate")
    overlay.forget("gate")
    assert not overlay._trails


def test_an_output_keeps_no_count_for_a_source_that_waits_for_nothing() -> None:
    class Taken(Sink):
        def write(self, *_: object) -> None: ...
        def close(self) -> None: ...

    output = Output("jsonl", Meter(False).output("jsonl", ""), Taken, print, print, SINKS["window"])  # type: ignore[arg-type]
    for number in range(50):
        ticket = Ticket(frame(number), lambda frame, taken: None)
        output.offer(ticket, SimpleNamespace(source_id=f"s{number}", dropped=None), None, True)  # type: ignore[arg-type]
        ticket.release()
    output.close()
    output.join()
    assert output._waiting == {}


CARD = ModelCard("m", "w", ("person",), 64, 64, 64, 64, 4, "stretch", "cpu", "eager", {}, "fp32", 1, 1)


def test_a_source_that_comes_again_gets_its_own_output_again_and_loses_nothing_of_the_first(tmp_path: Path) -> None:
    settings = Settings(deliver=DeliverSettings(jsonl=str(tmp_path / "{source}.jsonl")))
    meter = Meter(False)
    ended: list[str] = []
    kit = mock.Mock(settings=settings, meter=meter, incarnation=0, pools={}, say_ended=ended.append)
    deliver = Deliver(kit)
    deliver.prepare()
    deliver.begin(Start(CARD, mock.Mock(), []))
    for life in range(2):
        deliver.stream_started(start())
        deliver.process(frame(0, dropped=NO_SLOT))
        deliver.stream_ended(EndOfStream("gate", 3, 1))
        while len(ended) == life:
            deliver.idle()
        assert ended == ["gate"] * (life + 1)
        assert not deliver._outputs and not deliver._sources
        assert list(meter.close_outputs("gate")) == ["jsonl (gate)"]
        assert meter.report(0, 0.0).outputs == {}
    assert (tmp_path / "gate.jsonl").read_text().count('"seq":0') == 2
    deliver.close()


def test_a_decoder_that_has_ended_holds_no_slot(one_run: "OneRun") -> None:
    """Where nothing may be dropped it takes room before it takes a frame; the last time for none."""
    one_run.play({"uri": str(CLIP)})
    assert one_run.frames_given == 130
    assert one_run.pool.leased(0, 8) == 0


class OneRun:
    """A decoder, and whoever takes its frames and gives them back at once."""

    def __init__(self) -> None:
        self.pool = Pool(create_pool("frames", 8, 64 * 64 * 3 + 4096))
        self.frames_given = 0

    def play(self, source: dict) -> None:
        from pipeline.flow.ledger import Ledger, create_ledger
        from pipeline.flow.messages import Limits
        from pipeline.flow.sharedmem import Lessor
        from pipeline.stages.decode import Decode

        settings = Settings(sources={"gate": SourceSettings(**source)})
        kit = mock.Mock(
            settings=settings,
            source_id="gate",
            place=0,
            is_patient=False,
            pools={"frames": self.pool},
            lessor=Lessor(self.pool, 0, 8, 1),
            ledger=Ledger(create_ledger(1)),
            meter=Meter(False),
            stopped=lambda: False,
        )
        decode = Decode(kit)
        decode.prepare()
        decode.begin(Start(CARD, Limits(8, 8, 1, 1, 1), []))
        decode.run(self._take)
        decode.close()

    def _take(self, message: Message) -> None:
        if isinstance(message, Frame):
            self.frames_given += 1
            message.give_back()


@pytest.fixture
def one_run() -> OneRun:
    return OneRun()


def test_a_run_remembers_the_last_sources_that_went_and_the_sum_of_the_others() -> None:
    pages = {"page": Page(10, 7, 1, {NO_SLOT: 2})}
    state = RunState()
    with mock.patch.object(RunState, "page", lambda self, source: pages["page"]):
        for number in range(LAST_GONE + 5):
            state.sources[f"s{number}"] = SourceState(SourceSettings(uri="x"), 0)  # type: ignore[arg-type]
            state.forget(f"s{number}", f"decode:s{number}")
        ledger = state.ledger()
    assert len(ledger) == LAST_GONE + 1
    assert ledger["5 sources removed earlier"] == Page(50, 35, 5, {NO_SLOT: 10})
    assert sum(page.captured for page in ledger.values()) == 10 * (LAST_GONE + 5)


def test_a_source_that_came_twice_is_told_of_once() -> None:
    state = RunState()
    with mock.patch.object(RunState, "page", lambda self, source: Page(10, 8, 0, {NO_SLOT: 2})):
        for _ in range(2):
            state.sources["gate"] = SourceState(SourceSettings(uri="x"), 0)  # type: ignore[arg-type]
            state.forget("gate", "decode:gate")
        state.sources["gate"] = SourceState(SourceSettings(uri="x"), 0)  # type: ignore[arg-type]
        assert state.ledger() == {"gate": Page(30, 24, 0, {NO_SLOT: 6})}


def test_a_plan_gives_a_place_again_and_a_number_never() -> None:
    plan = Plan(Settings(sources={"a": SourceSettings(uri="x")}))  # type: ignore[arg-type]
    first = plan.add_source("b")
    plan.remove_source("b")
    second = plan.add_source("c")
    assert (first.place, first.first_slot) == (second.place, second.first_slot)
    assert first.number != second.number
    assert np.unique([worker.number for worker in plan.workers.values()]).size == len(plan.workers)


def test_an_output_that_is_long_in_closing_holds_up_no_other_source() -> None:
    may_close = threading.Event()

    class Slow(Sink):
        def write(self, *_: object) -> None: ...

        def close(self) -> None:
            may_close.wait(60)

    settings = Settings(deliver=DeliverSettings(jsonl="{source}.jsonl"))
    ended: list[str] = []
    deliver = Deliver(mock.Mock(settings=settings, meter=Meter(False), incarnation=0, pools={}, say_ended=ended.append))
    deliver._modules = {"jsonl": SimpleNamespace(open_sink=lambda target: Slow())}
    deliver.begin(Start(CARD, mock.Mock(), []))
    deliver.stream_started(start())
    deliver.process(frame(0, dropped=NO_SLOT))
    deliver.stream_ended(EndOfStream("gate", 3, 1))
    deliver.idle()
    assert ended == []  # and here we are
    may_close.set()
    while not ended:
        deliver.idle()
    deliver.close()
