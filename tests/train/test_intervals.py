"""How far figures of few images can be trusted, against pycocotools on sets that really have each image so many times;
and from which score on detections are best reported."""

import math
from dataclasses import astuple, replace

import numpy as np
import pytest

from tests.train.test_evaluate import (
    BOX,
    CAT,
    ELSEWHERE,
    NOTHING,
    data,
    found,
    image,
    random_detections,
    write_random_set,
)
from train.average_precision import ALL, SIZES, Scores, score, with_intervals
from train.coco import CocoData, read_coco
from train.intervals import Interval, draw, precisions
from train.kernels.resampled import RIGHT, WRONG


def many(hits: list[bool]) -> Scores:
    """An image for each, with a cat that was found or was not."""
    images = [image(number, [(BOX, CAT)]) for number in range(len(hits))]
    return score(data(*images), [found((BOX, 0.9, CAT)) if hit else NOTHING for hit in hits])


def intervals_of(scores: Scores, seed: int = 0):
    intervals = with_intervals(scores, seed).intervals
    assert intervals
    return intervals


@pytest.fixture(scope="module")
def random_set(tmp_path_factory) -> tuple[CocoData, list[np.ndarray]]:
    """No two scores are equal: of those that are, copies of an image would stand in another order."""
    folder = tmp_path_factory.mktemp("set")
    coco = read_coco(write_random_set(folder), folder)
    rng = np.random.default_rng(1)
    detections = random_detections(coco, rng)
    values = rng.permutation(sum(map(len, detections))).astype(np.float32)
    starts = np.cumsum([0, *map(len, detections)])
    for at, each in zip(starts, detections, strict=False):
        each[:, 4] = values[at : at + len(each)] / len(values)
    return coco, detections


def test_a_draw_has_the_scores_of_a_set_with_each_image_so_often(random_set) -> None:
    coco, detections = random_set
    scores = score(coco, detections)
    times = draw(len(coco.images), 5, seed=3)
    of_size = {size: precisions([each[size] for each in scores.verdicts], times) for size in SIZES}
    for number, often in enumerate(times):
        copies = [place for place, count in enumerate(often) for _ in range(count)]
        images = [replace(coco.images[place], image_id=at) for at, place in enumerate(copies)]
        expected = score(replace(coco, images=images), [detections[place] for place in copies])
        figures = [np.nanmean(of_size[size][number]) for size in SIZES]
        assert figures == pytest.approx([expected.ap, expected.small, expected.medium, expected.large], abs=1e-12)
        by_class = np.nanmean(of_size[ALL][number], axis=1)
        assert by_class == pytest.approx([each.ap for each in expected.by_class.values()], abs=1e-12)
    assert len(np.unique(of_size[ALL].mean(axis=(1, 2)))) == 5


def test_each_image_once_has_the_scores_themselves(random_set) -> None:
    scores = score(*random_set)
    once = precisions([each[ALL] for each in scores.verdicts], np.ones((1, scores.images), np.int64))
    assert np.nanmean(once) == pytest.approx(scores.ap, abs=1e-12)


def test_an_interval_is_around_its_figure(random_set) -> None:
    scores = with_intervals(score(*random_set))
    assert scores.intervals
    for name in ("ap", "ap50", "ap75", "small", "medium", "large"):
        low, high = getattr(scores.intervals, name)
        assert low < getattr(scores, name) < high, name
    for name, each in scores.by_class.items():
        assert scores.intervals.by_class[name].ap50.low < each.ap50 < scores.intervals.by_class[name].ap50.high


@pytest.mark.parametrize(
    ("hits", "low", "high"),
    [
        pytest.param([], math.nan, math.nan, id="no image"),
        pytest.param([True], math.nan, math.nan, id="one image"),
        pytest.param([True] * 20, 1, 1, id="all found"),
        pytest.param([False] * 20, 0, 0, id="none found"),
    ],
)
def test_where_nothing_varies(hits: list[bool], low: float, high: float) -> None:
    intervals = intervals_of(many(hits))
    assert intervals.ap == pytest.approx((low, high), nan_ok=True)
    assert intervals.by_class["dog"].ap == pytest.approx((math.nan, math.nan), nan_ok=True)


def test_nothing_is_said_of_objects_that_are_in_no_image() -> None:
    scores = score(data(image(1), image(2)), [found((BOX, 0.9, CAT)), found((ELSEWHERE, 0.9, CAT))])
    assert all(map(math.isnan, intervals_of(scores).ap))


def test_four_times_the_images_make_it_half_as_wide() -> None:
    few, more = (intervals_of(many([True, False] * count)).ap for count in (20, 80))
    assert more.high - more.low == pytest.approx((few.high - few.low) / 2, rel=0.15)


def test_the_same_seed_gives_the_same(random_set) -> None:
    scores = score(*random_set)
    assert intervals_of(scores, 5) == intervals_of(scores, 5) != intervals_of(scores, 6)


def test_the_truth_lies_within_as_often_as_it_says() -> None:
    """Sets of 60 images of a detector that finds seven of ten."""
    rng = np.random.default_rng(7)
    truth = many([True] * 7 + [False] * 3).ap
    within = [is_in(intervals_of(many((rng.random(60) < 0.7).tolist())).ap, truth) for _ in range(200)]
    assert 0.89 <= np.mean(within) <= 0.98


def is_in(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


@pytest.mark.parametrize(
    ("objects", "rows", "expected"),
    [
        pytest.param(0, [], None, id="nothing there and nothing found"),
        pytest.param(1, [], None, id="nothing found"),
        pytest.param(1, [(ELSEWHERE, 0.9)], None, id="nothing right"),
        pytest.param(1, [(BOX, 0.8)], (0.4, 1, 1, 1), id="all"),
        pytest.param(2, [(BOX, 0.8), (ELSEWHERE, 0.6)], (0.3, 1, 1, 1), id="both"),
        pytest.param(1, [(BOX, 0.8), (ELSEWHERE, 0.6)], (0.7, 1, 1, 1), id="what is wrong is cut off"),
        pytest.param(1, [(ELSEWHERE, 0.8), (BOX, 0.6)], (0.3, 0.5, 1, 2 / 3), id="not what is right"),
        pytest.param(1, [(ELSEWHERE, 0.5), (BOX, 0.5)], (0.25, 0.5, 1, 2 / 3), id="one score"),
    ],
)
def test_the_best_threshold_is_what_it_comes_to_by_hand(objects: int, rows: list, expected) -> None:
    truth = data(image(objects=[(box, CAT) for box in (BOX, ELSEWHERE)[:objects]]))
    best = score(truth, [found(*((box, value, CAT) for box, value in rows))]).threshold
    assert (best and astuple(best)) == (expected and pytest.approx(expected))


def test_no_other_threshold_has_a_better_f1(random_set) -> None:
    coco, detections = random_set
    scores = score(coco, detections)
    best, objects = scores.threshold, sum(each.objects for each in scores.by_class.values())
    assert best

    def f1(least: float) -> float:
        verdicts = [each[ALL].verdicts[0][each[ALL].scores >= least] for each in scores.verdicts]
        right, wrong = (sum(int((each == kind).sum()) for each in verdicts) for kind in (RIGHT, WRONG))
        return 2 * right / (right + wrong + objects)

    assert best.f1 == pytest.approx(f1(best.score))
    assert all(f1(least) <= best.f1 for least in np.linspace(0, 1, 301))
