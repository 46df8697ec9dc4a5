"""Modulated deformable 3×3 convolution (Zhu et al. 2018, arXiv 1811.11168, section 3.1). Knows no network.

There are two ways to the same figures. torchvision's operator trains, exports and runs on every device, but on a CPU
gathers value by value on one core. There, where no gradient is asked for, `centerstream::deform_conv2d` stands in: a
compiled gather (models/kernels/deform.py) and an ordinary convolution of what it gathered, block by block in the cache.
Numba and torchvision, which takes seconds, are imported when first needed: inference on a CPU needs only the first.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIDE = 3
TAPS = SIDE * SIDE
BLOCK = 1024  # pixels for each thread: fewer cost the convolution, more leave the cache
LEAST_SHARE = 64  # pixels, below which a helper is not worth waking


class DeformConv(nn.Module):
    """3×3 convolution, stride 1, that draws from its own input where each tap reads (18 offsets, y and x of each tap
    in pixels) and how much that counts (9 masks). At first every offset is 0 and every mask 1/2.

    (B, in_channels, H, W) to (B, out_channels, H, W). On a CPU channels_last is the faster memory format, as for any
    convolution, also of the weights.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        like = nn.Conv2d(in_channels, out_channels, SIDE, padding=1)
        assert like.bias is not None
        self.weight, self.bias = like.weight, like.bias
        self.conv_offset_mask = nn.Conv2d(in_channels, 3 * TAPS, SIDE, padding=1)
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        arguments = (x, self.conv_offset_mask(x), self.weight, self.bias)
        result: Tensor = (torch.ops.centerstream.deform_conv2d if _is_plain(*arguments) else _anywhere)(*arguments)
        return result


def _is_plain(*arguments: Tensor) -> bool:
    """Whether this is inference in float32 on a CPU, and nobody writes the network down to run it elsewhere."""
    if any(argument.device.type != "cpu" or argument.dtype != torch.float32 for argument in arguments):
        return False
    if torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
        return False
    return not (_is_exporting() or torch.jit.is_tracing())  # type: ignore[attr-defined]


# Before 2.7 torch does not tell an export from a compilation: then both get the operator that everyone knows.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _anywhere(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from torchvision.ops import deform_conv2d

    offset, mask = offset_mask.split((2 * TAPS, TAPS), dim=1)
    result: Tensor = deform_conv2d(x, offset, weight, bias, padding=1, mask=mask.sigmoid())
    return result


# Not by `custom_op`, whose first call imports the compiler, for seconds.
torch.library.define(
    "centerstream::deform_conv2d",
    "(Tensor x, Tensor offset_mask, Tensor weight, Tensor bias) -> Tensor",
    tags=(torch.Tag.needs_fixed_stride_order,),
)


@torch.library.register_fake("centerstream::deform_conv2d")
def _empty_result(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """In the memory format of `x`, so that whatever follows goes on in it."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    shape = (x.shape[0], weight.shape[0], x.shape[2], x.shape[3])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


@torch.library.impl("centerstream::deform_conv2d", "cpu")
def _on_cpu(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from models.kernels.deform import sample_taps

    result = _empty_result(x, offset_mask, weight, bias)
    (channels, height, width), threads = x.shape[1:], torch.get_num_threads()
    block = width * min(height, max(1, threads * BLOCK // width))
    samples = torch.empty(block, TAPS * channels)
    for image, planes, place in zip(x.flatten(2), offset_mask.flatten(2), result.flatten(2), strict=True):
        offsets, masks = planes.contiguous().split((2 * TAPS, TAPS))
        sample = partial(sample_taps, _array(image.t()), _array(offsets), _array(masks.sigmoid()), width)
        pixels = place.t() if place.t().is_contiguous() else torch.empty(height * width, len(place))
        for start, part in zip(range(0, len(pixels), block), pixels.split(block), strict=True):
            _side_by_side(sample, start, samples[: len(part)].numpy(), threads)
            part.copy_(_convolve(samples[: len(part)], width, weight, bias))
        if pixels.data_ptr() != place.data_ptr():
            place.copy_(pixels.t())  # as a matrix: torch transposes those five times as fast as images
    return result


def _convolve(samples_pc: Tensor, width: int, weight: Tensor, bias: Tensor) -> Tensor:
    """Whole rows of pixels, the samples (N, 9 * C) to (N, out): an ordinary convolution, 9 samples wide, 9 apart."""
    image_bchw = samples_pc.view(1, -1, TAPS * width, weight.shape[1]).permute(0, 3, 1, 2)
    result_bchw = nn.functional.conv2d(image_bchw, weight.flatten(2).unsqueeze(2), bias, stride=(1, TAPS))
    return result_bchw[0].flatten(1).t()


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return array


def _side_by_side(sample: Callable[..., None], start: int, samples: NDArray[np.float32], threads: int) -> None:
    """`sample` for the pixels from `start` on, a share of them on each thread."""
    share = max(LEAST_SHARE, -(-len(samples) // threads))
    helped = [
        _helpers().submit(sample, start + at, samples[at : at + share]) for at in range(share, len(samples), share)
    ]
    sample(start, samples[:share])
    for part in helped:
        part.result()


@cache
def _helpers() -> ThreadPoolExecutor:
    """Shared by all who compute at the same time; no task waits for another, so none waits for ever."""
    return ThreadPoolExecutor(os.cpu_count(), "deform")
