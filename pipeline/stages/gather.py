"""gather: what waits for the network, of all sources, in rounds for whoever is free.

Holds frames, and looks at none but to see whether it is as the last one that went to the network (`infer.still`): here
it is known which did.
"""

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from pipeline.flow.fates import NEWER, SLOWED, TOO_OLD
from pipeline.flow.frame import Frame, Message
from pipeline.flow.messages import EndOfStream, Free, ModelCard, Policy, SignalChange, Slot, Start, StreamStart
from pipeline.flow.rounds import Dropped, Rounds
from pipeline.stage import FRAMES, Kit, QueueStage

if TYPE_CHECKING:
    from pipeline.still import Scene

# Nobody tells when a frame that was given to inference has reached its end: while too many are on their way, their
# slots are looked at so often.
LOOK_SECONDS = 0.003
IDLE_SECONDS = 1.0
FATES_OF = {"newer": NEWER, "too old": TOO_OLD, "rate": SLOWED}


class Gather(QueueStage):
    """The queue before inference, and the way past it.

    Frames beyond it are bounded: however slow delivery is, they wait here, where a newer one may take their place.
    """

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._passing: list[Message] = []
        self._waiting: Counter[str] = Counter()
        self._known: dict[str, Policy] = {}
        self._ended: set[str] = set()
        self._free: deque[int] = deque()
        self._ahead: list[Slot] = []
        self._scenes: dict[str, Scene] = {}

    def prepare(self) -> ModelCard | None:
        if self.kit.settings.infer.still:
            from pipeline import still
            from pipeline.kernels import compiled

            self.kit.tell("compiling the test for what stands still")
            compiled(still.warm_up)
        return None

    def begin(self, start: Start) -> None:
        limits = start.limits
        max_age_ms = self.kit.settings.queue.max_age_ms
        self._limits = limits
        max_age_ns = None if max_age_ms is None else round(max_age_ms * 1e6)
        self._rounds: Rounds[Frame] = Rounds(limits.round, limits.waiting, max_age_ns)
        self._rounds.lanes = limits.lanes * self.kit.settings.infer.processes
        self.kit.meter.figures = self._figures

    def _figures(self) -> dict[str, float]:
        told = self._rounds.figures
        figures = {"full": told.full, "window_p95_ms": told.window_p95_ns / 1e6, "admitted": told.admitted}
        return figures if told.goal_is_kept is None else figures | {"goal_is_kept": float(told.goal_is_kept)}

    @property
    def depth(self) -> int:
        return self._rounds.depth

    def take(self, message: Message | Free) -> None:
        match message:
            case Free():
                self._free.append(message.worker)
                if message.size:
                    self._rounds.served(message.size, message.busy_ns)
            case Frame():
                self._take_frame(message)
            case StreamStart():
                self._open(message.source_id, message.policy)
                self._changed(message)
                self._passing.append(message)
            case SignalChange():
                self._changed(message)
                self._passing.append(message)
            case EndOfStream():
                self._ended.add(message.source_id)
                self._forget(message.source_id)
                self._passing.append(message)
            case _:
                self._passing.append(message)

    def _take_frame(self, frame: Frame) -> None:
        header = frame.header
        if not header.is_for_network:
            self._passing.append(frame)
            return
        now_ns = time.monotonic_ns()
        if header.source_id not in self._known:  # its start died with an earlier process, and will be told again
            self._open(header.source_id, "latest")
        if not self._waiting[header.source_id] and self._takes_over(frame):
            return
        self._waiting[header.source_id] += 1
        self._drop(self._rounds.put(header.source_id, frame, header.captured_ns, now_ns))

    def _open(self, source_id: str, policy: Policy) -> None:
        self._known[source_id] = policy
        self._ended.discard(source_id)
        self._rounds.open(source_id, policy)
        settings = self.kit.settings.infer
        if settings.still and source_id not in self._scenes:
            from pipeline.still import Scene

            self._scenes[source_id] = Scene(settings.still, settings.still_audit)

    def _changed(self, word: StreamStart | SignalChange) -> None:
        if scene := self._scenes.get(word.source_id):
            scene.change(word.seq)

    def _takes_over(self, frame: Frame) -> bool:
        """Whether the frame, of which none before it waits, goes past the network with what was found in another."""
        header = frame.header
        scene = self._scenes.get(header.source_id)
        if scene is None or header.audits is not None:
            return False
        without_result = self.kit.ledger.without_result(header.place)
        before = scene.as_computed(header.seq, frame.array("input_rgb"), without_result)
        if before is None:
            return False
        if scene.is_audited():
            header.audits = before
            return False
        header.same_as = before
        frame.discard("input_rgb")
        self._passing.append(frame)
        return True

    def _is_given(self, frame: Frame) -> bool:
        """Whether the frame whose turn it is goes to the network."""
        self._left(frame)
        if self._takes_over(frame):
            return False
        scene = self._scenes.get(frame.header.source_id)
        if scene and frame.header.audits is None:
            scene.compute(frame.header.seq)
        return True

    def _drop(self, dropped: list[Dropped[Frame]]) -> None:
        for one in dropped:
            self._left(one.item)
            one.item.drop(FATES_OF[one.reason])
            self._passing.append(one.item)

    def _left(self, frame: Frame) -> None:
        self._waiting[frame.header.source_id] -= 1
        self._forget(frame.header.source_id)

    def _forget(self, source_id: str) -> None:
        """A source that has ended, once nothing of it waits."""
        if source_id in self._ended and not self._waiting[source_id]:
            self._rounds.close(source_id)
            del self._waiting[source_id]
            self._known.pop(source_id, None)
            self._scenes.pop(source_id, None)
            self._ended.discard(source_id)

    def lost(self, worker: int) -> None:
        self._free = deque(number for number in self._free if number != worker)

    def rounds(self) -> list[tuple[int, list[Frame]]]:
        given: list[tuple[int, list[Frame]]] = []
        while self._free and self._rounds.depth and self._has_room():
            frames, dropped = self._rounds.take(time.monotonic_ns(), len(self._free))
            self._drop(dropped)
            if not frames:
                break
            if frames := [frame for frame in frames if self._is_given(frame)]:
                self._ahead += [slot for frame in frames for slot in frame.header.leases]
                given.append((self._free.popleft(), frames))
        return given

    @property
    def _most_ahead(self) -> int:
        return self._limits.ahead - self._limits.spare * ("latest" in self._known.values())

    def _has_room(self) -> bool:
        if len(self._ahead) >= self._most_ahead:
            self._ahead = self.kit.pools[FRAMES].still_open(self._ahead)
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
