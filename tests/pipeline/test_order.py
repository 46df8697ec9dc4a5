"""Each seq of a source once and in order, whatever comes, and in whatever order it comes."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.fates import LATE, LOST, UNHEARD
from pipeline.flow.frame import Frame, Message
from pipeline.flow.messages import EndOfStream
from pipeline.flow.order import PATIENCE_SECONDS, InOrder
from tests.kit.bench import end_of, header_of, signal_of, start_of

PLACES = {"door": 0, "yard": 1}
CHANCES = st.integers(0, 2**32).map(random.Random)


@dataclass
class Memory:
    """A `Progress` in memory. `alive`: the (place, seq) that a slot holds; `passed`: how far the stage before is."""

    arrived: dict[int, int] = field(default_factory=dict)
    passed: dict[int, int] = field(default_factory=dict)
    alive: set[tuple[int, int]] = field(default_factory=set)

    def next_seq(self, place: int) -> int:
        return self.arrived.get(place, 0)

    def passed_on(self, place: int) -> int:
        return self.passed.get(place, 0)

    def arrive(self, place: int, next_seq: int) -> None:
        self.arrived[place] = max(next_seq, self.arrived.get(place, 0))

    def is_alive(self, place: int, seq: int) -> bool:
        return (place, seq) in self.alive


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def order(memory) -> InOrder:
    """To which both sources have started."""
    return begun(InOrder(memory))


def begun(order: InOrder) -> InOrder:
    for source_id, place in PLACES.items():
        assert told(order.put(start_of(source_id, place))) == ["StreamStart"]
    return order


def frame(seq: int, source_id: str = "door", **changes) -> Frame:
    return Frame(header_of(seq, source_id, PLACES[source_id], **changes), {})


def dropped(seq: int) -> Frame:
    return frame(seq, dropped=LATE)


def reclaimed(seq: int, source_id: str = "door") -> Frame:
    return frame(seq, source_id, dropped=LOST["infer"], reclaimed=True)


def told(messages: list[Message]) -> list[int | str]:
    """Seqs of frames, and what words they are."""
    return [m.header.seq if isinstance(m, Frame) else getattr(m, "state", type(m).__name__) for m in messages]


def put(order: InOrder, message: Message) -> list[Message]:
    """What comes out is worked on."""
    ready = order.put(message)
    for one in ready:
        if isinstance(one, Frame):
            order.taken(one)
    return ready


def put_all(order: InOrder, *messages: Message) -> list[int | str]:
    return told([ready for message in messages for ready in put(order, message)])


# --- one after the other ---------------------------------------------------------------------------------------------


def test_a_frame_waits_for_those_before_it(order) -> None:
    assert put_all(order, frame(2), frame(1)) == [] and order.depth == 2
    assert put_all(order, frame(0)) == [0, 1, 2] and order.depth == 0


def test_a_dropped_header_fills_its_place(order) -> None:
    assert put_all(order, frame(1), dropped(0), dropped(2)) == [0, 1, 2]


def test_what_comes_again_goes_nowhere(order) -> None:
    assert put_all(order, frame(0), frame(0), frame(2), frame(2), frame(1), frame(1)) == [0, 1, 2]


def test_what_comes_again_gives_its_slots_back(memory, order) -> None:
    given_back = []

    class Counted(Frame):
        def give_back(self, pool=None) -> bool:
            given_back.append(self.header.seq)
            return super().give_back(pool)

    for seq in (0, 0, 2, 2):
        order.put(Counted(header_of(seq), {}))
    assert given_back == [0, 2]


def test_words_have_their_places_among_the_frames(memory) -> None:
    words, order = [start_of(), signal_of("lost", 1), signal_of("live", 2), end_of(3)], InOrder(memory)
    assert put_all(order, *words) == ["StreamStart"]
    assert put_all(order, frame(2), frame(1), frame(0)) == [0, "lost", 1, "live", 2, "EndOfStream"]


def test_an_end_is_the_last_of_all_that_stand_at_its_place(order) -> None:
    assert put_all(order, end_of(1), signal_of("lost", 1), frame(0)) == [0, "lost", "EndOfStream"]


def test_frames_that_come_first_wait_for_the_start_of_their_source(memory) -> None:
    """It goes past the network, on a way that may be open later than theirs."""
    order = InOrder(memory)
    assert put_all(order, frame(0), frame(1)) == [] and order.look(0.0) == []
    assert put_all(order, start_of(), frame(2)) == ["StreamStart", 0, 1, 2]
    assert order.look(PATIENCE_SECONDS) == []


def test_a_start_that_does_not_come_is_waited_for_no_longer_than_a_frame(memory) -> None:
    order = InOrder(memory)
    assert put_all(order, frame(0), frame(2), end_of(3)) == []
    assert order.look(10.0) == [] and order.look(10.0 + 0.9 * PATIENCE_SECONDS) == []
    assert told(order.look(10.0 + PATIENCE_SECONDS)) == [0]
    assert put_all(order, start_of(), frame(1)) == ["StreamStart", 1, 2, "EndOfStream"]


def test_a_source_that_never_started_ends(memory) -> None:
    assert put_all(InOrder(memory), signal_of("lost", 0), end_of(0)) == ["lost", "EndOfStream"]


def test_a_word_told_again_is_heard_once(memory) -> None:
    """As after another worker was started anew."""
    words, order = [start_of(), signal_of("lost", 0)], InOrder(memory)
    assert put_all(order, *words, *words) == ["StreamStart", "lost"]
    changed = start_of(seq=1, score_threshold=0.9)
    assert put_all(order, changed, words[1], changed, frame(0)) == [0, "StreamStart"]


def test_one_source_does_not_wait_for_another(order) -> None:
    assert put_all(order, frame(1, "door"), frame(0, "yard"), frame(1, "yard")) == [0, 1]
    assert order.depth == 1


def test_a_worker_that_dies_before_it_worked_on_what_was_ready_leaves_it_to_the_next(memory, order) -> None:
    order.put(dropped(1))
    first, _ = order.put(dropped(0))
    order.taken(first)
    assert put_all(begun(InOrder(memory)), dropped(1)) == [1]


def test_a_worker_that_is_started_anew_goes_on_where_the_other_was(memory, order) -> None:
    put_all(order, frame(0), frame(1), frame(3))
    again = begun(InOrder(memory))
    assert put_all(again, frame(1), frame(3), frame(2)) == [2, 3]


# --- what is missing -------------------------------------------------------------------------------------------------


def test_a_missing_frame_that_a_slot_holds_is_waited_for_without_end(memory, order) -> None:
    memory.alive.add((0, 0))
    put_all(order, frame(1))
    for now in range(0, 3600, 10):
        assert order.look(float(now)) == []
    assert order.look(3599.9) == []
    memory.alive.clear()
    assert order.look(3600.0) == []  # its header may be on its way
    assert put_all(order, frame(0)) == [0, 1]


def test_a_missing_frame_that_no_slot_holds_is_given_up_after_a_while(order) -> None:
    put_all(order, frame(2))
    assert order.look(10.0) == [] and order.look(10.0 + 0.9 * PATIENCE_SECONDS) == []
    given_up = order.look(10.0 + PATIENCE_SECONDS)
    assert told(given_up) == [0, 1, 2]
    assert [m.header.dropped for m in given_up] == [UNHEARD, UNHEARD, None]
    assert {m.header.source_id for m in given_up} == {"door"}


def test_patience_counts_from_when_a_frame_is_missed(order) -> None:
    put_all(order, frame(1))
    order.look(0.0)
    assert put_all(order, frame(0)) == [0, 1]
    put_all(order, frame(3))
    assert order.look(PATIENCE_SECONDS * 5) == []
    assert told(order.look(PATIENCE_SECONDS * 6)) == [2, 3]


def test_giving_up_stops_at_a_frame_that_lives(memory, order) -> None:
    memory.alive.add((0, 1))
    put_all(order, frame(3))
    order.look(0.0)
    assert told(order.look(PATIENCE_SECONDS)) == [0]
    assert order.look(PATIENCE_SECONDS * 3) == []
    assert put_all(order, frame(1)) == [1]
    assert told(order.look(PATIENCE_SECONDS * 4)) == [2, 3]  # it was missed long enough


def test_the_last_frames_are_missed_by_the_end_of_the_stream(order) -> None:
    put_all(order, frame(0), end_of(3))
    order.look(0.0)
    assert told(order.look(PATIENCE_SECONDS)) == [1, 2, "EndOfStream"]


def test_nothing_is_missed_while_nothing_waits(order) -> None:
    put_all(order, frame(0))
    for now in (0.0, 10.0, 100.0):
        assert order.look(now) == []


def test_what_the_stage_before_had_passed_on_is_missed_from_the_start(memory, order) -> None:
    """It lay unread when the worker before was lost; nothing comes behind it as long as another worker is away."""
    put_all(order, frame(0))
    memory.passed[0] = 4
    memory.alive.add((0, 3))
    again = begun(InOrder(memory))
    assert again.look(10.0) == [] and again.look(10.0 + 0.9 * PATIENCE_SECONDS) == []
    assert put_all(again, frame(2)) == []  # this one was still in the queue
    given_up = again.look(10.0 + PATIENCE_SECONDS)
    assert told(given_up) == [1, 2] and given_up[0].header.source_id == "door"
    assert put_all(again, frame(3), frame(4)) == [3, 4]


def test_what_the_stage_before_passes_on_later_is_missed_by_what_comes_behind_it_alone(memory, order) -> None:
    """It may lie unread in our own queue, for as long as we are slow."""
    memory.passed[0] = 4
    for now in (0.0, 10.0, 100.0):
        assert order.look(now) == []


def test_what_was_given_up_and_comes_after_all_goes_nowhere(order) -> None:
    put_all(order, frame(1))
    order.look(0.0)
    order.look(PATIENCE_SECONDS)
    assert put_all(order, frame(0), frame(2)) == [2]


def test_what_was_reclaimed_is_passed_on_late(order) -> None:
    """It had its turn here, and was lost with the worker before anybody told its fate."""
    put_all(order, frame(0), frame(1), frame(2))
    (late,) = put(order, reclaimed(1))
    assert isinstance(late, Frame) and late.header.dropped == LOST["infer"]
    assert put_all(order, frame(1), frame(3)) == [3]


# --- any interleaving ------------------------------------------------------------------------------------------------


def shuffled(source_id: str, count: int, signals: list[int], chance: random.Random) -> list[Message]:
    """A stream in any order: frames, some of them dropped and some twice, and its words in theirs."""
    seqs = [*range(count), *(seq for seq in range(count) if chance.random() < 0.2)]
    frames = [frame(seq, source_id, dropped=LATE if chance.random() < 0.3 else None) for seq in seqs]
    chance.shuffle(frames)
    words = [start_of(source_id, PLACES[source_id])]
    words += [signal_of("lost", seq, source_id, at_unix=i) for i, seq in enumerate(sorted(signals))]
    words += [end_of(count, source_id, PLACES[source_id])]
    places = sorted(chance.choices(range(len(frames) + 1), k=len(words)), reverse=True)
    merged: list[Message] = list(frames)
    for place, word in zip(places, reversed(words), strict=True):
        merged.insert(place, word)
    return merged


@given(st.integers(0, 12), st.lists(st.integers(0, 12), max_size=4), CHANCES)
def test_whole_streams_come_out_whole(count: int, signals: list[int], chance: random.Random) -> None:
    signals = [min(seq, count) for seq in signals]
    streams = {source_id: shuffled(source_id, count, signals, chance) for source_id in PLACES}
    came = {source_id: [] for source_id in PLACES}
    out = {source_id: [] for source_id in PLACES}
    order = InOrder(Memory())
    while any(streams.values()):
        source_id = chance.choice([source_id for source_id, stream in streams.items() if stream])
        came[source_id].append(streams[source_id].pop(0))
        out[source_id] += put(order, came[source_id][-1])
    for source_id in PLACES:
        assert [m.header.seq for m in out[source_id] if isinstance(m, Frame)] == list(range(count))
        assert words_of(out[source_id]) == words_of(came[source_id])
        for word in words_of(came[source_id]):
            before = seqs_before(word, out[source_id])
            assert before >= set(range(word.seq))
            assert word.seq not in before or word.seq in seqs_before(word, came[source_id])


def words_of(messages: list[Message]) -> list[Message]:
    return [message for message in messages if not isinstance(message, Frame)]


def seqs_before(word: Message, messages: list[Message]) -> set[int]:
    return {m.header.seq for m in messages[: messages.index(word)] if isinstance(m, Frame)}


TICK_SECONDS = 0.2  # a worker looks so often
FATES = ("comes", "dropped", "reclaimed", "lost")


@given(st.lists(st.sampled_from(FATES), min_size=1, max_size=12), CHANCES)
def test_whatever_is_lost_each_seq_comes_out_once_and_none_is_given_up_too_early(
    fates: list[str], chance: random.Random
) -> None:
    """Frames come when they will. A dropped one has no slot, and its header is soon here. What dies with a worker loses
    its slot at some moment; of what was reclaimed a header comes a little later."""
    memory = Memory(alive={(0, seq) for seq, fate in enumerate(fates) if fate != "dropped"})
    order, out = InOrder(memory), []
    died_at = {seq: chance.uniform(0, 8) for seq, fate in enumerate(fates) if fate in ("reclaimed", "lost")}
    comes_at = {seq: chance.uniform(0, 8) for seq, fate in enumerate(fates) if fate == "comes"}
    comes_at |= {seq: chance.uniform(0, 0.5) for seq, fate in enumerate(fates) if fate == "dropped"}
    comes_at |= {seq: died_at[seq] + chance.uniform(0, 0.5) for seq, fate in enumerate(fates) if fate == "reclaimed"}
    made = {"comes": frame, "dropped": dropped, "reclaimed": reclaimed}
    waiting = sorted((at, seq) for seq, at in comes_at.items())
    out += order.put(end_of(len(fates)))
    for tick in range(100):
        now = tick * TICK_SECONDS
        memory.alive -= {(0, seq) for seq, at in died_at.items() if at <= now}
        while waiting and waiting[0][0] <= now:
            _, seq = waiting.pop(0)
            out += order.put(made[fates[seq]](seq))
        for message in order.look(now):
            if isinstance(message, Frame) and message.header.dropped == UNHEARD:
                assert now - died_at[message.header.seq] >= PATIENCE_SECONDS - TICK_SECONDS
            out.append(message)
    *frames, end = out
    assert [m.header.seq for m in frames] == list(range(len(fates))) and isinstance(end, EndOfStream)
    words = {"comes": None, "dropped": LATE, "reclaimed": LOST["infer"], "lost": UNHEARD}
    assert [m.header.dropped for m in frames] == [words[fate] for fate in fates]
