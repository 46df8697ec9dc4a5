"""The shadow counts what the other way misses, and what only it finds."""

import numpy as np

from models.engines import Job
from models.shadow import Shadow

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)


def candidates(*rows) -> dict[str, np.ndarray]:
    return {"candidates": np.array(rows, np.float32).reshape(1, -1, 6)}


class Exact:
    """An engine that finds A and B, and C below the threshold."""

    job = Job(height=32, width=32)

    def allocate(self, batch: int = 1):
        return candidates(*[(0,) * 6] * 3)

    def run(self, images_bhwc, out) -> None:
        assert images_bhwc.shape == (1, 32, 32, 3)
        out["candidates"][:] = candidates((*A, 0.9, 0), (*B, 0.5, 0), (*C, 0.2, 0))["candidates"]


def counted(*others) -> dict[str, float]:
    shadow = Shadow(Exact(), 0.3)
    for other in others:
        shadow.compare(np.zeros((32, 32, 3), np.uint8), other)
    return shadow.figures()


def test_nothing_was_compared_at_first() -> None:
    assert counted() == {"shadow_frames": 0, "shadow_objects": 0, "shadow_missed": 0, "shadow_more": 0}


def test_the_same_objects_are_no_disagreement() -> None:
    same = candidates((*A, 0.8, 0), (*B, 0.6, 0), (*C, 0.25, 0))
    assert counted(same, same) == {"shadow_frames": 2, "shadow_objects": 4, "shadow_missed": 0, "shadow_more": 0}


def test_what_parts_is_counted() -> None:
    weaker, stronger = candidates((*A, 0.8, 0), (*B, 0.29, 0)), candidates((*A, 0.8, 0), (*B, 0.5, 1), (*C, 0.31, 0))
    assert counted(weaker) == {"shadow_frames": 1, "shadow_objects": 2, "shadow_missed": 1, "shadow_more": 0}
    assert counted(stronger) == {"shadow_frames": 1, "shadow_objects": 2, "shadow_missed": 1, "shadow_more": 2}
