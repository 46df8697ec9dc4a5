"""Images and their boxes, one after the other and in batches, as a training takes them. Knows no network.

What is drawn for an image follows from the seed, the epoch and its place in the data: whichever process loads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from models.checkpoints import one_line
from models.detect import read_image
from models.preprocess import preprocess
from models.spec import ModelSpec
from train.augment import Placement, covered, draw_placement, fit, jitter_colours, move_boxes, warp
from train.coco import CocoData, CocoImage, Floats, Ids
from train.order import Key
from train.recipe import AugmentSettings, TargetSettings
from train.targets import Targets, render_targets

Pixels = NDArray[np.uint8]

# Of a data set. Beyond it the data is at fault, and a training on what is left would not be what was asked for.
UNREADABLE_SHARE = 0.01
# How DataLoader's processes start. Forked from one that has threads, as OpenMP's or a runtime's, they may never wake,
# or bring it down.
LOADER_START = "spawn"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a network will see it.

    image_rgb_hwc  (H, W, 3), of the input's size
    boxes_xyxy     (N, 4) in input pixels, clipped to the input, of what is still to be seen there; crowd_… likewise
    problem        why there is no image, and no boxes; one line
    """

    image_id: int
    image_rgb_hwc: Pixels
    boxes_xyxy: Floats
    class_ids: Ids
    crowd_boxes_xyxy: Floats
    crowd_class_ids: Ids
    problem: str | None = None


class DetectionDataset(Dataset[Sample]):
    """The images of `coco` for the network of `spec`, by (epoch, place in `coco.images`).

    augment  what is done to each, anew in each epoch; None: placed as `models.preprocess` places it, nothing else
    """

    def __init__(self, coco: CocoData, spec: ModelSpec, augment: AugmentSettings | None = None, seed: int = 0) -> None:
        self._coco, self._augment, self._seed = coco, augment, seed
        # Normalising is the device's work: `preprocess` is to give pixels.
        self._spec = replace(spec, mean_rgb=(0.0, 0.0, 0.0), std_rgb=(1.0, 1.0, 1.0), channel_order="rgb")
        self._input_wh = spec.input_width, spec.input_height

    def __len__(self) -> int:
        return len(self._coco.images)

    def __getitem__(self, key: Key) -> Sample:
        epoch, index = key
        image = self._coco.images[index]
        try:
            pixels = read_pixels(image)
            if self._augment is None:
                return self._plain(image, pixels)
            return self._augmented(image, pixels, self._augment, np.random.default_rng([self._seed, epoch, index]))
        except ValueError as error:
            return _sample(image, np.empty((0, 0, 3), np.uint8), Placement((0, 0), (0, 0)), (0, 0), one_line(error))

    def _plain(self, image: CocoImage, pixels: Pixels) -> Sample:
        placed = preprocess(pixels, self._spec).images_bchw[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()
        placement = fit((image.width, image.height), self._input_wh, self._spec.resize)
        return _sample(image, placed, placement, self._input_wh)

    def _augmented(
        self, image: CocoImage, pixels: Pixels, settings: AugmentSettings, rng: np.random.Generator
    ) -> Sample:
        image_wh, resize = (image.width, image.height), self._spec.resize
        placement = draw_placement(rng, image_wh, self._input_wh, resize, settings)
        placed = warp(pixels, placement, self._input_wh, resize)
        seen = covered(image_wh, placement, self._input_wh)
        placed[seen] = jitter_colours(placed[seen], rng, settings)
        return _sample(image, placed, placement, self._input_wh)


def read_pixels(image: CocoImage) -> Pixels:
    """RGB (H, W, 3), turned upright as the file says. Raises ValueError for another size than the annotations are for.

    Who annotated the pixels as they are stored, not as they are to be seen, has other sides, or boxes elsewhere.
    """
    pixels = cv2.cvtColor(read_image(image.path), cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
    height, width = pixels.shape[:2]
    if (width, height) != (image.width, image.height):
        turned = ": its EXIF data turns it" if (height, width) == (image.width, image.height) else ""
        raise ValueError(
            f"{image.path}: {width}×{height} pixels, but annotated as {image.width}×{image.height}{turned}"
        )
    return pixels


def _sample(
    image: CocoImage, placed: Pixels, placement: Placement, input_wh: tuple[int, int], problem: str | None = None
) -> Sample:
    boxes_xyxy, seen = move_boxes(image.boxes_xyxy, placement, input_wh)
    crowd_boxes_xyxy, crowd_seen = move_boxes(image.crowd_boxes_xyxy, placement, input_wh)
    return Sample(
        image_id=image.image_id,
        image_rgb_hwc=placed,
        boxes_xyxy=boxes_xyxy[seen],
        class_ids=image.class_ids[seen],
        crowd_boxes_xyxy=crowd_boxes_xyxy[crowd_seen],
        crowd_class_ids=image.crowd_class_ids[crowd_seen],
        problem=problem,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """The images of a step, of which those that could not be read are left out: there may be none.

    images_bhwc  (B, H, W, 3) uint8, RGB
    problems     of the images left out, a line for each
    boxes_xyxy   for pictures: (N, 4) of each image, in input pixels, and their classes
    """

    images_bhwc: Tensor
    targets: Targets
    image_ids: tuple[int, ...]
    problems: tuple[str, ...]
    boxes_xyxy: tuple[Floats, ...]
    class_ids: tuple[Ids, ...]

    def pin_memory(self) -> Self:
        """DataLoader asks for it."""
        return replace(self, images_bhwc=self.images_bhwc.pin_memory(), targets=self.targets.pin_memory())


def collate(samples: Sequence[Sample], *, spec: ModelSpec, size_channels: int, settings: TargetSettings) -> Batch:
    """The samples as a batch for the network of `spec`, whose size head has `size_channels` channels."""
    good = [sample for sample in samples if sample.problem is None]
    images_bhwc = torch.empty((len(good), spec.input_height, spec.input_width, 3), dtype=torch.uint8)
    for place, sample in enumerate(good):
        images_bhwc[place] = torch.from_numpy(sample.image_rgb_hwc)
    targets = render_targets(
        [sample.boxes_xyxy / spec.stride for sample in good],
        [sample.class_ids for sample in good],
        [sample.crowd_boxes_xyxy / spec.stride for sample in good],
        [sample.crowd_class_ids for sample in good],
        classes=len(spec.class_names),
        height=spec.input_height // spec.stride,
        width=spec.input_width // spec.stride,
        size_channels=size_channels,
        max_objects=settings.max_objects,
        radius=settings.radius,
        size_cells=settings.size_cells,
    )
    return Batch(
        images_bhwc,
        targets,
        image_ids=tuple(sample.image_id for sample in good),
        problems=tuple(sample.problem for sample in samples if sample.problem is not None),
        boxes_xyxy=tuple(sample.boxes_xyxy for sample in good),
        class_ids=tuple(sample.class_ids for sample in good),
    )


def loader_process(_: int) -> None:
    """For DataLoader's `worker_init_fn`: there are as many such processes as are to work at a time, so none starts
    threads; after a fork, OpenCV's would not even be there."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
