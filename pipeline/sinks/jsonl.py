"""JSON lines: one object a frame, and one for each change of a source's signal.

`docs/json-lines.md` is the contract; the structs below are the same in code.

Knows no stage and no pixels.
"""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import NO_TRACK
from pipeline.flow.events import Event, LineCount, ZoneCount
from pipeline.flow.messages import Clock, Outage, SignalChange, SignalState
from pipeline.flow.results import FrameResult
from pipeline.sinks import Sink, Target
from pipeline.sinks.segments import SegmentedFile

SCHEMA = 2  # goes up when a key changes its meaning or goes away; new keys may come without


class JsonObject(msgspec.Struct, rename={"class_name": "class"}):
    """One detection with a score of at least the threshold; `box_xyxy` in pixels of the source frame."""

    track_id: int | None
    class_id: int
    class_name: str
    score: float
    box_xyxy: list[float]
    predicted: bool | msgspec.UnsetType = msgspec.UNSET


class JsonLine(msgspec.Struct, kw_only=True, rename={"taken_from": "from"}):
    """One frame; the order of the fields is the order of the keys."""

    schema: int
    kind: Literal["frame"]
    source: str
    seq: int
    pts_seconds: float
    captured_unix: float
    clock: Clock
    width: int
    height: int
    status: Literal["ok", "failed", "dropped"]
    stage: str | msgspec.UnsetType = msgspec.UNSET
    reason: str | msgspec.UnsetType = msgspec.UNSET
    predicted: bool | msgspec.UnsetType = msgspec.UNSET
    taken_from: int | msgspec.UnsetType = msgspec.UNSET
    latency_ms: float
    objects: list[JsonObject]
    zones: dict[str, ZoneCount] | msgspec.UnsetType = msgspec.UNSET
    lines: dict[str, LineCount] | msgspec.UnsetType = msgspec.UNSET
    events: tuple[Event, ...] | msgspec.UnsetType = msgspec.UNSET


class JsonSignal(msgspec.Struct, kw_only=True):
    """What a source sends from frame `seq` on; `outage` is the one that is over with it."""

    schema: int
    kind: Literal["signal"]
    source: str
    seq: int
    state: SignalState
    cause: str
    at_unix: float
    outage: Outage | None


def open_sink(target: Target) -> Sink:
    return JsonLinesSink(target.path, target.goes_on, target.rotate_bytes, target.keep_files)


class JsonLinesSink(Sink):
    """Appends one line a frame to the file at `path`, or to standard output if that is `-`.

    Raises OutputError when the file cannot be opened or written.
    """

    def __init__(
        self, path: str, goes_on: bool = False, rotate_bytes: int | None = None, keep_files: int | None = None
    ) -> None:
        """`goes_on`: after what is there already. The others as in `SegmentedFile`."""
        self._file = SegmentedFile(path, goes_on, rotate_bytes, keep_files)
        self.path = self._file.path

    def write(self, frame: FrameResult, image_bgr: NDArray[np.uint8] | None = None) -> None:
        self._append(frame_line(frame))

    def record(self, signal: SignalChange) -> None:
        self._append(signal_line(signal))

    def _append(self, line: bytes) -> None:
        self._file.append(line + b"\n")
        self.path = self._file.path

    def close(self) -> None:
        self._file.close()


_encode = msgspec.json.Encoder().encode


def frame_line(frame: FrameResult) -> bytes:
    """The line of `frame`, without a newline."""
    return _encode(json_line(frame))


def signal_line(signal: SignalChange) -> bytes:
    return _encode(json_signal(signal))


def json_signal(signal: SignalChange) -> JsonSignal:
    """`signal` as it is written."""
    return JsonSignal(
        schema=SCHEMA,
        kind="signal",
        source=signal.source_id,
        seq=signal.seq,
        state=signal.state,
        cause=signal.cause,
        at_unix=round(signal.at_unix, 3),
        outage=signal.outage,
    )


def json_line(frame: FrameResult) -> JsonLine:
    """`frame` as it is written."""
    return JsonLine(
        schema=SCHEMA,
        kind="frame",
        source=frame.source_id,
        seq=frame.seq,
        pts_seconds=round(frame.pts_seconds, 6),
        captured_unix=round(frame.captured_unix, 6),
        clock=frame.clock,
        width=frame.width,
        height=frame.height,
        status="dropped" if frame.dropped else "failed" if frame.failure else "ok",
        stage=frame.dropped.stage if frame.dropped else msgspec.UNSET,
        reason=(frame.dropped.reason if frame.dropped else frame.failure) or msgspec.UNSET,
        predicted=frame.predicted or msgspec.UNSET,
        taken_from=msgspec.UNSET if frame.taken_from is None else frame.taken_from,
        latency_ms=round(frame.latency_ms, 3),
        objects=_json_objects(frame),
        zones=dict(frame.zones) or msgspec.UNSET,
        lines=dict(frame.lines) or msgspec.UNSET,
        events=frame.events if frame.events or frame.zones or frame.lines else msgspec.UNSET,
    )


def _json_objects(frame: FrameResult) -> list[JsonObject]:
    objects = frame.objects()
    columns = zip(
        objects.track_ids.tolist(),
        objects.class_ids.tolist(),
        _rounded(objects.scores, 4),
        _rounded(objects.boxes_xyxy, 2),
        objects.predicted.tolist(),
        strict=True,
    )
    return [
        JsonObject(
            None if track_id == NO_TRACK else track_id,
            class_id,
            frame.class_names[class_id],
            score,
            box_xyxy,
            predicted or msgspec.UNSET,
        )
        for track_id, class_id, score, box_xyxy, predicted in columns
    ]


def _rounded(values: NDArray[np.float32], decimals: int) -> list:
    """As Python floats, in double precision: a rounded float32 would print its binary tail."""
    return np.round(values.astype(np.float64), decimals).tolist()
