"""Images held back from a training to choose its epoch by, where nobody has held back any. Knows no network.

Drawn with a seed. Copies of one image stay on one side, and so do images of one scene that follow each other, as a
camera's do: or the choice would be by what was learnt by heart, and the figures better than they are. Of a scene that
is longer than what is wanted a stretch is held back.
"""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from configs.names import natural
from models.files import whole_file
from train.check import content_digest
from train.coco import CocoFile, read_file

# So many of a hundred, but not fewer than FEWEST: what these say of an epoch is chance already.
SHARE, FEWEST = 0.15, 12
# With fewer images all are needed to learn from, and the last epoch is as good a guess as a choice by a handful.
ENOUGH = 60
# Images that are so much alike (correlation, small and without colour) show one scene. Of raccoons and blood cells no
# two that follow each other have more than 0.6; of a camera that stands, half a second apart, all have 0.9 and more.
ALIKE, SIDE = 0.8, 32

Scene = list[list[int]]  # copies by copies, in order, their images' ids


class _Looks(NamedTuple):
    """`small` (SIDE * SIDE,) is of mean 0 and length 1; None where there is nothing to see."""

    content: bytes
    small: NDArray[np.float64] | None


def split_off(json_path: Path, image_folder: Path, folder: Path, seed: int) -> tuple[Path, Path] | None:
    """Writes train.json and val.json into `folder`; their paths, or None where there are too few images to part with,
    or all are copies of a few.

    Raises DataError for annotations that cannot be read, OSError for a folder that cannot be written.
    """
    file = read_file(json_path)
    if len(file.images) < ENOUGH:
        return None
    wanted = max(FEWEST, round(SHARE * len(file.images)))
    held_back = _drawn(_scenes(file, image_folder), wanted, np.random.default_rng(seed))
    if not held_back:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "train.json", folder / "val.json"
    for path, is_val in zip(paths, (False, True), strict=True):
        with whole_file(path) as partial:
            partial.write_bytes(msgspec.json.encode(_part(file, held_back, is_val)))
    return paths


def _part(file: CocoFile, held_back: set[int], is_val: bool) -> CocoFile:
    return CocoFile(
        images=[image for image in file.images if (image.id in held_back) == is_val],
        categories=file.categories,
        annotations=[each for each in file.annotations if (each.image_id in held_back) == is_val],
    )


def _drawn(scenes: list[Scene], wanted: int, draw: np.random.Generator) -> set[int]:
    """So many images, or a few less."""
    held_back: set[int] = set()
    for place in draw.permutation(len(scenes)):
        scene, room = scenes[place], wanted - len(held_back)
        for copies in scene[int(draw.integers(max(1, len(scene) - room + 1))) :]:
            if len(held_back) + len(copies) > wanted:
                break
            held_back.update(copies)
    return held_back


def _scenes(file: CocoFile, image_folder: Path) -> list[Scene]:
    """In the order of their names."""
    images = sorted(file.images, key=lambda image: natural(image.file_name))
    with ThreadPoolExecutor() as pool:
        looks = list(pool.map(_looks_of, [image_folder / image.file_name for image in images]))
    copies: dict[bytes, list[int]] = defaultdict(list)
    for image, look in zip(images, looks, strict=True):
        copies[look.content].append(image.id)
    scenes: list[Scene] = []
    last: NDArray[np.float64] | None = None
    for content, small in {look.content: look.small for look in looks}.items():
        if last is not None and small is not None and float(last @ small) >= ALIKE:
            scenes[-1].append(copies[content])
        else:
            scenes.append([copies[content]])
        last = small
    return scenes


def _looks_of(path: Path) -> _Looks:
    """Of a file that cannot be read: it is like no other, and is told of elsewhere."""
    try:
        content = content_digest(path)
        pixels = cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    except (OSError, ValueError, cv2.error):
        return _Looks(str(path).encode(errors="replace"), None)
    if pixels is None:
        return _Looks(content, None)
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(float).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return _Looks(content, small / length if length > 0 else None)
