"""How well the pipeline detects and tracks on PETS 2009 S2.L1: AP50, MOTA and IDF1 against the ground truth.

    python benchmarks/accuracy_pets09.py [--jsonl FILE] [--mot FILE] [--set KEY=VALUE ...]

Runs the pipeline twice over the clip (all detections from score 0.05; tracks of persons, for the truth knows nothing of
the cars that stand there, with the default settings otherwise), or takes files it wrote before; `--set` is the
pipeline's own. AP50: persons at IoU 0.5, the area under the precision envelope at all
points (PASCAL VOC 2010), beside it COCO's 101 points. MOTA and IDF1: motmetrics at IoU 0.5. The data is looked for in
$CENTERSTREAM_DATA/pets09.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import motmetrics
import numpy as np
from common import DATA, ROOT, finish, machine
from numpy.typing import NDArray

from pipeline.kernels.tracks import iou

CLIP, TRUTH = DATA / "pets09" / "vtest.avi", DATA / "pets09" / "gt.txt"
FRAMES = 795
TARGETS = {"ap50": 0.88, "mota": 0.80, "idf1": 0.83}
LEAST_IOU = 0.5

Boxes = NDArray[np.float64]


def read_mot(path: Path) -> list[tuple[NDArray[np.int64], Boxes]]:
    """Ids (N,) and boxes (N, 4) xyxy of every frame of a MOTChallenge file."""
    table = np.loadtxt(path, delimiter=",", ndmin=2).reshape(-1, 10)
    if len(table) and not (table[:, 0].min() >= 1 and table[:, 0].max() <= FRAMES):
        sys.exit(f"{path}: frames must be 1 to {FRAMES}; is it of another clip?")
    frames = [table[table[:, 0] == frame] for frame in range(1, FRAMES + 1)]
    return [(rows[:, 1].astype(np.int64), np.hstack([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]])) for rows in frames]


def read_persons(path: Path) -> list[tuple[NDArray[np.float64], Boxes]]:
    """Scores (N,) and boxes (N, 4) xyxy of every frame's persons in a JSON-lines file of the pipeline."""
    frames = {frame["seq"]: frame["objects"] for frame in map(json.loads, path.read_text().splitlines())}
    if sorted(frames) != list(range(FRAMES)):
        sys.exit(f"{path}: {len(frames)} frames, the clip has {FRAMES}; write it with this clip and nothing dropped")
    persons = [[found for found in frames[seq] if found["class"] == "person"] for seq in range(FRAMES)]
    return [
        (
            np.array([p["score"] for p in some], np.float64),
            np.array([p["box_xyxy"] for p in some], np.float64).reshape(-1, 4),
        )
        for some in persons
    ]


def hits_of_frame(scores: NDArray[np.float64], boxes: Boxes, truth: Boxes) -> NDArray[np.bool_]:
    """Which detections hit: best score first, each takes the free true box it overlaps most, from LEAST_IOU on."""
    overlaps, hits = iou(boxes, truth), np.zeros(len(scores), np.bool_)
    for detection in np.argsort(-scores, kind="stable") if len(truth) else []:
        best = overlaps[detection].argmax()
        if overlaps[detection, best] >= LEAST_IOU:
            hits[detection] = True
            overlaps[:, best] = 0
    return hits


def average_precision(
    detections: list[tuple[NDArray[np.float64], Boxes]], truth: list[tuple[NDArray[np.int64], Boxes]]
) -> tuple[float, float]:
    """AP50 at all points and at COCO's 101."""
    pairs = zip(detections, truth, strict=True)
    hits = np.concatenate([hits_of_frame(scores, boxes, true) for (scores, boxes), (_, true) in pairs])
    order = np.argsort(-np.concatenate([scores for scores, _ in detections]), kind="stable")
    true_positives = np.cumsum(hits[order])
    recall = true_positives / sum(len(ids) for ids, _ in truth)
    precision = true_positives / np.arange(1, len(order) + 1)
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    all_points = (np.diff(recall, prepend=0.0) * envelope[:-1]).sum()
    coco = envelope[np.searchsorted(recall, np.linspace(0, 1, 101))].mean()
    return float(all_points), float(coco)


def tracking(
    tracks: list[tuple[NDArray[np.int64], Boxes]], truth: list[tuple[NDArray[np.int64], Boxes]]
) -> dict[str, float]:
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for (track_ids, boxes), (true_ids, true_boxes) in zip(tracks, truth, strict=True):
        distances = 1 - iou(true_boxes, boxes)
        accumulator.update(true_ids, track_ids, np.where(distances <= 1 - LEAST_IOU, distances, np.nan))
    names = ["mota", "idf1", "num_switches", "num_false_positives", "num_misses"]
    summary = motmetrics.metrics.create().compute(accumulator, metrics=names).iloc[0]
    return {name: round(float(summary[name]), 4) for name in names}


def run_pipeline(*options: str) -> None:
    subprocess.run([sys.executable, str(ROOT / "run_pipeline.py"), str(CLIP), *options], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jsonl", type=Path, help="detections from score 0.05, instead of a run")
    parser.add_argument("--mot", type=Path, help="tracks, instead of a run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the pipeline's configuration"
    )
    arguments = parser.parse_args()
    if not TRUTH.exists():
        sys.exit(
            f"{TRUTH}: not there; set CENTERSTREAM_DATA to the folder that holds pets09/vtest.avi and pets09/gt.txt"
        )
    changed = [word for assignment in arguments.set for word in ("--set", assignment)]
    with tempfile.TemporaryDirectory() as folder:
        jsonl, mot = arguments.jsonl or Path(folder, "all.jsonl"), arguments.mot or Path(folder, "tracks.txt")
        if not arguments.jsonl:
            run_pipeline("--score", "0.05", "--jsonl", str(jsonl), *changed)
        if not arguments.mot:
            run_pipeline("--mot", str(mot), "--classes", "person", *changed)
        truth = read_mot(TRUTH)
        ap50, ap50_coco = average_precision(read_persons(jsonl), truth)
        result = {"ap50": round(ap50, 4), "ap50_coco_101": round(ap50_coco, 4), **tracking(read_mot(mot), truth)}
    here = machine("torch", "motmetrics")
    print(here)
    for name, value in result.items():
        target = TARGETS.get(name)
        print(
            f"{name:20} {value:8g}"
            + (f"   target {target}: {'met' if value >= target else 'MISSED'}" if target else "")
        )
    finish({"benchmark": "accuracy_pets09", "machine": here, "set": arguments.set, **result, "targets": TARGETS})


if __name__ == "__main__":
    main()
