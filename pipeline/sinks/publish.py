"""Published messages: each frame and each change of a signal to whoever subscribes, over ZeroMQ; pictures on demand.

`pipeline.flow.topics` says what the messages are. Pictures are made of a source while somebody subscribes to such a
topic of it, once for all who do; heat maps come with the frame, of those classes. Knows no stage and nothing of who
looks on.
"""

from typing import Literal

import cv2
import msgspec
import numpy as np

from configs.uri import Uri
from pipeline.errors import OutputError
from pipeline.flow.heat import HeatMap
from pipeline.flow.messages import SignalChange, WantPixels
from pipeline.flow.results import FrameResult
from pipeline.flow.topics import FRAME, HEAT, SIGNAL, Wish, granted, heat_topic, heat_wanted, wishes_of
from pipeline.flow.transport import Publisher
from pipeline.jpeg import encode_jpeg
from pipeline.overlay import Overlay
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.jsonl import SCHEMA, json_line, json_signal


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
        self._topics: frozenset[bytes] = frozenset()
        self._wishes: list[Wish] = []

    def look(self) -> None:
        topics = self._publisher.subscriptions()
        if topics == self._topics and self._wanted is not None:
            return
        self._topics, self.is_heard = topics, bool(topics)
        self._wishes = wishes_of(topics)
        wanted = WantPixels(
            frozenset(wish.picture.source_id for wish in self._wishes),
            frozenset(heat_wanted(topic) for topic in topics if topic.startswith(HEAT)),
        )
        if wanted != self._wanted:
            self._wanted = wanted
            self._want(wanted)

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        self.look()
        if not self._topics:
            return
        line, captured = self._encoder.encode(json_line(frame)), str(frame.captured_ns).encode()
        self._show_heat(frame, captured)
        self._publisher.send([FRAME + frame.source_id.encode(), line, captured])
        if image_bgr is not None:
            self._show(line, captured, frame, image_bgr)

    def _show_heat(self, frame: FrameResult, captured: bytes) -> None:
        """Before the rest, so that they are shown together."""
        for class_name, heat in frame.heat.items():
            topic = heat_topic(frame.source_id, class_name)
            if topic in self._topics:
                line = self._encoder.encode(_heat_line(frame, class_name, heat))
                self._publisher.send([topic, line, captured, heat.plane_hw.tobytes()])

    def _show(self, line: bytes, captured: bytes, frame: FrameResult, image_bgr: Image) -> None:

        def make(width: int, is_drawn: bool) -> bytes:
            return _jpeg(self._drawn(frame, image_bgr) if is_drawn else shrunk(image_bgr, width))

        wishes = [wish for wish in self._wishes if wish.picture.source_id == frame.source_id]
        for topic, jpeg in granted(wishes, image_bgr.shape[1], make):
            self._publisher.send([topic, line, captured, jpeg])

    def _drawn(self, frame: FrameResult, image_bgr: Image) -> Image:
        drawn_bgr = image_bgr.copy()
        self._overlay.draw(drawn_bgr, frame)
        return drawn_bgr

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


def shrunk(image_bgr: Image, to_width: int) -> Image:
    """By halves, each pixel the mean of four, and by what is left, below two: each is fast, and the mean over whatever
    area it takes in one step five times as slow."""
    height, width = image_bgr.shape[:2]
    if width <= to_width:
        return image_bgr
    sides = to_width, max(1, round(height * to_width / width))
    while image_bgr.shape[1] >= 2 * sides[0] and image_bgr.shape[0] >= 2 * sides[1]:
        down, across = image_bgr.shape[0] // 2, image_bgr.shape[1] // 2
        image_bgr = _resized(image_bgr[: 2 * down, : 2 * across], (across, down), cv2.INTER_AREA)
    return _resized(image_bgr, sides, cv2.INTER_LINEAR)


def _resized(image_bgr: Image, sides: tuple[int, int], interpolation: int) -> Image:
    return cv2.resize(image_bgr, sides, interpolation=interpolation).astype(np.uint8, copy=False)


def _jpeg(image_bgr: Image) -> bytes:
    try:
        return encode_jpeg(image_bgr)
    except ValueError as error:
        raise OutputError(str(error)) from None
