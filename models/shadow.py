"""Frames computed once more in fp32, beside lower precision: whether the first of a real stream bear out what the
pictures that ship have told, and how far the two part as it goes on. Knows no stream."""

import threading

import numpy as np
from numpy.typing import NDArray

from models.agreement import Agreement, Detections, agreement, detections_of, matches
from models.engines import Engine
from models.engines.engine import Outputs

SAME_IOU = 0.5
# A probation ends with so many; fewer than the least do not overrule the pictures that ship, for one object of a scene
# that is found only just is in all its frames.
ENOUGH_OBJECTS, MOST_FRAMES = 100, 50
LEAST_OBJECTS_TO_REFUSE = 50


def in_both(exact: Engine, image_hwc: NDArray[np.uint8], outputs: Outputs) -> tuple[Detections, Detections]:
    """What fp32 finds in this one image, and what is in the other way's `outputs` of it, (1, …) each."""
    truth = exact.allocate()
    exact.run(image_hwc[None], truth)
    (found_in_fp32,), (found,) = detections_of(truth), detections_of(outputs)
    return found_in_fp32, found


class Probation:
    """How far lower precision agrees with fp32 in the first frames of a run."""

    def __init__(self, exact: Engine) -> None:
        self._exact = exact
        self._lock = threading.Lock()
        self._truth: list[Detections] = []
        self._found: list[Detections] = []

    def compare(self, image_hwc: NDArray[np.uint8], outputs: Outputs) -> bool:
        """Whether enough was seen. In as many threads as the engine has lanes."""
        truth, found = in_both(self._exact, image_hwc, outputs)
        with self._lock:
            self._truth.append(truth)
            self._found.append(found)
        return len(self._truth) >= MOST_FRAMES or self.verdict().objects >= ENOUGH_OBJECTS

    @property
    def frames(self) -> int:
        return len(self._truth)

    @property
    def refuses(self) -> bool:
        verdict = self.verdict()
        return verdict.objects >= LEAST_OBJECTS_TO_REFUSE and not verdict.holds

    def verdict(self) -> Agreement:
        """Of the frames so far."""
        with self._lock:
            return agreement(self._truth, self._found)

    def __str__(self) -> str:
        verdict, seen = self.verdict(), f"in the first {self.frames} frames"
        if self.refuses:
            return f"{seen} it {verdict.shortfall}, so fp32 took its place"
        return f"{seen}, too: {verdict}" if verdict.holds else f"{seen} there was too little to judge by"


class Shadow:
    """Counts, over all frames that it was shown:

    frames, objects  those, and what fp32 reports in them
    missed, more     objects that the other way does not report, and those that only it reports
    """

    def __init__(self, exact: Engine, score_threshold: float) -> None:
        self._exact = exact
        self._least_score = score_threshold
        self._lock = threading.Lock()
        self._counts = {"frames": 0, "objects": 0, "missed": 0, "more": 0}

    def figures(self) -> dict[str, float]:
        """The counts, as `shadow_frames`, …"""
        with self._lock:
            return {f"shadow_{name}": count for name, count in self._counts.items()}

    def compare(self, image_hwc: NDArray[np.uint8], outputs: Outputs) -> None:
        """`outputs` are the other way's for this one image, (1, …) each. In as many threads as the engine has lanes."""
        both = in_both(self._exact, image_hwc, outputs)
        truth, found = (each[each[:, 4] >= self._least_score] for each in both)
        hits = int((matches(truth, found, SAME_IOU) >= 0).sum())
        with self._lock:
            counted = (1, len(truth), len(truth) - hits, len(found) - hits)
            for name, count in zip(self._counts, counted, strict=True):
                self._counts[name] += count
