"""The data path of one worker: what it takes from its queue, and what it sends on.

Who holds a frame is written into the slots' table here: the receiver when it takes it, the next one before it is sent.
Knows no stage's work.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping

from pipeline.flow.frame import Frame, Message, from_parts, round_to_parts, to_parts
from pipeline.flow.ledger import IN_ORDER, Ledger
from pipeline.flow.messages import Free
from pipeline.flow.order import InOrder
from pipeline.flow.sharedmem import Pool
from pipeline.flow.transport import Receiver, Sender

# Frames of a bundle.
BUNDLE = 4


class Inlet:
    """A worker's queue. A frame whose slots are another's by now is thrown away: its fate was told by who ended it."""

    def __init__(self, receiver: Receiver, pools: Mapping[str, Pool], worker: int, order: InOrder | None) -> None:
        self._receiver, self._pools, self._worker, self._order = receiver, pools, worker, order

    def take(self, timeout_seconds: float) -> list[Message] | Free | None:
        """What came: a message, the frames of a round, or what is next in order by now; None when nothing came in time.

        Raises ValueError for what is not a message.
        """
        parts = self._receiver.receive(timeout_seconds)
        if parts is None:
            return None
        came = from_parts(parts, self._pools)
        if isinstance(came, Free):
            return came
        return [ready for message in came if self._is_mine(message) for ready in self.sorted(message)]

    def sorted(self, message: Message) -> list[Message]:
        """What is next by now, with `message`."""
        return self._order.put(message) if self._order else [message]

    def taken(self, frame: Frame) -> None:
        """It is about to be worked on."""
        if self._order:
            self._order.taken(frame)

    def _is_mine(self, message: Message) -> bool:
        if not isinstance(message, Frame):
            return True
        if message.is_ghost:
            return False
        message.taken_by(self._worker)
        return True

    def look(self, now_seconds: float) -> list[Message]:
        """What became free by waiting; see `InOrder`."""
        return self._order.look(now_seconds) if self._order else []

    @property
    def depth(self) -> int:
        return self._order.depth if self._order else 0


class Rounds:
    """The queue of an inference worker: gather gives a round for each time that it is asked.

    It is asked for each lane that has nothing to do. Where all frames of a round may wait, the next is asked for while
    a lane is still at it: so none waits for the way there and back. Of a live source it would be an older frame.
    """

    def __init__(self, inlet: Inlet, gather: "Outlet", number: int) -> None:
        self._inlet, self._gather, self._number = inlet, gather, number
        self._counting = threading.Lock()
        self._waiting: deque[list[Frame]] = deque()
        self._wanted = self._asked = 0
        self._ended = (0, 0)
        self._is_new = False

    def lane_is_free(self) -> None:
        with self._counting:
            self._wanted += 1
            self._ask()

    def lane_is_at(self, frames: list[Frame]) -> bool:
        """Whether the next was asked for already."""
        may_wait = all(frame.header.may_wait for frame in frames)
        with self._counting:
            self._wanted -= not may_wait
            self._ask()
        return may_wait

    def lane_took(self, size: int, busy_ns: int) -> None:
        """So long for a round of so many; told when it is asked again."""
        self._ended = (size, busy_ns)

    def gather_lost(self) -> None:
        """Another will be started, which knows of nothing that was asked."""
        self._is_new = True

    def take(self, timeout_seconds: float) -> list[Frame] | None:
        """The next round; None when none came in time. By one thread at a time."""
        if self._is_new:
            self._is_new = False
            while (came := self._receive(0.0)) is not None:  # answers of the old one
                self._waiting.append(came)
            with self._counting:
                self._asked = 0
                self._ask()
        return self._waiting.popleft() if self._waiting else self._receive(timeout_seconds)

    def _receive(self, timeout_seconds: float) -> list[Frame] | None:
        came = self._inlet.take(timeout_seconds)
        if came is None:
            return None
        assert not isinstance(came, Free)
        frames = [message for message in came if isinstance(message, Frame)]
        with self._counting:
            self._asked -= 1
            if not frames:  # nothing was left of it
                self._ask()
        return frames

    def _ask(self) -> None:
        while self._asked + len(self._waiting) < self._wanted:
            self._asked += 1
            self._gather.send(Free(self._number, *self._ended))
            self._ended = (0, 0)


class Outlet:
    """The way to the next worker, whose number stands in the slots' table while a frame is on its way."""

    def __init__(self, sender: Sender, number: int, given_up: Callable[[], bool]) -> None:
        self._sender, self._number, self._given_up = sender, number, given_up

    def send(self, message: Message | Free) -> None:
        if isinstance(message, Frame):
            if message.is_ghost:
                return
            message.sent_to(self._number)
        self._sender.send(to_parts(message), self._given_up)

    def send_all(self, frames: list[Frame]) -> None:
        """In one message."""
        mine = [frame for frame in frames if not frame.is_ghost]
        for frame in mine:
            frame.sent_to(self._number)
        if mine:
            self._sender.send(round_to_parts(mine), self._given_up)


class Bundle:
    """Frames that inference is done with and that may wait: so many go on in one message.

    The network leaves the caches to nobody, so each stage after it is cold when it is woken: the further frames
    cost it little more than the first. Where the next round is not at hand, or somebody watches, none waits.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._changing = threading.Lock()
        self._frames: list[Frame] = []

    def add(self, frames: list[Frame]) -> None:
        """From any lane."""
        with self._changing:
            self._frames += frames
            may_wait = all(frame.header.may_wait and not frame.header.watched for frame in frames)
        if not may_wait or len(self._frames) >= BUNDLE:
            self.send()

    def send(self) -> None:
        """All of them: there is nobody to wait for."""
        with self._changing:
            frames, self._frames = self._frames, []
        self._outlet.send_all(frames)


class Progress:
    """How far the sources have come at a stage in order (`pipeline.flow.order.Progress`)."""

    def __init__(self, ledger: Ledger, frames: Pool, stage: str) -> None:
        self._ledger, self._frames, self._stage = ledger, frames, stage

    def next_seq(self, place: int) -> int:
        return self._ledger.next_seq(place, self._stage)

    def passed_on(self, place: int) -> int:
        """How far the stage before has come, where that is in order too."""
        before = IN_ORDER.index(self._stage) - 1
        return self._ledger.next_seq(place, IN_ORDER[before]) if before >= 0 else 0

    def arrive(self, place: int, next_seq: int) -> None:
        """What comes late, for somebody else had it, does not bring the stage back."""
        if next_seq > self.next_seq(place):
            self._ledger.arrive(place, self._stage, next_seq)

    def is_alive(self, place: int, seq: int) -> bool:
        return self._frames.is_alive(place, seq)
