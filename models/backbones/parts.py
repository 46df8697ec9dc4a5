"""What the paper's backbones have in common: residual branch, shortcut, deconvolutions, initial weights, and where the
heads go. Knows none of them. Attributes have the names that public checkpoints use."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.centernet import CenterNet
from models.heads import Head


def conv(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution to 1 / stride of the size, without a bias: a batch norm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def conv_norm(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(in_channels, out_channels, kernel_size, stride), nn.BatchNorm2d(out_channels))


def shortcut(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """The way around a block (He et al. 2015, arXiv 1512.03385, section 3.3): a projection only where shapes differ."""
    keeps_shape = stride == 1 and in_channels == out_channels
    return nn.Identity() if keeps_shape else conv_norm(in_channels, out_channels, 1, stride)


class TwoConvs(nn.Module):
    """Two 3×3 convolutions: the residual branch of a block (He et al. 2015, figure 5, left)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, out_channels, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def residual(self, x: Tensor) -> Tensor:
        """What the block adds to its shortcut, before the last ReLU."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual: Tensor = self.bn2(self.conv2(x))
        return residual


def deconvolution(in_channels: int, out_channels: int, factor: int = 2, groups: int = 1) -> nn.ConvTranspose2d:
    """Transposed convolution to `factor` times the size, `factor` even, without a bias."""
    kernel_size, padding = 2 * factor, factor // 2
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size, factor, padding, groups=groups, bias=False)


def bilinear_upsampling(channels: int, factor: int = 2, groups: int = 1) -> nn.ConvTranspose2d:
    """A deconvolution that at first interpolates each channel by itself (Long et al. 2014, arXiv 1411.4038, section
    3.3); `groups` is 1 or `channels`."""
    layer = deconvolution(channels, channels, factor, groups)
    taps = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    channel = torch.arange(channels)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[channel, channel // groups] = taps[:, None] * taps
    return layer


def he_initialise(module: nn.Module) -> None:
    """Draws the weights of the convolutions in `module` for layers that end in ReLU (He et al. 2015, arXiv 1502.01852,
    section 2.2). Batch norms start well as torch makes them."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def add_heads(network: CenterNet, make: Callable[[Head], nn.Module]) -> None:
    """Each declared head becomes an attribute of the network. Raises ValueError for a name that cannot be one."""
    for head in network.head_specs:
        if not head.name.isidentifier() or hasattr(network, head.name):
            raise ValueError(f"head '{head.name}': give an identifier that is no layer, method or other head here")
        network.add_module(head.name, make(head))
