"""Heads: what is read off the last feature map, cell by cell. Knows neither backbone nor loss.

Names and units are the same in every model: `hm` logits of the heat maps, one per class; `wh` sizes in output cells,
2 channels (width, height) or 4 (left, top, right, bottom of the cell's corner); `reg` offsets of the centre in cells.
"""

import torch
from torch import Tensor, nn

from models.layers import SeparableConv


class SeparableHead(SeparableConv):
    """A separable 3×3 convolution whose output lies plane by plane, whatever the memory format of its input.

    Whoever searches a heat map for peaks reads it by planes. As one matrix product the last, 1×1 convolution writes
    them so by itself; from a channels_last convolution they would have to be transposed afterwards, for 1 to 2 ms.
    """

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x)
        weight, bias = self.pointwise.weight.flatten(1), self.pointwise.bias
        assert bias is not None
        planes = torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2))
        return planes.unflatten(2, x.shape[2:])


def separable_heads(in_channels: int, channels: dict[str, int]) -> nn.ModuleDict:
    """One separable 3×3 convolution a head: {name: channels}."""
    return nn.ModuleDict({name: SeparableHead(in_channels, count) for name, count in channels.items()})
