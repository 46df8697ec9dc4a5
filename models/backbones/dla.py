"""Deep layer aggregation (Yu et al. 2018, arXiv 1707.06484) as in section 5 of the CenterNet paper: DLA-34, then
iterative aggregation back to stride 4 with deformable convolutions. Knows no other depth."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.parts import TwoConvs, add_heads, bilinear_upsampling, conv, conv_norm, he_initialise, shortcut
from models.centernet import CenterNet
from models.dcn import DeformConv
from models.heads import Head, conv_head, detection_heads
from models.spec import ModelSpec

WIDTHS = (16, 32, 64, 128, 256, 512)  # of level 0 to 5, which lie at stride 1 to 32
HEAD_WIDTH = 256


class Block(TwoConvs):
    """A residual block that is given what to add."""

    def forward(self, x: Tensor, around: Tensor) -> Tensor:
        return F.relu(self.residual(x) + around, inplace=True)


class Root(nn.Module):
    """Maps of one size become one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, *maps: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(torch.cat(maps, dim=1))), inplace=True)


class Tree(nn.Module):
    """Two blocks and their root, which also aggregates `passed_channels` of maps that are passed in (figure 2f of the
    DLA paper)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, passed_channels: int = 0) -> None:
        super().__init__()
        self.downsample = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.project = shortcut(in_channels, out_channels)
        self.tree1 = Block(in_channels, out_channels, stride)
        self.tree2 = Block(out_channels, out_channels)
        self.root = Root(2 * out_channels + passed_channels, out_channels)

    def forward(self, x: Tensor, passed: Sequence[Tensor] = ()) -> Tensor:
        first = self.tree1(x, self.project(self.downsample(x)))
        second = self.tree2(first, first)
        aggregated: Tensor = self.root(second, first, *passed)
        return aggregated


class LastTree(Tree):
    """A tree at half the size, whose root sees the tree's input too."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, stride=2, passed_channels=in_channels)

    def forward(self, x: Tensor, passed: Sequence[Tensor] = ()) -> Tensor:
        return super().forward(x, (self.downsample(x), *passed))


class DeepTree(nn.Module):
    """Two trees at half the size; the root of the second also sees the first, and the input of both."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = nn.MaxPool2d(2)
        self.tree1 = Tree(in_channels, out_channels, stride=2)
        self.tree2 = Tree(out_channels, out_channels, passed_channels=in_channels + out_channels)
        # Public checkpoints have this projection, but nothing reads it: the first tree has one of its own.
        self.project = shortcut(in_channels, out_channels).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.tree1(x)
        second: Tensor = self.tree2(first, (self.downsample(x), first))
        return second


class Dla34(nn.Module):
    """Images (B, 3, H, W) to four maps of stride 4, 8, 16 and 32, with WIDTHS[2:] channels."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Sequential(*conv_norm(3, WIDTHS[0], 7), nn.ReLU(inplace=True))
        self.level0 = nn.Sequential(*conv_norm(WIDTHS[0], WIDTHS[0]), nn.ReLU(inplace=True))
        self.level1 = nn.Sequential(*conv_norm(WIDTHS[0], WIDTHS[1], stride=2), nn.ReLU(inplace=True))
        self.level2 = Tree(WIDTHS[1], WIDTHS[2], stride=2)
        self.level3 = DeepTree(WIDTHS[2], WIDTHS[3])
        self.level4 = DeepTree(WIDTHS[3], WIDTHS[4])
        self.level5 = LastTree(WIDTHS[4], WIDTHS[5])

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        at4 = self.level2(self.level1(self.level0(self.base_layer(images_bchw))))
        at8 = self.level3(at4)
        at16 = self.level4(at8)
        return [at4, at8, at16, self.level5(at16)]


class DeformLayer(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = DeformConv(in_channels, out_channels)
        self.actf = nn.Sequential(nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        smoothed: Tensor = self.actf(self.conv(x))
        return smoothed


class Aggregation(nn.Module):
    """Iterative aggregation (figure 2c of the DLA paper): maps, finest first, all brought to the size of the finest.

    The first map, with `channels`, stays; each further one, with `coarser_channels` and smaller by its factor, is
    projected, upsampled, added to the one before and smoothed.
    """

    def __init__(self, channels: int, coarser_channels: Sequence[int], factors: Sequence[int]) -> None:
        super().__init__()
        for i, (in_channels, factor) in enumerate(zip(coarser_channels, factors, strict=True), start=1):
            self.add_module(f"proj_{i}", DeformLayer(in_channels, channels))
            self.add_module(f"up_{i}", bilinear_upsampling(channels, factor, groups=channels))
            self.add_module(f"node_{i}", DeformLayer(channels, channels))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        aggregated = [maps[0]]
        for i, coarser in enumerate(maps[1:], start=1):
            project, upsample, node = (getattr(self, f"{layer}_{i}") for layer in ("proj", "up", "node"))
            aggregated.append(node(upsample(project(coarser)) + aggregated[-1]))
        return aggregated


class DlaUp(nn.Module):
    """Four maps of stride 4 to 32 to the deepest aggregates at stride 4, 8 and 16, finest first: beginning with the
    two coarsest maps, each round brings one finer map in."""

    def __init__(self) -> None:
        super().__init__()
        at4, at8, at16, at32 = WIDTHS[2:]
        self.ida_0 = Aggregation(at16, (at32,), (2,))
        self.ida_1 = Aggregation(at8, (at16, at16), (2, 2))
        self.ida_2 = Aggregation(at4, (at8, at8, at8), (2, 2, 2))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        at4, at8, *coarse = maps
        coarse = self.ida_0(coarse)
        middle = self.ida_1([at8, *coarse])
        fine = self.ida_2([at4, *middle])
        return [fine[-1], middle[-1], coarse[-1]]


class DlaCenterNet(CenterNet):
    """20 M weights."""

    first_layers = ("base.base_layer.", "base.level0.", "base.level1.", "base.level2.")

    def __init__(self, spec: ModelSpec, heads: Sequence[Head]) -> None:
        super().__init__(spec, heads)
        self.base = Dla34()
        he_initialise(self.base)
        self.dla_up = DlaUp()
        at4, at8, at16 = WIDTHS[2:5]
        self.ida_up = Aggregation(at4, (at8, at16), (2, 4))
        add_heads(self, lambda head: conv_head(at4, head, HEAD_WIDTH))

    def features(self, images_bchw: Tensor) -> list[Tensor]:
        maps = self.ida_up(self.dla_up(self.base(images_bchw)))
        return [maps[-1]]


def build(spec: ModelSpec, heads: Sequence[Head] | None) -> CenterNet:
    return DlaCenterNet(spec, heads or detection_heads(len(spec.class_names)))
