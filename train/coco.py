"""Images and their boxes from a COCO json file. Knows no pixels and no network.

Of the format (cocodataset.org, "Data format") it reads what boxes need: `images`, `categories`, and of `annotations`
the `bbox`, the class and whether it is a crowd; masks, captions and key points are passed over.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.checkpoints import a_few, one_line
from models.files import check_is_file

Floats = NDArray[np.float32]
Areas = NDArray[np.float64]
Ids = NDArray[np.int64]
Size = Annotated[int, msgspec.Meta(ge=1)]

NEEDED = (
    "needed are images (id, file_name, width, height), categories (id, name) and annotations (image_id, category_id, "
    "bbox), with ids that are whole numbers"
)
# What a bad box is, in the order in which it is asked.
BAD_BOXES = ("not a number", "of no width or height", "outside their image")


class DataError(ValueError):
    """Annotations that cannot be trained on; one line that names the file and what to do."""


@dataclass(frozen=True, slots=True)
class CocoImage:
    """One image and what is in it.

    boxes_xyxy  (N, 4) in the image's pixels, as the file says: they may reach beyond it
    areas       (N,)   square pixels: `area` in the file, which is that of the mask where there is one; else the box's
    crowd_…     the same for `iscrowd`: many objects that nobody told apart
    """

    image_id: int
    path: Path
    width: int
    height: int
    boxes_xyxy: Floats
    class_ids: Ids
    crowd_boxes_xyxy: Floats
    crowd_class_ids: Ids
    areas: Areas
    crowd_areas: Areas


@dataclass(frozen=True, slots=True)
class CocoData:
    """A data set. Class i is called class_names[i], and in the file has the id category_ids[i]: they go by that id.

    left_out  how many boxes are not among the images', by what is wrong with them
    remarks   lines for a person: what was left out, and what looks wrong
    """

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    images: list[CocoImage]
    left_out: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    json_path: Path = Path()


def read_coco(json_path: Path | str, image_folder: Path | str) -> CocoData:
    """The images that the file lists, below `image_folder`, each of which must be there.

    Bad boxes are left out, counted and remarked upon. Raises DataError at the first other thing that is wrong.
    """
    json_path, image_folder = Path(json_path), Path(image_folder)
    file = read_file(json_path)
    for fault in find_faults(file):
        raise DataError(f"{json_path}: {fault}")
    data = assemble(file, json_path, image_folder)
    if missing := find_missing(data, image_folder):
        raise DataError(f"{json_path}: {missing}")
    return data


def same_classes(train: CocoData, other: CocoData) -> None:
    """Raises DataError, which explains, where class i of the one is not class i of the other."""
    ours, theirs = train.class_names, other.class_names
    if ours == theirs:
        return
    if set(ours) == set(theirs):
        differ = f"the same in another order ({a_few(theirs)}, not {a_few(ours)}), which follows from their ids"
    else:
        differ = " and ".join(
            f"{what} {a_few(names)}"
            for what, names in (
                ("without", [name for name in ours if name not in theirs]),
                ("also", [name for name in theirs if name not in ours]),
            )
            if names
        )
    raise DataError(
        f"{other.json_path}: other classes than in {train.json_path}: {differ}; give both files the same categories, "
        "those of which one has no object too"
    )


# -- the file as it is


class CocoCategory(msgspec.Struct, gc=False):
    id: int
    name: str


class CocoEntry(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: Size
    height: Size


class CocoAnnotation(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float] | None = None
    iscrowd: int | bool = 0
    area: float | None = None
    id: int | str | None = None


class CocoFile(msgspec.Struct):
    images: list[CocoEntry]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation]


def read_file(json_path: Path) -> CocoFile:
    """What the file holds, whether it fits together or not. Raises DataError where it is none of the format."""
    try:
        check_is_file(json_path)
        text = json_path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"{json_path}: cannot be read ({error.strerror}); give a COCO json file") from None
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        raise DataError(f"{json_path}: not COCO annotations ({one_line(error)}); {NEEDED}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{json_path}: not JSON, or cut short ({one_line(error)}); write it anew") from None


def _decode(text: bytes) -> CocoFile:
    try:
        return msgspec.json.decode(text, type=CocoFile)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Python itself writes NaN and Infinity, which are no JSON: boxes that hold them are to be counted.
        return msgspec.convert(json.loads(text), CocoFile)


def find_faults(file: CocoFile) -> Iterator[str]:
    """All that keeps the file from being trained on, but for missing images."""
    image_ids = {image.id for image in file.images}
    category_ids = {category.id for category in file.categories}
    if not file.images:
        yield "no images; give a file that lists some"
    if not file.categories:
        yield "no categories; give each class an id and a name"
    if twice := _more_than_once(image.id for image in file.images):
        yield f"several images have the id {_some(twice)}; give each its own, or it is not known whose boxes are whose"
    if twice := _more_than_once(category.id for category in file.categories):
        yield f"several categories have the id {_some(twice)}; give each its own"
    if twice := _more_than_once(category.name for category in file.categories):
        yield f"several categories are called {_some(twice)}; merge them or rename one"
    if strange := {each.image_id for each in file.annotations} - image_ids:
        yield f"annotations of images that are not listed: id {_some(strange)}; list them, or leave out what is theirs"
    if strange := {each.category_id for each in file.annotations} - category_ids:
        yield f"annotations of unknown categories: id {_some(strange)}; list them under categories, or leave them out"
    if not file.annotations:
        yield "no annotations, so there is nothing to learn from and nothing to be right about"


def find_missing(data: CocoData, image_folder: Path) -> str | None:
    """What to say where image files are not there."""
    if not image_folder.is_dir():
        return f"its image folder {image_folder} is not there, or not a folder; give the one that file names start from"
    missing = [image.path for image in data.images if not is_file(image.path)]
    if not missing:
        return None
    names = [
        str(path.relative_to(image_folder)) if path.is_relative_to(image_folder) else str(path) for path in missing
    ]
    nearer = is_file(image_folder / missing[0].name.rpartition("\\")[2])
    hint = "the folders in their file_name are not there, the files are" if nearer else "is it the right folder?"
    return f"{len(missing)} of {len(data.images)} images are not in {image_folder}: {a_few(names)}; {hint}"


def is_file(path: Path) -> bool:
    """False for a name that no file can have, too."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _more_than_once(values: Iterable[Hashable]) -> list[Hashable]:
    return [value for value, count in Counter(values).items() if count > 1]


def _some(values: Iterable[Any]) -> str:
    return a_few(map(str, values))


# -- from the file to arrays


def assemble(file: CocoFile, json_path: Path, image_folder: Path) -> CocoData:
    """The data of a file without faults; whether the images are there is not asked. Raises DataError for no box."""
    categories = sorted(file.categories, key=lambda category: category.id)
    class_of = {category.id: i for i, category in enumerate(categories)}
    place_of = {image.id: i for i, image in enumerate(file.images)}
    boxed = [each for each in file.annotations if each.bbox is not None]
    boxes_xywh = np.array([each.bbox for each in boxed], np.float64).reshape(-1, 4)
    places = np.array([place_of[each.image_id] for each in boxed], np.int64)
    sizes_wh = np.array([(image.width, image.height) for image in file.images], np.float64)[places]
    boxes_xyxy = _xyxy(boxes_xywh)
    fault = _fault_of(boxes_xyxy, sizes_wh)
    left_out = {what: int((fault == i).sum()) for i, what in enumerate(BAD_BOXES)}
    left_out = {what: n for what, n in {"missing": len(file.annotations) - len(boxed), **left_out}.items() if n}
    good = fault == len(BAD_BOXES)
    if not good.any():
        raise DataError(f"{json_path}: none of its {len(file.annotations)} boxes can be used ({_counts(left_out)})")
    crowd = np.array([bool(each.iscrowd) for each in boxed])
    columns = (
        boxes_xyxy,
        np.array([class_of[each.category_id] for each in boxed], np.int64),
        _areas([each.area for each in boxed], boxes_xywh),
    )
    objects = _by_image(places, good & ~crowd, columns, len(file.images))
    crowds = _by_image(places, good & crowd, columns, len(file.images))
    remarks = _remarks(file, left_out, boxes_xywh, sizes_wh)
    return CocoData(
        class_names=tuple(category.name for category in categories),
        category_ids=tuple(category.id for category in categories),
        images=[
            CocoImage(
                image_id=image.id,
                path=image_folder / image.file_name,
                width=image.width,
                height=image.height,
                boxes_xyxy=boxes,
                class_ids=class_ids,
                crowd_boxes_xyxy=crowd_boxes,
                crowd_class_ids=crowd_class_ids,
                areas=areas,
                crowd_areas=crowd_areas,
            )
            for image, (boxes, class_ids, areas), (crowd_boxes, crowd_class_ids, crowd_areas) in zip(
                file.images, objects, crowds, strict=True
            )
        ],
        left_out=left_out,
        remarks=tuple(f"{json_path}: {remark}" for remark in remarks),
        json_path=json_path,
    )


def _xyxy(boxes_xywh: NDArray[np.float64]) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # what becomes infinite is left out
        return np.concatenate((boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]), axis=1).astype(np.float32)


def _fault_of(boxes_xyxy: Floats, sizes_wh: NDArray[np.float64]) -> NDArray[np.int64]:
    """The place in BAD_BOXES of what is wrong with each box, or the number behind them."""
    start, end = boxes_xyxy[:, :2], boxes_xyxy[:, 2:]
    wrong = [~np.isfinite(boxes_xyxy).all(1), (start >= end).any(1), ((start >= sizes_wh) | (end <= 0)).any(1)]
    return np.select(wrong, list(range(len(BAD_BOXES))), len(BAD_BOXES))


def _areas(given: list[float | None], boxes_xywh: NDArray[np.float64]) -> Areas:
    areas = np.array(given, np.float64).reshape(-1)  # None becomes NaN
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isfinite(areas), areas, boxes_xywh[:, 2] * boxes_xywh[:, 3])


def _by_image(
    places: Ids, keep: NDArray[np.bool_], columns: tuple[NDArray[Any], ...], count: int
) -> Iterator[tuple[NDArray[Any], ...]]:
    """For each of `count` images its rows of the columns, in the order of the file."""
    order = np.argsort(places[keep], kind="stable")
    cuts = np.searchsorted(places[keep][order], np.arange(1, count))
    return zip(*(np.split(column[keep][order], cuts) for column in columns), strict=True)


def _remarks(
    file: CocoFile, left_out: dict[str, int], boxes_xywh: NDArray[np.float64], sizes_wh: NDArray[np.float64]
) -> Iterator[str]:
    if left_out:
        yield f"{sum(left_out.values())} boxes left out ({_counts(left_out)})"
    if wrong := wrong_convention(boxes_xywh, sizes_wh):
        yield wrong
    if twice := _more_than_once(image.file_name for image in file.images):
        yield f"listed more than once: {_some(twice)}"
    if twice := _more_than_once(each.id for each in file.annotations if each.id is not None):
        yield f"annotations share the id {_some(twice)}: no matter here, but other tools lose them"


def _counts(left_out: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in left_out.items())


def wrong_convention(boxes_xywh: NDArray[np.float64], sizes_wh: NDArray[np.float64]) -> str | None:
    """What to say where boxes (N, 4) are not x, y, width, height in pixels of images of (N, 2) width, height."""
    finite = np.isfinite(boxes_xywh).all(1)
    boxes, sizes = boxes_xywh[finite], sizes_wh[finite]
    if not len(boxes):
        return None
    if boxes.max() <= 1:
        return "no box has a number above 1: are they fractions of the image? COCO's are pixels, x, y, width, height"
    start, end = boxes[:, :2], boxes[:, 2:]
    ordered = ((end > start) & (end <= sizes + 1)).all(1).mean()
    beyond = (start + end > sizes + 1).any(1).mean()
    if ordered > 0.99 and beyond > 0.25:
        return (
            f"{beyond:.0%} of the boxes reach beyond their image, and in each the last two numbers exceed the first: "
            "are they x1, y1, x2, y2? COCO's are x, y, width, height"
        )
    return None
