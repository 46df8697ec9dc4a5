"""MOTChallenge text: one line a confirmed track and frame, the format that tracking benchmarks read.

    frame, id, left, top, width, height, score, -1, -1, -1

`frame` counts from 1; the box is in pixels of the source frame. The format knows neither classes nor sources (one file
a source) nor failures: a frame without a result has no lines, and neither has one without tracks. Milan et al.,
"MOT16: A Benchmark for Multi-Object Tracking", arXiv 1603.00831, section 4.1. Knows no stage and no pixels.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.results import FrameResult
from pipeline.sinks import Sink, Target
from pipeline.sinks.lines import LineFile


def open_sink(target: Target) -> Sink:
    return MotSink(target.path, target.goes_on)


class MotSink(Sink):
    """Appends to the file at `path`, or to standard output if that is `-`. Raises OutputError as `LineFile` does."""

    def __init__(self, path: str, goes_on: bool = False) -> None:
        """`goes_on`: after what is there already."""
        self._file = LineFile(path, goes_on)

    def write(self, frame: FrameResult, image_bgr: NDArray[np.uint8] | None = None) -> None:
        lines = mot_lines(frame)
        for line in lines:
            self._file.append(line.encode())
        if not lines:
            self._file.check()

    def close(self) -> None:
        self._file.close()


def mot_lines(frame: FrameResult) -> list[str]:
    """The lines of `frame`, each with its newline; tracked detections are in it whatever their score."""
    tracked = frame.tracked()
    rows = zip(tracked.track_ids.tolist(), tracked.boxes_xyxy.tolist(), tracked.scores.tolist(), strict=True)
    return [
        f"{frame.seq + 1},{track_id},{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f},{score:.4f},-1,-1,-1\n"
        for track_id, (left, top, right, bottom), score in rows
    ]
