"""postprocess: raw heads in, detections in pixels of the source frame out. Runs the Numba kernels, knows no network.

From a device on which the peaks were already searched come candidates instead; they only have to find their place.
"""

import numpy as np

from pipeline.detections import Detections
from pipeline.frame import Frame
from pipeline.geometry import fit_input
from pipeline.kernels import compiled
from pipeline.kernels.boxes import decode_heads, place_candidates, warm_up
from pipeline.messages import ModelCard
from pipeline.stage import HEATMAPS, Kit, Stage


class Postprocess(Stage):
    """Peaks to boxes."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.postprocess
        self._lowest_score = kit.settings.lowest_score()

    def prepare(self) -> None:
        self.kit.tell("compiling the peak search")
        compiled(warm_up)

    def begin(self, model: ModelCard) -> None:
        self._model = model
        self._class_ids = np.array(self._settings.class_ids(model.class_names), np.int32)

    def process(self, frame: Frame) -> None:
        header, model = frame.header, self._model
        geometry = fit_input(header.width, header.height, model.input_width, model.input_height, model.resize)
        place = (model.stride, geometry.affine, header.width, header.height)
        if "candidates" in frame:
            found = place_candidates(frame.array("candidates"), self._lowest_score, *place)
        else:
            offset_chw = frame.array("reg") if "reg" in frame else None
            k = self._settings.max_detections
            heatmap_chw, size_chw = frame.array("hm"), frame.array("wh")
            found = decode_heads(heatmap_chw, size_chw, offset_chw, self._class_ids, self._lowest_score, k, *place)
        frame.put_detections(Detections.untracked(*found))
        self.kit.give_back(frame.take_leases(HEATMAPS))
