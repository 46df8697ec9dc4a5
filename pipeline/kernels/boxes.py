"""From the peaks of a frame's heads to boxes in pixels of the source frame. Knows no model, no message.

Two size heads exist. "Objects as Points" (arXiv 1904.07850, section 3) regresses width and height around the peak plus
its sub-cell offset; the four-channel form regresses the distances to the left, top, right and bottom edge.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.peaks import Peaks, find_peaks

WITHOUT_OFFSET = np.float32(0.5)  # a peak's best guess inside its cell, where no head tells


def decode_heads(
    heatmap_chw: NDArray[np.float32],
    size_chw: NDArray[np.float32],
    offset_chw: NDArray[np.float32] | None,
    class_ids: NDArray[np.int32],
    score_threshold: float,
    k: int,
    stride: float,
    input_to_source: tuple[float, float, float, float],
    width: int,
    height: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Boxes (N, 4), scores (N,) and class ids (N,) of one frame's heads, best score first.

    heatmap_chw      (C, H, W) logits
    size_chw         (2, H, W) width and height, or (4, H, W) left, top, right and bottom distance, in cells
    offset_chw       (2, H, W) x and y within the cell, or None
    class_ids        the channels to search
    stride           network input pixels to a cell
    input_to_source  scale_x, scale_y, shift_x, shift_y: source = scale * input + shift
    width, height    of the source frame, to which boxes are clipped
    """
    peaks = find_peaks(heatmap_chw, size_chw, offset_chw, class_ids, score_threshold, k)
    boxes = to_source_pixels(boxes_in_cells(peaks), stride, input_to_source, width, height)
    return boxes, peaks.scores, peaks.class_ids


def place_candidates(
    candidates: NDArray[np.float32],
    score_threshold: float,
    stride: float,
    input_to_source: tuple[float, float, float, float],
    width: int,
    height: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """As `decode_heads`, of peaks found elsewhere: (K, 6) of x1, y1, x2, y2 in cells, score, class, best first."""
    scores = candidates[:, 4]
    found = candidates[(scores >= score_threshold) & (scores > 0)]  # 0: fewer peaks than places for them
    boxes = to_source_pixels(found[:, :4], stride, input_to_source, width, height)
    return boxes, found[:, 4].copy(), found[:, 5].astype(np.int32)


def boxes_in_cells(peaks: Peaks) -> NDArray[np.float32]:
    """Left, top, right, bottom (N, 4) in heat-map cells."""
    if peaks.sizes.shape[1] == 4:
        return np.hstack([peaks.cells_xy - peaks.sizes[:, :2], peaks.cells_xy + peaks.sizes[:, 2:]])
    within_cell = peaks.offsets if peaks.offsets.shape[1] else WITHOUT_OFFSET
    centres, halves = peaks.cells_xy + within_cell, peaks.sizes / 2
    return np.hstack([centres - halves, centres + halves])


def to_source_pixels(
    boxes_cells: NDArray[np.float32],
    stride: float,
    input_to_source: tuple[float, float, float, float],
    width: int,
    height: int,
) -> NDArray[np.float32]:
    """Boxes (N, 4) in cells to pixels of the source frame, clipped to it."""
    scale_x, scale_y, shift_x, shift_y = input_to_source
    scale = np.array([scale_x, scale_y, scale_x, scale_y], np.float32) * np.float32(stride)
    shift = np.array([shift_x, shift_y, shift_x, shift_y], np.float32)
    far_corner = np.array([width, height, width, height], np.float32)
    return np.clip(boxes_cells * scale + shift, np.float32(0), far_corner)


def warm_up() -> None:
    """Compile, or load from disk, what `decode_heads` needs: seconds the first frame need not wait."""
    heads = np.zeros((2, 3, 3), np.float32)
    decode_heads(heads, heads, None, np.zeros(1, np.int32), 0.5, 1, 4, (1, 1, 0, 0), 12, 12)
