"""One image, with its boxes, as another that could have been taken: moved, mirrored, in another light. Knows no file
and no network.

As section 5 of the paper has it: random scale and crop, mirroring, and colour jitter. One affine carries both pixels
and boxes, so an image is sampled once. It goes from the image to the input the way `models.preprocess` goes, so that
a network is shown in training what it will see: an image that is not changed comes out the same.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from train.recipe import AugmentSettings

Pixels = NDArray[np.uint8]
Boxes = NDArray[np.float32]
Pair = tuple[float, float]  # x, y
Size = tuple[int, int]  # width, height

# Of a box, in input pixels: what is less is not to be seen.
SMALLEST_SIDE = 1.0
# Rec. 601, as everywhere where grey is made of RGB.
GREY = np.array([0.299, 0.587, 0.114])
# How the colours of photographs vary: principal components (columns) of ImageNet's RGB values from 0 to 1, and their
# standard deviations, by the method of Krizhevsky, Sutskever and Hinton 2012, section 4.1.
COLOUR_AXES = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
COLOUR_SPREADS = np.array([0.2175, 0.0188, 0.0045])


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies in the input: input = scale * image + shift on each axis; a negative scale mirrors."""

    scale_xy: Pair
    shift_xy: Pair


def fit(image_wh: Size, input_wh: Size, resize: str) -> Placement:
    """The whole image, in the middle, as `models.preprocess` places it."""
    return place(image_wh, input_wh, resize, 1.0, (image_wh[0] / 2, image_wh[1] / 2))


def place(
    image_wh: Size,
    input_wh: Size,
    resize: str,
    size: float,
    centre_xy: Pair,
    mirror: tuple[bool, bool] = (False, False),
) -> Placement:
    """The image `size` times as large as fits, so that its point `centre_xy` is in the middle; mirrored there."""
    fits = [side / whole for side, whole in zip(input_wh, image_wh, strict=True)]
    if resize == "letterbox":
        fits = [min(fits)] * 2
    x, y = (-size * scale if mirrored else size * scale for scale, mirrored in zip(fits, mirror, strict=True))
    return Placement((x, y), (input_wh[0] / 2 - x * centre_xy[0], input_wh[1] / 2 - y * centre_xy[1]))


def draw_placement(
    rng: np.random.Generator, image_wh: Size, input_wh: Size, resize: str, settings: AugmentSettings
) -> Placement:
    """A random one. Always takes as many numbers from `rng`, so that one setting changes nothing of the others."""
    size = 1 / rng.uniform(settings.scale_low, settings.scale_high)
    across, down, flip, flip_vertical = rng.random(4)
    centre = (across, down) if settings.crop else (0.5, 0.5)
    fits = place(image_wh, input_wh, resize, size, (0.0, 0.0)).scale_xy
    seen = [side / scale for side, scale in zip(input_wh, fits, strict=True)]
    x, y = (_crop_centre(*each) for each in zip(centre, image_wh, seen, strict=True))
    mirror = (flip < settings.flip, flip_vertical < settings.flip_vertical)
    return place(image_wh, input_wh, resize, size, (x, y), mirror)


def _crop_centre(at: float, side: float, seen: float) -> float:
    """The middle of what is seen, for `at` from 0 to 1.

    It keeps off the border by a quarter of the image, or half of what is seen where that is less: then much of the
    image is always there, and every corner of it is sometimes. The published training kept off by 128 pixels, which
    is a fifth or a quarter of COCO's images; a share does not depend on how large images are.
    """
    border = min(side / 4, seen / 2)
    return border + at * (side - 2 * border)


def warp(image: Pixels, placement: Placement, input_wh: Size, resize: str) -> Pixels:
    """The input, (H, W, 3), black where the image does not reach.

    A letterbox is sampled bilinearly, an image that is stretched smaller is averaged first, as in `models.preprocess`.
    Raises ValueError for an image that OpenCV does not warp.
    """
    try:
        if resize == "stretch":
            image, placement = _average(image, placement)
        affine = np.array([(0.0, 0.0, 0.0), (0.0, 0.0, 0.0)])
        for axis, (scale, shift) in enumerate(zip(placement.scale_xy, placement.shift_xy, strict=True)):
            affine[axis, axis], affine[axis, 2] = scale, shift + _pixel_shift(scale, resize)
        return cv2.warpAffine(image, affine, input_wh, flags=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
    except cv2.error as error:  # OpenCV 4 warps no side beyond 32766 pixels
        raise ValueError(f"{image.shape[1]}×{image.shape[0]} pixels: OpenCV cannot warp them ({error.err})") from None


def _pixel_shift(scale: float, resize: str) -> float:
    """What pixels, counted by whole numbers, move by more than boxes do.

    Stretched, a pixel lies in the middle of its square. In a letterbox of `models.preprocess` it lies at its corner;
    mirrored, the image is mirrored first, as if it had been taken so.
    """
    return scale / 2 - 0.5 if resize == "stretch" else min(scale, 0.0)


def _average(image: Pixels, placement: Placement) -> tuple[Pixels, Placement]:
    """The image with whole numbers of pixels averaged into one, so that bilinear sampling misses none."""
    height, width = image.shape[:2]
    factors = [max(1, math.floor(1 / abs(scale))) for scale in placement.scale_xy]
    if factors == [1, 1]:
        return image, placement
    smaller = max(1, width // factors[0]), max(1, height // factors[1])
    scale_x, scale_y = placement.scale_xy
    scale_xy = scale_x * width / smaller[0], scale_y * height / smaller[1]
    averaged = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return averaged, Placement(scale_xy, placement.shift_xy)


def move_boxes(boxes_xyxy: Boxes, placement: Placement, input_wh: Size) -> tuple[Boxes, NDArray[np.bool_]]:
    """The boxes (N, 4) in the input, clipped to it, and which of them (N,) are still to be seen: those to keep."""
    scale, shift = np.array(placement.scale_xy * 2), np.array(placement.shift_xy * 2)
    corners = (boxes_xyxy * scale + shift).reshape(-1, 2, 2)
    moved = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    clipped = np.clip(moved, 0, np.array(input_wh * 2)).astype(np.float32)
    return clipped, (clipped[:, 2:] - clipped[:, :2] >= SMALLEST_SIDE).all(axis=1)


def covered(image_wh: Size, placement: Placement, input_wh: Size) -> tuple[slice, slice]:
    """The rows and columns of the input that the image reaches."""
    whole = np.array([[0, 0, *image_wh]], np.float32)
    left, top, right, bottom = move_boxes(whole, placement, input_wh)[0][0]
    return slice(math.floor(top), math.ceil(bottom)), slice(math.floor(left), math.ceil(right))


def jitter_colours(pixels: Pixels, rng: np.random.Generator, settings: AugmentSettings) -> Pixels:
    """RGB pixels (H, W, 3) in another light. Give it the image only: black around it would turn grey."""
    if not pixels.size:
        return pixels
    matrix = draw_colours(rng, np.array(cv2.mean(pixels)[:3]), settings)
    return cv2.transform(pixels, matrix).astype(np.uint8, copy=False)


def draw_colours(
    rng: np.random.Generator, mean_rgb: NDArray[np.float64], settings: AugmentSettings
) -> NDArray[np.float64]:
    """A random matrix (3, 4), by which (R, G, B, 1) is multiplied, R to B from 0 to 255; `mean_rgb` is the image's.

    Brightness multiplies, contrast turns about the image's mean grey, saturation about each pixel's own; then the
    shift along the colours' principal components. All are linear, and the first three come to the same in any order
    as nothing is rounded or cut off between them.
    """
    amounts = np.array((settings.brightness, settings.contrast, settings.saturation))
    brightness, contrast, saturation = 1 + amounts * rng.uniform(-1, 1, 3)
    saturate = saturation * np.eye(3) + (1 - saturation) * GREY
    grey = (1 - contrast) * GREY @ mean_rgb
    light = 255 * COLOUR_AXES @ (COLOUR_SPREADS * rng.normal(0, settings.lighting, 3))
    return np.column_stack((brightness * contrast * saturate, brightness * grey + light))
