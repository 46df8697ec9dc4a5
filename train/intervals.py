"""How far figures of few images can be trusted: their intervals over draws of the same images with repetition (the
bootstrap, percentile method; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).

What varies is which images were looked at. Knows no network, and no box: of each detection it is known whether it was
right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.kernels.resampled import NO_OBJECTS, average_precisions

SHARE = 0.95  # of all draws that lie within
DRAWS, FEWEST_DRAWS = 1000, 200
# Steps of the kernel that are not too many to wait for: a few seconds. Very many detections have fewer draws.
STEPS = 2e9


class Interval(NamedTuple):
    """NaN where nothing can be said: of no object, or of one image."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What became of the detections of one class, among objects of one size.

    images    (N,) int64, the place of each detection's image, best detection first
    scores    (N,) float64
    verdicts  (T, N) int8, as `train.kernels.resampled` has them, at each IoU
    objects   (I,) int64, to be found in each image
    """

    images: NDArray[np.int64]
    scores: NDArray[np.float64]
    verdicts: NDArray[np.int8]
    objects: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClassIntervals:
    ap: Interval
    ap50: Interval


@dataclass(frozen=True, slots=True)
class Intervals:
    """Of the figures of the same names in `train.average_precision.Scores`; 95 of 100 draws lie within."""

    ap: Interval
    ap50: Interval
    ap75: Interval
    small: Interval
    medium: Interval
    large: Interval
    by_class: dict[str, ClassIntervals]


def draw(images: int, draws: int, seed: int) -> NDArray[np.int64]:
    """(S, I): how often each draw has each of so many images; of one image there is none, for they would be alike."""
    if images < 2:
        return np.zeros((0, images), np.int64)
    drawn = np.random.default_rng(seed).integers(0, images, (draws, images))
    return np.stack([np.bincount(each, minlength=images) for each in drawn]).astype(np.int64)


def draws_for(verdicts: Sequence[Verdicts]) -> int:
    steps = sum(each.verdicts.size for each in verdicts)
    return int(np.clip(STEPS / max(steps, 1), FEWEST_DRAWS, DRAWS))


def precisions(verdicts: Sequence[Verdicts], times: NDArray[np.int64]) -> NDArray[np.float64]:
    """(S, C, T) of several classes, NaN where a draw has no object of one."""
    found = [average_precisions(each.images, each.verdicts, each.objects, times) for each in verdicts]
    stacked = np.stack(found, axis=1) if found else np.full((len(times), 1, 1), NO_OBJECTS)
    stacked[stacked == NO_OBJECTS] = math.nan
    return stacked


def interval(values: NDArray[np.float64]) -> Interval:
    """Of the means of each draw (S, …), over what is a number in it."""
    others, known = tuple(range(1, values.ndim)), np.isfinite(values)
    counts = known.sum(axis=others)
    means = (np.where(known, values, 0).sum(axis=others) / np.maximum(counts, 1))[counts > 0]
    if not len(means):
        return Interval(math.nan, math.nan)
    low, high = np.quantile(means, ((1 - SHARE) / 2, (1 + SHARE) / 2))
    return Interval(float(low), float(high))
