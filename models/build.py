"""Which network a name stands for. Knows no file."""

from collections.abc import Sequence

from models.backbones.mobilenetv3 import MobileCenterNet
from models.centernet import CenterNet
from models.heads import Head, detection_heads, ltrb_heads
from models.spec import ModelSpec


def build(spec: ModelSpec, heads: Sequence[Head] | None = None) -> CenterNet:
    """The network of `spec.name`, with `heads` or those of a detector of 2D boxes."""
    num_classes = len(spec.class_names)
    family, _, depth = spec.name.partition("_")
    if family == "mobilenetv3":
        return MobileCenterNet(spec, heads or ltrb_heads(num_classes))
    raise NotImplementedError(spec.name)
