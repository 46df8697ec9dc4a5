"""From heads to boxes of the source frame: sizes, offsets, stride, affine, clipping; and overlaps."""

import numpy as np
import pytest

from pipeline.kernels.boxes import decode_heads
from pipeline.kernels.tracks import iou

SAME = (1.0, 1.0, 0.0, 0.0)
WIDE = 10_000


def heads(size: list[float], offset: list[float] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Heads 4 rows by 8 columns with one peak, class 1, at column 5 and row 2."""
    heatmap = np.full((3, 4, 8), -9, np.float32)
    heatmap[1, 2, 5] = 2
    size_chw = np.zeros((len(size), 4, 8), np.float32)
    size_chw[:, 2, 5] = size
    if offset is None:
        return heatmap, size_chw, None
    offset_chw = np.zeros((2, 4, 8), np.float32)
    offset_chw[:, 2, 5] = offset
    return heatmap, size_chw, offset_chw


@pytest.mark.parametrize(
    ("name", "size", "offset", "stride", "affine", "expected"),
    [
        ("size around centre and offset", [2, 4], [0.25, 0.75], 1, SAME, [4.25, 0.75, 6.25, 4.75]),
        ("without an offset, around the cell's middle", [2, 4], None, 1, SAME, [4.5, 0.5, 6.5, 4.5]),
        ("distances from the corner", [1, 2, 3, 0.5], None, 1, SAME, [4, 0, 8, 2.5]),
        ("stride", [1, 2, 3, 0.5], None, 4, SAME, [16, 0, 32, 10]),
        ("stretched", [1, 2, 3, 0.5], None, 4, (1.5, 0.5, 0, 0), [24, 0, 48, 5]),
        ("letterboxed", [1, 2, 3, 0.5], None, 4, (2.0, 2.0, -10, 6), [22, 6, 54, 26]),
    ],
)
def test_decodes_to_source_pixels(
    name: str,
    size: list[float],
    offset: list[float] | None,
    stride: int,
    affine: tuple[float, float, float, float],
    expected: list[float],
) -> None:
    boxes, scores, class_ids = decode_heads(*heads(size, offset), np.arange(3), 0.5, 10, stride, affine, WIDE, WIDE)
    np.testing.assert_allclose(boxes, [expected], err_msg=name)
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-2))], rtol=1e-6)
    assert class_ids.tolist() == [1]
    assert (boxes.dtype, scores.dtype, class_ids.dtype) == (np.float32, np.float32, np.int32)


def test_clips_to_the_frame() -> None:
    boxes, _, _ = decode_heads(*heads([20, 20, 20, 20], None), np.arange(3), 0.5, 10, 1, SAME, 7, 3)
    np.testing.assert_array_equal(boxes, [[0, 0, 7, 3]])


@pytest.mark.parametrize("channels", [2, 4])
def test_no_peak_gives_empty_arrays(channels: int) -> None:
    arrays = decode_heads(*heads([1.0] * channels, None), np.arange(3), 0.99, 10, 4, SAME, 7, 3)
    assert [array.shape for array in arrays] == [(0, 4), (0,), (0,)]
    assert [array.dtype for array in arrays] == [np.float32, np.float32, np.int32]


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("itself", [0, 0, 4, 2], 1.0),
        ("half of it", [0, 0, 2, 2], 0.5),
        ("a corner", [3, 1, 5, 3], 1 / 11),
        ("touching", [4, 0, 8, 2], 0.0),
        ("apart", [9, 9, 10, 10], 0.0),
        ("no area", [1, 1, 1, 1], 0.0),
        ("not a number", [np.nan, 0, 4, 2], 0.0),
    ],
)
def test_overlap(name: str, other: list[float], expected: float) -> None:
    box, others = np.array([[0.0, 0.0, 4.0, 2.0]]), np.array([other], np.float64)
    assert iou(box, others)[0, 0] == pytest.approx(expected), name
    assert iou(others, box)[0, 0] == pytest.approx(expected), name


def test_overlap_of_nothing() -> None:
    assert iou(np.empty((0, 4)), np.empty((3, 4))).shape == (0, 3)
