"""Is the data what it should be? Asked before a training that would take hours to tell.

    python -m train.check data/cells                                  train.json, val.json, test.json and images/
    python -m train.check --json cells.json --images photos
    python -m train.check configs/train_bccd.yaml                     what a recipe trains on

Prints what is there and what is wrong, and draws a sheet of images with their boxes: what is wrong with the labels,
only a person sees. Exit code 2 where training would fail. Knows no network.
"""

import argparse
import hashlib
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # read on import; what is wrong with a file is told here, in one line

import cv2
import numpy as np
from numpy.typing import NDArray

from configs import startup
from configs.reader import read_settings
from models import DEFAULT_MODEL, SPECS, list_models
from models.checkpoints import a_few, one_line
from models.command import BAD_INPUT, exit_code
from models.detect import FONT, class_colour
from models.spec import ModelSpec
from train.augment import fit, move_boxes, warp
from train.coco import (
    CocoData,
    CocoImage,
    DataError,
    Floats,
    Ids,
    assemble,
    find_faults,
    find_missing,
    is_file,
    read_file,
    same_classes,
)
from train.dataset import UNREADABLE_SHARE, Pixels, read_pixels
from train.recipe import DataSettings, ModelSettings, Recipe, TargetSettings

SPLITS = ("train", "val", "test")
CONVERT = (
    "the library supervision reads VOC (.xml) and YOLO (.txt) annotations and writes COCO: "
    "DetectionDataset.from_pascal_voc(…) or .from_yolo(…), then .as_coco(images_directory_path, annotations_path)"
)
TILES, TILE = 4, 320
SHEET_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class Look:
    """What one image file turned out to be."""

    image: CocoImage
    digest: bytes = b""
    problem: str | None = None


@dataclass(slots=True)
class Split:
    """One json file with its images, and what was found out about it."""

    name: str
    json_path: Path
    image_folder: Path
    data: CocoData | None = None
    looks: list[Look] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def images(self) -> list[CocoImage]:
        return self.data.images if self.data else []

    @property
    def readable(self) -> list[CocoImage]:
        return [look.image for look in self.looks if not look.problem]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.check",
        description="Look through images with COCO annotations before training on them.",
        epilog=f"Other annotations: {CONVERT}.",
    )
    parser.add_argument(
        "data", nargs="?", type=Path, metavar="DATA", help="folder with train.json …, images/; or a recipe"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="one COCO json file instead, with --images")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the folder its file names start from")
    parser.add_argument(
        "--model", help=f"for whose input boxes are measured: {', '.join(list_models())} ({DEFAULT_MODEL})"
    )
    parser.add_argument(
        "--sheet", type=Path, default=Path("contact_sheet.png"), help="picture of images with boxes (%(default)s)"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    return exit_code(lambda: run(given))


def run(given: argparse.Namespace) -> int:
    """2 where training would fail. Raises ValueError or OSError with one line."""
    splits, spec, max_objects = plan(given)
    for split in splits:
        look_through(split, spec, max_objects)
    compare(splits)
    tell(splits)
    draw_sheet(splits, given.sheet)
    return BAD_INPUT if any(split.problems for split in splits) else 0


# -- what to look at


def plan(given: argparse.Namespace) -> tuple[list[Split], ModelSpec, int]:
    """The splits, whose input they are for, and how many objects of an image are trained on. Raises ValueError."""
    if given.sheet.suffix.lower() not in SHEET_SUFFIXES or not given.sheet.parent.is_dir() or given.sheet.is_dir():
        raise ValueError(f"--sheet {given.sheet}: give a file in a folder that is there, .png or .jpg")
    if (given.data is None) == (given.json is None) or (given.json is None) != (given.images is None):
        raise ValueError("give either DATA, a folder or a recipe, or --json FILE with --images FOLDER")
    if given.json:
        return (
            [Split("data", given.json, given.images)],
            _spec(ModelSettings(), given.model),
            TargetSettings().max_objects,
        )
    if given.data.suffix.lower() in (".yaml", ".yml"):
        recipe = read_settings(Recipe, str(given.data))
        return list(_of_recipe(recipe.data)), _spec(recipe.model, given.model), recipe.targets.max_objects
    return folder_splits(given.data), _spec(ModelSettings(), given.model), TargetSettings().max_objects


def folder_splits(folder: Path) -> list[Split]:
    """What of train.json, val.json and test.json is in a folder, with images/. Raises DataError where none is."""
    if not folder.is_dir():
        hint = ": a json file is given as --json FILE --images FOLDER" if folder.suffix.lower() == ".json" else ""
        raise DataError(f"{folder}: not a folder{hint or ', nor a recipe (.yaml)'}")
    splits = [Split(name, folder / f"{name}.json", folder / "images") for name in SPLITS]
    there = [split for split in splits if split.json_path.is_file()]
    if not there:
        other = next((True for suffix in ("xml", "txt") for _ in folder.rglob(f"*.{suffix}")), False)
        raise DataError(
            f"{folder}: no train.json, val.json or test.json there; give such a folder, or --json FILE --images FOLDER"
            + (f"; {CONVERT}" if other else "")
        )
    return there


def _of_recipe(data: DataSettings) -> Iterator[Split]:
    yield Split("train", Path(data.train_json), Path(data.train_images))
    if data.val_json:
        yield Split("val", Path(data.val_json), Path(data.val_images))
    if data.test_json:
        yield Split("test", Path(data.test_json), Path(data.test_images))


def _spec(settings: ModelSettings, name: str | None) -> ModelSpec:
    name = name or settings.name
    if name not in SPECS:
        raise ValueError(f"model '{name}': allowed are {', '.join(list_models())}")
    spec = SPECS[name]
    width, height = settings.input_wh((spec.input_width, spec.input_height))
    return replace(spec, input_width=width, input_height=height)


# -- one split


def look_through(split: Split, spec: ModelSpec, max_objects: int) -> None:
    """Fills in all that can be found out without the other splits."""
    before = f"{split.json_path}: "
    try:
        file = read_file(split.json_path)
        split.problems += find_faults(file)
        if split.problems:
            return
        split.data = data = assemble(file, split.json_path, split.image_folder)
    except DataError as error:
        split.problems.append(str(error).removeprefix(before))
        return
    split.remarks += (remark.removeprefix(before) for remark in data.remarks)
    if missing := find_missing(data, split.image_folder):
        split.problems.append(missing)
    split.looks = look_at_images(split)
    judge_images(split)
    split.remarks += judge_boxes(data, spec, max_objects)


def look_at_images(split: Split) -> list[Look]:
    """Decodes all that are there, in threads, and counts along on a terminal."""
    images = [image for image in split.images if is_file(image.path)]
    looks = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for look in pool.map(_look, images):
                looks.append(look)
                _count_along(split.name, len(looks), len(images))
        finally:
            pool.shutdown(cancel_futures=True)
    return looks


def _look(image: CocoImage) -> Look:
    try:
        read_pixels(image)
        digest = content_digest(image.path)
    except ValueError as error:
        return Look(image, problem=one_line(error))
    except OSError as error:
        return Look(image, problem=f"{image.path}: cannot be read ({error.strerror})")
    return Look(image, digest)


def content_digest(path: Path) -> bytes:
    """By which copies of an image are known. Raises OSError."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()


def _count_along(name: str, done: int, whole: int) -> None:
    if sys.stderr.isatty() and (done % 20 == 0 or done == whole):
        end = "\r" if done < whole else "\r\033[K"
        print(f"{name}: {done} of {whole} images decoded", end=end, file=sys.stderr, flush=True)


def judge_images(split: Split) -> None:
    unreadable = [look.problem for look in split.looks if look.problem]
    if unreadable:
        # Their lines hold commas; a semicolon parts them.
        told = "; ".join(unreadable[:3]) + (f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else "")
        bad = len(unreadable) > UNREADABLE_SHARE * len(split.images)
        where = split.problems if bad else split.remarks
        where.append(f"{len(unreadable)} of {len(split.images)} images are of no use: {told}")
    groups = defaultdict(list)
    for look in split.looks:
        if look.digest:
            groups[look.digest].append(look.image.path.name)
    if twice := [" = ".join(names) for names in groups.values() if len(names) > 1]:
        split.remarks.append(f"{len(twice)} images are there more than once: {a_few(twice)}")


def judge_boxes(data: CocoData, spec: ModelSpec, max_objects: int) -> Iterator[str]:
    """What a person should know about the boxes, seen as the network of `spec` sees them."""
    counts = np.bincount(_class_ids(data), minlength=len(data.class_names))
    if without := [name for name, count in zip(data.class_names, counts, strict=True) if not count]:
        yield f"classes without an object: {a_few(without)}"
    beyond = sum(int(_reaches_beyond(image).sum()) for image in data.images)
    if beyond:
        yield f"{beyond} boxes reach more than a pixel beyond their image; they are cut there"
    sizes = [len(image.class_ids) for image in data.images]
    if crowded := sum(size > max_objects for size in sizes):
        yield (
            f"{crowded} images have more than {max_objects} objects (the fullest {max(sizes)}), of which only so many "
            "teach sizes: raise targets.max_objects"
        )
    shared, unseen = _at_the_input(data, spec)
    of, at = f"of {int(counts.sum())} objects", f"at {spec.input_width}×{spec.input_height}"
    if unseen:
        yield f"{unseen} {of} are less than a pixel wide or high {at}, and left out: train with a larger input_size"
    if shared:
        yield (
            f"{shared} {of} ({shared / counts.sum():.2%}) have their centre in the same cell as another of their class "
            f"{at}, stride {spec.stride}: of such, a CenterNet finds one"
        )


def _class_ids(data: CocoData) -> Ids:
    return np.concatenate([image.class_ids for image in data.images])


def _reaches_beyond(image: CocoImage) -> NDArray[np.bool_]:
    """(N,), by more than a pixel: many tools round outwards."""
    sides = np.array([image.width, image.height] * 2)
    return np.any((image.boxes_xyxy < -1) | (image.boxes_xyxy > sides + 1), axis=1)


def _at_the_input(data: CocoData, spec: ModelSpec) -> tuple[int, int]:
    """How many objects share their cell and class with one before them, and how many are too small to be seen."""
    shared = unseen = 0
    input_wh = spec.input_width, spec.input_height
    for image in data.images:
        boxes, seen = move_boxes(image.boxes_xyxy, fit((image.width, image.height), input_wh, spec.resize), input_wh)
        cells = (boxes[:, :2] + boxes[:, 2:]) // (2 * spec.stride)
        distinct = np.unique(np.column_stack((cells, image.class_ids))[seen], axis=0)
        shared += int(seen.sum()) - len(distinct)
        unseen += int((~seen).sum())
    return shared, unseen


# -- between splits


def compare(splits: Sequence[Split]) -> None:
    """Adds what is wrong between splits to the later one."""
    for first, second in combinations(splits, 2):
        if first.data and second.data and first is splits[0]:
            try:
                same_classes(first.data, second.data)
            except DataError as error:
                second.problems.append(str(error).removeprefix(f"{second.json_path}: "))
        second.remarks += _overlap(first, second)


def _overlap(first: Split, second: Split) -> Iterator[str]:
    contents = {look.digest for look in first.looks if look.digest}
    names = {look.image.path.name for look in first.looks}
    same = [look.image.path.name for look in second.looks if look.digest in contents]
    if same:
        yield f"{len(same)} images are in {first.name} too, so scores will be better than they are: {a_few(same)}"
    alike = [
        look.image.path.name for look in second.looks if look.digest not in contents and look.image.path.name in names
    ]
    if alike:
        yield f"{len(alike)} images have the name of another one in {first.name}; are they the same? {a_few(alike)}"


# -- what is told


def tell(splits: Sequence[Split]) -> None:
    for split in splits:
        print(f"{split.name}: {split.json_path}")
        for line in summary(split.data) if split.data else ():
            print(f"  {line}")
        for kind, lines in (("remark", split.remarks), ("PROBLEM", split.problems)):
            for line in lines:
                print(f"  {kind}: {line}")
    problems, remarks = sum(len(split.problems) for split in splits), sum(len(split.remarks) for split in splits)
    verdict = f"not fit for training; problems: {problems}" if problems else "fit for training"
    print(f"{verdict}; remarks: {remarks}")


def summary(data: CocoData) -> Iterator[str]:
    """What is there: images, boxes by class, sizes."""
    sizes = Counter(f"{image.width}×{image.height}" for image in data.images)
    common = ", ".join(f"{count} of {size}" for size, count in sizes.most_common(3))
    rest = f", {len(sizes) - 3} other sizes" if len(sizes) > 3 else ""
    empty = sum(not len(image.class_ids) for image in data.images)
    yield f"{len(data.images)} images ({common}{rest}), {empty} of them without an object"
    class_ids, boxes = _class_ids(data), np.concatenate([image.boxes_xyxy for image in data.images])
    crowds = sum(len(image.crowd_class_ids) for image in data.images)
    fullest = max(len(image.class_ids) for image in data.images)
    yield (
        f"{len(boxes)} objects, {len(boxes) / len(data.images):.1f} an image, at most {fullest}"
        f"{f'; {crowds} crowds' if crowds else ''}"
    )
    yield from _class_table(data, class_ids)
    for what, sides in zip(("width", "height"), (boxes[:, 2:] - boxes[:, :2]).T, strict=True):
        if len(sides):
            least, low, middle, high, most = np.quantile(sides, (0, 0.05, 0.5, 0.95, 1))
            most_of = f"half below {middle:.0f}, 90% from {low:.0f} to {high:.0f}"
            yield f"box {what:6} {least:.0f} to {most:.0f} px, {most_of}"


def _class_table(data: CocoData, class_ids: Ids) -> Iterator[str]:
    objects = np.bincount(class_ids, minlength=len(data.class_names))
    images = Counter(class_id for image in data.images for class_id in np.unique(image.class_ids).tolist())
    names = [a_few([name]) for name in data.class_names]
    width = max(map(len, names))
    for class_id, name in enumerate(names):
        yield f"  {name:{width}} {objects[class_id]:8} objects in {images[class_id]:6} images"


# -- the sheet


def draw_sheet(splits: Sequence[Split], path: Path) -> None:
    """Images of the first split that has any, evenly taken from it, with boxes in the colours of their classes.

    Raises OSError, and ValueError where it would overwrite an image.
    """
    namesakes = [image.path for split in splits for image in split.images if image.path.name == path.name]
    if path.resolve() in [image.resolve() for image in namesakes]:
        raise ValueError(f"--sheet {path}: is one of the images; give another file")
    split = next((split for split in splits if split.readable), None)
    if split is None or split.data is None:
        return
    images = split.readable
    chosen = np.unique(np.linspace(0, len(images) - 1, TILES * TILES).round().astype(int))
    tiles = [draw_tile(images[place]) for place in chosen]
    columns = min(TILES, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]
    shown = np.unique(np.concatenate([images[place].class_ids for place in chosen]))
    sheet = np.vstack([*rows, *draw_legend(split.data.class_names, shown.tolist(), columns * TILE)])
    path.write_bytes(cv2.imencode(path.suffix, sheet[:, :, ::-1])[1].tobytes())
    print(
        f"{path}: {len(chosen)} images of {split.name} with their boxes; crowds are white. Look whether they are right"
    )


def draw_tile(image: CocoImage) -> Pixels:
    """RGB (TILE, TILE, 3): the image with its boxes."""
    size = TILE - 2, TILE - 2
    placement = fit((image.width, image.height), size, "letterbox")
    tile = warp(read_pixels(image), placement, size, "letterbox")
    crowds, _ = move_boxes(image.crowd_boxes_xyxy, placement, size)
    boxes, _ = move_boxes(image.boxes_xyxy, placement, size)
    _draw_boxes(tile, crowds, [(255, 255, 255)] * len(crowds))
    _draw_boxes(tile, boxes, [_rgb(class_id) for class_id in image.class_ids.tolist()])
    cv2.putText(tile, ascii(image.path.name)[1:-1], (4, TILE - 7), FONT, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_CONSTANT).astype(np.uint8, copy=False)


def _draw_boxes(tile: Pixels, boxes_xyxy: Floats, colours: Sequence[tuple[int, int, int]]) -> None:
    for (left, top, right, bottom), colour in zip(boxes_xyxy.round().astype(int).tolist(), colours, strict=True):
        cv2.rectangle(tile, (left, top), (right - 1, bottom - 1), colour, 1)


def draw_legend(class_names: Sequence[str], class_ids: Sequence[int], width: int) -> Iterator[Pixels]:
    """Rows of class names in their colours, as wide as the sheet."""
    row, left = np.zeros((24, width, 3), np.uint8), 6
    for class_id in class_ids:
        text = ascii(class_names[class_id])[1:-1]
        (needs, _), _ = cv2.getTextSize(text, FONT, 0.5, 1)
        if left > 6 and left + needs > width:
            yield row
            row, left = np.zeros_like(row), 6
        cv2.putText(row, text, (left, 17), FONT, 0.5, _rgb(class_id), 1, cv2.LINE_AA)
        left += needs + 18
    yield row


def _rgb(class_id: int) -> tuple[int, int, int]:
    blue, green, red = class_colour(class_id)
    return red, green, blue


if __name__ == "__main__":
    startup.run(main)
