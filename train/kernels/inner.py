"""Which cells of an object's inner part are to tell its sides, and how much each counts (TTFNet, Liu et al. 2019, arXiv
1909.00700, section 3.2). Knows no image, no class and no loss.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Of a box's width and height: the part in whose cells sides are learnt (the paper's α).
INNER_SHARE = 0.54


@njit(nogil=True, cache=True)
def inner_cells(boxes_xyxy: Floats, cells_xy: Ints, images: Ints, shape: tuple[int, int, int]) -> tuple[Ints, Floats]:
    """For N objects (K, 3): object, x and y of each cell that is to tell its sides; and the weight of each (K,).

    boxes_xyxy  (N, 4) in cells, of the images (N,), with the cells (N, 2) that they lie in
    shape       of the grid: images, height, width

    The weights fall from the object's own cell as a Gaussian of the inner part, and add up to 1 for each object. A cell
    where another's Gaussian is higher is that one's; but the own cell of each object is always its own as well. Indices
    are not checked.
    """
    owners = _owners(boxes_xyxy, cells_xy, images, shape)
    most = 0
    for number in range(len(images)):
        left, top, right, bottom = _part(boxes_xyxy[number], cells_xy[number], shape)
        most += (right - left) * (bottom - top)
    cells, weights, count = np.empty((most, 3), np.int64), np.empty(most, np.float32), 0
    for number in range(len(images)):
        box, own = boxes_xyxy[number], cells_xy[number]
        left, top, right, bottom = _part(box, own, shape)
        first, total = count, 0.0
        for y in range(top, bottom):
            for x in range(left, right):
                is_own = x == own[0] and y == own[1]
                if is_own or owners[images[number], y, x] == number:
                    cells[count, 0], cells[count, 1], cells[count, 2] = number, x, y
                    weights[count] = _height(box, own, x, y)
                    total += weights[count]
                    count += 1
        weights[first:count] /= total
    return cells[:count], weights[:count]


@njit(nogil=True, cache=True)
def _owners(boxes_xyxy: Floats, cells_xy: Ints, images: Ints, shape: tuple[int, int, int]) -> NDArray[np.int32]:
    """(B, H, W) whose Gaussian is highest in a cell, of equals the first; -1 where there is none."""
    highest, owners = np.zeros(shape, np.float32), np.full(shape, -1, np.int32)
    for number in range(len(images)):
        image, box, own = images[number], boxes_xyxy[number], cells_xy[number]
        left, top, right, bottom = _part(box, own, shape)
        for y in range(top, bottom):
            for x in range(left, right):
                height = _height(box, own, x, y)
                if height > highest[image, y, x]:
                    highest[image, y, x], owners[image, y, x] = height, number
    return owners


@njit(nogil=True, cache=True)
def _part(box: Floats, own: Ints, shape: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Columns and rows of the inner part: the first, and those after the last. The object's own cell is among them."""
    across, down = int(INNER_SHARE * (box[2] - box[0]) / 2), int(INNER_SHARE * (box[3] - box[1]) / 2)
    left, top = max(own[0] - across, 0), max(own[1] - down, 0)
    return left, top, min(own[0] + across + 1, shape[2]), min(own[1] + down + 1, shape[1])


@njit(nogil=True, cache=True)
def _height(box: Floats, own: Ints, x: int, y: int) -> np.float32:
    """Of the Gaussian that has fallen to three sigmas at the inner part's edge."""
    sigma_x, sigma_y = INNER_SHARE * (box[2] - box[0]) / 6, INNER_SHARE * (box[3] - box[1]) / 6
    across, down = (x - own[0]) / sigma_x, (y - own[1]) / sigma_y
    return np.float32(math.exp(-(across * across + down * down) / 2))
