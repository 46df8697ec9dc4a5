"""The peak search against the fixtures of the reference decode and against a slow, plain search."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from pipeline.kernels.boxes import boxes_in_cells
from pipeline.kernels.peaks import Peaks, find_peaks, logit
from tests.kit.places import DATA

Cell = tuple[float, int, int, int]


def plain_peaks(heatmap_chw: NDArray[np.float32], class_ids: list[int], threshold: float, k: int) -> list[Cell]:
    """(logit, class, row, column) of the best k peaks: every cell against every neighbour, sorted once."""
    _, height, width = heatmap_chw.shape
    found = []
    for channel in sorted(set(class_ids)):
        for y in range(height):
            for x in range(width):
                value = heatmap_chw[channel, y, x]
                around = heatmap_chw[channel, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                if value >= logit(threshold) and not (around > value).any():
                    found.append((float(value), channel, y, x))
    return sorted(found, key=lambda cell: (-cell[0], *cell[1:]))[:k]


def search(heatmap_chw: NDArray[np.float32], class_ids: list[int], threshold: float, k: int) -> Peaks:
    size_chw = np.zeros((2, *heatmap_chw.shape[1:]), np.float32)
    return find_peaks(heatmap_chw, size_chw, None, np.array(class_ids, np.int32), threshold, k)


def cells(peaks: Peaks) -> list[tuple[int, int, int]]:
    return [(int(c), int(y), int(x)) for c, (x, y) in zip(peaks.class_ids, peaks.cells_xy, strict=True)]


FEW_VALUES = st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 0.5, 3.0, math.inf, math.nan])
ANY_VALUE = st.floats(width=32)
HEATMAPS = npst.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7).flatmap(
    lambda shape: npst.arrays(np.float32, shape, elements=st.one_of(FEW_VALUES, ANY_VALUE))
)


@settings(max_examples=300)
@given(
    heatmap_chw=HEATMAPS,
    classes=st.data(),
    threshold=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    k=st.integers(0, 60),
)
def test_equals_the_plain_search(
    heatmap_chw: NDArray[np.float32], classes: st.DataObject, threshold: float, k: int
) -> None:
    class_ids = classes.draw(st.lists(st.integers(0, len(heatmap_chw) - 1), max_size=5))
    expected = plain_peaks(heatmap_chw, class_ids, threshold, k)
    peaks = search(heatmap_chw, class_ids, threshold, k)
    assert cells(peaks) == [cell[1:] for cell in expected]
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-np.array([cell[0] for cell in expected])))
    np.testing.assert_allclose(peaks.scores, scores, atol=1e-7)


@pytest.mark.parametrize("k", [1, 10, 100, 5000])
def test_equals_the_plain_search_on_noise_when_the_bar_rises(k: int) -> None:
    heatmap_chw = (1.5 * np.random.default_rng(k).standard_normal((6, 33, 70)) - 3).astype(np.float32)
    expected = plain_peaks(heatmap_chw, list(range(6)), 0.0, k)
    assert cells(search(heatmap_chw, list(range(6)), 0.0, k)) == [cell[1:] for cell in expected]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_equals_the_reference_decode(number: int) -> None:
    with np.load(DATA / f"models_decode_{number}.npz") as fixture:
        seed, k, dets = int(fixture["seed"]), int(fixture["K"]), fixture["dets"]
        batch, classes, height, width = (int(side) for side in fixture["shape"])
    rng = np.random.default_rng(seed)
    heatmaps = 1.5 * rng.standard_normal((batch, classes, height, width)).astype(np.float32) - 3
    sizes = 10 * np.abs(rng.standard_normal((batch, 2, height, width)).astype(np.float32))
    offsets = rng.uniform(0, 1, (batch, 2, height, width)).astype(np.float32)
    for heatmap, size, offset, expected in zip(heatmaps, sizes, offsets, dets, strict=True):
        peaks = find_peaks(heatmap, size, offset, np.arange(classes, dtype=np.int32), 0.0, k)
        found = np.hstack([boxes_in_cells(peaks), peaks.scores[:, None], peaks.class_ids[:, None]])
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "heatmap", "threshold", "k", "expected"),
    [
        ("no cell", np.zeros((1, 0, 0)), 0.0, 5, []),
        ("k of 0", np.zeros((1, 2, 2)), 0.0, 0, []),
        ("one cell", np.zeros((1, 1, 1)), 0.5, 5, [(0, 0, 0)]),
        ("just below the threshold", np.full((1, 1, 1), -1e-3), 0.5, 5, []),
        ("only NaN", np.full((1, 2, 2), np.nan), 0.0, 5, []),
        ("NaN hides no neighbour", np.array([[[np.nan, 1.0]]]), 0.0, 5, [(0, 0, 1)]),
        ("a plateau, the first cells of it", np.ones((1, 2, 2)), 0.0, 3, [(0, 0, 0), (0, 0, 1), (0, 1, 0)]),
        ("equal scores by class", np.ones((2, 1, 1)), 0.0, 5, [(0, 0, 0), (1, 0, 0)]),
        ("infinities", np.array([[[np.inf, 0.0, -np.inf, np.inf]]]), 1.0, 5, [(0, 0, 0), (0, 0, 3)]),
    ],
)
def test_edges(
    name: str, heatmap: NDArray[np.float64], threshold: float, k: int, expected: list[tuple[int, int, int]]
) -> None:
    peaks = search(heatmap.astype(np.float32), list(range(len(heatmap))), threshold, k)
    assert cells(peaks) == expected, name


def test_searches_only_the_classes_asked_for_in_any_order() -> None:
    heatmap_chw = np.zeros((4, 1, 1), np.float32)
    assert cells(search(heatmap_chw, [], 0.0, 9)) == []
    assert cells(search(heatmap_chw, [3, 1, 3], 0.0, 9)) == [(1, 0, 0), (3, 0, 0)]


def test_gathers_sizes_and_offsets_at_the_peaks() -> None:
    rng = np.random.default_rng(0)
    heatmap, size, offset = (rng.standard_normal((c, 5, 6)).astype(np.float32) for c in (3, 4, 2))
    peaks = find_peaks(heatmap, size, offset, np.arange(3, dtype=np.int32), 0.0, 8)
    for i, (_, y, x) in enumerate(cells(peaks)):
        np.testing.assert_array_equal(peaks.sizes[i], size[:, y, x])
        np.testing.assert_array_equal(peaks.offsets[i], offset[:, y, x])


def test_takes_read_only_and_strided_maps() -> None:
    channels_last = np.random.default_rng(0).standard_normal((8, 9, 3)).astype(np.float32)
    channels_last.flags.writeable = False
    strided = channels_last.transpose(2, 0, 1)
    expected = [cell[1:] for cell in plain_peaks(strided, [0, 1, 2], 0.0, 20)]
    assert cells(search(strided, [0, 1, 2], 0.0, 20)) == expected


def test_says_what_does_not_fit() -> None:
    heatmap = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ValueError, match=r"size head \(2, 4, 3\).*3 x 3"):
        find_peaks(heatmap, np.zeros((2, 4, 3), np.float32), None, np.zeros(1, np.int32), 0.5, 1)
    with pytest.raises(ValueError, match=r"0 to 1.*\[2\]"):
        search(heatmap, [2], 0.5, 1)
    with pytest.raises(ValueError, match=r"\[-1\]"):
        search(heatmap, [-1], 0.5, 1)
