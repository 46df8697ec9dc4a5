"""Whether a frame looks as the last one that was computed, and what would be missed if it took over its detections.

The test is of the network's own input, with the picture of the last computed frame and not of the last frame: a change
that is too slow to be seen from one to the next adds up until it is. Tiles are compared, so that somebody small counts
as much as somebody large; what noise makes of a tile is measured in the same two pictures. Knows no stage, no socket.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import Detections
from pipeline.flow.messages import Audit
from pipeline.kernels import tiles
from pipeline.kernels.tracks import DOUBLE, UNMATCHED, assign, iou

# A tile has changed where it differs by so many times what the median tile does: in a scene that stands still that is
# noise, of which the largest of a thousand tiles has less than three times as much.
TIMES_NOISE = 3.0
# But never for less grey levels than the first, which a codec makes of a picture that stands still; and always for more
# than the second, for where most of the picture has changed the median is no noise.
LEAST_LEVELS, MOST_LEVELS = 3.0, 8.0
LEAST_IOU = 0.5


@dataclass(frozen=True, slots=True)
class _Picture:
    seq: int
    sums: NDArray[np.uint16]
    without_result: int = 0


class Scene:
    """What the network saw last of one source.

    most         frames in a row that may take over from one that was computed
    audit_every  of the frames that could, one in so many is to be computed all the same; None: none
    """

    def __init__(self, most: int, audit_every: int | None) -> None:
        self._most, self._audit_every = most, audit_every
        self._seen: _Picture | None = None
        self._computed: _Picture | None = None
        self._in_a_row = self._in_all = 0
        self._changed_at: set[int] = set()

    def change(self, seq: int) -> None:
        """From this frame on something is another (what is looked for, the size, the connection): nothing is taken over
        from a frame before it."""
        self._changed_at.add(seq)

    def as_computed(self, seq: int, input_hwc: NDArray[np.uint8], without_result: int) -> int | None:
        """The computed frame that this one may take over from; None where it must be computed itself.

        without_result  frames of the source so far of which there was none: with another number the one to take over
                        from may be among them
        """
        if self._seen and self._seen.seq == seq:  # it was looked at, and had changed
            return None
        self._seen = _Picture(seq, tiles.block_sums(input_hwc), without_result)
        before = self._computed
        if before is None or self._in_a_row >= self._most or before.without_result != without_result:
            return None
        if any(changed <= seq for changed in self._changed_at) or not _is_same(
            before, self._seen, *input_hwc.shape[:2]
        ):
            return None
        self._in_a_row += 1
        return before.seq

    def is_audited(self) -> bool:
        """Whether the frame that could take over is to be computed all the same. It changes nothing for those after it:
        so what is measured is what the others are like."""
        self._in_all += 1
        return self._audit_every is not None and self._in_all % self._audit_every == 0

    def compute(self, seq: int) -> None:
        """The frame that was looked at last is given to the network."""
        assert self._seen and self._seen.seq == seq
        self._computed, self._in_a_row = self._seen, 0
        self._changed_at = {changed for changed in self._changed_at if changed > seq}


def _is_same(before: _Picture, now: _Picture, height: int, width: int) -> bool:
    return before.sums.shape == now.sums.shape and is_still(tiles.tile_changes(before.sums, now.sums, height, width))


def is_still(changes: NDArray[np.float32]) -> bool:
    """Whether the tiles' `changes` (see `kernels.tiles.tile_changes`) are no more than noise."""
    middle = changes.size // 2
    noise_levels = float(np.partition(changes, middle, axis=None)[middle])  # np.median takes three times as long
    return bool(changes.max() <= min(max(TIMES_NOISE * noise_levels, LEAST_LEVELS), MOST_LEVELS))


def audit(found: Detections, taken: Detections, score_threshold: float) -> Audit:
    """What was missed by the `taken` detections of an earlier frame, by those that were `found` in the frame itself:
    objects that none of the taken ones, each good for one, matches in class and at an IoU of 0.5. As to the tracker,
    what lies upon a better one of its class is a second peak on the same object."""
    objects = found.where(found.scores >= np.float32(score_threshold))
    objects = objects.where(~_are_second_peaks(objects))
    matches = assign(_overlaps(objects, taken) - np.nextafter(LEAST_IOU, 0))
    return Audit(len(objects), int((matches == UNMATCHED).sum()))


def _are_second_peaks(found: Detections) -> NDArray[np.bool_]:
    """(N,) which of them lie upon a better one; of equally good ones the first is the better."""
    ranks = np.empty(len(found), np.int64)
    ranks[np.argsort(-found.scores, kind="stable")] = np.arange(len(found))
    are_upon = (_overlaps(found, found) > DOUBLE) & (ranks[:, None] > ranks)
    return np.asarray(are_upon.any(axis=1))


def _overlaps(some: Detections, others: Detections) -> NDArray[np.float64]:
    """Intersection over union (N, M); 0 where the classes differ."""
    overlaps = iou(some.boxes_xyxy.astype(np.float64), others.boxes_xyxy.astype(np.float64))
    overlaps[some.class_ids[:, None] != others.class_ids] = 0
    return overlaps


def warm_up() -> None:
    tiles.warm_up()
