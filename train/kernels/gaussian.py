"""Draws heat maps: a Gaussian for each object (arXiv 1904.07850, section 3), -1 where nothing is to be learnt.

The Gaussian of an object is a product of one along the row and one down the column: 2r + 1 exponentials make (2r + 1)²
cells. Only the cells it covers are touched. Knows no box: an object has a cell and a radius.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCKED = np.float32(-1.0)


@njit(nogil=True, cache=True)
def splat(heatmap_bchw: Floats, peaks: Ints) -> None:
    """Raises the heat maps to the Gaussians of N objects; where they overlap the greater stays.

    peaks  (N, 5): image, class, x, y, radius r. The Gaussian is 1 at (x, y), has σ = (2r + 1) / 6, and ends after r
           cells in x and y. Indices are not checked.
    """
    height, width = heatmap_bchw.shape[2:]
    for image, channel, x, y, radius in peaks:
        profile = _profile(radius)
        plane = heatmap_bchw[image, channel]
        left, right = max(x - radius, 0), min(x + radius + 1, width)
        across = profile[left - x + radius : right - x + radius]
        for row in range(max(y - radius, 0), min(y + radius + 1, height)):
            _raise_to(plane[row, left:right], across, profile[row - y + radius])


@njit(nogil=True, cache=True)
def block(heatmap_bchw: Floats, regions: Ints) -> None:
    """Writes -1 into K regions (K, 6): image, class, first column and row, and those after the last; unchecked.

    Splats drawn afterwards overwrite it.
    """
    for image, channel, left, top, right, bottom in regions:
        heatmap_bchw[image, channel, top:bottom, left:right] = BLOCKED


@njit(nogil=True, cache=True)
def _profile(radius: int) -> Floats:
    """The Gaussian along one line, from -radius to radius."""
    sigma = (2 * radius + 1) / 6
    profile = np.empty(2 * radius + 1, np.float32)
    for i in range(2 * radius + 1):
        profile[i] = math.exp(-((i - radius) ** 2) / (2 * sigma * sigma))
    return profile


@njit(nogil=True, cache=True)
def _raise_to(cells: Floats, across: Floats, down: np.float32) -> None:
    """One row; without a branch, so that it becomes vector instructions."""
    for i in range(cells.size):
        value = across[i] * down
        cells[i] = value if value > cells[i] else cells[i]
