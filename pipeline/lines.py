"""The data path of one worker: what it takes from its queue, and what it sends on.

Who holds a frame is written into the slots' table here: the receiver when it takes it, the next one before it is sent.
Knows no stage's work.
"""

from collections.abc import Callable, Mapping

from pipeline.frame import Frame, Message, from_parts, round_to_parts, to_parts
from pipeline.ledger import Ledger
from pipeline.messages import Free
from pipeline.order import InOrder
from pipeline.sharedmem import Pool
from pipeline.transport import Receiver, Sender


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

    def send_round(self, frames: list[Frame]) -> None:
        mine = [frame for frame in frames if not frame.is_ghost]
        for frame in mine:
            frame.sent_to(self._number)
        if mine:
            self._sender.send(round_to_parts(mine), self._given_up)


class Progress:
    """How far the sources have come at a stage in order (`pipeline.order.Progress`)."""

    def __init__(self, ledger: Ledger, frames: Pool, stage: str) -> None:
        self._ledger, self._frames, self._stage = ledger, frames, stage

    def next_seq(self, place: int) -> int:
        return self._ledger.next_seq(place, self._stage)

    def arrive(self, place: int, next_seq: int) -> None:
        """What comes late, for somebody else had it, does not bring the stage back."""
        if next_seq > self.next_seq(place):
            self._ledger.arrive(place, self._stage, next_seq)

    def is_alive(self, place: int, seq: int) -> bool:
        return self._frames.is_alive(place, seq)
