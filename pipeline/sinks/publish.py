"""Published messages: each frame and each change of a signal to whoever subscribes, over ZeroMQ; pictures on demand.

`pipeline.flow.topics` says what the messages are. Pictures are made of a source while somebody subscribes to such a
topic of it, once for all who do; heat maps come with the frame, of those classes. Knows no stage and nothing of who
looks on.
"""

from typing import Literal

import cv2
import msgspec

from configs.uri import Uri
from pipeline.errors import OutputError
from pipeline.flow.heat import HeatMap
from pipeline.flow.messages import SignalChange, WantPixels
from pipeline.flow.results import FrameResult
from pipeline.flow.topics import DRAWN, FRAME, HEAT, PICTURES, SIGNAL, TILE, heat_topic, heat_wanted
from pipeline.flow.transport import Publisher
from pipeline.overlay import Overlay
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.jsonl import SCHEMA, json_line, json_signal

TILE_WIDTH = 480
JPEG_QUALITY = 80


class HeatLine(msgspec.Struct, kw_only=True, rename={"class_name": "class"}):
    """Where a heat map lies: `rows` × `columns` bytes, in `box_xyxy` of the frame's picture of `width` × `height`."""

    schema: int
    kind: Literal["heat"]
    source: str
    seq: int
    class_name: str
    width: int
    height: int
    rows: int
    columns: int
    box_xyxy: tuple[float, float, float, float]


def open_sink(target: Target) -> Sink:
    return PublishSink(target)


class PublishSink(Sink):
    """Raises OutputError for an address that cannot be bound, or when a picture cannot be made."""

    def __init__(self, target: Target) -> None:
        self._want = target.want
        self._wanted: WantPixels | None = None  # an earlier process may have wanted others
        self._encoder = msgspec.json.Encoder()
        self._overlay = Overlay()
        try:
            self._publisher = Publisher(target.path)
        except OSError as error:
            raise OutputError(f"cannot publish at {Uri(target.path).shown}: {error.strerror}") from None
        self._topics: set[bytes] = set()

    def look(self) -> None:
        self._topics = self._publisher.subscriptions()
        self.is_heard = bool(self._topics)
        pictures = [(topic, kind) for topic in self._topics for kind in PICTURES if topic.startswith(kind)]
        wanted = WantPixels(
            frozenset(topic.removeprefix(kind).decode(errors="replace") for topic, kind in pictures),
            frozenset(heat_wanted(topic) for topic in self._topics if topic.startswith(HEAT)),
        )
        if wanted != self._wanted:
            self._wanted = wanted
            self._want(wanted)

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        self.look()
        if not self._topics:
            return
        source, line = frame.source_id.encode(), self._encoder.encode(json_line(frame))
        captured = str(frame.captured_ns).encode()
        self._show_heat(frame, captured)
        self._publisher.send([FRAME + source, line, captured])
        if image_bgr is not None:
            self._show(source, line, captured, frame, image_bgr)

    def _show_heat(self, frame: FrameResult, captured: bytes) -> None:
        """Before the rest, so that they are shown together."""
        for class_name, heat in frame.heat.items():
            topic = heat_topic(frame.source_id, class_name)
            if topic in self._topics:
                line = self._encoder.encode(_heat_line(frame, class_name, heat))
                self._publisher.send([topic, line, captured, heat.plane_hw.tobytes()])

    def _show(self, source: bytes, line: bytes, captured: bytes, frame: FrameResult, image_bgr: Image) -> None:
        for kind in PICTURES:
            if kind + source in self._topics:
                jpeg = _jpeg(self._picture(kind, frame, image_bgr))
                self._publisher.send([kind + source, line, captured, jpeg])

    def _picture(self, kind: bytes, frame: FrameResult, image_bgr: Image) -> Image:
        if kind == TILE:
            return _tile(image_bgr)
        if kind == DRAWN:
            image_bgr = image_bgr.copy()
            self._overlay.draw(image_bgr, frame)
        return image_bgr

    def record(self, signal: SignalChange) -> None:
        self.look()
        self._publisher.send([SIGNAL + signal.source_id.encode(), self._encoder.encode(json_signal(signal))])

    def close(self) -> None:
        self._publisher.close()


def _heat_line(frame: FrameResult, class_name: str, heat: HeatMap) -> HeatLine:
    rows, columns = heat.plane_hw.shape
    return HeatLine(
        schema=SCHEMA,
        kind="heat",
        source=frame.source_id,
        seq=frame.seq,
        class_name=class_name,
        width=frame.width,
        height=frame.height,
        rows=rows,
        columns=columns,
        box_xyxy=heat.box_xyxy,
    )


def _tile(image_bgr: Image) -> Image:
    height, width = image_bgr.shape[:2]
    if width <= TILE_WIDTH:
        return image_bgr
    sides = TILE_WIDTH, max(1, round(height * TILE_WIDTH / width))
    return cv2.resize(image_bgr, sides, interpolation=cv2.INTER_AREA).astype(image_bgr.dtype, copy=False)


def _jpeg(image_bgr: Image) -> bytes:
    try:
        _, jpeg = cv2.imencode(".jpg", image_bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    except cv2.error as error:  # a side of more than 65,500 pixels
        raise OutputError(f"cannot make a JPEG of {image_bgr.shape[1]}x{image_bgr.shape[0]}: {error.err}") from None
    return jpeg.tobytes()
