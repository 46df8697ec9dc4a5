"""Frames computed once more in fp32, beside lower precision: how far the two part on a real stream is seen. Knows no
stream."""

import threading
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from models.agreement import Detections, detections_of, matches
from models.engines import Engine

SAME_IOU = 0.5


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

    def compare(self, image_hwc: NDArray[np.uint8], outputs: Mapping[str, NDArray[np.float32]]) -> None:
        """`outputs` are the other way's for this one image, (1, …) each. In as many threads as the engine has lanes."""
        exact = self._exact.allocate()
        self._exact.run(image_hwc[None], exact)
        truth, found = (self._reported(each) for each in (exact, outputs))
        hits = int((matches(truth, found, SAME_IOU) >= 0).sum())
        with self._lock:
            counted = (1, len(truth), len(truth) - hits, len(found) - hits)
            for name, count in zip(self._counts, counted, strict=True):
                self._counts[name] += count

    def _reported(self, outputs: Mapping[str, NDArray[np.float32]]) -> Detections:
        (found,) = detections_of(outputs)
        return found[found[:, 4] >= self._least_score]
