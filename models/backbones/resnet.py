"""ResNet (He et al. 2015, arXiv 1512.03385, table 1) with three deconvolutions back to stride 4 (Xiao et al. 2018,
arXiv 1804.06208), in `resdcn_*` each behind a deformable convolution (CenterNet paper, section 5)."""

from collections.abc import Sequence
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.parts import (
    TwoConvs,
    add_heads,
    bilinear_upsampling,
    conv,
    deconvolution,
    he_initialise,
    shortcut,
)
from models.centernet import CenterNet
from models.dcn import DeformConv
from models.heads import Head, conv_head, detection_heads
from models.spec import ModelSpec

UPSAMPLING_WIDTHS = (256, 256, 256)
DEFORMABLE_WIDTHS = (256, 128, 64)
HEAD_WIDTH = 64


class BasicBlock(TwoConvs):
    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__(in_channels, width, stride)
        self.downsample = shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1; the stride is that of the 3×3, which still sees every cell."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(x)), inplace=True)
        inner = F.relu(self.bn2(self.conv2(inner)), inplace=True)
        return F.relu(self.bn3(self.conv3(inner)) + self.downsample(x), inplace=True)


Block: TypeAlias = type[BasicBlock] | type[Bottleneck]

# Which block, and how many of it at stride 4, 8, 16 and 32, by depth.
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNetCenterNet(CenterNet):
    """`depth` is one of DEPTHS, `deformable` says which way back up: 14 M weights at depth 18 to 69 M at 152."""

    first_layers = ("conv1.", "bn1.", "layer1.")

    def __init__(self, spec: ModelSpec, heads: Sequence[Head], depth: int, deformable: bool) -> None:
        super().__init__(spec, heads)
        block, counts = DEPTHS[depth]
        self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = stage(block, 64, 64, counts[0])
        self.layer2 = stage(block, 64 * block.expansion, 128, counts[1], stride=2)
        self.layer3 = stage(block, 128 * block.expansion, 256, counts[2], stride=2)
        self.layer4 = stage(block, 256 * block.expansion, 512, counts[3], stride=2)
        he_initialise(self)
        widths = DEFORMABLE_WIDTHS if deformable else UPSAMPLING_WIDTHS
        self.deconv_layers = (deformable_upsampling if deformable else plain_upsampling)(512 * block.expansion, widths)
        add_heads(self, lambda head: conv_head(widths[-1], head, HEAD_WIDTH))

    def features(self, images_bchw: Tensor) -> list[Tensor]:
        x = self.maxpool(F.relu(self.bn1(self.conv1(images_bchw)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return [self.deconv_layers(x)]


def stage(block: Block, in_channels: int, width: int, count: int, stride: int = 1) -> nn.Sequential:
    """`count` blocks; the first changes size and channels."""
    rest = (block(width * block.expansion, width, 1) for _ in range(count - 1))
    return nn.Sequential(block(in_channels, width, stride), *rest)


def plain_upsampling(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [deconvolution(in_channels, width), *norm_relu(width)]
        in_channels = width
    path = nn.Sequential(*layers)
    he_initialise(path)
    return path


def deformable_upsampling(in_channels: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [DeformConv(in_channels, width), *norm_relu(width), bilinear_upsampling(width), *norm_relu(width)]
        in_channels = width
    return nn.Sequential(*layers)


def norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def build(spec: ModelSpec, heads: Sequence[Head] | None) -> CenterNet:
    kind, _, depth = spec.name.partition("_")
    heads = heads or detection_heads(len(spec.class_names))
    return ResNetCenterNet(spec, heads, int(depth), deformable=kind == "resdcn")
