"""Hourglass-104 (Newell et al. 2016, arXiv 1603.06937; Law and Deng 2018, arXiv 1808.01244, section 3.5): two stacked
hourglasses at stride 4, each with heads of its own. Knows no other size."""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.parts import TwoConvs, add_heads, conv, conv_norm, he_initialise, shortcut
from models.centernet import CenterNet
from models.heads import Head, conv_head, detection_heads
from models.spec import ModelSpec

STACKS = 2
WIDTHS = (256, 256, 384, 384, 384, 512)  # from stride 4 down to stride 128
BLOCKS = (2, 2, 2, 2, 2, 4)


class ConvNormRelu(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, kernel_size, stride)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Residual(TwoConvs):
    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.skip = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.skip(x), inplace=True)


class Hourglass(nn.Module):
    """A map (B, widths[0], H, W) to one of the same shape: past `up1` in full size, and through `low1` to `low3` in
    half, where `low2` is an hourglass again until one width is left. H and W are multiples of 2 to the depth."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        outer, inner = widths[:2]
        count = blocks[0]
        self.up1 = residuals(outer, outer, count)
        self.low1 = nn.Sequential(Residual(outer, inner, stride=2), *residuals(inner, inner, count - 1))
        self.low2 = Hourglass(widths[1:], blocks[1:]) if len(widths) > 2 else residuals(inner, inner, blocks[1])
        self.low3 = nn.Sequential(*residuals(inner, inner, count - 1), Residual(inner, outer))

    def forward(self, x: Tensor) -> Tensor:
        low: Tensor = self.low3(self.low2(self.low1(x)))
        return self.up1(x) + F.interpolate(low, scale_factor=2.0, mode="nearest")


class HourglassCenterNet(CenterNet):
    """191 M weights. Between the stacks the features of the first, and what it was given, go on into the second."""

    first_layers = ("pre.",)

    def __init__(self, spec: ModelSpec, heads: Sequence[Head]) -> None:
        super().__init__(spec, heads)
        width = WIDTHS[0]
        self.pre = nn.Sequential(ConvNormRelu(3, 128, 7, stride=2), Residual(128, width, stride=2))
        self.kps = nn.ModuleList(Hourglass(WIDTHS, BLOCKS) for _ in range(STACKS))
        self.cnvs = nn.ModuleList(ConvNormRelu(width, width) for _ in range(STACKS))
        self.inters_ = nn.ModuleList(conv_norm(width, width, 1) for _ in range(STACKS - 1))
        self.cnvs_ = nn.ModuleList(conv_norm(width, width, 1) for _ in range(STACKS - 1))
        self.inters = nn.ModuleList(Residual(width, width) for _ in range(STACKS - 1))
        he_initialise(self)
        add_heads(self, lambda head: nn.ModuleList(stack_head(width, head) for _ in range(STACKS)))

    def features(self, images_bchw: Tensor) -> list[Tensor]:
        x = self.pre(images_bchw)
        features = [self.cnvs[0](self.kps[0](x))]
        for stack in range(1, STACKS):
            x = F.relu(self.inters_[stack - 1](x) + self.cnvs_[stack - 1](features[-1]), inplace=True)
            x = self.inters[stack - 1](x)
            features.append(self.cnvs[stack](self.kps[stack](x)))
        return features

    def head(self, name: str, stack: int) -> nn.Module:
        stacks: nn.ModuleList = getattr(self, name)
        return stacks[stack]


def residuals(in_channels: int, out_channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(in_channels, out_channels) for _ in range(count)))


def stack_head(channels: int, head: Head) -> nn.Sequential:
    """The head that every network has, under the names it has in hourglass checkpoints."""
    hidden, relu, last = conv_head(channels, head, channels)
    return nn.Sequential(nn.Sequential(OrderedDict(conv=hidden, relu=relu)), last)


def build(spec: ModelSpec, heads: Sequence[Head] | None) -> CenterNet:
    return HourglassCenterNet(spec, heads or detection_heads(len(spec.class_names)))
