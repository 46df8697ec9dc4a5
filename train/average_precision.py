"""How good detections are: COCO's average precision, by pycocotools, in memory and without rounding. Knows no network.

Boxes count as they are: the field's published figures were measured on boxes that may reach beyond the image.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.coco import CocoData, CocoImage
from train.intervals import ClassIntervals, Intervals, Verdicts, draw, draws_for, interval, precisions
from train.kernels.resampled import IGNORED, RIGHT

try:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error.name} is missing: pip install 'centerstream[train]'", name=error.name) from None

# What the F1 of an image looks at: as much as `python -m models.detect` shows of it.
SHOWN_SCORE = 0.3
# Places in pycocotools' arrays of [IoU, recall, class, size of the object, detections per image].
IOU_50, IOU_75, LEVELS = 0, 5, 10
SIZES = ALL, SMALL, MEDIUM, LARGE = range(4)
BEST_100 = 2

Annotation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """Of one class; `objects` are those to be found, without crowds."""

    ap: float
    ap50: float
    objects: int


@dataclass(frozen=True, slots=True)
class BestThreshold:
    """From which score on detections are best reported: where the F1 of all classes together, at IoU 0.5, is highest.
    It lies half way to the next detection, so that nothing hangs on the last digit."""

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Scores:
    """COCO's figures, 0 to 1, over the classes there are objects of; NaN where there is no such object.

    ap            mean over IoU 0.50, 0.55, … 0.95; `ap50` and `ap75` at one
    small, …      `ap` of objects below 32² pixels, up to 96², and above, by the `area` in the json (that of the
                  object's mask, if it has one, not of its box)
    threshold     where to cut; None where nothing right was found
    ar100         the share of objects found among 100 detections an image, mean over the same IoUs
    f1_by_image   at IoU 0.5 of what scores `SHOWN_SCORE` or more; 1 where nothing is and nothing was found
    detections    of each image, (N, 6) float32 of x1, y1, x2, y2 in pixels, score, class of the data; best first
    images, seconds, problems   how many were looked at, for how long, and which could not be read
    verdicts      for each class and each of `SIZES`, (C, 4), what became of the detections
    intervals     how far the figures can be trusted; None until `with_intervals`
    """

    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    ar100: float
    by_class: dict[str, ClassScore]
    threshold: BestThreshold | None
    f1_by_image: NDArray[np.float64]
    detections: list[NDArray[np.float32]]
    images: int
    seconds: float = 0.0
    problems: tuple[str, ...] = ()
    verdicts: list[list[Verdicts]] = field(default_factory=list)
    intervals: Intervals | None = None

    def figures(self) -> dict[str, Any]:
        """All but the images' own, as a file of scores holds it."""
        left_out = ("f1_by_image", "detections", "verdicts")
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name not in left_out}


def score(
    coco: CocoData, detections: Sequence[NDArray[np.float32]], seconds: float = 0.0, problems: Sequence[str] = ()
) -> Scores:
    """The scores of `detections`, one array for each of `coco.images`, as `Scores` describes them."""
    evaluation = _evaluate(coco, detections)
    precision, recall = evaluation.eval["precision"][..., BEST_100], evaluation.eval["recall"][..., BEST_100]
    objects = np.bincount(
        np.concatenate([each.class_ids for each in coco.images] or [np.empty(0, np.int64)]),
        minlength=len(coco.class_names),
    )
    by_class = {
        name: ClassScore(_mean(precision[:, :, i, ALL]), _mean(precision[IOU_50, :, i, ALL]), int(objects[i]))
        for i, name in enumerate(coco.class_names)
    }
    verdicts = _verdicts(evaluation, [image.image_id for image in coco.images])
    return Scores(
        ap=_mean(precision[..., ALL]),
        ap50=_mean(precision[IOU_50, ..., ALL]),
        ap75=_mean(precision[IOU_75, ..., ALL]),
        small=_mean(precision[..., SMALL]),
        medium=_mean(precision[..., MEDIUM]),
        large=_mean(precision[..., LARGE]),
        ar100=_mean(recall[..., ALL]),
        by_class=by_class,
        threshold=best_threshold([of_class[ALL] for of_class in verdicts]),
        f1_by_image=_f1_by_image(evaluation, [image.image_id for image in coco.images]),
        detections=list(detections),
        images=len(coco.images),
        seconds=seconds,
        problems=tuple(problems),
        verdicts=verdicts,
    )


def best_threshold(verdicts: Sequence[Verdicts]) -> BestThreshold | None:
    """Of several classes; what is neither right nor wrong does not count."""
    scores = np.concatenate([np.empty(0), *(each.scores for each in verdicts)])
    judged = np.concatenate([np.empty(0, np.int8), *(each.verdicts[IOU_50] for each in verdicts)])
    objects = sum(int(each.objects.sum()) for each in verdicts)
    scores, judged = scores[judged != IGNORED], judged[judged != IGNORED]
    order = np.argsort(-scores, kind="mergesort")
    scores, right, shown = scores[order], np.cumsum(judged[order] == RIGHT), np.arange(1, len(scores) + 1)
    # A threshold takes all of one score, or none.
    last = np.flatnonzero(np.append(scores[:-1] != scores[1:], True)[: len(scores)])
    if not right[last].any():
        return None
    f1 = 2 * right[last] / (shown[last] + objects)
    at = int(np.argmax(f1))
    place, after = last[at], (scores[last[at] + 1] if last[at] + 1 < len(scores) else 0.0)
    score = float((scores[place] + after) / 2)
    return BestThreshold(score, float(right[place] / shown[place]), float(right[place] / objects), float(f1[at]))


def with_intervals(scores: Scores, seed: int = 0) -> Scores:
    """The same, with its `intervals`; the same seed gives the same ones."""
    every = [each for of_class in scores.verdicts for each in of_class]
    times = draw(scores.images, draws_for(every), seed)
    found = {size: precisions([of_class[size] for of_class in scores.verdicts], times) for size in SIZES}
    return replace(
        scores,
        intervals=Intervals(
            ap=interval(found[ALL]),
            ap50=interval(found[ALL][..., IOU_50]),
            ap75=interval(found[ALL][..., IOU_75]),
            small=interval(found[SMALL]),
            medium=interval(found[MEDIUM]),
            large=interval(found[LARGE]),
            by_class={
                name: ClassIntervals(interval(found[ALL][:, i]), interval(found[ALL][:, i, IOU_50]))
                for i, name in enumerate(scores.by_class)
            },
        ),
    )


def _evaluate(coco: CocoData, detections: Sequence[NDArray[np.float32]]) -> COCOeval:
    truth = [each for image in coco.images for each in _objects(image)]
    found = [
        each
        for image, of_image in zip(coco.images, detections, strict=True)
        for each in _detections(image.image_id, of_image)
    ]
    with redirect_stdout(io.StringIO()):  # pycocotools tells what it does, and cannot be asked not to
        evaluation = COCOeval(_index(coco, truth), _index(coco, found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _objects(image: CocoImage) -> Iterator[Annotation]:
    kinds = (
        (image.boxes_xyxy, image.class_ids, image.areas, 0),
        (image.crowd_boxes_xyxy, image.crowd_class_ids, image.crowd_areas, 1),
    )
    for boxes_xyxy, class_ids, areas, crowd in kinds:
        for box, class_id, area in zip(_xywh(boxes_xyxy), class_ids.tolist(), areas.tolist(), strict=True):
            yield {"image_id": image.image_id, "category_id": class_id, "bbox": box, "area": area, "iscrowd": crowd}


def _detections(image_id: int, detections: NDArray[np.float32]) -> Iterator[Annotation]:
    # pycocotools takes a box of NaN for a match
    detections = detections[np.isfinite(detections).all(axis=1)]
    for box, (value, class_id) in zip(_xywh(detections[:, :4]), detections[:, 4:].tolist(), strict=True):
        yield {
            "image_id": image_id, "category_id": int(class_id), "bbox": box, "area": box[2] * box[3], "score": value
        }  # fmt: skip


def _xywh(boxes_xyxy: NDArray[np.float32]) -> list[list[float]]:
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1).tolist()


def _index(coco: CocoData, annotations: list[Annotation]) -> COCO:
    """Annotations count from 1, for pycocotools takes 0 to mean "no match"."""
    index = COCO()
    index.dataset = {
        "images": [{"id": image.image_id} for image in coco.images],
        "categories": [{"id": i} for i in range(len(coco.class_names))],
        "annotations": [each | {"id": i} for i, each in enumerate(annotations, start=1)],
    }
    index.createIndex()
    return index


def _mean(values: NDArray[np.float64]) -> float:
    """Over the classes that have objects: pycocotools marks the others with -1."""
    values = values[values > -1]
    return float(values.mean()) if values.size else math.nan


def _f1_by_image(evaluation: COCOeval, image_ids: list[int]) -> NDArray[np.float64]:
    """From pycocotools' own matches, which go by score: those above a score are as if the others were not there."""
    place_of = {image_id: place for place, image_id in enumerate(image_ids)}
    right, shown, objects = np.zeros((3, len(image_ids)))
    every_size = evaluation.params.areaRng[ALL]
    for matched in evaluation.evalImgs:
        if matched is None or matched["aRng"] != every_size:
            continue
        image = place_of[matched["image_id"]]
        counts = (np.array(matched["dtScores"]) >= SHOWN_SCORE) & ~matched["dtIgnore"][IOU_50]
        right[image] += np.count_nonzero(matched["dtMatches"][IOU_50, counts])
        shown[image] += np.count_nonzero(counts)
        objects[image] += np.count_nonzero(matched["gtIgnore"] == 0)
    return np.where(shown + objects > 0, 2 * right / np.maximum(shown + objects, 1), 1.0)


def _verdicts(evaluation: COCOeval, image_ids: list[int]) -> list[list[Verdicts]]:
    """From pycocotools' own matches, a row for each class, in it one for each size."""
    params, matches = evaluation.params, evaluation.evalImgs
    place_of = {image_id: place for place, image_id in enumerate(image_ids)}
    sizes, images = len(params.areaRng), len(params.imgIds)
    starts = [[(of_class * sizes + size) * images for size in range(sizes)] for of_class in range(len(params.catIds))]
    return [[_of_class(matches[start : start + images], place_of) for start in of_class] for of_class in starts]


def _of_class(matches: list[dict[str, Any] | None], place_of: dict[int, int]) -> Verdicts:
    """`matches` are of one class and size, an image each."""
    objects = np.zeros(len(place_of), np.int64)
    images, values = [np.empty(0, np.int64)], [np.empty(0)]
    verdicts = [np.empty((LEVELS, 0), np.int8)]
    for matched in matches:
        if matched is None:
            continue
        place = place_of[matched["image_id"]]
        objects[place] = np.count_nonzero(matched["gtIgnore"] == 0)
        images.append(np.full(len(matched["dtScores"]), place))
        values.append(np.array(matched["dtScores"], float))
        verdicts.append(np.where(matched["dtIgnore"], IGNORED, matched["dtMatches"] > 0).astype(np.int8))
    # As pycocotools sorts them: of equal scores that of the earlier image first.
    scores = np.concatenate(values)
    order = np.argsort(-scores, kind="mergesort")
    return Verdicts(np.concatenate(images)[order], scores[order], np.concatenate(verdicts, axis=1)[:, order], objects)
