"""Who runs: the workers of a run, each with its number, its source and its slots; and how many frames may be on their
way. Made from settings, and added to with each new source: nobody computes a limit from another part's insides.

Knows no process, no socket and no network, only how many lanes one may have at the most.
"""

import msgspec

from pipeline.flow.lines import BUNDLE
from pipeline.flow.messages import Limits, ModelCard
from pipeline.settings import LARGEST_INPUT_SIDE, MOST_SOURCES, Settings
from pipeline.stage import CHAIN, DEVICE_LANES, FRAMES, HEATMAPS, SERVE

# So many frames beside those in the network, a bundle of them, keep every stage after it busy. More would only wait
# longer, also where it is delivery that is slow, and push the network's data out of the cache.
IN_HAND = BUNDLE
# And where none of them is live: outputs with pictures keep some of a bundle while the next is gathered.
SPARE = 2
# Frames in one step of the network at the most, where nobody said how many.
USUAL_BATCH = 8
# Slots are sparse: these bound what a frame may be, they take no memory.
LARGEST_FRAME_BYTES = 8192 * 8192 * 3
LARGEST_INPUT_BYTES = LARGEST_INPUT_SIDE**2 * 3
LARGEST_HEADS_BYTES = 256 << 20


class WorkerPlan(msgspec.Struct, frozen=True):
    """One worker.

    id           what people and the control path call it: "track", "infer:0", "decode:street"
    number       what the slots' table calls it; never another's in the same run
    source_id    whose decoder it is, and `place` of that source in the ledger; "" and -1 for all others
    pool         the pool that it leases from, `slots` first and number of them; "" for who leases none
    """

    id: str
    number: int
    stage: str
    source_id: str = ""
    place: int = -1
    pool: str = ""
    first_slot: int = 0
    slots: int = 0


class Plan:
    """The workers of a run. Those of sources come and go; all others are there from the start."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.workers: dict[str, WorkerPlan] = {}
        lanes = max(settings.infer.cpu_workers(), DEVICE_LANES)
        self.most_limits = self._limits(lanes, settings.infer.batch or USUAL_BATCH)
        self._numbers = 0
        for stage in CHAIN[1:]:
            if stage == "infer":
                for number in range(settings.infer.processes):
                    self._add(f"infer:{number}", stage, pool=HEATMAPS, first=number * self._heat_slots)
            else:
                self._add(stage, stage)
        if settings.serve.at:
            self._add(SERVE, SERVE)
        for source_id in settings.sources:
            self.add_source(source_id)

    def limits(self, model: ModelCard) -> Limits:
        """Once it is known how many lanes an inference worker has, and how many frames it takes at a time."""
        return self._limits(min(model.workers, self.most_limits.lanes), min(model.batch, self.most_limits.round))

    def _limits(self, lanes: int, batch: int) -> Limits:
        waiting = self._settings.queue.capacity
        ahead = lanes * self._settings.infer.processes * batch + IN_HAND + SPARE
        return Limits(ahead, ahead + waiting, waiting, lanes, batch, SPARE)

    @property
    def _heat_slots(self) -> int:
        return self.most_limits.ahead

    @property
    def pools(self) -> list[tuple[str, int, int]]:
        """Name, slots, bytes."""
        frames = MOST_SOURCES * self.most_limits.of_source
        return [
            (FRAMES, frames, LARGEST_INPUT_BYTES + LARGEST_FRAME_BYTES * self._settings.may_have_pictures()),
            (HEATMAPS, self._settings.infer.processes * self._heat_slots, LARGEST_HEADS_BYTES),
        ]

    def add_source(self, source_id: str) -> WorkerPlan:
        """Its decoder. Raises ValueError when there are as many sources as there can be."""
        taken = {worker.place for worker in self.workers.values()}
        place = next((place for place in range(MOST_SOURCES) if place not in taken), None)
        if place is None:
            raise ValueError(f"there are {MOST_SOURCES} sources already, and more cannot be")
        first = place * self.most_limits.of_source
        return self._add(f"decode:{source_id}", CHAIN[0], source_id, place, FRAMES, first)

    def remove_source(self, source_id: str) -> None:
        del self.workers[f"decode:{source_id}"]

    def _add(
        self, worker_id: str, stage: str, source_id: str = "", place: int = -1, pool: str = "", first: int = 0
    ) -> WorkerPlan:
        slots = {"": 0, FRAMES: self.most_limits.of_source, HEATMAPS: self._heat_slots}[pool]
        worker = WorkerPlan(worker_id, self._numbers, stage, source_id, place, pool, first, slots)
        self._numbers += 1
        self.workers[worker_id] = worker
        return worker

    def of_stage(self, stage: str) -> list[WorkerPlan]:
        return [worker for worker in self.workers.values() if worker.stage == stage]
