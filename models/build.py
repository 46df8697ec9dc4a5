"""Which network a name stands for. Knows no file.

A backbone is imported when it is asked for: whoever runs one network need not wait for the others.
"""

from collections.abc import Sequence

from models.centernet import CenterNet
from models.heads import Head, detection_heads, ltrb_heads
from models.spec import ModelSpec


def build(spec: ModelSpec, heads: Sequence[Head] | None = None) -> CenterNet:
    """The network of `spec.name`, with `heads` or those of a detector of 2D boxes."""
    num_classes = len(spec.class_names)
    if spec.name == "mobilenetv3":
        from models.backbones.mobilenetv3 import MobileCenterNet

        return MobileCenterNet(spec, heads or ltrb_heads(num_classes))
    return _build_of_the_paper(spec, heads or detection_heads(num_classes))


def _build_of_the_paper(spec: ModelSpec, heads: Sequence[Head]) -> CenterNet:
    family, _, depth = spec.name.partition("_")
    if family in ("res", "resdcn"):
        from models.backbones.resnet import ResNetCenterNet

        return ResNetCenterNet(spec, heads, int(depth), deformable=family == "resdcn")
    if family == "dla":
        from models.backbones.dla import DlaCenterNet

        return DlaCenterNet(spec, heads)
    if family == "hourglass":
        from models.backbones.hourglass import HourglassCenterNet

        return HourglassCenterNet(spec, heads)
    raise NotImplementedError(spec.name)
