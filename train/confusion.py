"""Which class is taken for which, where nothing was found, and where nothing was. Knows no network."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.soft_nms import iou
from train.coco import CocoData, CocoImage

LEAST_IOU = 0.5


def confusion(coco: CocoData, detections: Sequence[NDArray[np.float32]], least_score: float) -> NDArray[np.int64]:
    """(C + 1, C + 1): objects of a class (row) that were found as one of a class (column), at IoU 0.5; in the last
    column those that were not found, in the last row what was found where nothing is.

    `detections` are (N, 6) for each image, as in `train.average_precision.Scores`; those from `least_score` on count,
    but for what lies in a crowd.
    """
    classes = len(coco.class_names)
    table = np.zeros((classes + 1, classes + 1), np.int64)
    for image, of_image in zip(coco.images, detections, strict=True):
        shown = of_image[(of_image[:, 4] >= least_score) & np.isfinite(of_image).all(axis=1)]
        found_as = _pair(image, shown)
        alone = np.setdiff1d(np.arange(len(shown)), found_as)
        columns = np.where(found_as >= 0, shown[found_as, 5].astype(np.int64) if len(shown) else 0, classes)
        np.add.at(table, (image.class_ids, columns), 1)
        np.add.at(table[classes], shown[alone[~_in_crowd(image, shown[alone])], 5].astype(np.int64), 1)
    return table


def _pair(image: CocoImage, shown: NDArray[np.float32]) -> NDArray[np.int64]:
    """The detection of each object, -1 for none. Who was found as what it is is not confused, though something else
    lies there too; then those that overlap most."""
    overlaps = iou(image.boxes_xyxy, shown[:, :4])
    is_right = image.class_ids[:, None] == shown[:, 5]
    found_as = np.full(len(overlaps), -1)
    rows, columns = np.nonzero(overlaps >= LEAST_IOU)
    taken: set[int] = set()
    for pair in np.lexsort((-overlaps[rows, columns], ~is_right[rows, columns])):
        row, column = int(rows[pair]), int(columns[pair])
        if found_as[row] < 0 and column not in taken:
            found_as[row] = column
            taken.add(column)
    return found_as


def _in_crowd(image: CocoImage, shown: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether half of it lies in a region of many that are not annotated one by one."""
    crowds = image.crowd_boxes_xyxy
    sides = np.minimum(shown[:, None, 2:4], crowds[:, 2:]) - np.maximum(shown[:, None, :2], crowds[:, :2])
    areas = (shown[:, 2:4] - shown[:, :2]).clip(0).prod(axis=1)
    return (sides.clip(0).prod(axis=2) >= 0.5 * np.maximum(areas, 1e-9)[:, None]).any(axis=1)
