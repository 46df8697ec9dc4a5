"""Changes by tile against a slow and plain way to reckon them, on pictures of any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.kernels.tiles import BLOCK, TILE, block_sums, tile_changes

SIDES = st.integers(1, 40)


def plain_sums(image_hwc: NDArray[np.uint8]) -> NDArray[np.int64]:
    height, width, channels = image_hwc.shape
    sums = np.zeros((-(-height // BLOCK), -(-width // BLOCK), channels), np.int64)
    for row in range(height):
        for column in range(width):
            sums[row // BLOCK, column // BLOCK] += image_hwc[row, column]
    return sums


def plain_changes(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Each block's average counts as often as the block has pixels."""
    height, width, _ = one.shape
    changes = np.zeros((-(-height // TILE), -(-width // TILE)))
    for top in range(0, height, BLOCK):
        for left in range(0, width, BLOCK):
            block = np.s_[top : top + BLOCK, left : left + BLOCK]
            apart = np.abs(one[block].mean((0, 1)) - other[block].mean((0, 1))).sum()
            changes[top // TILE, left // TILE] += apart * one[block].shape[0] * one[block].shape[1]
    for down in range(changes.shape[0]):
        for across in range(changes.shape[1]):
            changes[down, across] /= one[down * TILE :, across * TILE :][:TILE, :TILE].size
    return changes


def pictures(height: int, width: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.default_rng(seed)
    one = random.integers(0, 256, (height, width, 3), np.uint8)
    other = np.where(random.random(one.shape) < 0.3, random.integers(0, 256, one.shape, np.uint8), one)
    return one, other


@settings(max_examples=60)
@given(SIDES, SIDES, st.integers(0, 1000))
def test_sums_and_changes_are_those_of_the_plain_way(height: int, width: int, seed: int) -> None:
    one, other = pictures(height, width, seed)
    np.testing.assert_array_equal(block_sums(one), plain_sums(one))
    changes = tile_changes(block_sums(one), block_sums(other), height, width)
    np.testing.assert_allclose(changes, plain_changes(one, other), rtol=1e-5, atol=1e-5)


def test_the_largest_sums_do_not_overflow() -> None:
    white, black = np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)
    assert (tile_changes(block_sums(white), block_sums(black), 32, 32) == 255).all()


def test_a_picture_of_which_only_a_part_is_looked_at_is_read_as_it_lies() -> None:
    wide = pictures(32, 64, 0)[0]
    part = wide[:, 8:40]
    assert not part.flags.c_contiguous
    np.testing.assert_array_equal(block_sums(part), plain_sums(part))
    wide.flags.writeable = False
    np.testing.assert_array_equal(block_sums(wide), plain_sums(wide))


def test_pictures_of_two_sizes_or_of_other_colours_are_not_compared() -> None:
    small, large = (block_sums(np.zeros((side, side, 3), np.uint8)) for side in (16, 32))
    with pytest.raises(ValueError, match="a picture of 4 colours"):
        block_sums(np.zeros((16, 16, 4), np.uint8))
    with pytest.raises(ValueError, match="are not those of two pictures 32 x 32"):
        tile_changes(small, large, 32, 32)
