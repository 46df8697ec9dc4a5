"""postprocess: raw heads in, detections in pixels of the source frame out. Runs the Numba kernels, knows no network."""

import numpy as np

from pipeline.detections import Detections
from pipeline.errors import UsageError
from pipeline.frame import Frame
from pipeline.geometry import fit_input
from pipeline.kernels.boxes import decode_heads, warm_up
from pipeline.messages import ModelCard
from pipeline.settings import PostprocessSettings
from pipeline.stage import HEATMAPS, Kit, Stage


class Postprocess(Stage):
    """Peaks to boxes."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.postprocess
        self._lowest_score = min(kit.settings.infer.score_threshold, kit.settings.track.low_score)

    def prepare(self) -> None:
        self.kit.tell("compiling the peak search")
        warm_up()

    def begin(self, model: ModelCard) -> None:
        self._model = model
        self._class_ids = wanted_classes(self._settings, model.class_names)

    def process(self, frame: Frame) -> None:
        header, model = frame.header, self._model
        geometry = fit_input(header.width, header.height, model.input_width, model.input_height, model.resize)
        boxes_xyxy, scores, class_ids = decode_heads(
            frame.array("hm"),
            frame.array("wh"),
            frame.array("reg") if "reg" in frame else None,
            self._class_ids,
            self._lowest_score,
            self._settings.max_detections,
            model.stride,
            geometry.affine,
            header.width,
            header.height,
        )
        frame.put_detections(Detections.untracked(boxes_xyxy, scores, class_ids))
        self.kit.give_back(frame.take_leases(HEATMAPS))


def wanted_classes(settings: PostprocessSettings, class_names: tuple[str, ...]) -> np.ndarray:
    """Ids of the classes to look for, int32. Raises UsageError for a name that the model does not know."""
    unknown = [name for name in settings.classes if name not in class_names]
    if unknown:
        known = ", ".join(class_names)
        raise UsageError(f"postprocess.classes: the model knows no {unknown[0]!r}; it knows {known}")
    wanted = settings.classes or class_names
    return np.array([i for i, name in enumerate(class_names) if name in wanted], np.int32)
