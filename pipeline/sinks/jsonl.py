"""JSON lines: one object a frame. `docs/json-lines.md` is the contract; the structs below are the same in code.

Knows no stage and no pixels.
"""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.detections import NO_TRACK
from pipeline.results import FrameResult
from pipeline.sinks.lines import LineFile

SCHEMA = 1  # goes up when a key changes its meaning or goes away; new keys may come without


class JsonObject(msgspec.Struct, rename={"class_name": "class"}):
    """One detection with a score of at least the threshold; `box_xyxy` in pixels of the source frame."""

    track_id: int | None
    class_id: int
    class_name: str
    score: float
    box_xyxy: list[float]


class JsonLine(msgspec.Struct, kw_only=True):
    """One frame; the order of the fields is the order of the keys."""

    schema: int
    source: str
    seq: int
    pts_seconds: float
    captured_unix: float
    width: int
    height: int
    status: Literal["ok", "failed"]
    reason: str | msgspec.UnsetType = msgspec.UNSET
    latency_ms: float
    objects: list[JsonObject]


class JsonLinesSink:
    """Appends one line a frame to the file at `path`, or to standard output if that is `-`.

    Raises OutputError when the file cannot be opened or written.
    """

    def __init__(self, path: str) -> None:
        self._encoder = msgspec.json.Encoder()
        self._file = LineFile(path)

    def write(self, frame: FrameResult, image_bgr: NDArray[np.uint8] | None = None) -> None:
        self._file.append(self._encoder.encode(json_line(frame)) + b"\n")

    def close(self) -> None:
        self._file.close()


def json_line(frame: FrameResult) -> JsonLine:
    """`frame` as it is written."""
    return JsonLine(
        schema=SCHEMA,
        source=frame.source_id,
        seq=frame.seq,
        pts_seconds=round(frame.pts_seconds, 6),
        captured_unix=round(frame.captured_unix, 6),
        width=frame.width,
        height=frame.height,
        status="ok" if frame.failure is None else "failed",
        reason=msgspec.UNSET if frame.failure is None else frame.failure,
        latency_ms=round(frame.latency_ms, 3),
        objects=_json_objects(frame),
    )


def _json_objects(frame: FrameResult) -> list[JsonObject]:
    objects = frame.objects()
    columns = zip(
        objects.track_ids.tolist(),
        objects.class_ids.tolist(),
        _rounded(objects.scores, 4),
        _rounded(objects.boxes_xyxy, 2),
        strict=True,
    )
    return [
        JsonObject(None if track_id == NO_TRACK else track_id, class_id, frame.class_names[class_id], score, box_xyxy)
        for track_id, class_id, score, box_xyxy in columns
    ]


def _rounded(values: NDArray[np.float32], decimals: int) -> list:
    """As Python floats, in double precision: a rounded float32 would print its binary tail."""
    return np.round(values.astype(np.float64), decimals).tolist()
