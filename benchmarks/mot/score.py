"""How good tracks are: HOTA, DetA, AssA, MOTA, IDF1 and switches of each group, by TrackEval or by motmetrics.

    python -m benchmarks.mot.score SEQUENCES TRACKS [--by trackeval|motmetrics]

What is neither right nor wrong is taken out first, as the public tools do: a track's box that belongs to a neutral one
of the truth (IoU 0.5, assigned over all), and one without a partner that lies more than half in a region in which
nobody looked. The last line is a JSON object. Runs where its package is: TrackEval brings an OpenCV of its own, so it
lives with the peers. Knows no tracker.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.mot.sequences import REGION, Array, Sequence, by_frame, read_all, to_xyxy

LEAST_IOU = 0.5
EXACT = np.finfo(float).eps
SHARE = ("HOTA", "DetA", "AssA", "MOTA", "IDF1")  # in per cent
# Draws of a group's sequences; of fewer than these they would tell nothing.
DRAWS, FEWEST_DRAWN = 1000, 5


def read_tracks(path: Path) -> Array:
    """(K, 6) frame, id, left, top, width, height; none where the file is empty."""
    return np.loadtxt(path, delimiter=",", ndmin=2, usecols=range(6)) if path.stat().st_size else np.empty((0, 6))


def overlaps(boxes_xyxy: Array, others_xyxy: Array, of_first: bool = False) -> Array:
    """Intersection over union (N, M), or over the area of the first."""
    low = np.maximum(boxes_xyxy[:, None, :2], others_xyxy[None, :, :2])
    high = np.minimum(boxes_xyxy[:, None, 2:], others_xyxy[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area, other = ((boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (boxes_xyxy, others_xyxy))
    whole = np.broadcast_to(area[:, None], shared.shape) if of_first else area[:, None] + other - shared
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def compared(sequence: Sequence, tracks: Array) -> dict[str, Any]:
    """What TrackEval's measures take: ids from 0 and similarities of every frame, only of what counts."""
    frames = [
        _counted(sequence, true, found)
        for true, found in zip(
            by_frame(sequence.truth, sequence.frame_count), by_frame(tracks, sequence.frame_count), strict=True
        )
    ]
    true_ids, true_count = _numbered([true for true, _, _ in frames])
    track_ids, track_count = _numbered([found for _, found, _ in frames])
    return {
        "num_timesteps": sequence.frame_count,
        "gt_ids": true_ids,
        "tracker_ids": track_ids,
        "similarity_scores": [similarity for _, _, similarity in frames],
        "num_gt_ids": true_count,
        "num_tracker_ids": track_count,
        "num_gt_dets": sum(map(len, true_ids)),
        "num_tracker_dets": sum(map(len, track_ids)),
    }


def _counted(sequence: Sequence, true: Array, found: Array) -> tuple[Array, Array, Array]:
    """Ids of the truth and of the tracks of one frame that count, and how much they overlap."""
    regions, true = true[true[:, 7] == REGION], true[true[:, 7] != REGION]
    similarity = overlaps(to_xyxy(true[:, 2:6]), to_xyxy(found[:, 2:6]))
    rows, columns = linear_sum_assignment(np.where(similarity < LEAST_IOU - EXACT, 0, -similarity))
    paired = similarity[rows, columns] >= LEAST_IOU - EXACT
    rows, columns = rows[paired], columns[paired]
    alone = np.ones(len(found), bool)
    alone[columns] = False
    unseen = (overlaps(to_xyxy(found[:, 2:6]), to_xyxy(regions[:, 2:6]), of_first=True) > 0.5).any(axis=1)
    kept = ~(alone & unseen)
    neutral = sequence.neutral(true[:, 7])
    kept[columns[neutral[rows]]] = False
    counts = (true[:, 6] != 0) & np.isin(true[:, 7], list(sequence.classes)) & ~neutral
    return true[counts, 1], found[kept, 1], similarity[counts][:, kept]


def _numbered(frames: list[Array]) -> tuple[list[NDArray[np.intp]], int]:
    names, numbers = np.unique(np.concatenate([*frames, np.empty(0)]), return_inverse=True)
    return np.split(numbers, np.cumsum([len(frame) for frame in frames])[:-1]), len(names)


class Measure(NamedTuple):
    """`count` is of one sequence, `figures` of the counts of several together."""

    count: Callable[[dict[str, Any]], Any]
    figures: Callable[[list[Any]], dict[str, float]]


def trackeval() -> Measure:
    from trackeval.metrics import CLEAR, HOTA, Identity

    quiet = {"PRINT_CONFIG": False}
    measures = (HOTA(), CLEAR(quiet), Identity(quiet))

    def figures(counts: list[Any]) -> dict[str, float]:
        combined: dict[str, Any] = {}
        for measure, each in zip(measures, zip(*counts, strict=True), strict=True):
            combined |= measure.combine_sequences(dict(enumerate(each)))
        return {name: round(100 * float(np.mean(combined[name])), 3) for name in SHARE} | {
            "switches": int(combined["IDSW"])
        }

    return Measure(lambda data: [measure.eval_sequence(data) for measure in measures], figures)


def motmetrics() -> Measure:
    """The same without TrackEval: HOTA and its parts by `hota.py`."""
    from motmetrics import MOTAccumulator, metrics

    from benchmarks.mot import hota  # where there is Numba

    names = ["num_objects", "num_misses", "num_false_positives", "num_switches", "idtp", "idfp", "idfn"]

    def count(data: dict[str, Any]) -> tuple[hota.Counts, Array]:
        accumulator = MOTAccumulator(auto_id=True)
        columns = (data[key] for key in ("gt_ids", "tracker_ids", "similarity_scores"))
        for true, found, similarity in zip(*columns, strict=True):
            accumulator.update(true, found, np.where(similarity >= LEAST_IOU - EXACT, 1 - similarity, np.nan))
        found = np.nan_to_num(metrics.create().compute(accumulator, metrics=names).iloc[0][names].to_numpy(float))
        return hota.count(data), found

    def figures(counts: list[Any]) -> dict[str, float]:
        parts, others = zip(*counts, strict=True)
        objects, misses, false, switches, right, wrong, missing = np.sum(others, axis=0).tolist()
        return hota.figures(list(parts)) | {
            "MOTA": round(100 * (1 - (misses + false + switches) / max(1, objects)), 3),
            "IDF1": round(100 * 2 * right / max(1, 2 * right + wrong + missing), 3),
            "switches": int(switches),
        }

    return Measure(count, figures)


MEASURES: dict[str, Callable[[], Measure]] = {"trackeval": trackeval, "motmetrics": motmetrics}


def scored(sequences: Iterable[Sequence], tracks: Path, measure: Measure) -> dict[str, dict[str, Any]]:
    """By group, its figures, under "sequences" those of each, and under "drawn" HOTA by draws of them."""
    groups: dict[str, dict[str, Any]] = {}
    for sequence in sequences:
        found = read_tracks(tracks / sequence.group / f"{sequence.name}.txt")
        groups.setdefault(sequence.group, {})[sequence.name] = measure.count(compared(sequence, found))
    return {
        group: measure.figures(list(counts.values()))
        | {"sequences": {name: measure.figures([count]) for name, count in counts.items()}}
        | {"drawn": drawn(list(counts.values()), measure)}
        for group, counts in groups.items()
    }


def drawn(counts: list[Any], measure: Measure) -> list[float]:
    """HOTA of as many sequences, drawn with replacement (bootstrap): the same draws for every tracker, so that two can
    be compared draw by draw. None where there are few."""
    if len(counts) < FEWEST_DRAWN:
        return []
    draws = np.random.default_rng(0).integers(len(counts), size=(DRAWS, len(counts)))
    return [measure.figures([counts[each] for each in draw])["HOTA"] for draw in draws]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("sequences", type=Path)
    parser.add_argument("tracks", type=Path)
    parser.add_argument("--by", choices=MEASURES, default="trackeval")
    given = parser.parse_args()
    try:
        print(json.dumps(scored(read_all(given.sequences), given.tracks, MEASURES[given.by]())))
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))


if __name__ == "__main__":
    main()
