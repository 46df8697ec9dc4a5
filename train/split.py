"""Images held back from a training to choose its epoch by, where nobody has held back any. Knows no network.

Drawn with a seed; copies of one image stay on one side, or the choice would be by what was learnt by heart.
"""

from collections import defaultdict
from pathlib import Path

import msgspec
import numpy as np

from models.files import whole_file
from train.check import content_digest
from train.coco import CocoFile, read_file

# So many of a hundred, but not fewer than FEWEST: what these say of an epoch is chance already.
SHARE, FEWEST = 0.15, 12
# With fewer images all are needed to learn from, and the last epoch is as good a guess as a choice by a handful.
ENOUGH = 60


def split_off(json_path: Path, image_folder: Path, folder: Path, seed: int) -> tuple[Path, Path] | None:
    """Writes train.json and val.json into `folder`; their paths, or None where there are too few images to part with.

    Raises DataError for annotations that cannot be read, OSError for a folder that cannot be written.
    """
    file = read_file(json_path)
    if len(file.images) < ENOUGH:
        return None
    groups = defaultdict(list)
    for image in file.images:
        groups[_content(image_folder / image.file_name)].append(image.id)
    wanted = max(FEWEST, round(SHARE * len(file.images)))
    held_back: set[int] = set()
    ordered = [groups[content] for content in sorted(groups)]
    for place in np.random.default_rng(seed).permutation(len(ordered)):
        if len(held_back) + len(ordered[place]) <= wanted:
            held_back.update(ordered[place])
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


def _content(path: Path) -> bytes:
    """What tells copies of an image; a file that cannot be read is like no other, and is told of elsewhere."""
    try:
        return content_digest(path)
    except (OSError, ValueError):
        return str(path).encode(errors="replace")
