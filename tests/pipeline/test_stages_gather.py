"""gather: what waits before the network, and what passes it; however slow delivery is, nothing piles up behind it."""

import pytest

from pipeline.flow.fates import LATE, LOST, NEWER
from pipeline.flow.frame import Frame, Message
from pipeline.flow.messages import Free, Limits, Start
from pipeline.settings import InferSettings, QueueSettings
from pipeline.stage import FRAMES
from pipeline.stages.gather import IDLE_SECONDS, LOOK_SECONDS, Gather
from tests.kit.bench import CARD, Bench, end_of, header_of, live, signal_of, start_of

INFER = 7


class Queue:
    """gather on the bench."""

    def __init__(self, bench: Bench, ahead: int = 6, waiting: int = 1, size: int = 1, spare: int = 0) -> None:
        self.bench = bench
        self.stage = Gather(bench.kit())
        self.stage.begin(Start(CARD, Limits(ahead, ahead + waiting, waiting, 1, size, spare), []))

    def take(self, *messages: Message | Free) -> None:
        for message in messages:
            self.stage.take(message)

    def free(self, lanes: int = 1, worker: int = INFER) -> None:
        self.take(*[Free(worker)] * lanes)

    def given(self) -> list[tuple[int, list[tuple[str, int]]]]:
        """To whom, and which (source, seq)."""
        return [(worker, [seen(frame) for frame in frames]) for worker, frames in self.stage.rounds()]

    def passing(self) -> list[tuple[str, int] | str]:
        return [seen(m) if isinstance(m, Frame) else type(m).__name__ for m in self.stage.passing()]


def seen(frame: Frame) -> tuple[str, int]:
    return frame.header.source_id, frame.header.seq


@pytest.fixture
def bench() -> Bench:
    return Bench(slots=40)


@pytest.fixture
def queue(bench) -> Queue:
    return Queue(bench)


def test_words_go_past_the_network_at_once(queue) -> None:
    queue.take(start_of(), signal_of("lost"), end_of(0))
    assert queue.passing() == ["StreamStart", "SignalChange", "EndOfStream"]
    assert queue.passing() == [] and queue.given() == []


def test_a_frame_waits_for_a_free_lane(queue, bench) -> None:
    queue.take(start_of(), bench.frame(0))
    assert queue.given() == [] and queue.stage.depth == 1
    queue.free()
    assert queue.given() == [(INFER, [("door", 0)])] and queue.stage.depth == 0


def test_a_lane_gets_one_round_for_each_time_it_says_it_is_free(queue, bench) -> None:
    queue.take(start_of(), *[bench.frame(seq) for seq in range(3)])
    queue.free(2)
    assert queue.given() == [(INFER, [("door", 0)]), (INFER, [("door", 1)])]
    assert queue.given() == []
    queue.free()
    assert queue.given() == [(INFER, [("door", 2)])]


def test_what_is_not_for_the_network_goes_past_it(queue, bench) -> None:
    queue.take(start_of(), Frame(header_of(0, dropped=LATE), bench.pools), bench.frame(1, unseen=True))
    queue.free()
    assert queue.given() == []
    assert queue.passing() == ["StreamStart", ("door", 0), ("door", 1)]


def test_a_live_sources_oldest_goes_for_a_newer_one_and_travels_on_as_a_header(queue, bench) -> None:
    queue.take(live(), *[bench.frame(seq) for seq in range(3)])
    _, *dropped = queue.stage.passing()
    assert [seen(frame) for frame in dropped] == [("door", 0), ("door", 1)]
    assert all(f.header.dropped == NEWER and not f.header.leases and not f.header.arrays for f in dropped)
    assert bench.leased() == 1  # that of the one that waits
    queue.free()
    assert queue.given() == [(INFER, [("door", 2)])]


def test_a_files_frames_wait(queue, bench) -> None:
    queue.take(start_of(), *[bench.frame(seq) for seq in range(5)])
    assert queue.passing() == ["StreamStart"] and queue.stage.depth == 5


def test_what_is_older_than_the_goal_is_dropped_and_says_so() -> None:
    bench = Bench(queue=QueueSettings(max_age_ms=50))
    queue = Queue(bench)
    queue.take(live(), bench.frame(0, captured_ns=0))  # long ago
    (_, old) = queue.stage.passing()
    assert old.header.dropped and "max_age_ms" in old.header.dropped.reason and bench.leased() == 0


def test_a_round_takes_each_source_in_turn(bench) -> None:
    queue = Queue(bench, size=4)
    queue.take(start_of("door", 0), start_of("yard", 1))
    queue.take(*[bench.frame(seq, "door", 0) for seq in range(4)], *[bench.frame(seq, "yard", 1) for seq in range(4)])
    queue.free()
    assert queue.given() == [(INFER, [("door", 0), ("yard", 0), ("door", 1), ("yard", 1)])]


def test_frames_beyond_the_network_are_bounded_however_slow_delivery_is(bench) -> None:
    queue = Queue(bench, ahead=3)
    frames = [bench.frame(seq) for seq in range(8)]
    queue.take(live(), *frames[:1])
    queue.free(8)  # the network has time, delivery has none
    given = queue.given()
    for frame in frames[1:]:
        queue.take(frame)
        given += queue.given()
    assert [seqs for _, [(_, seqs)] in given] == [0, 1, 2]
    assert [seq for _, seq in queue.passing()[1:]] == [3, 4, 5, 6] and queue.stage.depth == 1
    assert queue.stage.wait_seconds() == LOOK_SECONDS  # nobody will tell when there is room
    frames[1].give_back()
    assert queue.given() == [(INFER, [("door", 7)])]


def test_more_may_be_ahead_while_no_source_is_live(bench) -> None:
    queue = Queue(bench, ahead=5, spare=2)
    queue.free(8)
    queue.take(start_of("film"), *[bench.frame(seq, "film") for seq in range(8)])
    assert len(queue.given()) == 5
    live_queue = Queue(bench, ahead=5, spare=2)
    live_queue.free(8)
    live_queue.take(start_of("film"), live("door", 1), *[bench.frame(seq, "film") for seq in range(8)])
    assert len(live_queue.given()) == 3
    live_queue.take(end_of(0, "door", 1))
    assert len(live_queue.given()) == 2  # it has gone


def test_where_nothing_waits_nothing_is_looked_for(queue, bench) -> None:
    assert queue.stage.wait_seconds() == IDLE_SECONDS
    queue.take(start_of(), bench.frame(0))
    assert queue.stage.wait_seconds() == IDLE_SECONDS  # a lane that comes free says so


def test_lanes_of_a_worker_that_is_lost_are_given_nothing_more(bench) -> None:
    queue = Queue(Bench(slots=40, infer=InferSettings(processes=2)))
    queue.free(2, worker=INFER)
    queue.free(1, worker=INFER + 1)
    queue.stage.lost(INFER)
    queue.take(start_of(), *[queue.bench.frame(seq) for seq in range(3)])
    assert queue.given() == [(INFER + 1, [("door", 0)])] and queue.stage.depth == 2


def test_what_waits_at_the_end_of_a_stream_still_has_its_turn(queue, bench) -> None:
    queue.take(start_of(), bench.frame(0), bench.frame(1), end_of(2))
    assert queue.passing() == ["StreamStart", "EndOfStream"] and queue.stage.depth == 2
    queue.free(2)
    assert [seqs for _, seqs in queue.given()] == [[("door", 0)], [("door", 1)]]
    queue.take(start_of(seq=2), bench.frame(2))  # it comes back under its name
    queue.free()
    assert queue.given() == [(INFER, [("door", 2)])]


def test_a_frame_whose_start_died_with_an_earlier_process_is_taken(queue, bench) -> None:
    queue.take(bench.frame(5))
    queue.free()
    assert queue.given() == [(INFER, [("door", 5)])]


def test_a_sources_policy_may_change(queue, bench) -> None:
    queue.take(live(), bench.frame(0), bench.frame(1))
    queue.take(start_of(seq=2), bench.frame(2), bench.frame(3))
    assert [m for m in queue.passing() if not isinstance(m, str)] == [("door", 0)] and queue.stage.depth == 3
    assert bench.pools[FRAMES].leased(0, 40) == 3


# --- what stands still -----------------------------------------------------------------------------------------------

STILL = InferSettings(still=3, still_audit=None)


def scene_of(settings: InferSettings = STILL) -> tuple[Queue, Bench]:
    bench = Bench(slots=40, infer=settings)
    return Queue(bench), bench


def picture(bench: Bench, seq: int, level: int = 127, source_id: str = "door", place: int = 0) -> Frame:
    frame = bench.frame(seq, source_id, place, input_side=64)
    frame.array("input_rgb")[20:50, 20:32] = level  # 127 is the background's
    return frame


def taken_over(queue: Queue) -> dict[int, int | None]:
    """Seqs of the frames that went past the network, with the frame that each looks as."""
    return {m.header.seq: m.header.same_as for m in queue.stage.passing() if isinstance(m, Frame)}


def test_what_looks_as_the_last_computed_frame_goes_past_the_network_at_once() -> None:
    queue, bench = scene_of()
    queue.take(start_of(), picture(bench, 0))
    queue.free()
    assert queue.given() == [(INFER, [("door", 0)])]
    frame = picture(bench, 1)
    queue.take(frame)  # no lane is free
    assert taken_over(queue) == {1: 0} and queue.stage.depth == 0
    assert "input_rgb" not in frame and bench.leased() == 2  # it is a frame on its way as any other


def test_so_many_take_over_in_a_row_and_what_changed_is_computed() -> None:
    queue, bench = scene_of()
    queue.free(9)
    given = []
    queue.take(start_of())
    for seq, level in enumerate([127, 127, 127, 127, 127, 127, 200, 200]):
        queue.take(picture(bench, seq, level))
        given += [seq for _, frames in queue.given() for _, seq in frames]
    assert given == [0, 4, 6] and taken_over(queue) == {1: 0, 2: 0, 3: 0, 5: 4, 7: 6}


def test_what_waits_behind_another_is_looked_at_when_its_turn_comes() -> None:
    """And compared with what was computed by then, so that all come in order."""
    queue, bench = scene_of()
    queue.take(start_of(), *[picture(bench, seq) for seq in range(3)], picture(bench, 3, 200), picture(bench, 4, 200))
    assert queue.given() == [] and taken_over(queue) == {}
    queue.free(2)
    assert queue.given() == [(INFER, [("door", 0)]), (INFER, [("door", 3)])]
    queue.free()
    assert queue.given() == [] and taken_over(queue) == {1: 0, 2: 0, 4: 3} and queue.stage.depth == 0


def test_nothing_goes_past_a_frame_of_its_source_that_waits() -> None:
    """That one will have been computed last when the other is tracked."""
    queue, bench = scene_of()
    queue.take(start_of(), picture(bench, 0))
    queue.free()
    assert queue.given() == [(INFER, [("door", 0)])]
    queue.take(picture(bench, 1, 200), picture(bench, 2))
    assert taken_over(queue) == {} and queue.stage.depth == 2
    queue.free(2)
    assert queue.given() == [(INFER, [("door", 1)]), (INFER, [("door", 2)])]


def test_a_round_of_several_holds_what_is_computed_only() -> None:
    bench = Bench(slots=40, infer=STILL)
    queue = Queue(bench, size=8)
    queue.take(start_of("door", 0), start_of("yard", 1))
    queue.take(*[picture(bench, seq) for seq in range(3)], *[picture(bench, seq, 9, "yard", 1) for seq in range(3)])
    queue.free()
    assert queue.given() == [(INFER, [("door", 0), ("yard", 0)])]
    assert sorted(queue.passing()[2:]) == [("door", 1), ("door", 2), ("yard", 1), ("yard", 2)]


def test_what_was_dropped_before_the_network_is_nothing_to_take_over_from() -> None:
    queue, bench = scene_of()
    queue.free()
    queue.take(live(), picture(bench, 0))
    assert queue.given() == [(INFER, [("door", 0)])]
    queue.take(picture(bench, 1, 200), picture(bench, 2, 200), picture(bench, 3, 200))  # no lane is free
    assert taken_over(queue) == {1: None, 2: None}
    queue.free()
    assert queue.given() == [(INFER, [("door", 3)])]
    queue.take(picture(bench, 4, 200))
    assert taken_over(queue) == {4: 3}


@pytest.mark.parametrize(
    "word", [start_of(seq=2, classes=("car",)), signal_of("lost", seq=2)], ids=["what is wanted", "a signal"]
)
def test_after_a_word_of_its_source_a_frame_is_computed(word) -> None:
    queue, bench = scene_of()
    queue.free(4)
    queue.take(start_of(), picture(bench, 0))
    assert queue.given()
    queue.take(word, picture(bench, 1), picture(bench, 2))
    assert queue.given() == [(INFER, [("door", 2)])] and taken_over(queue) == {1: 0}


def test_after_a_frame_without_result_one_is_computed() -> None:
    queue, bench = scene_of()
    queue.free(4)
    queue.take(start_of(), picture(bench, 0))
    assert queue.given()
    bench.ledger.tell(0, LOST["infer"], 0)
    queue.take(picture(bench, 1))
    assert queue.given() == [(INFER, [("door", 1)])]
    queue.take(picture(bench, 2))
    assert taken_over(queue) == {2: 1}


def test_an_audited_frame_is_computed_and_nothing_is_taken_over_from_it() -> None:
    queue, bench = scene_of(InferSettings(still=9, still_audit=2))
    queue.free(9)
    queue.take(start_of())
    audits = []
    for seq in range(6):
        queue.take(picture(bench, seq))
        audits += [(f.header.seq, f.header.audits) for _, frames in queue.stage.rounds() for f in frames]
    assert audits == [(0, None), (2, 0), (4, 0)] and taken_over(queue) == {1: 0, 3: 0, 5: 0}


def test_a_source_that_comes_again_takes_nothing_over_from_the_one_before() -> None:
    queue, bench = scene_of()
    queue.free(4)
    queue.take(start_of(), picture(bench, 0))
    assert queue.given()
    queue.take(end_of(1))
    assert not queue.stage._scenes  # a hundred kilobytes each
    queue.take(start_of(), picture(bench, 0))
    assert queue.given() == [(INFER, [("door", 0)])]


def test_where_nobody_asked_no_frame_is_looked_at(queue, bench) -> None:
    queue.free(4)
    queue.take(start_of(), picture(bench, 0), picture(bench, 1))
    assert [seq for _, frames in queue.given() for _, seq in frames] == [0, 1]
