"""COCO results: a JSON list of detections, the format that COCO's evaluation reads. One file a source.

    [
    {"image_id":7,"category_id":1,"bbox":[10.12,20.0,40.38,80.0],"score":0.876543}
    ]

`image_id` is the frame's seq, `bbox` left, top, width and height in pixels of the source frame. `category_id` is COCO's
own, 1 to 90, where the network has COCO's 80 classes, else the index of the class plus one. The format knows neither
tracks nor failures: a frame without objects has none, and neither has one without a result. An object that was not
found but is predicted has one key more, `"predicted":true`, which COCO's evaluation does not look at.

The closing bracket is written anew with each frame, so that the file is a whole list at any moment. Knows no stage.
"""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

from models.spec import COCO_CLASSES
from pipeline.flow.results import FrameResult
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.lines import STANDARD_OUTPUT, LineFile

# COCO numbers 91 kinds of things, and annotated 80 of them.
_NOT_ANNOTATED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in _NOT_ANNOTATED)

_OPENING, _BETWEEN, _CLOSING = b"[", b",\n", b"\n]\n"
_READ_BYTES = 1 << 16


class Detection(msgspec.Struct, omit_defaults=True):
    """As COCO has it; holds no brace but its own, on which `_mend` relies."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float
    predicted: bool = False


def open_sink(target: Target) -> Sink:
    return CocoSink(target.path, target.goes_on)


class CocoSink(Sink):
    """Writes the file at `path`, or to standard output if that is `-`, where the list is closed at the end.

    Raises OutputError as `LineFile` does.
    """

    def __init__(self, path: str, goes_on: bool = False) -> None:
        """`goes_on`: after the detections that are there already."""
        self._encoder = msgspec.json.Encoder()
        has_some = goes_on and path != STANDARD_OUTPUT and _mend(Path(path))
        self._file = LineFile(path, goes_on)
        self._between = _BETWEEN if has_some else b"\n"
        # What a file ends with; what cannot be written over is written once, at the end.
        self._closing = _CLOSING if self._file.is_file else b""
        self._is_open = True
        if not self._file.size_bytes:
            self._file.append(_OPENING + self._closing)

    def write(self, frame: FrameResult, image_bgr: Image | None = None) -> None:
        if found := detections(frame):
            text = self._between + _BETWEEN.join(map(self._encoder.encode, found))
            self._file.append(text + self._closing, over=self._closing)
            self._between = _BETWEEN
        else:
            self._file.check()

    def close(self) -> None:
        if self._is_open and not self._closing:
            self._file.append(_CLOSING)
        self._is_open = False
        self._file.close()


def detections(frame: FrameResult) -> list[Detection]:
    """The objects of `frame`."""
    objects = frame.objects()
    is_coco = frame.class_names == COCO_CLASSES
    columns = objects.class_ids, objects.boxes_xyxy, objects.scores, objects.predicted
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Detection(
            frame.seq,
            CATEGORY_IDS[class_id] if is_coco else class_id + 1,
            (round(left, 2), round(top, 2), round(right - left, 2), round(bottom - top, 2)),
            round(score, 6),
            is_predicted,
        )
        for class_id, (left, top, right, bottom), score, is_predicted in rows
    ]


def _mend(path: Path) -> bool:
    """Whether the file holds detections; what a writer that was killed left behind the last whole one is taken away,
    and the list is closed."""
    if not path.is_file():
        return False
    with suppress(OSError), path.open("rb+") as file:  # `LineFile` says what is wrong
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - _READ_BYTES)
        file.seek(start)
        last = file.read().rfind(b"}")
        if end:
            file.truncate(start + last + 1 if last >= 0 else len(_OPENING))
            file.seek(0, os.SEEK_END)
            file.write(_CLOSING)
        return last >= 0
    return False
