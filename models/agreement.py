"""How far the detections of two ways to compute a network agree: what lower precision is judged by. Single logits and
sizes move by more than any tolerance on heads would allow, while the objects found stay the same. Knows no engine.

The measure is average precision (Everingham et al. 2010, section 4.2, with the area below the whole curve): objects of
the exact way are the truth, and everything that the other found competes for them by its score.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from models.decode import decode
from models.soft_nms import iou

# An object is what is reported by default; what comes close to it may be found with a little less.
OBJECT_SCORE, FOUND_SCORE = 0.3, 0.1
TOP_K = 100
# From these on, lower precision is as good: re-encoding the same pictures moves detections more.
LEAST_AP50, LEAST_AP75 = 0.98, 0.95
LEAST_OBJECTS = 10

Detections = NDArray[np.float32]  # (N, 6) of x1, y1, x2, y2 in output cells, score, class; best first


class Agreement(msgspec.Struct, frozen=True):
    """Average precision at IoU 0.5 and 0.75, and the number of objects that it was measured on."""

    ap50: float
    ap75: float
    objects: int

    @property
    def holds(self) -> bool:
        return self.objects >= LEAST_OBJECTS and self.ap50 >= LEAST_AP50 and self.ap75 >= LEAST_AP75

    @property
    def shortfall(self) -> str:
        """What the other way finds where this does not hold."""
        if self.objects < LEAST_OBJECTS:
            return f"finds too little to judge by ({self.objects} objects)"
        return f"finds other objects ({self}; asked are {LEAST_AP50} and {LEAST_AP75})"

    def __str__(self) -> str:
        return f"AP {self.ap50:.3f} at IoU 0.5 and {self.ap75:.3f} at 0.75 of {self.objects} objects"


def detections_of(outputs: Mapping[str, NDArray[np.float32]]) -> list[Detections]:
    """Of each image, from what an engine gives: raw heads, or candidates."""
    if "candidates" in outputs:
        return list(outputs["candidates"])
    heads = {name: torch.from_numpy(head) for name, head in outputs.items()}
    with torch.inference_mode():
        return list(decode(heads["hm"], heads["wh"], heads.get("reg"), TOP_K).numpy())


def agreement(exact: Sequence[Detections], other: Sequence[Detections]) -> Agreement:
    """Of the same images, one after the other."""
    truth = [found[found[:, 4] >= OBJECT_SCORE] for found in exact]
    others = [found[found[:, 4] >= FOUND_SCORE] for found in other]
    ap50, ap75 = (average_precision(truth, others, least_iou) for least_iou in (0.5, 0.75))
    return Agreement(ap50, ap75, sum(map(len, truth)))


def average_precision(truth: Sequence[Detections], found: Sequence[Detections], least_iou: float) -> float:
    """The area below precision over recall, all classes together; 0 where there is nothing to be found."""
    objects = sum(map(len, truth))
    if not objects:
        return 0.0
    hits = np.concatenate([matches(*pair, least_iou) >= 0 for pair in zip(truth, found, strict=True)])
    best_first = np.argsort(-np.concatenate([each[:, 4] for each in found]), kind="stable")
    right = np.cumsum(hits[best_first])
    precision = right / np.arange(1, len(right) + 1)
    # At each recall the best precision that is had there or beyond.
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision[hits[best_first]].sum() / objects)


def matches(truth: Detections, found: Detections, least_iou: float) -> NDArray[np.int64]:
    """For each of `found`, best score first, the object of `truth` that it is, -1 for none: the one of its class that
    it overlaps most, which nothing better has taken."""
    overlaps = iou(found[:, :4], truth[:, :4]) * (found[:, 5:] == truth[:, 5])
    matched = np.full(len(found), -1)
    for row in np.argsort(-found[:, 4], kind="stable") if len(truth) else ():
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= least_iou:
            matched[row] = best
            overlaps[:, best] = 0.0
    return matched
