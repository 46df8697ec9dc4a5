"""The few layers the mobile networks are made of. Knows no network.

Padding and resizing follow TensorFlow's rules, with which the shipped weights were trained: they decide where a pixel
lands, and half a cell of difference is half a cell in every box.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Callable[..., Tensor]  # F.relu, F.hardswish: takes inplace=


class Conv(nn.Conv2d):
    """Convolution with bias (a folded batch norm), SAME padding and an activation; stride 1 or 2, odd kernel.

    At stride 2 and an even side SAME pads one pixel less before than after. To pad by hand would copy the input, the
    largest tensor around; instead the convolution pads evenly, which yields one row and column too many at the front,
    and the activation, which writes a new tensor anyway, reads past them. A compiler makes padding by hand part of the
    convolution, and is shown that.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        activation: Activation | None = None,
    ) -> None:
        padding = kernel_size // 2 + (stride - 1)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            x = self._padded_by_hand(x)
            return x if self.activation is None else self.activation(x)
        x = super().forward(x)
        if self.stride[0] == 1:
            return x if self.activation is None else self.activation(x, inplace=True)
        x = x[:, :, 1:, 1:]
        return x.contiguous() if self.activation is None else self.activation(x)

    def _padded_by_hand(self, x: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, before, groups=self.groups)


def depthwise(channels: int, kernel_size: int, stride: int = 1, activation: Activation | None = None) -> Conv:
    return Conv(channels, channels, kernel_size, stride, groups=channels, activation=activation)


class SeparableConv(nn.Module):
    """Depthwise convolution without bias, then 1×1."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.depthwise = Conv(in_channels, in_channels, kernel_size, groups=in_channels, bias=False)
        self.pointwise = Conv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class SqueezeExcite(nn.Module):
    """Channel attention (Hu et al. 2018, arXiv 1709.01507): each channel times a gate drawn from all channel means."""

    def __init__(
        self, channels: int, squeezed: int, gate: Callable[[Tensor], Tensor] = F.hardsigmoid, gate_bias: bool = True
    ) -> None:
        super().__init__()
        self.reduce = Conv(channels, squeezed, activation=F.relu)
        self.expand = Conv(squeezed, channels, bias=gate_bias)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.reduce(means)))


def upsample2x(x: Tensor) -> Tensor:
    """Bilinear to twice the height and width, sampled from the corner: output 2i is input i, 2i + 1 halfway to i + 1.

    TensorFlow's resize with neither align_corners nor half_pixel_centers, which `F.interpolate` does not have. With the
    last row and column repeated, n + 1 aligned corners become 2n + 1 samples exactly half a cell apart.
    """
    height, width = x.shape[2:]
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    x = F.interpolate(x, size=(2 * height + 1, 2 * width + 1), mode="bilinear", align_corners=True)
    return x[:, :, :-1, :-1]
