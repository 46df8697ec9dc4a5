"""Peak search over raw heat-map logits ("Objects as Points", arXiv 1904.07850, section 4). Knows no box, no frame.

The paper takes the sigmoid of every cell, a 3 x 3 max-pool, and the top K. The sigmoid is monotonic, so the search runs
on the logits, against the threshold's logit, and a sigmoid is computed for the K winners only. A row is first asked
"does any cell reach the bar?", one vectorised pass; only rows that say yes are looked at cell by cell. Once K peaks
are held in a heap, its worst becomes the bar.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Peaks(NamedTuple):
    """N peaks, best score first; equal scores by class, then row, then column.

    scores     (N,)   float32, sigmoid of the logit
    class_ids  (N,)   int32, the heat map's channel
    cells_xy   (N, 2) float32, column and row of the cell
    sizes      (N, S) float32, the size head at the cell
    offsets    (N, 2) float32, the offset head at the cell; (N, 0) without that head
    """

    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    cells_xy: NDArray[np.float32]
    sizes: NDArray[np.float32]
    offsets: NDArray[np.float32]


def find_peaks(
    heatmap_chw: NDArray[np.float32],
    size_chw: NDArray[np.float32],
    offset_chw: NDArray[np.float32] | None,
    class_ids: NDArray[np.int32],
    score_threshold: float,
    k: int,
) -> Peaks:
    """The `k` best peaks of the channels `class_ids` whose score reaches `score_threshold`.

    heatmap_chw holds logits (before the sigmoid). A peak is a cell that none of its up to 8 neighbours exceeds: every
    cell of a plateau is one, a NaN never is. Raises ValueError where shapes or classes do not fit.
    """
    classes, height, width = heatmap_chw.shape
    if offset_chw is None:
        offset_chw = np.empty((0, height, width), np.float32)
    if size_chw.shape[1:] != (height, width) or offset_chw.shape[1:] != (height, width):
        raise ValueError(
            f"size head {size_chw.shape} and offset head {offset_chw.shape} must have the heat map's rows and columns, "
            f"{height} x {width}"
        )
    if len(class_ids) and not (class_ids.min() >= 0 and class_ids.max() < classes):
        raise ValueError(f"class ids must be 0 to {classes - 1}, the heat map's channels; got {class_ids.tolist()}")
    wanted = np.zeros(classes, np.bool_)
    wanted[class_ids] = True
    capacity = min(max(k, 0), heatmap_chw.size)
    logits, cells = _best_peaks(_frozen(heatmap_chw), wanted, logit(score_threshold), capacity)
    channel, row, column = np.unravel_index(cells, heatmap_chw.shape)
    return Peaks(
        scores=_sigmoid(logits),
        class_ids=channel.astype(np.int32),
        cells_xy=np.stack([column, row], axis=1).astype(np.float32),
        sizes=size_chw[:, row, column].T.astype(np.float32),
        offsets=offset_chw[:, row, column].T.astype(np.float32),
    )


def logit(score: float) -> np.float32:
    """The logit whose sigmoid is `score`: -inf for 0 and below, +inf for 1 and above."""
    if score <= 0:
        return np.float32(-np.inf)
    if score >= 1:
        return np.float32(np.inf)
    return np.float32(np.log(score) - np.log1p(-score))


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf the 0 that is meant
        return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def _frozen(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A contiguous read-only view (or copy): with one array type, writable or not, Numba compiles once."""
    view = np.ascontiguousarray(array, np.float32).view()
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True)
def _best_peaks(
    heatmap_chw: NDArray[np.float32], wanted: NDArray[np.bool_], threshold: np.float32, capacity: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Logits and flat indices (class, row, column) of the best `capacity` peaks, best first."""
    classes, height, width = heatmap_chw.shape
    logits = np.empty(capacity, np.float32)
    cells = np.empty(capacity, np.int64)
    held = 0
    bar = threshold
    if capacity == 0:
        return logits, cells
    for channel in range(classes):
        if not wanted[channel]:
            continue
        plane = heatmap_chw[channel]
        for row in range(height):
            if not _any_reaches(plane[row], bar):
                continue
            for column in range(width):
                value = plane[row, column]
                if not value >= bar or not _is_peak(plane, row, column):
                    continue
                cell = (channel * height + row) * width + column
                if held < capacity:
                    _sift_up(logits, cells, held, value, cell)
                    held += 1
                elif value > logits[0]:  # equal is not enough: the earlier cell stays
                    _sift_down(logits, cells, held, value, cell)
                if held == capacity:
                    bar = np.nextafter(logits[0], np.float32(np.inf))
    for last in range(held - 1, 0, -1):  # heap sort: the worst goes to the end
        value, cell = logits[last], cells[last]
        logits[last], cells[last] = logits[0], cells[0]
        _sift_down(logits, cells, last, value, cell)
    return logits[:held], cells[:held]


@njit(nogil=True, cache=True)
def _any_reaches(row_logits: NDArray[np.float32], bar: np.float32) -> np.bool_:
    """A 32-bit count without an early exit, which LLVM turns into wide compares; a NaN compares false."""
    reached = np.int32(0)
    for column in range(row_logits.size):
        reached += np.int32(row_logits[column] >= bar)
    return reached > 0


@njit(nogil=True, cache=True)
def _is_peak(plane: NDArray[np.float32], row: int, column: int) -> bool:
    height, width = plane.shape
    value = plane[row, column]
    left, right = max(column - 1, 0), min(column + 1, width - 1)
    if plane[row, left] > value or plane[row, right] > value:  # most cells that are no peak end here
        return False
    for y in (max(row - 1, 0), min(row + 1, height - 1)):
        if plane[y, left] > value or plane[y, column] > value or plane[y, right] > value:
            return False
    return True


@njit(nogil=True, cache=True)
def _worse(value: np.float32, cell: int, other_value: np.float32, other_cell: int) -> bool:
    return bool(value < other_value or (value == other_value and cell > other_cell))


@njit(nogil=True, cache=True)
def _sift_up(logits: NDArray[np.float32], cells: NDArray[np.int64], held: int, value: np.float32, cell: int) -> None:
    """Put one more peak into a heap of `held`, whose root is the worst."""
    at = held
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(value, cell, logits[parent], cells[parent]):
            break
        logits[at], cells[at] = logits[parent], cells[parent]
        at = parent
    logits[at], cells[at] = value, cell


@njit(nogil=True, cache=True)
def _sift_down(logits: NDArray[np.float32], cells: NDArray[np.int64], held: int, value: np.float32, cell: int) -> None:
    """Replace the root, the worst, of a heap of `held`."""
    at = 0
    while 2 * at + 1 < held:
        child = 2 * at + 1
        if child + 1 < held and _worse(logits[child + 1], cells[child + 1], logits[child], cells[child]):
            child += 1
        if not _worse(logits[child], cells[child], value, cell):
            break
        logits[at], cells[at] = logits[child], cells[child]
        at = child
    logits[at], cells[at] = value, cell
