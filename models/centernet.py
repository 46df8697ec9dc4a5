"""CenterNet, "Objects as Points" (Zhou et al. 2019, arXiv 1904.07850): a backbone, a neck back to stride 4, heads.

Every model here is an instance of that design and gives the same dictionary, with the same units (see `heads`).
Knows neither the decoding of boxes nor files.
"""

from torch import Tensor, nn

from models.backbones.mobilenetv3 import MobileNetV3
from models.heads import separable_heads
from models.neck import UpsamplingNeck
from models.spec import SPECS, ModelSpec


class CenterNet(nn.Module):
    """Backbone, neck and heads in a row; `spec` says what goes in.

    In: float images (B, 3, H, W), colours and normalisation as `spec` says, H and W multiples of `spec.size_multiple`.
    Out, in eval mode: {head: (B, channels, H / stride, W / stride)}, raw; in training mode a list of such
    dictionaries, one per stack. Raises ValueError on another shape.
    """

    def __init__(self, spec: ModelSpec, backbone: nn.Module, neck: nn.Module, heads: nn.ModuleDict) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.neck = neck
        self.heads = heads

    def forward(self, images_bchw: Tensor) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        self._check(images_bchw)
        features = self.neck(self.backbone(images_bchw))
        outputs = {name: head(features) for name, head in self.heads.items()}
        return [outputs] if self.training else outputs

    def _check(self, images_bchw: Tensor) -> None:
        shape, step = tuple(images_bchw.shape), self.spec.size_multiple
        if len(shape) != 4 or shape[1] != 3 or shape[2] % step or shape[3] % step:
            raise ValueError(f"images of shape {shape}: expected (B, 3, H, W), H and W multiples of {step}")


def mobilenetv3(num_classes: int) -> CenterNet:
    """MobileNetV3, 2.0 M weights; sizes are distances to the left, top, right and bottom, and there is no offset."""
    spec = SPECS["mobilenetv3"].with_classes(num_classes)
    backbone = MobileNetV3()
    neck = UpsamplingNeck(backbone.channels)
    return CenterNet(spec, backbone, neck, separable_heads(neck.out_channels, {"hm": num_classes, "wh": 4}))
