"""How much a picture has changed, tile by tile, where noise does not count. Knows no frame and no threshold.

A camera's noise is another in each pixel: it goes away in averages of blocks, in which an edge that has moved stays. A
tile is as large as a small person is wide, so that one who moves is a good part of it.

Lines are flat, with their three colours side by side: so the loops over whole lines are vectorised.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

BLOCK = 4  # pixels, each way, that are averaged
TILE_BLOCKS = 4
TILE = TILE_BLOCKS * BLOCK
COLOURS = 3


def block_sums(image_hwc: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Sums over blocks of 4 x 4 pixels, of each colour: (H, W, 3) to (⌈H/4⌉, ⌈W/4⌉, 3). Those at the right and the
    lower edge may have fewer pixels. Raises ValueError for another number of colours."""
    height, width, colours = image_hwc.shape
    if colours != COLOURS:
        raise ValueError(f"a picture of {colours} colours, it must have {COLOURS}")
    lines = np.ascontiguousarray(image_hwc).reshape(height, width * COLOURS)
    lines.flags.writeable = False  # with one array type, Numba compiles once
    return _block_sums(lines).reshape(-(-height // BLOCK), -(-width // BLOCK), COLOURS)


def tile_changes(sums: NDArray[np.uint16], others: NDArray[np.uint16], height: int, width: int) -> NDArray[np.float32]:
    """For each tile of 16 x 16 pixels how far the averages of its blocks are apart, in grey levels: their mean absolute
    difference over blocks and colours, (⌈H/16⌉, ⌈W/16⌉).

    sums, others    `block_sums` of two pictures of `height` x `width`

    Raises ValueError where their shapes differ.
    """
    if sums.shape != others.shape or sums.shape[:2] != (-(-height // BLOCK), -(-width // BLOCK)):
        raise ValueError(f"block sums {sums.shape} and {others.shape} are not those of two pictures {height} x {width}")
    tiles_down, tiles_across = -(-height // TILE), -(-width // TILE)
    apart = _tiles_apart(sums.reshape(len(sums), -1), others.reshape(len(others), -1), tiles_down, tiles_across)
    heights = np.minimum(TILE, height - TILE * np.arange(tiles_down))
    widths = np.minimum(TILE, width - TILE * np.arange(tiles_across))
    return (apart / (COLOURS * np.outer(heights, widths))).astype(np.float32)


@njit(nogil=True, cache=True)
def _block_sums(lines: NDArray[np.uint8]) -> NDArray[np.uint16]:
    height, size = lines.shape
    sums = np.zeros((-(-height // BLOCK), -(-size // (BLOCK * COLOURS)) * COLOURS), np.uint16)
    columns = np.empty(size, np.uint16)
    for down in range(len(sums)):
        columns[:] = 0
        for row in range(down * BLOCK, min((down + 1) * BLOCK, height)):
            _add(columns, lines[row])
        _add_columns(sums[down], columns)
    return sums


@njit(nogil=True, cache=True)
def _add(columns: NDArray[np.uint16], line: NDArray[np.uint8]) -> None:
    for at in range(columns.size):
        columns[at] += line[at]


@njit(nogil=True, cache=True)
def _add_columns(sums: NDArray[np.uint16], columns: NDArray[np.uint16]) -> None:
    """Four pixels to a block; what is left at the right edge is less."""
    whole = columns.size // (BLOCK * COLOURS)
    for block in range(whole):
        first = block * BLOCK * COLOURS
        for colour in range(COLOURS):
            at = first + colour
            sums[block * COLOURS + colour] = columns[at] + columns[at + 3] + columns[at + 6] + columns[at + 9]
    for at in range(whole * BLOCK * COLOURS, columns.size):
        sums[whole * COLOURS + at % COLOURS] += columns[at]


@njit(nogil=True, cache=True)
def _tiles_apart(
    sums: NDArray[np.uint16], others: NDArray[np.uint16], tiles_down: int, tiles_across: int
) -> NDArray[np.int64]:
    """The absolute differences of the sums, summed up for each tile."""
    blocks_down, size = sums.shape
    apart = np.zeros((tiles_down, tiles_across), np.int64)
    line = np.empty(size, np.int32)
    for down in range(tiles_down):
        line[:] = 0
        for row in range(down * TILE_BLOCKS, min((down + 1) * TILE_BLOCKS, blocks_down)):
            _add_apart(line, sums[row], others[row])
        for across in range(tiles_across):
            first = across * TILE_BLOCKS * COLOURS
            for at in range(first, min(first + TILE_BLOCKS * COLOURS, size)):
                apart[down, across] += line[at]
    return apart


@njit(nogil=True, cache=True)
def _add_apart(line: NDArray[np.int32], sums: NDArray[np.uint16], others: NDArray[np.uint16]) -> None:
    for at in range(line.size):
        line[at] += abs(np.int32(sums[at]) - np.int32(others[at]))


def warm_up() -> None:
    """Compile, or load from disk: seconds the first frame need not wait."""
    sums = block_sums(np.zeros((TILE, TILE, COLOURS), np.uint8))
    tile_changes(sums, sums, TILE, TILE)
