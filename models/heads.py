"""Heads: what is read off the last feature map, cell by cell. Knows neither backbone nor loss.

Names and units are the same in every model: `hm` logits of the heat maps, one per class; `wh` sizes in output cells,
2 channels (width, height) or 4 (left, top, right, bottom of the cell's corner); `reg` offsets of the centre in cells.
"""

from torch import nn

from models.layers import SeparableConv


def separable_heads(in_channels: int, channels: dict[str, int]) -> nn.ModuleDict:
    """One separable 3×3 convolution a head: {name: channels}."""
    return nn.ModuleDict({name: SeparableConv(in_channels, count) for name, count in channels.items()})
