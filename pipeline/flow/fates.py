"""What can become of a frame, and the words for it. docs/operating.md says of each what to do.

Each captured frame comes to exactly one of `FATES`, and deliver counts it in the ledger. Knows nothing else.
"""

import msgspec


class Drop(msgspec.Struct, array_like=True, frozen=True):
    """A frame ended here: the stage, and why in a few words."""

    stage: str
    reason: str


DELIVERED = Drop("deliver", "delivered")
# Handed to the outputs as "no result", with the reason in its header.
FAILED = Drop("deliver", "without result")

NO_SLOT = Drop("decode", "no free slot, the stages after it are slower than the source")
LATE = Drop("decode", "more than 2 s late, or before the next fresh key frame")
ABOVE_RATE = Drop("decode", "above the source's max_rate")
NEWER = Drop("gather", "queue full, a newer frame took its place")
TOO_OLD = Drop("gather", "older than queue.max_age_ms")
SLOWED = Drop("gather", "the rate of all sources was lowered to keep queue.max_age_ms")
NO_OUTPUT = Drop("deliver", "no output took it")
# What a worker held, or was on its way to it, when it was lost; and what was lost with it without a trace.
WORKER_LOST = "worker lost"
LOST = {stage: Drop(stage, WORKER_LOST) for stage in ("decode", "gather", "infer", "postprocess", "track", "deliver")}
UNHEARD = Drop("run", "never heard of again after a worker was lost")

FATES = (DELIVERED, FAILED, NO_SLOT, LATE, ABOVE_RATE, NEWER, TOO_OLD, SLOWED, NO_OUTPUT, *LOST.values(), UNHEARD)
