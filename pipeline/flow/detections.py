"""Detections of one frame as parallel arrays: what postprocess finds, track labels and deliver shows.

Knows no stage, no socket and no model.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

NO_TRACK = 0


@dataclass(frozen=True, slots=True)
class Detections:
    """N detections, best score first.

    boxes_xyxy  (N, 4) float32, left, top, right, bottom in pixels of the source frame
    scores      (N,)   float32, 0 to 1
    class_ids   (N,)   int32, index into the model's class names
    track_ids   (N,)   int32, from 1; `NO_TRACK` (0) while the tracker has confirmed none
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def untracked(
        cls, boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int32]
    ) -> Self:
        return cls(boxes_xyxy, scores, class_ids, np.full(len(scores), NO_TRACK, np.int32))

    @classmethod
    def empty(cls) -> Self:
        return cls.untracked(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def where(self, keep: NDArray[np.bool_]) -> "Detections":
        """Those for which `keep` (N,) is true, in the same order."""
        return Detections(self.boxes_xyxy[keep], self.scores[keep], self.class_ids[keep], self.track_ids[keep])
