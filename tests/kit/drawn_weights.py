"""Weights that need no file: each tensor drawn from its key alone, as the parity fixtures were (`../shared/parity`).

With the default gain of 1 a signal neither dies nor explodes on its way through a deep network; the fixtures of some
networks ask for another.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

GAINS = {"dla_34": 1.35, "hourglass": 0.85}


def drawn_state_dict(model_or_shapes: nn.Module | Mapping[str, Sequence[int]], name: str) -> dict[str, Tensor]:
    """A state_dict for the network `name`: the same keys and shapes give the same float32 weights everywhere."""
    shapes = model_or_shapes
    if isinstance(shapes, nn.Module):
        shapes = {key: tuple(value.shape) for key, value in shapes.state_dict().items()}
    gain = GAINS.get(name, 1.0)
    return {key: _drawn(key, tuple(shape), gain) for key, shape in shapes.items()}


def _drawn(key: str, shape: tuple[int, ...], gain: float) -> Tensor:
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    if key.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif len(shape) >= 2:
        values = _gain(key, gain) * rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
    elif key.endswith("weight"):
        values = rng.uniform(0.8, 1.2, shape)
    else:
        values = 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def _gain(key: str, gain: float) -> float:
    if "conv_offset_mask" in key:
        return 0.1
    return 2.5 if key.startswith("deconv_layers") else gain
