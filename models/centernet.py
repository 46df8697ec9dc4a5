"""CenterNet, "Objects as Points" (Zhou et al. 2019, arXiv 1904.07850): a backbone back at stride 4, and heads on it.

Every network here is an instance of that design and gives the same dictionary, with the same units (see `heads`).
Knows neither a particular backbone, nor the decoding of boxes, nor files.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.heads import Head
from models.spec import ModelSpec


class CenterNet(nn.Module):
    """The design. A network of it lays out its layers under the names of the public checkpoints, one module for each
    of `head_specs` among them, and computes `features`; `spec` says what goes in.

    In: float images (B, 3, H, W), colours and normalisation as `spec` says, H and W multiples of `spec.size_multiple`.
    Out, in eval mode: {head: (B, channels, H / stride, W / stride)}, raw, of the last stack; in training mode a list
    of such dictionaries, one for each stack. Raises ValueError on another shape.

    `first_layers` is how the names of the layers start that bring the image down to a quarter of its sides.
    """

    first_layers: tuple[str, ...] = ()

    def __init__(self, spec: ModelSpec, heads: Sequence[Head]) -> None:
        super().__init__()
        self.spec = spec
        self.head_specs = tuple(heads)

    def features(self, images_bchw: Tensor) -> list[Tensor]:
        """The feature map (B, C, H / stride, W / stride) that the heads read, one for each stack."""
        raise NotImplementedError

    def head(self, name: str, stack: int) -> nn.Module:
        """The module that reads `name` off the features of `stack`."""
        module: nn.Module = getattr(self, name)
        return module

    def forward(self, images_bchw: Tensor) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        self._check(images_bchw)
        features = self.features(images_bchw)
        if not self.training:
            return self._read(len(features) - 1, features[-1])
        return [self._read(stack, features_bchw) for stack, features_bchw in enumerate(features)]

    def _read(self, stack: int, features_bchw: Tensor) -> dict[str, Tensor]:
        return {head.name: self.head(head.name, stack)(features_bchw) for head in self.head_specs}

    def _check(self, images_bchw: Tensor) -> None:
        shape, step = tuple(images_bchw.shape), self.spec.size_multiple
        if len(shape) != 4 or shape[0] < 1 or shape[1] != 3 or shape[2] % step or shape[3] % step:
            raise ValueError(f"images of shape {shape}: give (B, 3, H, W), B at least 1, H and W multiples of {step}")
