"""Sequences made up by a seed: people who walk, with a truth and detections whose faults are known. Knows no tracker.

    python -m benchmarks.mot.synthetic FOLDER

writes them into FOLDER/synthetic. Each theme is made at each rate; the world runs in seconds, so that a theme at 5
frames a second shows the same people as at 60. They walk on a plane seen from above: who is lower in the picture is
nearer, larger and covers others. Who leaves the picture and comes back is another in the truth, for from boxes alone
nobody could tell. Who is covered almost wholly is neither right nor wrong to find.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.mot.sequences import ONE_CLASS, Array, Sequence, write

GROUP = "synthetic"
RATES = (5, 15, 30, 60)
SECONDS = 12.0
WIDTH, HEIGHT = 1920, 1080
HORIZON = 250  # the row of feet that are infinitely far
PIXELS_PER_ROW = 0.38  # a person's height, by rows below the horizon
SLIMNESS = 0.4  # width over height
INNER_SECONDS = 1 / 60  # step of the world
COVERED = 0.15  # seen less than this is not counted
HARD = -1  # the class of what is neither right nor wrong


@dataclass(frozen=True, slots=True)
class Theme:
    people: int = 12
    speed: float = 0.8  # body heights a second
    wander: float = 0.4  # how fast the direction turns, radians a root of a second
    pillars: int = 0  # things that stand in front of everybody
    across: bool = False  # all walk along the street, half of them each way
    stay: float = 0.0  # chance a second to stop, and to walk on
    shake: float = 0.0  # how far the camera swings about its place, pixels
    pan: float = 0.0  # how fast it turns to and fro, pixels a second
    missing: float = 0.08  # chance that somebody in full view is not found in a frame
    false: float = 0.5  # false detections a frame
    jitter: float = 0.03  # standard error of a box's sides, shares of its size


THEMES = {
    "crossings": Theme(people=16, across=True),
    "occlusions": Theme(people=10, pillars=5, stay=0.3),
    "exits": Theme(people=14, speed=1.4, wander=1.0),
    "shake": Theme(shake=12, pan=120),
    "faulty": Theme(missing=0.3, false=3.0, jitter=0.06),
}


def sequences() -> Iterator[Sequence]:
    for seed, (name, theme) in enumerate(THEMES.items()):
        for rate in RATES:
            yield made(f"{name}-{rate}", theme, rate, seed)


def made(name: str, theme: Theme, frames_per_second: float, seed: int, seconds: float = SECONDS) -> Sequence:
    """The same at every call. One seed shows the same world at each rate; the detector's faults are its own."""
    world = _World(theme, np.random.default_rng(seed))
    faults = np.random.default_rng((seed, round(1e3 * frames_per_second)))
    frame_count = round(seconds * frames_per_second)
    truth, detections = [], []
    for number in range(frame_count):
        ids, boxes_xywh, seen = world.at(number / frames_per_second)
        truth.append(_truth(number + 1, ids, boxes_xywh, seen))
        detections.append(_found(number + 1, theme, boxes_xywh, seen, faults))
    return Sequence(
        GROUP,
        name,
        frames_per_second,
        frame_count,
        ONE_CLASS,
        np.concatenate([*detections, np.empty((0, 7))]),
        np.concatenate([*truth, np.empty((0, 8))]),
    )


class _World:
    """People by their feet in the picture of a camera that stands still; walked in small steps, whatever is asked."""

    def __init__(self, theme: Theme, rng: np.random.Generator) -> None:
        self._theme, self._rng, self._steps = theme, rng, 0
        count = theme.people
        self._ids, self._given = np.arange(1, count + 1), count
        self._feet = np.column_stack([rng.uniform(0, WIDTH, count), rng.uniform(HORIZON + 200, HEIGHT, count)])
        self._heading = rng.uniform(0, 2 * np.pi, count)
        if theme.across:
            self._heading = np.where(np.arange(count) % 2, np.pi, 0) + rng.normal(0, 0.1, count)
        self._pace = theme.speed * rng.uniform(0.6, 1.4, count)
        self._walks = np.ones(count, bool)
        self._pillars = rng.uniform(100, WIDTH - 100, theme.pillars)
        self._phases = rng.uniform(0, 2 * np.pi, (3, 2))
        self._outside = _inside(self._boxes(0)) <= 0

    def at(self, seconds: float) -> tuple[NDArray[np.int64], Array, Array]:
        """Ids, boxes (N, 4) xywh and the share of each that is seen, of those in the picture. Time runs forward."""
        while self._steps * INNER_SECONDS < seconds - INNER_SECONDS / 2:
            self._step()
        boxes = self._boxes(seconds)
        inside = _inside(boxes) > 0
        seen = _seen(boxes, self._pillars + self._camera(seconds)[0])
        return self._ids[inside], boxes[inside], seen[inside]

    def _boxes(self, seconds: float) -> Array:
        heights = PIXELS_PER_ROW * (self._feet[:, 1] - HORIZON)
        sizes = np.column_stack([SLIMNESS * heights, heights])
        return np.hstack([self._feet - sizes * (0.5, 1) + self._camera(seconds), sizes])

    def _step(self) -> None:
        theme, rng, count = self._theme, self._rng, len(self._ids)
        self._steps += 1
        turn = 0.1 * theme.wander if theme.across else theme.wander
        self._heading += turn * INNER_SECONDS**0.5 * rng.normal(0, 1, count)
        self._walks ^= rng.random(count) < theme.stay * INNER_SECONDS
        heights = PIXELS_PER_ROW * (self._feet[:, 1] - HORIZON)
        # Towards the camera and away a step is foreshortened.
        way = np.column_stack([np.cos(self._heading), 0.4 * np.sin(self._heading)])
        self._feet += (self._walks * self._pace * heights * INNER_SECONDS)[:, None] * way
        # They turn round before the first row and the last, and some way beyond the sides.
        far, near = HORIZON + 150, HEIGHT + 60
        wrong = ((self._feet[:, 1] < far) & (np.sin(self._heading) < 0)) | (
            (self._feet[:, 1] > near) & (np.sin(self._heading) > 0)
        )
        self._heading[wrong] *= -1
        self._feet[:, 1] = self._feet[:, 1].clip(far - 1, near + 1)
        edge = 0.5 * SLIMNESS * heights + 200
        gone = (self._feet[:, 0] < -edge) | (self._feet[:, 0] > WIDTH + edge)
        self._feet[gone, 0] = self._feet[gone, 0].clip(-edge[gone], WIDTH + edge[gone])
        self._heading[gone] = np.pi - self._heading[gone]
        outside = _inside(self._boxes(self._steps * INNER_SECONDS)) <= 0
        left, self._outside = outside & ~self._outside, outside
        self._ids[left] = self._given + 1 + np.arange(left.sum())
        self._given += int(left.sum())

    def _camera(self, seconds: float) -> Array:
        """How far all is moved in the picture: two swings of some hertz, and a slow turn to and fro."""
        swing = np.sin(2 * np.pi * np.array((1.7, 4.1))[:, None] * seconds + self._phases[:2]).sum(axis=0) / 2
        turn = np.sin(2 * np.pi * 0.15 * seconds + self._phases[2]) - np.sin(self._phases[2])
        return self._theme.shake * swing + np.array((self._theme.pan / (2 * np.pi * 0.15), 0)) * turn


def _inside(boxes_xywh: Array) -> Array:
    """The share of each box that lies in the picture."""
    low = boxes_xywh[:, :2].clip(0, (WIDTH, HEIGHT))
    high = (boxes_xywh[:, :2] + boxes_xywh[:, 2:]).clip(0, (WIDTH, HEIGHT))
    return (high - low).prod(axis=1) / boxes_xywh[:, 2:].prod(axis=1)


def _seen(boxes_xywh: Array, pillars: Array) -> Array:
    """The share of each box that is in the picture and not behind somebody nearer or a pillar; by a grid of points."""
    across, down = (np.linspace(0.05, 0.95, count) for count in (5, 8))
    points = np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)
    places = boxes_xywh[:, None, :2] + points * boxes_xywh[:, None, 2:]  # (N, P, 2)
    low, high = boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]
    within = ((places[:, :, None] >= low) & (places[:, :, None] <= high)).all(axis=3)  # (N, P, by N)
    nearer = high[None, :, 1] > high[:, None, 1]
    hidden = (within & nearer[:, None]).any(axis=2)
    hidden |= (np.abs(places[:, :, :1] - pillars) < 60).any(axis=2)
    hidden |= ((places < 0) | (places > (WIDTH, HEIGHT))).any(axis=2)
    return 1 - hidden.mean(axis=1)


def _truth(frame: int, ids: NDArray[np.int64], boxes_xywh: Array, seen: Array) -> Array:
    counts = seen >= COVERED
    frames = np.full(len(ids), frame)
    return np.column_stack([frames, ids, boxes_xywh, counts, np.where(counts, 1, HARD)])


def _found(frame: int, theme: Theme, boxes_xywh: Array, seen: Array, rng: np.random.Generator) -> Array:
    """Who is half covered is found more rarely, and with a lower score; what is not there has a low score, mostly."""
    clear = (seen / 0.8).clip(0, 1)
    found = (seen >= COVERED) & (rng.random(len(seen)) < (1 - theme.missing) * clear)
    sizes = np.hstack([boxes_xywh[:, 2:], boxes_xywh[:, 2:]])
    boxes = (boxes_xywh + theme.jitter * sizes * rng.normal(0, 1, sizes.shape))[found]
    scores = (rng.beta(8, 2, len(seen)) * (0.3 + 0.7 * clear))[found]
    false = rng.poisson(theme.false)
    feet = np.column_stack([rng.uniform(0, WIDTH, false), rng.uniform(HORIZON + 150, HEIGHT, false)])
    heights = PIXELS_PER_ROW * (feet[:, 1] - HORIZON)
    sizes = np.column_stack([SLIMNESS * heights, heights])
    boxes = np.concatenate([boxes, np.hstack([feet - sizes * (0.5, 1), sizes])])
    scores = np.concatenate([scores, rng.beta(2, 4, false)])
    return np.column_stack([np.full(len(boxes), frame), boxes, scores.clip(0.01, 0.99), np.ones(len(boxes))])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for sequence in sequences():
        write(sequence, folder)


if __name__ == "__main__":
    main()
