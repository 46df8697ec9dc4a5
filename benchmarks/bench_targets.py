"""Targets of a batch against a plain NumPy version of the same rule, and against decoding the batch's JPEG files.

    python benchmarks/bench_targets.py [--count 20]

A batch is 32 images of 80 classes and 128 x 128 cells with 10 to 50 objects each, as COCO at 512 x 512. The plain
version is what is usual: (C, H, W) zeros for each image, for each object a Gaussian by np.ogrid and np.exp and one
np.maximum. Three times each: into memory that is there (both draw the greater value, so over and over); as a batch of
its own, in one process on one thread; and through a DataLoader with one process, until the heat maps lie in the memory
of the training and have been read once.
"""

import argparse
import math
import resource
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from common import DATA, finish, machine, milliseconds, percentiles
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from train.kernels.gaussian import splat
from train.targets import Targets, render_targets

IMAGES, CLASSES, SIDE, MAX_OBJECTS = 32, 80, 128, 128
OVERLAP = 0.7

Objects = tuple[NDArray[np.float32], NDArray[np.int64]]
Arrays = dict[str, NDArray[Any]]


def draw_objects(rng: np.random.Generator) -> Objects:
    """Boxes in cells, their sides from 2 to 100, small ones more often; and classes."""
    count = rng.integers(10, 51)
    sides = np.exp(rng.uniform(np.log(2), np.log(100), (count, 2)))
    centres = rng.uniform(0, SIDE, (count, 2))
    boxes = np.concatenate((centres - sides / 2, centres + sides / 2), axis=1)
    return boxes.astype(np.float32), rng.integers(0, CLASSES, count)


def ours(batch: list[Objects]) -> Targets:
    boxes, class_ids = zip(*batch, strict=True)
    no_boxes, no_ids = [np.empty((0, 4), np.float32)] * len(batch), [np.empty(0, np.int64)] * len(batch)
    return render_targets(
        boxes, class_ids, no_boxes, no_ids, classes=CLASSES, height=SIDE, width=SIDE, max_objects=MAX_OBJECTS
    )


def plain(objects: Objects) -> Arrays:
    """The targets of one image."""
    return plain_into(np.zeros((CLASSES, SIDE, SIDE), np.float32), objects)


def plain_into(heatmap: NDArray[np.float32], objects: Objects) -> Arrays:
    sizes, offsets = np.zeros((MAX_OBJECTS, 2), np.float32), np.zeros((MAX_OBJECTS, 2), np.float32)
    cells, present = np.zeros(MAX_OBJECTS, np.int64), np.zeros(MAX_OBJECTS, np.uint8)
    for slot, (box, class_id) in enumerate(zip(*objects, strict=True)):
        x1, y1, x2, y2 = np.clip(box, 0, SIDE - 1)
        if x2 <= x1 or y2 <= y1:
            continue
        centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2], np.float32)
        cell = centre.astype(np.int32)
        plain_gaussian(heatmap[class_id], cell, plain_radius(math.ceil(x2 - x1), math.ceil(y2 - y1)))
        sizes[slot], offsets[slot] = (x2 - x1, y2 - y1), centre - cell
        cells[slot], present[slot] = cell[1] * SIDE + cell[0], 1
    return {"hm": heatmap, "wh": sizes, "reg": offsets, "cells": cells, "present": present}


def plain_gaussian(plane: NDArray[np.float32], cell: NDArray[np.int32], radius: int) -> None:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    gaussian = np.exp(-(x * x + y * y) / (2 * ((2 * radius + 1) / 6) ** 2))
    left, top = min(cell[0], radius), min(cell[1], radius)
    right, bottom = min(SIDE - cell[0], radius + 1), min(SIDE - cell[1], radius + 1)
    window = plane[cell[1] - top : cell[1] + bottom, cell[0] - left : cell[0] + right]
    np.maximum(window, gaussian[radius - top : radius + bottom, radius - left : radius + right], out=window)


def plain_radius(width: int, height: int) -> int:
    both, area = width + height, width * height
    slide = (both + math.sqrt(both**2 - 4 * area * (1 - OVERLAP) / (1 + OVERLAP))) / 2
    shrink = (2 * both + math.sqrt(4 * both**2 - 16 * (1 - OVERLAP) * area)) / 2
    b, c = -2 * OVERLAP * both, (OVERLAP - 1) * area
    grow = (b + math.sqrt(b**2 - 16 * OVERLAP * c)) / 2
    return max(0, int(min(slide, shrink, grow)))


class Repeated(Dataset[Any]):
    """The items of one batch, `count` times, each made by `make`."""

    def __init__(self, batch: list[Objects], count: int, make: Callable[[Objects], Any]) -> None:
        self._batch, self._count, self._make = batch, count, make

    def __len__(self) -> int:
        return self._count * IMAGES

    def __getitem__(self, index: int) -> Any:
        return self._make(self._batch[index % IMAGES])


def as_is(objects: Objects) -> Objects:
    return objects


def cpu_seconds() -> float:
    """Of this process and of those that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def through_loader(items: Dataset[Any], collate: Callable[[list[Any]], Any], count: int) -> float:
    """CPU milliseconds of all processes for a batch; its heat maps are copied once, as on their way to a device."""
    standing = torch.ones(IMAGES, CLASSES, SIDE, SIDE)
    start = cpu_seconds()
    for batch in DataLoader(items, batch_size=IMAGES, num_workers=1, collate_fn=collate):
        standing.copy_(batch.heatmaps["hm"].draw() if isinstance(batch, Targets) else batch["hm"])
    return (cpu_seconds() - start) * 1000 / count


def jpeg_files() -> tuple[str, list[NDArray[np.uint8]]]:
    """32 photographs of 640 x 480 where the data is there, else drawn images, which decode faster."""
    paths = sorted((DATA / "bccd/images").glob("*.jpg"))[:IMAGES]
    if len(paths) == IMAGES:
        return "BCCD", [np.fromfile(path, np.uint8) for path in paths]
    y, x = np.mgrid[:480, :640]
    waves = [np.stack([np.sin(x / (9 + i)), np.cos(y / (7 + i)), np.sin((x + y) / 20)], axis=2) for i in range(IMAGES)]
    return "drawn", [cv2.imencode(".jpg", (127 + 100 * wave).astype(np.uint8))[1] for wave in waves]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="timed batches of each")
    count = parser.parse_args().count
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    here = machine("torch", "numba", "opencv-python-headless")
    print(here)
    rng = np.random.default_rng(0)
    batch = [draw_objects(rng) for _ in range(IMAGES)]
    made = ours(batch)
    expected = default_collate([plain(objects) for objects in batch])
    np.testing.assert_allclose(made.heatmaps["hm"].draw(), expected["hm"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(made.values["wh"], expected["wh"], rtol=0, atol=1e-6)
    kind, files = jpeg_files()

    peaks, standing = made.heatmaps["hm"].peaks.numpy(), expected["hm"].numpy().copy()
    calls: dict[str, Callable[[], object]] = {
        "ours_gaussians": lambda: splat(standing, peaks),
        "plain_gaussians": lambda: [plain_into(*image) for image in zip(standing, batch, strict=True)],
        "ours_made": lambda: ours(batch),
        "ours_drawn": made.heatmaps["hm"].draw,
        "ours": lambda: ours(batch).heatmaps["hm"].draw(),
        "plain_images": lambda: [plain(objects) for objects in batch],
        "plain_batch": lambda: default_collate([plain(objects) for objects in batch]),
        "jpeg_decoding": lambda: [cv2.imdecode(file, cv2.IMREAD_COLOR) for file in files],
    }
    times = {name: percentiles(milliseconds(call, count)) for name, call in calls.items()}
    for name, figures in times.items():
        print(f"{name:15} {figures['p50']:8.2f} ms a batch (least {figures['min']:.2f})")
    loaded = {
        "ours": through_loader(Repeated(batch, count, as_is), ours, count),
        "plain": through_loader(Repeated(batch, count, plain), default_collate, count),
    }
    for name, cpu_ms in loaded.items():
        print(f"{name:15} {cpu_ms:8.2f} ms of CPU a batch, through a DataLoader")
    ratios = {
        "gaussians": times["plain_gaussians"]["p50"] / times["ours_gaussians"]["p50"],
        "in_the_loader": times["plain_batch"]["p50"] / times["ours_made"]["p50"],
        "with_drawing": times["plain_batch"]["p50"] / times["ours"]["p50"],
        "through_the_loader": loaded["plain"] / loaded["ours"],
        "share_of_jpeg_decoding": times["ours"]["p50"] / times["jpeg_decoding"]["p50"],
    }
    print(", ".join(f"{name} {ratio:.3g}" for name, ratio in ratios.items()))
    finish(
        {
            "benchmark": "targets",
            "machine": here,
            "objects": sum(len(class_ids) for _, class_ids in batch),
            "jpeg": kind,
            "ms": times,
            "loader_cpu_ms": {name: round(value, 2) for name, value in loaded.items()},
            "times_faster": {name: round(ratio, 3) for name, ratio in ratios.items()},
        }
    )


if __name__ == "__main__":
    main()
