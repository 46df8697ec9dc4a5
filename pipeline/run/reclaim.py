"""What a worker had when it died: its slots are free again, and each frame travels on as dropped. Knows no process.

Only for one that is certainly dead: nobody else may end a lease at the same time.
"""

import time
from collections.abc import Callable, Mapping

from pipeline.flow.fates import LOST
from pipeline.flow.frame import Frame
from pipeline.flow.ledger import Ledger
from pipeline.flow.messages import FrameHeader
from pipeline.flow.sharedmem import Pool
from pipeline.run.plan import WorkerPlan
from pipeline.stage import FRAMES


def reclaim(
    worker: WorkerPlan, pools: Mapping[str, Pool], ledger: Ledger, source_at: Callable[[int], str | None]
) -> list[Frame]:
    """Headers of the frames that it held or was sent, whose fate nobody has told yet; `source_at(place)` names their
    source. A slot that a decoder had taken for its next frame holds none yet."""
    frames: list[Frame] = []
    for name, pool in pools.items():
        for held in pool.held_by(worker.number):
            source_id = source_at(held.place)
            is_frame = name == FRAMES and held.seq < ledger.captured(held.place)
            if pool.end_lease(held.slot) and is_frame and not held.told and source_id is not None:
                frames.append(Frame(_header(source_id, held.place, held.seq, worker.stage), pools))
    return sorted(frames, key=lambda frame: (frame.header.place, frame.header.seq))


def _header(source_id: str, place: int, seq: int, stage: str) -> FrameHeader:
    now_ns, now_unix = time.monotonic_ns(), time.time()
    return FrameHeader(source_id, place, seq, 0.0, now_ns, now_unix, 0, 0, dropped=LOST[stage], reclaimed=True)
