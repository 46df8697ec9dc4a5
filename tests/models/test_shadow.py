"""A probation tells how far the first frames agree, the shadow what the other way misses and what only it finds."""

import numpy as np

from models.engines import Job
from models.shadow import ENOUGH_OBJECTS, LEAST_OBJECTS_TO_REFUSE, MOST_FRAMES, Probation, Shadow

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


SAME = candidates((*A, 0.8, 0), (*B, 0.6, 0))
HALF = candidates((*A, 0.8, 0))
PER_FRAME = 2  # objects


def on_probation(other, frames: int) -> tuple[Probation, list[bool]]:
    probation = Probation(Exact())
    return probation, [probation.compare(np.zeros((32, 32, 3), np.uint8), other) for _ in range(frames)]


def test_a_probation_of_nothing_neither_holds_nor_refuses() -> None:
    probation, _ = on_probation(SAME, 0)
    assert (probation.frames, probation.verdict().holds, probation.refuses) == (0, False, False)


def test_a_probation_is_over_with_the_last_object_that_it_needs() -> None:
    probation, over = on_probation(SAME, ENOUGH_OBJECTS // PER_FRAME)
    assert over == [False] * (ENOUGH_OBJECTS // PER_FRAME - 1) + [True]
    assert probation.verdict().holds and not probation.refuses
    assert str(probation) == (
        f"in the first {len(over)} frames, too: AP 1.000 at IoU 0.5 and 1.000 at 0.75 of {ENOUGH_OBJECTS} objects"
    )


def test_what_finds_other_objects_is_refused_once_there_are_enough_to_say_so() -> None:
    few, _ = on_probation(HALF, LEAST_OBJECTS_TO_REFUSE // PER_FRAME - 1)
    assert not few.refuses and not few.verdict().holds and str(few).endswith("too little to judge by")
    enough, _ = on_probation(HALF, LEAST_OBJECTS_TO_REFUSE // PER_FRAME)
    assert enough.refuses
    assert "it finds other objects (AP 0.500 at IoU 0.5" in str(enough) and str(enough).endswith("fp32 took its place")


def test_a_probation_of_empty_frames_ends_too() -> None:
    class Blind(Exact):
        def run(self, images_bhwc, out) -> None:
            out["candidates"][:] = 0

    probation = Probation(Blind())
    over = [probation.compare(np.zeros((32, 32, 3), np.uint8), candidates((0,) * 6)) for _ in range(MOST_FRAMES)]
    assert over == [False] * (MOST_FRAMES - 1) + [True] and not probation.refuses
