"""Objects in images, from the command line: boxes drawn, and one line for each image.

    python -m models.detect street.jpg --out found
    python -m models.detect *.jpg --flip --multi-scale --json

For videos and cameras there is run_pipeline.py. Knows a network only by its name.
"""

import argparse
import colorsys
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # read on import; what is wrong with a file is told here, in one line

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from configs import startup
from models import DEFAULT_MODEL, list_models, load_model
from models.command import exit_code
from models.devices import choose_device
from models.files import check_is_file
from models.tta import PAPER_SCALES, predict

Colour = tuple[int, int, int]  # blue, green, red
FONT = cv2.FONT_HERSHEY_SIMPLEX


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.detect", description="Find objects in images.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"one of {', '.join(list_models())} (%(default)s)")
    parser.add_argument(
        "--weights", help="a checkpoint of it, or its name in `python -m models.zoo`; not needed where one ships"
    )
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")
    parser.add_argument("--multi-scale", action="store_true", help=f"merge scales {', '.join(map(str, PAPER_SCALES))}")
    parser.add_argument("--keep-res", action="store_true", help="see images at their own resolution")
    parser.add_argument("--score", type=float, default=0.3, help="show objects from this score on (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("detections"), help="folder for the pictures (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each image instead of a line")
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    return exit_code(lambda: run(given))


def run(given: argparse.Namespace) -> None:
    """Raises ValueError or OSError at the first thing that is wrong; the images before it are done."""
    targets = plan_targets(given.images, given.out)
    if not 0 <= given.score <= 1:
        raise ValueError(f"--score {given.score}: give a number from 0 to 1")
    model = load_model(given.model, given.weights).eval().to(choose_device(given.device, "--device"))
    given.out.mkdir(parents=True, exist_ok=True)
    scales = PAPER_SCALES if given.multi_scale else (1.0,)
    for path, target in targets.items():
        image_bgr = read_image(path)
        found = predict(model, image_bgr[:, :, ::-1], flip=given.flip, scales=scales, keep_res=given.keep_res)
        objects = describe(found, model.spec.class_names, given.score, *image_bgr.shape[:2])
        print((as_json if given.json else as_line)(path, image_bgr, objects), flush=True)
        draw(image_bgr, objects)
        target.write_bytes(cv2.imencode(target.suffix, image_bgr)[1].tobytes())


def plan_targets(images: list[Path], folder: Path) -> dict[Path, Path]:
    """The picture to write for each image: one of its own, and never an image that was given."""
    targets = {path: folder / f"{path.stem}.png" for path in images}
    taken = {path.resolve() for path in images}
    for path, target in targets.items():
        if target.resolve() in taken:
            raise ValueError(f"{path}: its picture {target} would overwrite an image or another picture; change --out")
        taken.add(target.resolve())
    return targets


def read_image(path: Path) -> NDArray[np.uint8]:
    """BGR pixels (H, W, 3), turned upright as the file says. Raises ValueError."""
    try:
        check_is_file(path)
        encoded = np.fromfile(path, np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except cv2.error as error:
        raise ValueError(f"{path}: cannot be decoded ({error.err})") from None
    if image is None:
        raise ValueError(f"{path}: not an image that OpenCV decodes; give JPEG, PNG, WebP, BMP or TIFF")
    return image.astype(np.uint8, copy=False)


def describe(
    detections: Tensor, class_names: tuple[str, ...], threshold: float, height: int, width: int
) -> list[dict[str, Any]]:
    """Objects from `threshold` on, boxes clipped to the image, under the keys of the pipeline's JSON lines."""
    limits = np.array([width, height, width, height])
    return [
        {
            "class_id": int(class_id),
            "class": class_names[int(class_id)],
            "score": round(score, 4),
            "box_xyxy": np.clip(box, 0, limits).round(2).tolist(),
        }
        for *box, score, class_id in detections.tolist()
        if score >= threshold
    ]


def as_line(path: Path, image_bgr: NDArray[np.uint8], objects: list[dict[str, Any]]) -> str:
    counts = Counter(each["class"] for each in objects)
    return f"{path}: " + (", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing")


def as_json(path: Path, image_bgr: NDArray[np.uint8], objects: list[dict[str, Any]]) -> str:
    height, width = image_bgr.shape[:2]
    return json.dumps({"image": str(path), "width": width, "height": height, "objects": objects}, ensure_ascii=False)


def draw(image_bgr: NDArray[np.uint8], objects: list[dict[str, Any]]) -> None:
    """Boxes with class and score, in place: labels above all boxes, the best score on top."""
    for each in reversed(objects):
        left, top, right, bottom = map(round, each["box_xyxy"])
        cv2.rectangle(image_bgr, (left, top), (right, bottom), class_colour(each["class_id"]), line_width(image_bgr))
    for each in reversed(objects):
        draw_label(image_bgr, each)


def draw_label(image_bgr: NDArray[np.uint8], each: dict[str, Any]) -> None:
    """Above the object's box, or inside it at the upper edge of the image."""
    text, scale, line = f"{each['class']} {each['score']:.2f}", max(image_bgr.shape) / 2000, line_width(image_bgr)
    (width, height), below = cv2.getTextSize(text, FONT, max(0.35, scale), line)
    left = max(0, min(round(each["box_xyxy"][0]), image_bgr.shape[1] - width))
    base = max(round(each["box_xyxy"][1]) - below, height)
    colour = class_colour(each["class_id"])
    cv2.rectangle(image_bgr, (left, base - height), (left + width, base + below), colour, cv2.FILLED)
    cv2.putText(image_bgr, text, (left, base), FONT, max(0.35, scale), (0, 0, 0), line, cv2.LINE_AA)


def line_width(image_bgr: NDArray[np.uint8]) -> int:
    return max(1, round(max(image_bgr.shape) / 500))


def class_colour(class_id: int) -> Colour:
    """Bright enough for black text; neighbours far apart in hue, by the golden ratio."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * 0.618034 % 1, 0.6, 1)
    return round(255 * blue), round(255 * green), round(255 * red)


if __name__ == "__main__":
    startup.run(main)
