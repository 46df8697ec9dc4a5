"""Heads: what is read off the last feature map, cell by cell. Knows neither backbone nor loss.

Names and units are the same in every model: `hm` logits of the heat maps, one per class; `wh` sizes in output cells,
2 channels (width, height) or 4 (left, top, right, bottom of the cell's corner); `reg` offsets of the centre in cells.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from models.layers import SeparableConv

# So that at first every cell says "nothing here" with a score of 0.1 (Lin et al. 2017, arXiv 1708.02002, section 3.3).
HEATMAP_BIAS = -2.19


@dataclass(frozen=True, slots=True)
class Head:
    """One head, declared: pose or 3D boxes are more of these, and no backbone knows.

    loss    "focal": penalty-reduced focal loss on a heat map (equation 1 of the paper); "l1": at the objects' centres;
            "giou": there too, for sizes: how much the boxes overlap
    weight  of that loss in the sum (equation 4)
    """

    name: str
    channels: int
    loss: Literal["focal", "l1", "giou"]
    weight: float = 1.0


def detection_heads(num_classes: int) -> tuple[Head, ...]:
    """2D boxes as in section 4 of the paper: heat maps, sizes (weight 0.1) and offsets."""
    return (Head("hm", num_classes, "focal"), Head("wh", 2, "l1", 0.1), Head("reg", 2, "l1"))


def ltrb_heads(num_classes: int) -> tuple[Head, ...]:
    """Heat maps, and distances to the four sides, which make an offset needless.

    They are size and offset in one, so they weigh as an offset does: with 0.1, boxes are less exact.
    """
    return (Head("hm", num_classes, "focal"), Head("wh", 4, "l1"))


def conv_head(in_channels: int, head: Head, hidden_channels: int) -> nn.Sequential:
    """3×3 convolution, ReLU, 1×1 convolution (section 5 of the paper)."""
    last = nn.Conv2d(hidden_channels, head.channels, 1)
    _start(last, head)
    return nn.Sequential(nn.Conv2d(in_channels, hidden_channels, 3, padding=1), nn.ReLU(inplace=True), last)


def separable_head(in_channels: int, head: Head) -> "SeparableHead":
    """The head of the mobile networks."""
    module = SeparableHead(in_channels, head.channels)
    _start(module.pointwise, head)
    return module


def _start(last: nn.Conv2d, head: Head) -> None:
    if head.loss == "focal":
        nn.init.constant_(last.bias, HEATMAP_BIAS)  # type: ignore[arg-type]


class SeparableHead(SeparableConv):
    """A separable 3×3 convolution whose output lies plane by plane, whatever the memory format of its input.

    Whoever searches a heat map for peaks reads it by planes. As one matrix product the last, 1×1 convolution writes
    them so by itself; from a channels_last convolution they would have to be transposed afterwards, for 1 to 2 ms.
    A compiler lays out memory itself, and is shown the convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return super().forward(x)
        x = self.depthwise(x)
        weight, bias = self.pointwise.weight.flatten(1), self.pointwise.bias
        assert bias is not None
        planes = torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2))
        return planes.unflatten(2, x.shape[2:])
