"""From one image to the input of a network, and its boxes back. Knows no network.

Three ways for an image to become an input: "stretch" and "letterbox", which a `ModelSpec` names, to one size for all
images; and its own resolution ("keep_res"), with which the paper evaluates (section 5: zero-padded to the network's
stride). The pipeline has a geometry of its own, in continuous coordinates and whole pixels, as its scaler needs. Here
a letterbox is an exact affine, sampled bilinearly and not averaged; pixel centres are whole numbers, and a box goes
through the same affine as the pixels: so the paper's networks are trained. Where an image shrinks, the two differ by
less than an input pixel.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.normalise import Normalise
from models.spec import ModelSpec

Pair = tuple[float, float]  # x, y
Placed = tuple[NDArray[Any], Pair, Pair]  # the input's pixels; scale and shift of image = scale * input + shift


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a network takes, and the way back: image = scale * cell + shift on each axis.

    images_bchw  (1, 3, H, W) float32, normalised, colours in the network's order; H and W multiples of `size_multiple`
    scale_xy     image pixels per output cell
    shift_xy     image pixels
    """

    images_bchw: Tensor
    scale_xy: Pair
    shift_xy: Pair

    def to_image(self, boxes_cells: Tensor) -> Tensor:
        """Boxes (…, 4), x1, y1, x2, y2 in output cells, in pixels of the image; not clipped to it."""
        return boxes_cells * boxes_cells.new_tensor(self.scale_xy * 2) + boxes_cells.new_tensor(self.shift_xy * 2)


def preprocess(
    image_rgb_hwc: NDArray[np.uint8],
    spec: ModelSpec,
    *,
    keep_res: bool = False,
    scale: float = 1.0,
    input_wh: tuple[int, int] | None = None,
) -> Prepared:
    """The input of a network for an image, (H, W, 3) uint8.

    keep_res  the image at its own resolution, times `scale`, amid black; else as `spec.resize` says
    scale     the size the network sees, relative to its usual one, for multi-scale testing; the input grows with the
              image, so that nothing is cut off
    input_wh  of the input instead of the spec's; sides that are no multiple of `spec.size_multiple` are padded, right
              and bottom, with black

    Raises ValueError for another image, for a scale not above 0, and for `input_wh` with `keep_res`.
    """
    _check(image_rgb_hwc, keep_res, scale, input_wh)
    pixels, scale_xy, shift_xy = _placed(image_rgb_hwc, spec, keep_res, scale, input_wh)
    images_bchw = Normalise(spec)(torch.from_numpy(pixels)[None]).contiguous()
    return Prepared(images_bchw, (spec.stride * scale_xy[0], spec.stride * scale_xy[1]), shift_xy)


def input_pixels(image_rgb_hwc: NDArray[np.uint8], spec: ModelSpec, input_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """The input (H, W, 3) before its normalisation, as `spec.resize` says, for an image as in `preprocess`."""
    _check(image_rgb_hwc, False, 1.0, input_wh)
    pixels: NDArray[np.uint8] = _placed(image_rgb_hwc, spec, False, 1.0, input_wh)[0]
    return pixels


def _placed(
    image_rgb_hwc: NDArray[np.uint8], spec: ModelSpec, keep_res: bool, scale: float, input_wh: tuple[int, int] | None
) -> Placed:
    image = np.ascontiguousarray(image_rgb_hwc)
    width, height = input_wh or (spec.input_width, spec.input_height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    try:
        if keep_res:
            pixels, scale_xy, shift_xy = _keep_resolution(image, scale, spec.size_multiple)
        elif spec.resize == "stretch":
            pixels, scale_xy, shift_xy = _stretch(image, size)
        else:
            pixels, scale_xy, shift_xy = _letterbox(image, size)
    except cv2.error as error:  # OpenCV 4 warps no side beyond 32766 pixels
        raise ValueError(f"image of {image.shape[1]}×{image.shape[0]}: OpenCV cannot resize it ({error.err})") from None
    return _pad(pixels, spec.size_multiple), scale_xy, shift_xy


def _stretch(image: NDArray[np.uint8], size: tuple[int, int]) -> Placed:
    """The whole input, aspect ratio let go.

    A smaller picture is averaged from all pixels, as in the pipeline, or small objects would come and go.
    """
    height, width = image.shape[:2]
    shrinks = size[0] <= width and size[1] <= height
    pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return pixels, (width / size[0], height / size[1]), (0.0, 0.0)


def _letterbox(image: NDArray[np.uint8], size: tuple[int, int]) -> Placed:
    """Aspect ratio kept, centre on centre, as large as fits."""
    height, width = image.shape[:2]
    factor = max(width / size[0], height / size[1])
    left, top = (size[0] - width / factor) / 2, (size[1] - height / factor) / 2
    affine = np.array([[1 / factor, 0, left], [0, 1 / factor, top]])
    pixels = cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR)
    return pixels, (factor, factor), (-left * factor, -top * factor)


def _keep_resolution(image: NDArray[Any], scale: float, multiple: int) -> Placed:
    """The image, or a copy of `scale` times its size, amid black up to the next multiple.

    A side that is a multiple already grows by a whole one: figures in the literature were measured so.
    """
    height, width = image.shape[:2]
    if scale != 1:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    rows, columns = image.shape[:2]
    pixels = np.zeros(((rows // multiple + 1) * multiple, (columns // multiple + 1) * multiple, 3), np.uint8)
    left, top = pixels.shape[1] // 2 - columns // 2, pixels.shape[0] // 2 - rows // 2
    pixels[top : top + rows, left : left + columns] = image
    scale_x, scale_y = width / columns, height / rows
    return pixels, (scale_x, scale_y), (-left * scale_x, -top * scale_y)


def _pad(pixels: NDArray[Any], multiple: int) -> NDArray[Any]:
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, -height % multiple), (0, -width % multiple), (0, 0)))


def _check(image: NDArray[np.uint8], keep_res: bool, scale: float, input_wh: tuple[int, int] | None) -> None:
    shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
    if dtype != np.uint8 or shape is None or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ValueError(f"image of shape {shape}, {dtype}: give RGB pixels (H, W, 3), uint8, H and W at least 1")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale {scale}: give a number above 0")
    if input_wh is not None and (keep_res or min(input_wh) < 1):
        raise ValueError(f"input_wh {input_wh}: give sides of 1 or more, and no keep_res, which sets them by the image")
