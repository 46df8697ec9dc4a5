"""postprocess: raw heads in, detections in pixels of the source frame out. Runs the Numba kernels, knows no network.

From a device on which the peaks were already searched come candidates instead; they only have to find their place.
"""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import Detections
from pipeline.flow.frame import NOT_ITS_OWN, Frame
from pipeline.flow.heat import HeatMap, put_heat
from pipeline.flow.messages import EndOfStream, FrameHeader, Heat, Start, StreamStart
from pipeline.geometry import InputGeometry, fit_input
from pipeline.kernels import compiled, preload
from pipeline.kernels.boxes import decode_heads, place_candidates, warm_up
from pipeline.settings import MOST_SOURCES
from pipeline.stage import HEATMAPS, Kit, Stage

# Of a source, while frames are in the network that were taken before it changed.
LAST_CHANGES = 8


class Postprocess(Stage):
    """Peaks to boxes."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.postprocess
        self._lowest_score = kit.settings.lowest_score()
        self._looked_at: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def preload(cls) -> None:
        preload()

    def prepare(self) -> None:
        self.kit.tell("compiling the peak search")
        compiled(warm_up)

    def begin(self, start: Start) -> None:
        self._model = start.model
        self._class_of = np.array(start.model.class_of(), np.int32)
        self._usual = self._wanted(self._settings.classes, self._lowest_score)
        self._wanted_of: dict[str, deque[tuple[int, Wanted]]] = {}
        self._ended: dict[str, None] = {}

    def _wanted(self, classes: tuple[str, ...], score: float) -> "Wanted":
        class_ids = self._settings.class_ids(self._model.class_names, classes)
        channels = [i for i, class_id in enumerate(self._class_of) if class_id in class_ids]
        return Wanted(np.array(channels, np.int32), min(score, self._lowest_score))

    def stream_started(self, start: StreamStart) -> None:
        """It came past the network: frames before it are still to come."""
        self._ended.pop(start.source_id, None)
        changes = self._wanted_of.setdefault(start.source_id, deque(maxlen=LAST_CHANGES))
        changes.append((start.seq, self._wanted(start.classes, start.score_threshold)))

    def stream_ended(self, end: EndOfStream) -> None:
        """So did this: what is wanted of a source is forgotten when many others have ended after it."""
        self._ended[end.source_id] = None
        if len(self._ended) > MOST_SOURCES:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            self._wanted_of.pop(oldest, None)

    def _wanted_for(self, header: FrameHeader) -> "Wanted":
        changes = self._wanted_of.get(header.source_id, ())
        return next((wanted for seq, wanted in reversed(changes) if seq <= header.seq), self._usual)

    def show_heat(self, heat: Heat) -> None:
        self._looked_at = heat.wanted

    def process(self, frame: Frame) -> None:
        header, model = frame.header, self._model
        wanted = self._wanted_for(header)
        geometry = fit_input(header.width, header.height, model.input_width, model.input_height, model.resize)
        place = (model.stride, geometry.affine, header.width, header.height)
        if "candidates" in frame:
            boxes_xyxy, scores, channels = place_candidates(frame.array("candidates"), wanted.lowest_score, *place)
            is_wanted = np.isin(channels, wanted.channels)
            boxes_xyxy, scores, channels = boxes_xyxy[is_wanted], scores[is_wanted], channels[is_wanted]
        else:
            offset_chw = frame.array("reg") if "reg" in frame else None
            k = self._settings.max_detections
            heatmap_chw, size_chw = frame.array("hm"), frame.array("wh")
            boxes_xyxy, scores, channels = decode_heads(
                heatmap_chw, size_chw, offset_chw, wanted.channels, wanted.lowest_score, k, *place
            )
        heat = self._heat(frame, geometry) if self._looked_at and "hm" in frame else {}
        if frame.give_back(HEATMAPS):
            put_heat(frame, heat)
            frame.put_detections(Detections.untracked(boxes_xyxy, scores, self._class_of[channels]))
        else:
            header.failure = NOT_ITS_OWN
            self.kit.meter.tally(f"frames without a result, for {NOT_ITS_OWN}")

    def _heat(self, frame: Frame, geometry: InputGeometry) -> dict[str, HeatMap]:
        """Of the classes that somebody looks at, as far as they are computed: copies, cut to where the frame lies."""
        logits_chw, stride = frame.array("hm"), self._model.stride
        _, rows, columns = logits_chw.shape
        left, top, right, bottom = geometry.cells(stride, columns, rows)
        box_xyxy = geometry.to_source(stride * left, stride * top, stride * right, stride * bottom)
        maps = {}
        for channel, class_id in enumerate(self._class_of.tolist()):
            name = self._model.class_names[class_id]
            if (frame.header.source_id, name) in self._looked_at:
                maps[name] = HeatMap(_as_bytes(logits_chw[channel, top:bottom, left:right]), box_xyxy)
        return maps


def _as_bytes(logits_hw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """255 times the score."""
    scores_hw = 1 / (1 + np.exp(-np.clip(logits_hw, -30, 30)))
    return np.rint(255 * scores_hw).astype(np.uint8)


class Wanted(NamedTuple):
    """What of a source's peaks becomes detections: those in these heat maps, from this score on."""

    channels: NDArray[np.int32]
    lowest_score: float
