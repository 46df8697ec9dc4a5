"""A frame of the tracker: the compiled update against the same steps line by line in NumPy.

    python benchmarks/bench_tracker.py [--count N]

The other is tests/kit/plain_tracker.py. Objects walk over a field that grows with their number, and are found with an
error of a pixel; both are given the same frames in turn, one thread each, and must give the same ids. Milliseconds from
a frame's detections to their ids. The last line is one JSON object.
"""

import argparse
import time

import numpy as np
from common import finish, machine, percentiles

from pipeline.flow.detections import Detections
from pipeline.tracker import ByteTracker
from tests.kit.plain_tracker import PlainTracker

OBJECTS = (0, 10, 50, 200, 1000)
WARM_FRAMES = 20
FIELD_PIXELS = 120  # a side of the field, times the root of the number of objects
SLOW = 1000  # objects from which on a tenth of the frames will do


def frames(objects: int, count: int) -> list[Detections]:
    rng = np.random.default_rng(objects)
    places = rng.uniform(0, FIELD_PIXELS * max(objects, 1) ** 0.5, (objects, 2))
    steps = rng.normal(0, 1, (objects, 2))
    return [walked(places + number * steps + rng.normal(0, 1, (objects, 2))) for number in range(count)]


def walked(places: np.ndarray) -> Detections:
    """Boxes 40 wide and 100 high."""
    half = np.array((20, 50))
    boxes_xyxy = np.hstack([places - half, places + half]).astype(np.float32)
    return Detections.untracked(boxes_xyxy, np.full(len(places), 0.9, np.float32), np.zeros(len(places), np.int32))


def measure(objects: int, count: int) -> dict[str, list[float]]:
    """Milliseconds of each frame after the first ones. Raises AssertionError where ids differ."""
    trackers = {"ours": ByteTracker(), "plain": PlainTracker()}
    taken: dict[str, list[float]] = {name: [] for name in trackers}
    for number, found in enumerate(frames(objects, WARM_FRAMES + count)):
        ids = []
        for name, tracker in trackers.items():
            started = time.perf_counter()
            ids.append(tracker.update(found).track_ids)
            if number >= WARM_FRAMES:
                taken[name].append((time.perf_counter() - started) * 1e3)
        np.testing.assert_array_equal(*ids)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="frames")
    count = parser.parse_args().count
    results: dict[str, object] = {}
    for objects in OBJECTS:
        taken = measure(objects, count if objects < SLOW else max(1, count // 10))
        row = {name: percentiles(ms) for name, ms in taken.items()}
        ratio = row["plain"]["p50"] / row["ours"]["p50"]
        results[str(objects)] = row | {"ratio": round(ratio, 2)}
        ours, plain = row["ours"], row["plain"]
        print(
            f"{objects:5} objects: ours p50 {ours['p50']:.4f} p99 {ours['p99']:.4f} ms, "
            f"plain p50 {plain['p50']:.4f} p99 {plain['p99']:.4f} ms, {ratio:.1f} times"
        )
    finish({"benchmark": "tracker", "unit": "ms", "machine": machine("numba"), "results": results})


if __name__ == "__main__":
    main()
