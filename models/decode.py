"""From heat maps to boxes, in plain torch (Zhou et al. 2019, arXiv 1904.07850, section 4.1).

The readable reference of the fast peak search in the pipeline, and what training evaluates with. Knows no network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def decode(heatmap_bchw: Tensor, size_bchw: Tensor, offset_bchw: Tensor | None = None, k: int = 100) -> Tensor:
    """The `k` best peaks of each image, best first: (B, k, 6) of x1, y1, x2, y2 in output cells, score, class.

    heatmap_bchw  (B, C, H, W) logits; a peak is a cell that none of its eight neighbours of the same class exceeds
    size_bchw     (B, 2, H, W) width, height, or (B, 4, H, W) distances to left, top, right, bottom; in cells
    offset_bchw   (B, 2, H, W) where in its cell the point lies: x, y

    Without offsets the point of a (width, height) box is the middle of its cell, as in the paper's code; that of a
    (left, top, right, bottom) box is the cell's corner, from which such models are trained to measure.
    Where there are fewer than `k` peaks, the rest has score 0 and no meaning; k is at most C × H × W.
    """
    return decode_scores(heatmap_bchw.sigmoid(), size_bchw, offset_bchw, k)


def decode_scores(scores_bchw: Tensor, size_bchw: Tensor, offset_bchw: Tensor | None = None, k: int = 100) -> Tensor:
    """`decode` from scores (B, C, H, W), 0 to 1, as heat maps averaged over several views of an image are."""
    _, channels, height, width = scores_bchw.shape
    top, index = keep_peaks(scores_bchw).flatten(1).topk(min(k, channels * height * width))
    cell = index % (height * width)
    size = gather_cells(size_bchw, cell)
    points = torch.stack((cell % width, cell // width), dim=2).to(size.dtype)
    if offset_bchw is not None:
        points = points + gather_cells(offset_bchw, cell)
    elif size.shape[2] == 2:
        points = points + 0.5
    before, after = (size / 2, size / 2) if size.shape[2] == 2 else (size[..., :2], size[..., 2:])
    classes = (index // (height * width)).to(size.dtype)
    return torch.cat((points - before, points + after, top[..., None], classes[..., None]), dim=2)


def keep_peaks(scores_bchw: Tensor) -> Tensor:
    """Zero wherever one of the eight neighbours is higher; equal neighbours both stay."""
    highest = F.max_pool2d(scores_bchw, kernel_size=3, stride=1, padding=1)
    return scores_bchw * (highest == scores_bchw)


def gather_cells(maps_bchw: Tensor, cell: Tensor) -> Tensor:
    """The channels (B, K, C) of the cells (B, K), counted along the rows."""
    return maps_bchw.flatten(2).gather(2, cell[:, None].expand(-1, maps_bchw.shape[1], -1)).transpose(1, 2)
