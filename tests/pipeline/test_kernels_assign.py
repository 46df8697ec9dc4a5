"""The assignment against every possible assignment, and against SciPy where that is too many."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from pipeline.kernels.tracks import UNMATCHED, assign

GAINS = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: npst.arrays(
        np.float64, shape, elements=st.one_of(st.integers(-2, 3).map(float), st.floats(-1, 1, width=16))
    )
)


def best_total(gains: NDArray[np.float64]) -> float:
    """The largest sum of positive gains over all ways to pair rows and columns."""
    worth = np.maximum(gains if gains.shape[0] <= gains.shape[1] else gains.T, 0)
    rows = range(len(worth))
    return max(
        sum(worth[i, j] for i, j in zip(rows, way, strict=True))
        for way in permutations(range(worth.shape[1]), len(worth))
    )


def total(gains: NDArray[np.float64], column_of: NDArray[np.int64]) -> float:
    rows = np.flatnonzero(column_of != UNMATCHED)
    assert len(set(column_of[rows])) == len(rows), "a column was given twice"
    assert (gains[rows, column_of[rows]] > 0).all(), "a pair that gains nothing was matched"
    return float(gains[rows, column_of[rows]].sum())


@settings(max_examples=300)
@given(GAINS)
def test_no_other_assignment_gains_more(gains: NDArray[np.float64]) -> None:
    assert total(gains, assign(gains)) == pytest.approx(best_total(gains))


@pytest.mark.parametrize("shape", [(1, 90), (90, 1), (40, 60), (60, 40), (80, 80)])
@pytest.mark.parametrize("gate", [0.0, 0.5, 0.95])
def test_gains_what_scipy_gains(shape: tuple[int, int], gate: float) -> None:
    optimize = pytest.importorskip("scipy.optimize", reason="SciPy comes with the dev extra")
    gains = np.random.default_rng(0).random(shape) - gate
    rows, columns = optimize.linear_sum_assignment(-np.maximum(gains, 0))
    assert total(gains, assign(gains)) == pytest.approx(np.maximum(gains, 0)[rows, columns].sum())


@pytest.mark.parametrize(
    ("name", "gains", "expected"),
    [
        ("nothing", np.zeros((0, 0)), []),
        ("no columns", np.zeros((2, 0)), [-1, -1]),
        ("no rows", np.zeros((0, 2)), []),
        ("nothing to gain", np.zeros((2, 2)), [-1, -1]),
        ("one pair", [[0.5]], [0]),
        ("the sum counts, not the best pair", [[3.0, 2.0], [2.0, 0.0]], [1, 0]),
        ("rather alone than at a loss for all", [[3.0, 0.5], [2.0, -1.0]], [0, -1]),
        ("more rows than columns", [[1.0], [2.0], [1.5]], [-1, 0, -1]),
        ("NaN and infinity match nobody", [[np.nan, 1.0], [np.inf, np.nan]], [1, -1]),
        ("a tie goes to the first", [[1.0, 1.0], [1.0, 1.0]], [0, 1]),
        ("a tie for one column goes to the first row", [[1.0], [1.0]], [0, -1]),
    ],
)
def test_edges(name: str, gains: list[list[float]], expected: list[int]) -> None:
    assert assign(np.array(gains, np.float64)).tolist() == expected, name
