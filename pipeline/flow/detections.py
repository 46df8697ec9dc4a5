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
    predicted   (N,)   bool, of a track that was not found here: where it should be, with the score that it had last
    """

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int32]
    predicted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def untracked(
        cls, boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], class_ids: NDArray[np.int32]
    ) -> Self:
        count = len(scores)
        return cls(boxes_xyxy, scores, class_ids, np.full(count, NO_TRACK, np.int32), np.zeros(count, np.bool_))

    @classmethod
    def empty(cls) -> Self:
        return cls.untracked(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))

    def where(self, keep: NDArray[np.bool_] | NDArray[np.intp]) -> "Detections":
        """Those for which `keep` (N,) is true, in the same order; or those of these numbers, in theirs."""
        return Detections(*(column[keep] for column in self._columns()))

    def and_then(self, others: "Detections") -> "Detections":
        """These, and behind them the others."""
        return Detections(*(np.concatenate(both) for both in zip(self._columns(), others._columns(), strict=True)))

    def _columns(self) -> tuple[NDArray, ...]:
        return self.boxes_xyxy, self.scores, self.class_ids, self.track_ids, self.predicted

    # -- as one array: each array of a message costs time on its way

    def packed(self) -> NDArray[np.int32]:
        """(N, 8) int32: box and score bit by bit, class, track, predicted."""
        rows = np.empty((len(self), 8), np.int32)
        floats = rows.view(np.float32)
        floats[:, :4], floats[:, 4] = self.boxes_xyxy, self.scores
        rows[:, 5], rows[:, 6], rows[:, 7] = self.class_ids, self.track_ids, self.predicted
        return rows

    @classmethod
    def unpacked(cls, rows: NDArray[np.int32]) -> Self:
        """Of `packed`, as views into it but for the last."""
        floats = rows.view(np.float32)
        return cls(floats[:, :4], floats[:, 4], rows[:, 5], rows[:, 6], rows[:, 7] != 0)
