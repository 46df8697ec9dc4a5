"""Optimal assignment with the right to stay alone. Knows no box, no track.

Shortest augmenting paths (Jonker and Volgenant 1987, in the form of Crouse, "On implementing 2D rectangular assignment
algorithms", IEEE TAES 2016, section IV), where each row has one more column of its own that costs nothing: "unmatched".
So a gate is part of the optimum instead of a filter after it, any shape will do, and a search ends as soon as staying
alone is the cheapest way on.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNMATCHED = -1


@njit(nogil=True, cache=True)
def assign(gains: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column of each row (N,), or `UNMATCHED`, for which the sum of matched gains is largest.

    gains is (N, M) float64. Only finite gains above 0 are matched. The same gains give the same answer, ties or not.
    """
    rows, columns = gains.shape
    column_of = np.full(rows, UNMATCHED, np.int64)
    row_of = np.full(columns, UNMATCHED, np.int64)
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    reach, came_from = np.empty(columns), np.empty(columns, np.int64)
    settled = np.empty(columns, np.bool_)
    for row in range(rows):
        reach[:] = np.inf
        settled[:] = False
        end, loser, distance = _search(gains, row, row_of, row_price, column_price, reach, came_from, settled)
        row_price[row] += distance
        for column in np.flatnonzero(settled):
            row_price[row_of[column]] += distance - reach[column]
            column_price[column] -= distance - reach[column]
        if end == UNMATCHED:
            end, column_of[loser] = column_of[loser], UNMATCHED
        while end != UNMATCHED:  # every row on the way back takes the column it reached, and leaves the one it had
            taker = came_from[end]
            row_of[end] = taker
            end, column_of[taker] = column_of[taker], end
    return column_of


@njit(nogil=True, cache=True)
def _search(
    gains: NDArray[np.float64],
    start: int,
    row_of: NDArray[np.int64],
    row_price: NDArray[np.float64],
    column_price: NDArray[np.float64],
    reach: NDArray[np.float64],
    came_from: NDArray[np.int64],
    settled: NDArray[np.bool_],
) -> tuple[int, int, float]:
    """The cheapest way from row `start` to a free column, or to a row that is to be left alone (Dijkstra).

    Returns (column, -1, distance) or (-1, row, distance); writes `reach`, `came_from` and `settled`.
    """
    row, distance = start, 0.0
    loser, alone = start, np.inf
    while True:
        if distance - row_price[row] < alone:
            loser, alone = row, distance - row_price[row]
        nearest, shortest = UNMATCHED, np.inf
        for column in range(row_of.size):
            if settled[column]:
                continue
            if 0 < gains[row, column] < np.inf:
                length = distance - gains[row, column] - row_price[row] - column_price[column]
                if length < reach[column]:
                    reach[column], came_from[column] = length, row
            if reach[column] < shortest:
                nearest, shortest = column, reach[column]
        if alone <= shortest:
            return UNMATCHED, loser, alone
        if row_of[nearest] == UNMATCHED:
            return nearest, UNMATCHED, shortest
        settled[nearest] = True
        row, distance = row_of[nearest], shortest
