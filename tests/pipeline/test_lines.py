"""The data path of a worker, over real sockets: whose a frame is stands in the table, and ghosts are thrown away."""

from collections.abc import Iterator

import pytest

from pipeline.flow.fates import LATE
from pipeline.flow.frame import Frame
from pipeline.flow.lines import Bundle, Inlet, Outlet, Progress, Rounds
from pipeline.flow.messages import Free
from pipeline.flow.order import InOrder
from pipeline.flow.transport import Transport
from pipeline.stage import FRAMES
from tests.kit.bench import DECODER, NEXT_STAGE, STAGE, Bench, end_of, header_of, start_of


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport()
    yield transport
    transport.close()


def order_of(bench: Bench) -> InOrder:
    """That of the tracker, to which the source has started."""
    order = InOrder(Progress(bench.ledger, bench.pools[FRAMES], "track"))
    order.put(start_of())
    return order


class Line:
    """From a decoder to the next worker."""

    def __init__(self, bench: Bench, transport: Transport, in_order: bool = False) -> None:
        order = order_of(bench) if in_order else None
        self.inlet = Inlet(transport.receiver("inproc://next"), bench.pools, STAGE, order)
        self._sender = transport.sender("inproc://next")
        self.outlet = Outlet(self._sender, STAGE, lambda: False)

    def taken(self) -> list[int | str]:
        """Seqs of all frames that come, and what else does."""
        told = []
        while (came := self.inlet.take(0.3)) is not None:
            for message in came if isinstance(came, list) else [came]:
                if isinstance(message, Frame):
                    self.inlet.taken(message)
                told.append(message.header.seq if isinstance(message, Frame) else type(message).__name__)
        return told

    def messages(self) -> list[list[int]]:
        """Seqs of the frames of each message."""
        came = iter(lambda: self.inlet.take(0.1), None)
        return [[frame.header.seq for frame in message if isinstance(frame, Frame)] for message in came]

    def noise(self) -> None:
        self._sender.send([b"\xc1 not a message"])


@pytest.fixture
def line(bench, transport) -> Line:
    return Line(bench, transport)


def held(bench: Bench, worker: int) -> list[int]:
    return [held.seq for held in bench.pools[FRAMES].held_by(worker)]


def test_a_frame_is_both_workers_on_its_way_and_then_its_takers(bench, line) -> None:
    line.outlet.send(bench.frame(0))
    assert held(bench, DECODER) == held(bench, STAGE) == [0]
    assert line.taken() == [0]
    assert held(bench, DECODER) == [] and held(bench, STAGE) == [0]


def test_who_gets_a_frame_stands_in_the_table_before_it_is_sent(bench, transport) -> None:
    """Or one that died in between would have sent what nobody reclaims."""
    seen = []

    class Wire:
        def send(self, parts, given_up) -> None:
            seen.append(held(bench, NEXT_STAGE))

    outlet = Outlet(Wire(), NEXT_STAGE, lambda: False)
    outlet.send(bench.frame(0))
    outlet.send_all([bench.frame(1), bench.frame(2)])
    assert seen == [[0], [0, 1, 2]]


def test_a_frame_whose_slot_was_reclaimed_meanwhile_is_thrown_away_without_a_word(bench, line) -> None:
    frames = [bench.frame(seq) for seq in range(3)]
    for frame in frames:
        line.outlet.send(frame)
    bench.pools[FRAMES].end_lease(frames[1].header.leases[0])
    assert line.taken() == [0, 2]


def test_a_ghost_leaves_the_slots_next_lease_alone(bench, line) -> None:
    ghost = bench.frame(0)
    line.outlet.send(ghost)
    bench.pools[FRAMES].end_lease(ghost.header.leases[0])
    again = bench.frame(7)
    assert again.header.leases[0].index == ghost.header.leases[0].index
    assert line.taken() == []
    assert held(bench, DECODER) == [7] and held(bench, STAGE) == []


def test_a_ghost_is_not_even_sent(bench, line) -> None:
    ghost = bench.frame(0)
    bench.pools[FRAMES].end_lease(ghost.header.leases[0])
    bench.frame(7)
    line.outlet.send(ghost)
    assert line.taken() == [] and held(bench, STAGE) == []


def test_of_a_round_only_the_ghosts_are_missing(bench, line) -> None:
    frames = [bench.frame(seq) for seq in range(4)]
    bench.pools[FRAMES].end_lease(frames[0].header.leases[0])
    line.outlet.send_all(frames)
    bench.pools[FRAMES].end_lease(frames[2].header.leases[0])
    (round_taken,) = [line.inlet.take(5.0)]
    assert [frame.header.seq for frame in round_taken] == [1, 3]
    assert held(bench, STAGE) == [1, 3]


def test_a_round_of_ghosts_is_none(bench, line) -> None:
    frame = bench.frame(0)
    bench.pools[FRAMES].end_lease(frame.header.leases[0])
    line.outlet.send_all([frame])
    assert line.inlet.take(0.3) is None


def test_what_has_no_slot_is_no_ghost(bench, line) -> None:
    line.outlet.send(start_of())
    line.outlet.send(Frame(header_of(0, dropped=LATE), bench.pools))
    line.outlet.send(Free(1))
    line.outlet.send(end_of(1))
    assert line.taken() == ["StreamStart", 0, "Free", "EndOfStream"]


def test_what_is_no_message_is_an_error(line) -> None:
    line.noise()
    with pytest.raises(ValueError):
        line.inlet.take(5.0)


def test_a_stage_in_order_is_given_frames_in_order_and_a_new_one_goes_on(bench, transport) -> None:
    line = Line(bench, transport, in_order=True)
    for seq in (1, 0, 3):
        line.outlet.send(bench.frame(seq))
    assert line.taken() == [0, 1] and line.inlet.depth == 1
    assert bench.ledger.next_seq(0, "track") == 2
    again = order_of(bench)
    assert again.put(bench.frame(1)) == []
    assert [frame.header.seq for frame in again.put(bench.frame(2))] == [2]


def test_what_came_twice_gives_back_its_slot(bench, transport) -> None:
    line = Line(bench, transport, in_order=True)
    for _ in range(2):
        line.outlet.send(bench.frame(0))
    assert line.taken() == [0] and bench.leased() == 1


def test_a_missing_frame_is_waited_for_while_a_slot_holds_it(bench, transport) -> None:
    line = Line(bench, transport, in_order=True)
    missing = bench.frame(0)
    line.outlet.send(bench.frame(1))
    assert line.taken() == []
    assert line.inlet.look(0.0) == line.inlet.look(100.0) == []
    bench.pools[FRAMES].end_lease(missing.header.leases[0])
    assert line.inlet.look(200.0) == []
    assert [frame.header.seq for frame in line.inlet.look(300.0)] == [0, 1]


FILE, LIVE, WATCHED = {"may_wait": True}, {}, {"may_wait": True, "watched": True}


@pytest.mark.parametrize(
    ("frames", "messages"),
    [
        ([], []),
        ([FILE, FILE, FILE], []),
        ([FILE, FILE, FILE, FILE, FILE], [[0, 1, 2, 3]]),
        ([LIVE], [[0]]),
        ([FILE, LIVE, FILE], [[0, 1]]),
        ([WATCHED, WATCHED], [[0], [1]]),
    ],
)
def test_frames_that_may_wait_go_on_in_bundles(bench, line, frames, messages) -> None:
    bundle = Bundle(line.outlet)
    for seq, facts in enumerate(frames):
        bundle.add([bench.frame(seq, **facts)])
    assert line.messages() == messages
    bundle.send()  # there is nobody to wait for
    rest = list(range(sum(map(len, messages)), len(frames)))
    assert line.messages() == ([rest] if rest else [])
    assert held(bench, STAGE) == list(range(len(frames)))


def test_a_round_of_many_goes_on_at_once(bench, line) -> None:
    Bundle(line.outlet).add([bench.frame(seq, may_wait=True) for seq in range(5)])
    assert line.messages() == [[0, 1, 2, 3, 4]]


class Gathering:
    """The rounds of an inference worker, and gather beside it: what it was asked, and what it gives."""

    def __init__(self, bench: Bench, transport: Transport) -> None:
        self._bench, self._line = bench, Line(bench, transport)
        self._asked = Inlet(transport.receiver("inproc://gather"), bench.pools, 0, None)
        outlet = Outlet(transport.sender("inproc://gather"), 0, lambda: False)
        self.rounds = Rounds(self._line.inlet, outlet, STAGE)
        self._seq = 0

    def asked(self) -> int:
        """How often since the last look."""
        count = 0
        while isinstance(self._asked.take(0.1), Free):
            count += 1
        return count

    def last_figures(self) -> tuple[int, int]:
        free = self._asked.take(1.0)
        assert isinstance(free, Free)
        return free.size, free.busy_ns

    def give(self, may_wait: bool, ghost: bool = False) -> None:
        frame = self._bench.frame(self._seq, may_wait=may_wait)
        self._seq += 1
        self._line.outlet.send_all([frame])
        if ghost:
            self._bench.pools[FRAMES].end_lease(frame.header.leases[0])


@pytest.fixture
def gathering(bench, transport) -> Gathering:
    return Gathering(bench, transport)


def test_gather_is_asked_once_for_each_lane_that_is_free(gathering) -> None:
    assert gathering.asked() == 0
    gathering.rounds.lane_is_free()
    gathering.rounds.lane_is_free()
    assert gathering.asked() == 2 and gathering.rounds.take(0.0) is None and gathering.asked() == 0


@pytest.mark.parametrize("may_wait", [False, True])
def test_only_what_may_wait_is_asked_for_ahead(gathering, may_wait: bool) -> None:
    gathering.rounds.lane_is_free()
    assert gathering.asked() == 1
    gathering.give(may_wait)
    frames = gathering.rounds.take(1.0)
    assert gathering.rounds.lane_is_at(frames) == may_wait
    assert gathering.asked() == may_wait
    gathering.rounds.lane_took(1, 70)
    if not may_wait:
        gathering.rounds.lane_is_free()
        assert gathering.last_figures() == (1, 70)
        return
    gathering.give(may_wait)
    gathering.rounds.lane_is_at(gathering.rounds.take(1.0))
    assert gathering.last_figures() == (1, 70)


def test_for_a_round_of_ghosts_another_is_asked_for(gathering) -> None:
    gathering.rounds.lane_is_free()
    assert gathering.asked() == 1
    gathering.give(may_wait=True, ghost=True)
    assert not gathering.rounds.take(0.5)
    assert gathering.asked() == 1


def test_a_new_gather_is_asked_for_what_the_old_one_owed_and_no_more(gathering) -> None:
    for _ in range(3):
        gathering.rounds.lane_is_free()
    gathering.give(may_wait=False)
    assert gathering.asked() == 3
    gathering.rounds.gather_lost()
    assert [frame.header.seq for frame in gathering.rounds.take(1.0)] == [0]
    assert gathering.asked() == 2  # the third is answered already
