"""CSV: a line for each object, after a line with the names of the columns. Knows no stage and no pixels.

    source,seq,pts_seconds,captured_unix,track_id,class,score,left,top,right,bottom,predicted

The columns mean what the keys of the JSON lines do; `track_id` is empty where the tracker has not confirmed the object;
`predicted` is 1 where it is told of but was not found in this frame, else 0.
A frame without objects has no line, and neither has one without a result: the format cannot tell the two apart.
"""

import csv
import io

from pipeline.flow.results import FrameResult
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.jsonl import json_line
from pipeline.sinks.segments import SegmentedFile

COLUMNS = (
    *("source", "seq", "pts_seconds", "captured_unix", "track_id", "class", "score"),
    *("left", "top", "right", "bottom", "predicted"),
)


def open_sink(target: Target) -> Sink:
    return CsvSink(target.path, target.goes_on, target.rotate_bytes, target.keep_files)


class CsvSink(Sink):
    """Appends to the file at `path`, or to standard output if that is `-`. Raises OutputError as `LineFile` does."""

    def __init__(
        self, path: str, goes_on: bool = False, rotate_bytes: int | None = None, keep_files: int | None = None
    ) -> None:
        """`goes_on`: after what is there already. The others as in `SegmentedFile`."""
        self._file = SegmentedFile(path, goes_on, rotate_bytes, keep_files, head=_text([COLUMNS]))
        self.path = self._file.path

    def write(self, frame: FrameResult, image_bgr: Image | None = None) -> None:
        if rows := csv_rows(frame):
            self._file.append(_text(rows))
            self.path = self._file.path
        else:
            self._file.check()

    def close(self) -> None:
        self._file.close()


def csv_rows(frame: FrameResult) -> list[tuple]:
    """A row for each object of `frame`, rounded as in the JSON lines."""
    line = json_line(frame)
    where = (line.source, line.seq, line.pts_seconds, line.captured_unix)
    return [
        (*where, each.track_id, each.class_name, each.score, *each.box_xyxy, int(each.predicted is True))
        for each in line.objects
    ]


def _text(rows: list[tuple]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
