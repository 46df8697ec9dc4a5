"""MobileNetV3 (Howard et al. 2019, arXiv 1905.02244, table 1), a wider last stage, four feature maps; and the
CenterNet on it, with its upsampling neck and separable heads."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.centernet import CenterNet
from models.heads import Head, ltrb_heads, separable_head
from models.layers import Activation, Conv, SqueezeExcite, depthwise
from models.neck import UpsamplingNeck
from models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Row:
    """One bottleneck of the table; `squeezed` 0 means no squeeze-and-excite."""

    kernel: int
    expanded: int
    out: int
    squeezed: int
    activation: Activation
    stride: int


ROWS = (
    Row(3, 16, 16, 0, F.relu, 1),
    Row(3, 64, 24, 0, F.relu, 2),
    Row(3, 72, 24, 0, F.relu, 1),
    Row(5, 72, 32, 24, F.relu, 2),
    Row(5, 96, 32, 24, F.relu, 1),
    Row(5, 96, 32, 24, F.relu, 1),
    Row(3, 192, 64, 0, F.hardswish, 2),
    Row(3, 160, 64, 0, F.hardswish, 1),
    Row(3, 144, 64, 0, F.hardswish, 1),
    Row(3, 144, 64, 0, F.hardswish, 1),
    Row(3, 384, 88, 96, F.hardswish, 1),
    Row(3, 528, 88, 136, F.hardswish, 1),
    Row(5, 528, 120, 136, F.hardswish, 2),
    Row(5, 720, 120, 184, F.hardswish, 1),
    Row(5, 720, 120, 184, F.hardswish, 1),
)


class Bottleneck(nn.Module):
    """Expand, depthwise, attend, project; the input is added where the shape is kept."""

    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        widens = row.expanded != in_channels
        self.expand = Conv(in_channels, row.expanded, activation=row.activation) if widens else nn.Identity()
        self.depthwise = depthwise(row.expanded, row.kernel, row.stride, row.activation)
        self.squeeze_excite = SqueezeExcite(row.expanded, row.squeezed) if row.squeezed else nn.Identity()
        self.project = Conv(row.expanded, row.out)
        self.adds_input = row.stride == 1 and in_channels == row.out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output, and the expanded feature map at the stride of its input."""
        expanded = self.expand(x)
        out = self.project(self.squeeze_excite(self.depthwise(expanded)))
        return (out + x if self.adds_input else out), expanded


class MobileNetV3(nn.Module):
    """Images (B, 3, H, W), RGB 0 to 255, to feature maps of stride 4, 8, 16 and 32 with `channels` channels.

    The maps of stride 4 and 8 are taken inside blocks 3 and 5, where they are widest: after the expansion.
    """

    channels = (72, 96, 88, 480)

    def __init__(self) -> None:
        super().__init__()
        self.stem = Conv(3, 16, 3, stride=2, activation=F.hardswish)
        inputs = (16, *(row.out for row in ROWS[:-1]))
        self.blocks = nn.ModuleList(Bottleneck(width, row) for width, row in zip(inputs, ROWS, strict=True))
        self.last = Conv(ROWS[-1].out, self.channels[-1], activation=F.hardswish)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = self.stem(images)
        outs, expansions = [], []
        for block in self.blocks:
            x, expanded = block(x)
            outs.append(x)
            expansions.append(expanded)
        return expansions[3], expansions[5], outs[11], self.last(x)


class MobileCenterNet(CenterNet):
    """2.0 M weights."""

    first_layers = ("backbone.stem.", *(f"backbone.blocks.{row}." for row in range(3)))

    def __init__(self, spec: ModelSpec, heads: Sequence[Head]) -> None:
        super().__init__(spec, heads)
        self.backbone = MobileNetV3()
        self.neck = UpsamplingNeck(self.backbone.channels)
        self.heads = nn.ModuleDict({head.name: separable_head(self.neck.out_channels, head) for head in heads})

    def features(self, images_bchw: Tensor) -> list[Tensor]:
        return [self.neck(self.backbone(images_bchw))]

    def head(self, name: str, stack: int) -> nn.Module:
        return self.heads[name]


def build(spec: ModelSpec, heads: Sequence[Head] | None) -> CenterNet:
    return MobileCenterNet(spec, heads or ltrb_heads(len(spec.class_names)))
