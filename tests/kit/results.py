"""Frames as outputs get them, with whatever was found in them."""

from typing import Any

import numpy as np

from pipeline.flow.detections import Detections
from pipeline.flow.fates import Drop
from pipeline.flow.results import FrameResult

# (box, score, class, track) of each detection; where the whole frame is predicted, so are they
Row = tuple[tuple[float, float, float, float], float, int, int]


def result(
    rows: list[Row] | None = None,
    *,
    seq: int = 0,
    seconds: float = 0.0,
    failure: str | None = None,
    dropped: Drop | None = None,
    predicted: bool = False,
    taken_from: int | None = None,
    source_id: str = "door",
    **counts: Any,
) -> FrameResult:
    """A frame of 640×480 as it comes to an output, with these detections."""
    rows = rows or []
    detections = Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
        np.array([row[3] for row in rows], np.int32),
        np.full(len(rows), predicted),
    )
    return FrameResult(
        source_id=source_id,
        seq=seq,
        pts_seconds=seconds,
        captured_unix=1_767_225_600.1234567,
        width=640,
        height=480,
        clock="sender",
        failure=failure,
        dropped=dropped,
        predicted=predicted,
        latency_ms=41.23456,
        detections=detections,
        score_threshold=0.3,
        class_names=("person", "dog"),
        frames_per_second=10.0,
        taken_from=taken_from,
        **counts,
    )
