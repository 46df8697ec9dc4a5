"""A clip of a scene that stands still: real people who stand and, in a tenth of the time, walk; a camera's noise on all
of it, and H.264's. What a test and a benchmark of `infer.still` look at."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from tests.kit.media import write_video
from tests.kit.places import CLIP

STANDING, WALKING = 90, 10  # frames, in turn
NOISE_LEVELS = 4.0  # standard deviation of each pixel and colour
_FIELDS = 6


def write_still_clip(
    path: Path, frames: int, noise_levels: float = NOISE_LEVELS, standing: int = STANDING, walking: int = WALKING
) -> Path:
    """So many `frames` at 10 a second, of the size of the clip in this repository, as `path` says (.mp4, .mkv)."""
    with av.open(str(CLIP)) as clip:
        walked = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    order = [_walked(at, standing, walking) % len(walked) for at in range(frames)]
    return write_video(path, _noisy(walked, order, noise_levels), options={"preset": "veryfast"})


def _walked(at: int, standing: int, walking: int) -> int:
    """How many steps the people have gone by a frame."""
    rounds, within = divmod(at, standing + walking)
    return rounds * walking + max(0, within - standing + 1)


def _noisy(
    pictures: list[NDArray[np.uint8]], order: list[int], noise_levels: float, seed: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """A few fields of noise, shifted by chance: as good as new ones, and made in no time."""
    random = np.random.default_rng(seed)
    fields = random.normal(0, noise_levels, (_FIELDS, *pictures[0].shape)).round().astype(np.int16)
    for number in order:
        field = fields[random.integers(_FIELDS)]
        shift = random.integers(0, field.shape[0]), random.integers(0, field.shape[1])
        noise = np.roll(field, shift, (0, 1))
        yield np.clip(pictures[number] + noise, 0, 255).astype(np.uint8)
