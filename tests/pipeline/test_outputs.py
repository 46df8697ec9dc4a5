"""Outputs: one that stalls stalls nobody else, and what it misses is counted; a frame's fate is told once."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.errors import OutputError
from pipeline.flow.fates import NEWER, Drop
from pipeline.flow.frame import Frame
from pipeline.flow.messages import OutputCounts
from pipeline.flow.results import FrameResult
from pipeline.kinds import SINKS
from pipeline.outputs import MOST_WAITING, WAITING_FRAMES, Output, Ticket
from pipeline.sinks import Missed, Sink
from pipeline.sinks.window import StopRequested
from tests.kit.bench import Bench, header_of, signal_of
from tests.kit.harness import wait_until
from tests.kit.results import result


class Recorded(Sink):
    """Remembers what it was given; `gate` shut, it stalls; `breaks_at` a seq it fails; `misses`: it misses those."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.breaks_at: int | None = None
        self.misses: set[int] = set()
        self.is_closed = False

    def write(self, frame: FrameResult, image_bgr) -> None:
        self.inside.set()
        assert self.gate.wait(60)
        if frame.seq == self.breaks_at:
            raise OutputError("cannot write x: disk full")
        if frame.seq in self.misses:
            raise Missed
        self.told.append(frame.seq)

    def record(self, signal) -> None:
        self.told.append(signal.state)

    def still(self, source_id, pts_seconds, image_bgr) -> None:
        self.inside.set()
        assert self.gate.wait(60)
        self.told.append(f"still {pts_seconds:g}")

    def end(self, source_id) -> None:
        self.told.append(f"end of {source_id}")

    def close(self) -> None:
        self.is_closed = True


class Outlets:
    """Some outputs, and what became of each frame: (seq, taken)."""

    def __init__(self) -> None:
        self.bench = Bench(slots=300, slot_bytes=4096)
        self.fates: list[tuple[int, bool]] = []
        self.failures: list[str] = []
        self.stops = 0
        self.sinks: dict[str, Recorded] = {}
        self.outputs: dict[str, Output] = {}

    def add(self, name: str, path: str = "", make=None) -> Recorded:
        sink = self.sinks[name] = Recorded()
        self.outputs[name] = Output(
            name,
            OutputCounts(path),
            make or (lambda: sink),
            lambda error: self.failures.append(str(error)),
            self._stop,
            SINKS["window"],
        )
        return sink

    def _stop(self) -> None:
        self.stops += 1

    def offer(self, seq: int, may_wait: bool = False, source_id: str = "door", dropped: Drop | None = None) -> Frame:
        frame = Frame(header_of(seq, dropped=dropped), {}) if dropped else self.bench.frame(seq)
        ticket = Ticket(frame, lambda frame, taken: self.fates.append((frame.header.seq, taken)))
        facts = result(seq=seq, source_id=source_id, dropped=dropped)
        for output in self.outputs.values():
            output.offer(ticket, facts, None, may_wait)
        ticket.release(taken=False)
        return frame

    def counts(self, name: str) -> tuple[int, int]:
        """Frames, and those missed."""
        counts = self.outputs[name].counts
        return counts.frames, counts.missed

    def close(self) -> None:
        for output in self.outputs.values():
            output.close()
        for output in self.outputs.values():
            output.join()


@pytest.fixture
def outlets() -> Iterator[Outlets]:
    outlets = Outlets()
    yield outlets
    for sink in outlets.sinks.values():
        sink.gate.set()
    outlets.close()


def stalled(outlets: Outlets, name: str, may_wait: bool = False) -> Recorded:
    """An output that is busy with frame 0 for as long as the gate is shut."""
    sink = outlets.add(name)
    sink.gate.clear()
    outlets.offer(0, may_wait)
    assert sink.inside.wait(20)
    return sink


# --- who waits for whom ----------------------------------------------------------------------------------------------


def test_each_output_gets_everything_in_order(outlets) -> None:
    sinks = [outlets.add("a"), outlets.add("b")]
    for seq in range(50):
        outlets.offer(seq, may_wait=True)
    outlets.close()
    assert [sink.told for sink in sinks] == [list(range(50))] * 2
    assert outlets.counts("a") == outlets.counts("b") == (50, 0)
    assert sorted(outlets.fates) == [(seq, True) for seq in range(50)] and outlets.bench.leased() == 0


def test_an_output_that_stalls_stalls_nobody_and_what_it_misses_is_counted(outlets) -> None:
    slow, quick = stalled(outlets, "slow"), outlets.add("quick")
    for seq in range(1, 40):
        outlets.offer(seq)
        wait_until(lambda seq=seq: seq in quick.told, what="the other output")
    assert quick.told == list(range(1, 40)) and slow.told == []
    assert outlets.counts("slow") == (0, 39 - (WAITING_FRAMES - 1))
    slow.gate.set()
    outlets.close()
    assert slow.told == list(range(WAITING_FRAMES))
    assert outlets.counts("slow") == (WAITING_FRAMES, 40 - WAITING_FRAMES)


def test_what_a_stalled_output_holds_are_few_slots(outlets) -> None:
    stalled(outlets, "slow")
    for seq in range(1, 40):
        outlets.offer(seq)
    assert outlets.bench.leased() == WAITING_FRAMES


def test_a_source_that_may_wait_misses_nothing(outlets) -> None:
    slow = stalled(outlets, "slow", may_wait=True)
    for seq in range(1, 40):
        outlets.offer(seq, may_wait=True)
    assert outlets.counts("slow") == (0, 0) and outlets.bench.leased() == 40
    slow.gate.set()
    outlets.close()
    assert slow.told == list(range(40)) and outlets.counts("slow") == (40, 0)


def test_one_source_that_fills_a_queue_leaves_room_for_another(outlets) -> None:
    slow = stalled(outlets, "slow")
    for seq in range(1, 20):
        outlets.offer(seq)
    outlets.offer(100, source_id="yard")
    slow.gate.set()
    outlets.close()
    assert 100 in slow.told


def test_memory_is_bounded_while_an_output_stalls_for_days(outlets) -> None:
    slow = stalled(outlets, "slow")
    output = outlets.outputs["slow"]
    for seq in range(3 * MOST_WAITING):
        outlets.offer(seq, dropped=NEWER)
        output.still("door", float(seq), None)
    assert len(output._items) <= MOST_WAITING
    assert outlets.counts("slow")[1] > MOST_WAITING
    slow.gate.set()


def test_a_stalled_output_holds_few_pictures_of_a_lost_signal(outlets) -> None:
    slow = stalled(outlets, "slow")
    for number in range(1000):
        outlets.outputs["slow"].still("door", float(number), None)
    slow.gate.set()
    outlets.close()
    assert 0 < len([text for text in slow.told if str(text).startswith("still")]) <= 8 * WAITING_FRAMES


# --- the fate of a frame ---------------------------------------------------------------------------------------------


def test_a_fate_is_told_once_when_the_first_has_taken_the_frame(outlets) -> None:
    slow = stalled(outlets, "slow")
    outlets.add("quick")
    frame = outlets.offer(1)
    wait_until(lambda: outlets.fates, what="a fate")
    assert outlets.fates == [(1, True)]
    assert not frame.is_ghost and frame.header.leases  # the slow one still reads it
    slow.gate.set()
    outlets.close()
    assert sorted(outlets.fates) == [(0, True), (1, True)] and outlets.bench.leased() == 0


def test_a_frame_that_no_output_took_says_so(outlets) -> None:
    stalled(outlets, "slow")
    for seq in range(1, WAITING_FRAMES + 3):
        outlets.offer(seq)
    assert outlets.fates == [(WAITING_FRAMES, False), (WAITING_FRAMES + 1, False), (WAITING_FRAMES + 2, False)]


def test_who_holds_a_frame_keeps_its_slots_after_its_fate_was_told(outlets) -> None:
    frame = outlets.bench.frame(0)
    ticket = Ticket(frame, lambda frame, taken: outlets.fates.append((0, taken)))
    ticket.hold()
    ticket.release(taken=True)
    assert outlets.fates == [(0, True)] and outlets.bench.leased() == 1
    ticket.release()
    assert outlets.fates == [(0, True)] and outlets.bench.leased() == 0


# --- an output that fails --------------------------------------------------------------------------------------------


def test_an_output_that_fails_takes_no_more_and_the_others_go_on(outlets) -> None:
    bad, good = outlets.add("bad"), outlets.add("good")
    bad.breaks_at = 2
    for seq in range(6):
        outlets.offer(seq, may_wait=True)
        wait_until(lambda seq=seq: seq in good.told, what="the other output")
    outlets.close()
    assert bad.told == [0, 1] and good.told == list(range(6)) and bad.is_closed
    assert outlets.failures == ["cannot write x: disk full"]
    assert outlets.outputs["bad"].counts.problem == "cannot write x: disk full"
    assert outlets.counts("bad") == (2, 0) and [taken for _, taken in outlets.fates] == [True] * 6


def test_what_an_output_misses_it_has_not_taken_and_it_goes_on(outlets) -> None:
    sink, other = outlets.add("a"), outlets.add("b")
    sink.misses, other.misses = {1, 2}, {2, 3}
    for seq in range(5):
        outlets.offer(seq, may_wait=True)
    outlets.close()
    assert sink.told == [0, 3, 4] and other.told == [0, 1, 4] and not outlets.failures
    assert outlets.counts("a") == outlets.counts("b") == (3, 2)
    assert sorted(outlets.fates) == [(0, True), (1, True), (2, False), (3, True), (4, True)]


def test_what_waited_for_an_output_that_fails_was_taken_by_nobody(outlets) -> None:
    bad = stalled(outlets, "bad", may_wait=True)
    for seq in range(1, 5):
        outlets.offer(seq, may_wait=True)
    bad.breaks_at = 1
    bad.gate.set()
    wait_until(lambda: outlets.failures, what="the failure")
    wait_until(lambda: len(outlets.fates) == 5, what="fates")
    assert outlets.fates[0] == (0, True) and sorted(outlets.fates[1:]) == [(seq, False) for seq in range(1, 5)]
    assert outlets.bench.leased() == 0
    outlets.offer(9)
    assert outlets.fates[-1] == (9, False)


def test_what_cannot_be_opened_fails_with_its_first_frame(outlets) -> None:
    def make() -> Sink:
        raise OutputError("cannot write x: no such folder")

    outlets.add("bad", make=make)
    outlets.outputs["bad"].record(signal_of("lost"))
    wait_until(lambda: outlets.failures, what="the failure")
    outlets.offer(0)
    assert outlets.fates == [(0, False)] and outlets.failures == ["cannot write x: no such folder"]


def test_what_cannot_be_finished_is_told_of(outlets) -> None:
    sink = outlets.add("bad")

    def close() -> None:
        raise OutputError("cannot write x: disk full")

    sink.close = close
    outlets.offer(0, may_wait=True)
    outlets.close()
    assert outlets.failures == ["cannot write x: disk full"] and outlets.outputs["bad"].counts.problem


def test_the_person_at_a_window_ends_the_run_and_has_seen_the_frame(outlets) -> None:
    window = outlets.add("window")

    def write(frame, image_bgr) -> None:
        raise StopRequested

    window.write = write
    outlets.offer(0)
    wait_until(lambda: outlets.fates, what="a fate")
    assert outlets.stops == 1 and outlets.fates == [(0, True)] and outlets.failures == []


def test_nothing_is_opened_before_there_is_something_to_take(outlets) -> None:
    opened = []
    outlets.add("lazy", make=lambda: opened.append(1) or Recorded())
    outlets.close()
    assert opened == []


def test_also_a_source_without_frames_has_its_output(outlets) -> None:
    opened = []
    outlets.add("lazy", make=lambda: opened.append(1) or Recorded())
    outlets.outputs["lazy"].open()
    outlets.close()
    assert opened == [1]


def test_what_was_opened_is_told_of_the_end_of_a_source_in_its_place(outlets) -> None:
    sink = outlets.add("states")
    outlets.outputs["states"].end("hall")  # nothing is opened for that
    outlets.offer(0, may_wait=True)
    outlets.outputs["states"].end("door")
    outlets.offer(1, may_wait=True)
    outlets.close()
    assert sink.told == [0, "end of door", 1]


def test_what_was_taken_and_then_not_passed_on_is_missed(outlets) -> None:
    sink = outlets.add("away")

    def write(frame, image_bgr) -> None:
        sink.lost = 2 * frame.seq

    def close() -> None:
        sink.lost = 7

    sink.write, sink.close = write, close
    for seq in range(3):
        outlets.offer(seq, may_wait=True)
    wait_until(lambda: outlets.counts("away") == (3, 4), what="the counts")
    outlets.close()
    assert outlets.counts("away") == (3, 7)


@pytest.mark.parametrize(("change", "is_gone"), [("none", False), ("deleted", True), ("replaced", True)])
def test_a_file_that_is_not_there_any_more_says_so(change: str, is_gone: bool, outlets, tmp_path) -> None:
    path = tmp_path / "o"
    outlets.add("file", str(path), make=lambda: (path.touch(), Recorded())[1])
    outlets.offer(0)
    wait_until(lambda: outlets.counts("file")[0] == 1, what="a frame")
    if change == "deleted":
        path.unlink()
    elif change == "replaced":
        (tmp_path / "other").touch()
        (tmp_path / "other").rename(path)
    outlets.close()
    assert outlets.outputs["file"].counts.is_gone == is_gone


def test_lines_that_wait_keep_no_picture_once_the_frame_has_been_taken(outlets) -> None:
    bench = outlets.bench
    ticket = Ticket(bench.frame(0), lambda frame, taken: outlets.fates.append((frame.header.seq, taken)))
    ticket.hold(reads=False)  # lines
    ticket.hold(reads=True)  # a video
    ticket.release(taken=False)
    assert outlets.fates == [] and bench.leased() == 1
    ticket.release(taken=True, reads=True)
    assert outlets.fates == [(0, True)] and bench.leased() == 0
    ticket.release(taken=True, reads=False)
    assert outlets.fates == [(0, True)] and bench.leased() == 0


def test_until_its_fate_is_told_a_frame_keeps_its_slots(outlets) -> None:
    bench = outlets.bench
    ticket = Ticket(bench.frame(0), lambda frame, taken: outlets.fates.append((frame.header.seq, taken)))
    ticket.hold(reads=False)
    ticket.release(taken=False)
    assert outlets.fates == [] and bench.leased() == 1
    ticket.release(taken=False, reads=False)
    assert outlets.fates == [(0, False)] and bench.leased() == 0
