"""The colours of an image as a network takes them. Knows no network."""

import torch
from torch import Tensor, nn

from models.spec import ModelSpec


class Normalise(nn.Module):
    """RGB pixels (B, H, W, 3), 0 to 255, to (B, 3, H, W) in this module's precision, as `spec` says: minus its mean,
    by its deviation, in its order of colours."""

    mean_bchw: Tensor
    std_bchw: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.register_buffer("mean_bchw", torch.tensor(spec.mean_rgb).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std_bchw", torch.tensor(spec.std_rgb).view(1, 3, 1, 1), persistent=False)
        self._changes_values = any(spec.mean_rgb) or any(std != 1 for std in spec.std_rgb)
        self._is_bgr = spec.channel_order == "bgr"

    def forward(self, images_bhwc: Tensor) -> Tensor:
        images_bchw = images_bhwc.permute(0, 3, 1, 2).to(self.mean_bchw.dtype)
        if self._changes_values:
            images_bchw = (images_bchw - self.mean_bchw) / self.std_bchw
        return images_bchw.flip(1) if self._is_bgr else images_bchw
