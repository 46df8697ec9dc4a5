"""The upsampling path of the mobile model: from stride 32 back to stride 4. Knows neither backbone nor heads."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import Conv, SeparableConv, SqueezeExcite, upsample2x


class Lateral(nn.Module):
    """A backbone map on its way across: quarter of the channels, then a separable 5×5."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.reduce = Conv(in_channels, in_channels // 4, activation=F.relu)
        self.separable = SeparableConv(in_channels // 4, out_channels, kernel_size=5)

    def forward(self, x: Tensor) -> Tensor:
        return self.separable(self.reduce(x))


class Upsample(nn.Module):
    """Two separable convolutions of different reach, summed, then twice the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.near = SeparableConv(in_channels, out_channels, kernel_size=3)
        self.far = SeparableConv(in_channels, out_channels, kernel_size=5)

    def forward(self, x: Tensor) -> Tensor:
        return upsample2x(self.near(x).add_(self.far(x)))


class UpsamplingNeck(nn.Module):
    """Maps of stride 4, 8, 16 and 32 to one map of stride 4 with `out_channels` channels.

    Three times over: the coarser map is upsampled and put beside the finer one; channel attention closes.
    """

    widths = (64, 96, 128)  # channels each side brings at stride 4, 8, 16
    out_channels = 2 * widths[0]

    def __init__(self, in_channels: Sequence[int]) -> None:
        super().__init__()
        *finer, coarsest = in_channels
        below = (2 * self.widths[1], 2 * self.widths[2], coarsest)
        self.laterals = nn.ModuleList(Lateral(*pair) for pair in zip(finer, self.widths, strict=True))
        self.upsamples = nn.ModuleList(Upsample(*pair) for pair in zip(below, self.widths, strict=True))
        squeezed = self.out_channels // 4
        self.attention = SqueezeExcite(self.out_channels, squeezed, gate=torch.sigmoid, gate_bias=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        *finer, x = features
        for level in (2, 1, 0):
            across = self.laterals[level](finer[level])
            x = F.relu(torch.cat((across, self.upsamples[level](x)), dim=1), inplace=True)
        return self.attention(x)
