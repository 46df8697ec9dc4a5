"""Soft-NMS, Gaussian (Bodla et al. 2017, arXiv 1704.04503): overlapped boxes lose score, not their lives. Plain numpy.

For merging the detections of several scales; one scale needs none, its peaks are maxima already.
"""

import numpy as np
from numpy.typing import NDArray


def soft_nms(
    boxes_xyxy: NDArray[np.floating], scores: NDArray[np.floating], sigma: float = 0.5, threshold: float = 0.001
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Boxes (N, 4) of one class, with their scores (N,): the rows kept, best first, and their decayed scores.

    Again and again the best box is taken, and every other's score times exp(-iou² / sigma). Only boxes still at
    `threshold` or above when their turn comes are kept. (The paper's code for CenterNet decays the scores in place and
    leaves the discarded rows in the array, where they count on; here they are gone.)
    """
    decay = np.exp(-(iou(boxes_xyxy) ** 2) / sigma)
    left = scores.astype(np.float64)
    kept: list[int] = []
    decayed: list[float] = []
    while len(kept) < len(left) and left[best := int(left.argmax())] >= threshold:
        kept.append(best)
        decayed.append(left[best])
        left *= decay[best]
        left[best] = -1
    return np.array(kept, np.intp), np.array(decayed, np.float64)


def iou(boxes_xyxy: NDArray[np.floating], others_xyxy: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """Intersection over union (N, M) of the boxes (N, 4) with the others (M, 4), or with each other where
    none are given; 0 where both are empty."""
    boxes = boxes_xyxy.astype(np.float64)
    others = boxes if others_xyxy is None else others_xyxy.astype(np.float64)
    sides = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    common = sides.clip(0).prod(axis=2)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).clip(0).prod(axis=1) for each in (boxes, others))
    union = areas[:, None] + other_areas - common
    return np.divide(common, union, out=np.zeros_like(union), where=union > 0)
