"""COCO average precision of a network on annotated images: what a training chooses its best epoch by, and a command.

    python -m train.evaluate --weights best.safetensors --data val.json --images images
    python -m train.evaluate --model dla_34 --weights ctdet_coco_dla_2x --data … --images … --flip --multi-scale

Knows a network only by its spec and heads.
"""

import argparse
import math
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from configs import startup
from models import DEFAULT_MODEL, list_models, load_model
from models.centernet import CenterNet
from models.checkpoints import a_few
from models.command import exit_code
from models.decode import decode
from models.devices import choose_device
from models.files import check_not_read
from models.memory import keep_freed_memory
from models.preprocess import Prepared, preprocess
from models.tta import PAPER_SCALES, predict
from train.average_precision import Scores, score, with_intervals
from train.coco import CocoData, CocoImage, read_coco
from train.dataset import read_pixels
from train.intervals import Interval

READERS = 4
Detections = NDArray[np.float32]  # (N, 6): x1, y1, x2, y2 in pixels of the image, score, class
T = TypeVar("T")


def evaluate(
    model: CenterNet,
    coco: CocoData,
    *,
    device: torch.device,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    keep_res: bool = False,
    input_wh: tuple[int, int] | None = None,
    batch: int = 16,
    k: int = 100,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """The scores of a network, which is moved to `device`, seen in eval mode, and left in the modes it was in.

    Images are prepared by `models.preprocess`, and go through the network `batch` at a time; where `flip`, `scales` or
    `keep_res` ask for it, one by one through `models.tta.predict`, which explains these and `input_wh`. Classes go by
    name. An image that cannot be read counts as one where nothing was found. `progress` hears how many of how many
    images are done. Raises ValueError where the network lacks a class of the data, and where no image can be read.
    """
    to_data = _classes_by_name(model.spec.class_names, coco.class_names)
    if flip or keep_res or tuple(scales) != (1.0,):
        view = partial(predict, model, flip=flip, scales=scales, keep_res=keep_res, input_wh=input_wh, k=k)
        finding = _find_one_by_one(view, coco.images)
    else:
        finding = _find_in_batches(model, coco.images, input_wh, batch, k)
    started = time.monotonic()
    problems: list[str] = []
    found: list[Detections] = []
    with in_eval_mode(model.to(device)), torch.no_grad():
        for detections in finding:
            if isinstance(detections, ValueError):
                problems.append(str(detections))
            found.append(_of_data(detections, to_data))
            progress(len(found), len(coco.images))
    if problems and len(problems) == len(coco.images):
        raise ValueError(f"none of {len(problems)} images can be read; the first: {problems[0]}")
    return score(coco, found, time.monotonic() - started, problems)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Afterwards each layer is in the mode it was in: frozen ones stay in eval mode while the others train."""
    training = [layer for layer in model.modules() if layer.training]
    model.eval()
    try:
        yield
    finally:
        for layer in training:
            layer.training = True


def _find_in_batches(
    model: CenterNet, images: Sequence[CocoImage], input_wh: tuple[int, int] | None, batch: int, k: int
) -> Iterator[Tensor | ValueError]:
    def prepare(image: CocoImage) -> Prepared:
        return preprocess(read_pixels(image), model.spec, input_wh=input_wh)

    for several in _ahead(prepare, images, batch):
        readable = [each for each in several if isinstance(each, Prepared)]
        cells = iter(_decode_batch(model, readable, k) if readable else ())
        for prepared in several:
            yield _in_image(next(cells), prepared) if isinstance(prepared, Prepared) else prepared


def _decode_batch(model: CenterNet, several: list[Prepared], k: int) -> Tensor:
    """(B, K, 6) in output cells, on the CPU."""
    weight = next(model.parameters())
    images_bchw = torch.cat([each.images_bchw for each in several])
    heads = model(images_bchw.to(weight.device, weight.dtype))
    assert isinstance(heads, dict)
    values = {name: values.float() for name, values in heads.items()}
    return decode(values["hm"], values["wh"], values.get("reg"), k).cpu()


def _in_image(detections: Tensor, prepared: Prepared) -> Tensor:
    detections[:, :4] = prepared.to_image(detections[:, :4])
    return detections[detections[:, 4] > 0]


def _find_one_by_one(
    view: Callable[[NDArray[np.uint8]], Tensor], images: Sequence[CocoImage]
) -> Iterator[Tensor | ValueError]:
    for (image,) in _ahead(read_pixels, images, 1):
        yield image if isinstance(image, ValueError) else view(image)


def _ahead(do: Callable[[CocoImage], T], images: Sequence[CocoImage], batch: int) -> Iterator[list[T | ValueError]]:
    """`do(image)`, or the ValueError it raised, of `batch` images after another; the next are done meanwhile."""
    with ThreadPoolExecutor(READERS) as pool:
        under_way: deque[list[Future[T]]] = deque()
        for start in range(0, len(images), batch):
            under_way.append([pool.submit(do, image) for image in images[start : start + batch]])
            if len(under_way) > 2:
                yield list(map(_outcome, under_way.popleft()))
        while under_way:
            yield list(map(_outcome, under_way.popleft()))


def _outcome(future: Future[T]) -> T | ValueError:
    try:
        return future.result()
    except ValueError as error:
        return error


def _of_data(detections: Tensor | ValueError, to_data: Tensor) -> Detections:
    """With the classes of the data; those the data does not know are left out."""
    if isinstance(detections, ValueError):
        return np.empty((0, 6), np.float32)
    classes = to_data[detections[:, 5].long()]
    detections = torch.cat((detections[:, :5], classes[:, None].to(detections.dtype)), dim=1)
    return detections[classes >= 0].numpy()


def _classes_by_name(of_model: Sequence[str], of_data: Sequence[str]) -> Tensor:
    """For each class of the model that of the data, or -1. Raises ValueError where the model lacks one."""
    lacking = [name for name in of_data if name not in of_model]
    if lacking:
        raise ValueError(f"the network does not know the data's classes {a_few(lacking)}; it knows {a_few(of_model)}")
    return torch.tensor([of_data.index(name) if name in of_data else -1 for name in of_model])


# -- the command


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description="COCO average precision.")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"one of {', '.join(list_models())} (%(default)s)")
    parser.add_argument(
        "--weights", help="a checkpoint of it, or its name in `python -m models.zoo`; not needed where one ships"
    )
    parser.add_argument("--data", required=True, metavar="JSON", help="annotations in COCO's format")
    parser.add_argument("--images", required=True, metavar="FOLDER", help="where their file names start from")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")
    parser.add_argument("--multi-scale", action="store_true", help=f"merge scales {', '.join(map(str, PAPER_SCALES))}")
    parser.add_argument("--keep-res", action="store_true", help="see images at their own resolution")
    parser.add_argument("--input", metavar="WxH", help="see images at this size instead of the model's own")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="images at a time (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the scores, not rounded, to this file")
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    return exit_code(lambda: run(given))


def run(given: argparse.Namespace) -> None:
    """Raises ValueError or OSError with one line."""
    input_wh = _input_wh(given)
    if given.batch < 1:
        raise ValueError(f"--batch {given.batch}: give 1 or more")
    if given.json and not given.json.parent.is_dir():
        raise ValueError(f"--json {given.json}: there is no folder {given.json.parent}")
    keep_freed_memory()
    device = torch.device(choose_device(given.device, "--device"))
    coco = read_coco(given.data, given.images)
    model = load_model(given.model, given.weights)
    if given.json:
        check_not_read(given.json, [Path(given.data), *filter(None, [model.spec.weights_file])])
    scores = with_intervals(
        evaluate(
            model,
            coco,
            device=device,
            flip=given.flip,
            scales=PAPER_SCALES if given.multi_scale else (1.0,),
            keep_res=given.keep_res,
            input_wh=input_wh,
            batch=given.batch,
            progress=_show_progress,
        )
    )
    for problem in scores.problems:
        print(f"not read, and counted as if nothing was found: {problem}", file=sys.stderr)
    print(as_table(model.spec.name, scores))
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(scores.figures()), indent=2) + b"\n")


def _input_wh(given: argparse.Namespace) -> tuple[int, int] | None:
    if given.input is None:
        return None
    if given.keep_res:
        raise ValueError("--input and --keep-res: give one of them; with --keep-res each image sets its own size")
    sides = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", given.input)
    if not sides:
        raise ValueError(f"--input {given.input}: give WIDTHxHEIGHT in pixels, as in 512x512")
    return int(sides[1]), int(sides[2])


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done}/{total} images", end="" if done < total else "\r\033[K", file=sys.stderr, flush=True)


def as_table(name: str, scores: Scores) -> str:
    """In percent, as papers have them, above the `intervals`, where the scores have some; `-` where there is no such
    object."""
    rows: list[tuple[str, ...]] = [("", "AP", "AP50", "AP75", "small", "medium", "large", "AR100")]
    figures = (scores.ap, scores.ap50, scores.ap75, scores.small, scores.medium, scores.large, scores.ar100)
    rows.append(("", *map(percent, figures)))
    if each := scores.intervals:
        known = (each.ap, each.ap50, each.ap75, each.small, each.medium, each.large)
        rows.append(("95 % of draws", *map(span, known), ""))
    classes: list[tuple[str, ...]] = [("class", "objects", "AP", "AP50")]
    for of_class, figure in scores.by_class.items():
        classes.append((of_class, str(figure.objects), percent(figure.ap), percent(figure.ap50)))
        if scores.intervals:
            sure = scores.intervals.by_class[of_class]
            classes.append(("", "", span(sure.ap), span(sure.ap50)))
    head = f"{name} on {scores.images} images, {scores.images / max(scores.seconds, 1e-9):.1f} a second"
    best = ["", best_threshold_line(scores)] if scores.threshold else []
    return "\n".join([head, "", *_columns(rows), "", *_columns(classes), *best])


def best_threshold_line(scores: Scores) -> str:
    best = scores.threshold
    assert best
    return (
        f"best F1 {best.f1:.2f} from score {best.score:.2f} on (--score {best.score:.2f} of a run): "
        f"precision {best.precision:.2f}, recall {best.recall:.2f} at IoU 0.5"
    )


def _columns(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """The first to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [f"{cell:>{max(6, width)}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:{widths[0]}}", *cells]).rstrip()


def percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def span(interval: Interval) -> str:
    return "-" if math.isnan(interval.low) else f"{100 * interval.low:.1f}–{100 * interval.high:.1f}"


if __name__ == "__main__":
    startup.run(main)
