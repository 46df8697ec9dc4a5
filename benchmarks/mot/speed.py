"""The time of one update, from a frame as the tracker wants it to what it gives, and whether that is right.

Objects are spread evenly over 1080p to 8K, walk, and are found with an error of a pixel. Where a tracker has a plain
twin, that is given the first of them too, and no time is told unless both give the same ids. It is the CPU time of the
process, in which other work on the machine is not: what a clock shows, for one thread on a free core. Knows no tracker.
"""

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.mot.sequences import Frame
from benchmarks.mot.trackers import Make, Tracks

# Objects: width and height of the picture, frames at most.
SIZES = {
    10: (1920, 1080, 1000),
    50: (1920, 1080, 1000),
    200: (1920, 1080, 500),
    1000: (3840, 2160, 200),
    5000: (7680, 4320, 50),
}
FRAMES_PER_SECOND = 30.0
WARM_FRAMES = 10
SECONDS = 2.0  # of one size, at most; a tracker that takes longer for a frame than a tenth of it is asked no more
TWIN_PAIRS = 8_000_000  # a twin looks at every pair of objects: at so many, on the first frames
SPEED_PIXELS, ERROR_PIXELS, BOX = 2.0, 1.0, np.array((40.0, 100.0))


def frames(objects: int, count: int) -> Iterator[Frame]:
    """The same at every call."""
    rng = np.random.default_rng(objects)
    field = np.array(SIZES[objects][:2])
    places = rng.uniform(0, field, (objects, 2))
    steps = rng.normal(0, SPEED_PIXELS, (objects, 2))
    scores, class_ids = np.full(objects, 0.9, np.float32), np.zeros(objects, np.int32)
    for number in range(count):
        # Who comes to an edge turns round there.
        walked = field - np.abs((places + number * steps) % (2 * field) - field)
        seen = walked + rng.normal(0, ERROR_PIXELS, (objects, 2))
        boxes = np.hstack([seen - BOX / 2, seen + BOX / 2]).astype(np.float32)
        yield Frame(boxes, scores, class_ids, number / FRAMES_PER_SECOND)


def measure(name: str, make: Make, twin: Make | None) -> dict[str, Any]:
    """By number of objects: count, p50 and p99 in milliseconds, or why there are none."""
    times: dict[str, Any] = {}
    for objects, (_, _, count) in SIZES.items():
        taken, told = timed(make, objects, count)
        different = None if twin is None else first_difference(twin, objects, told[: TWIN_PAIRS // objects**2])
        if different is not None:
            times[str(objects)] = {"none": f"other ids than its plain twin in frame {different + 1}"}
            continue
        p50, p99 = np.percentile(taken, [50, 99]).round(5).tolist()
        times[str(objects)] = {"count": len(taken), "p50": p50, "p99": p99}
        if p50 > SECONDS * 1e3 / 10:
            break
    return times


def timed(make: Make, objects: int, count: int) -> tuple[list[float], list[Tracks]]:
    """Milliseconds of the frames after the first ones, and what was told of all."""
    tracker = make(FRAMES_PER_SECOND)
    taken: list[float] = []
    told: list[Tracks] = []
    end = math.inf
    for number, frame in enumerate(frames(objects, WARM_FRAMES + count)):
        given = tracker.given(frame)
        started = time.process_time_ns()
        out = tracker.update(given)
        ended = time.process_time_ns()
        told.append(tracker.told(out))
        if end == math.inf:  # the first may have compiled something
            end = ended + SECONDS * 1e9
        over = ended > end
        if number >= WARM_FRAMES or over:
            taken.append((ended - started) / 1e6)
        if over:
            break
    return taken, told


def first_difference(twin: Make, objects: int, told: list[Tracks]) -> int | None:
    """The first frame in which the twin tells other ids, or gives them to other boxes."""
    tracker = twin(FRAMES_PER_SECOND)
    for number, (frame, tracks) in enumerate(zip(frames(objects, len(told)), told, strict=True)):
        other = tracker.told(tracker.update(tracker.given(frame)))
        if not (np.array_equal(other.ids, tracks.ids) and np.array_equal(other.boxes_xyxy, tracks.boxes_xyxy)):
            return number
    return None
