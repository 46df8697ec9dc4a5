"""HOTA (Luiten et al., arXiv 2009.07736): how well objects are found, and kept apart. Equal to TrackEval's.

Knows ids and overlaps of frames, no sequence and no tracker.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.mot.sequences import Array
from pipeline.kernels.tracks import UNMATCHED, assign

LOCALISATIONS = np.arange(0.05, 0.99, 0.05)
EXACT = np.finfo(float).eps

Ids = NDArray[np.intp]


class Counts(NamedTuple):
    """Of one sequence or several together.

    pairs         (19,) true objects that a track's box is paired with, for each threshold of the overlap
    associations  (19,) sum over these pairs of how much their two ids belong together, from 0 to 1
    objects, boxes  in truth and in tracks
    """

    pairs: Array
    associations: Array
    objects: int
    boxes: int


def count(data: dict[str, Any]) -> Counts:
    """`data` as TrackEval's measures take it: `benchmarks.mot.score.compared`."""
    ids, track_ids = data["gt_ids"], data["tracker_ids"]
    shape = max(1, data["num_gt_ids"]), max(1, data["num_tracker_ids"])
    together = np.zeros(shape)
    for true, found, overlap in zip(ids, track_ids, data["similarity_scores"], strict=True):
        _add_overlaps(together, true, found, overlap)
    often, track_often = (np.bincount(np.concatenate([*each, []]).astype(np.intp), minlength=size)
                          for each, size in zip((ids, track_ids), shape, strict=True))  # fmt: skip
    alike = together / np.maximum(often[:, None] + track_often[None, :] - together, EXACT)
    pairs = np.zeros((len(LOCALISATIONS), *shape))
    for true, found, overlap in zip(ids, track_ids, data["similarity_scores"], strict=True):
        _add_pairs(pairs, alike, true, found, overlap)
    kept = pairs / np.maximum(1, often[:, None] + track_often[None, :] - pairs)
    return Counts(
        pairs.sum(axis=(1, 2)), (pairs * kept).sum(axis=(1, 2)), data["num_gt_dets"], data["num_tracker_dets"]
    )


def figures(counts: list[Counts]) -> dict[str, float]:
    """HOTA, DetA and AssA in per cent, the mean over all thresholds."""
    pairs, associations, objects, boxes = (sum(each) for each in zip(*counts, strict=True))
    detection = pairs / np.maximum(1, objects + boxes - pairs)
    association = associations / np.maximum(1, pairs)
    means = {"HOTA": np.sqrt(detection * association), "DetA": detection, "AssA": association}
    return {name: round(100 * float(np.mean(values)), 3) for name, values in means.items()}


def _add_overlaps(together: Array, true: Ids, found: Ids, overlap: Array) -> None:
    """How long and how well two ids lay on each other, shared among those that compete."""
    competing = overlap.sum(axis=1)[:, None] + overlap.sum(axis=0)[None, :] - overlap
    shares = np.divide(overlap, competing, out=np.zeros_like(overlap), where=competing > EXACT)
    together[np.ix_(true, found)] += shares  # of a frame no two ids are alike


def _add_pairs(pairs: NDArray[np.float64], alike: Array, true: Ids, found: Ids, overlap: Array) -> None:
    """A frame's boxes are paired so that ids which belong together stay so."""
    column_of = assign(alike[np.ix_(true, found)] * overlap)
    rows = np.flatnonzero(column_of != UNMATCHED)
    columns = column_of[rows]
    pairs[:, true[rows], found[columns]] += overlap[rows, columns] >= LOCALISATIONS[:, None] - EXACT
