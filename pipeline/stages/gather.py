"""gather: what waits for the network, of all sources, in rounds for whoever is free. Holds frames, looks at none."""

import time
from collections import deque

from pipeline.fates import Drop
from pipeline.frame import Frame, Message
from pipeline.messages import Free, Slot, Start, StreamStart
from pipeline.rounds import Rounds
from pipeline.stage import FRAMES, Kit, QueueStage

# Nobody tells when a frame that was given to inference has reached its end: while too many are on their way, their
# slots are looked at so often.
LOOK_SECONDS = 0.003
IDLE_SECONDS = 1.0


class Gather(QueueStage):
    """The queue before inference, and the way past it.

    Frames beyond it are bounded: however slow delivery is, they wait here, where a newer one may take their place.
    """

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._passing: list[Message] = []
        self._free: deque[Free] = deque()
        self._ahead: list[Slot] = []

    def begin(self, start: Start) -> None:
        limits = start.limits
        max_age_ms = self.kit.settings.queue.max_age_ms
        self._most_ahead = limits.ahead
        max_age_ns = None if max_age_ms is None else round(max_age_ms * 1e6)
        self._rounds: Rounds[Frame] = Rounds(limits.round, limits.waiting, max_age_ns)

    @property
    def depth(self) -> int:
        return self._rounds.depth

    def take(self, message: Message | Free) -> None:
        match message:
            case Free():
                self._free.append(message)
                if message.size:
                    self._rounds.served(message.size, message.busy_ns)
            case Frame():
                self._take_frame(message)
            case StreamStart():
                self._rounds.open(message.source_id, message.policy)
                self._passing.append(message)
            case _:
                self._passing.append(message)

    def _take_frame(self, frame: Frame) -> None:
        header = frame.header
        if header.dropped or header.unseen:
            self._passing.append(frame)
            return
        now_ns = time.monotonic_ns()
        self._drop(self._rounds.put(header.source_id, frame, header.captured_ns, now_ns))

    def _drop(self, dropped: list) -> None:
        for frame, reason in dropped:
            frame.drop(Drop("gather", reason))
            self._passing.append(frame)

    def lost(self, worker: int) -> None:
        self._free = deque(lane for lane in self._free if lane.worker != worker)

    def rounds(self) -> list[tuple[int, list[Frame]]]:
        given: list[tuple[int, list[Frame]]] = []
        while self._free and self._rounds.depth and self._has_room():
            frames, dropped = self._rounds.take(time.monotonic_ns(), len(self._free))
            self._drop(dropped)
            if not frames:
                break
            self._ahead += [slot for frame in frames for slot in frame.header.leases]
            given.append((self._free.popleft().worker, frames))
        return given

    def _has_room(self) -> bool:
        if len(self._ahead) >= self._most_ahead:
            self._ahead = self.kit.pools[FRAMES].still_leased(self._ahead)
        return len(self._ahead) < self._most_ahead

    def passing(self) -> list[Message]:
        passing, self._passing = self._passing, []
        return passing

    def wait_seconds(self) -> float:
        if not self._free or not self._rounds.depth:
            return IDLE_SECONDS
        if len(self._ahead) >= self._most_ahead:
            return LOOK_SECONDS
        wait_ns = self._rounds.wait_ns(time.monotonic_ns())
        return IDLE_SECONDS if wait_ns is None else wait_ns / 1e9
