"""Modulated deformable 3×3 convolution (Zhu et al. 2018, arXiv 1811.11168, section 3.1). Knows no network.

There are two ways to the same figures. torchvision's operator trains, exports and runs on every device, but on a CPU
gathers value by value on one core. There, where no gradient is asked for, `centerstream::deform_conv2d` stands in: a
compiled gather (models/kernels/deform.py) and an ordinary convolution of what it gathered, block by block in the cache.
Numba and torchvision, which takes seconds, are imported when first needed: inference on a CPU needs only the first.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from threading import Barrier, Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIDE = 3
TAPS = SIDE * SIDE
BLOCK = 1024  # pixels: with fewer the convolution is slow, with more the samples leave the cache
LEAST_SHARE = 512  # pixels, below which a thread more is not worth waking


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
        operator = torch.ops.centerstream.deform_conv2d if is_plain_inference(*arguments) else by_torchvision
        result: Tensor = operator(*arguments)
        return result


def is_plain_inference(*arguments: Tensor) -> bool:
    """Whether this is inference in float32 on a CPU, and nobody writes the network down to run it elsewhere."""
    if any(argument.device.type != "cpu" or argument.dtype != torch.float32 for argument in arguments):
        return False
    if torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
        return False
    return not (_is_exporting() or torch.jit.is_tracing())  # type: ignore[attr-defined]


# Before 2.7 torch does not tell an export from a compilation: then both get the operator that everyone knows.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def by_torchvision(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
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
    """In the memory format of `x`: whatever follows goes on in it. Raises ValueError where shapes do not fit."""
    batch, channels, height, width = x.shape
    if offset_mask.shape != (batch, 3 * TAPS, height, width) or weight.shape[1:] != (channels, SIDE, SIDE):
        raise ValueError(
            f"offsets and masks {tuple(offset_mask.shape)}, weights {tuple(weight.shape)}: for images {tuple(x.shape)} "
            f"give ({batch}, {3 * TAPS}, {height}, {width}) and (out, {channels}, {SIDE}, {SIDE})"
        )
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    shape = (batch, weight.shape[0], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


@torch.library.impl("centerstream::deform_conv2d", "cpu")
def _on_cpu(x: Tensor, offset_mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from models.kernels.deform import sample_taps

    result = _empty_result(x, offset_mask, weight, bias)
    height, width = x.shape[2:]
    for image, planes, place in zip(x.flatten(2), offset_mask.flatten(2), result.flatten(2), strict=True):
        offsets, masks = planes.contiguous().split((2 * TAPS, TAPS))
        sample = partial(sample_taps, _array(image.t()), _array(offsets), _array(masks.sigmoid()), width)
        pixels = place.t() if place.t().is_contiguous() else torch.empty(height * width, len(place))
        _share(partial(_convolve, sample, width, weight, bias, pixels), height, width)
        if pixels.data_ptr() != place.data_ptr():
            place.copy_(pixels.t())  # as a matrix: torch transposes those five times as fast as images
    return result


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return array


@torch.inference_mode()
def _convolve(
    sample: Callable[..., None], width: int, weight: Tensor, bias: Tensor, pixels_po: Tensor, first: int, last: int
) -> None:
    """Fills `pixels_po` (H * W, out) from row `first` to before row `last`.

    The samples of a row are an image 9 times as wide, and what is left is an ordinary convolution of stride 9.
    """
    channels, taps = weight.shape[1], weight.flatten(2).unsqueeze(2)
    block = width * max(1, BLOCK // width)
    samples = torch.empty(min(block, (last - first) * width), TAPS * channels)
    for start in range(first * width, last * width, block):
        part = pixels_po[start : min(start + block, last * width)]
        read = samples[: len(part)]
        sample(start, read.numpy())
        image_bchw = read.view(1, -1, TAPS * width, channels).permute(0, 3, 1, 2)
        part.copy_(nn.functional.conv2d(image_bchw, taps, bias, stride=(1, TAPS))[0].flatten(1).t())


def _share(rows: Callable[[int, int], None], height: int, width: int) -> None:
    """`rows` from 0 to `height`, as many at a time on as many threads as torch is to use."""
    threads = torch.get_num_threads()
    step = max(math.ceil(height / threads), math.ceil(LEAST_SHARE / width))
    if step >= height:
        rows(0, height)
    else:
        firsts, lasts = range(0, height, step), [*range(step, height, step), height]
        list(_workers(threads).map(rows, firsts, lasts))


_starting = Lock()


def _workers(threads: int) -> ThreadPoolExecutor:
    """Shared by all who compute at the same time; no share waits for another, so none waits for ever."""
    with _starting:
        return _start(threads)


@cache
def _start(threads: int) -> ThreadPoolExecutor:
    """Workers whose torch computes on one core each: with threads of its own it would gather them at every block.

    Torch takes the number for the thread that sets it and for all that begin later; the latter get theirs back.
    """
    workers, started = ThreadPoolExecutor(threads, "deform", torch.set_num_threads, (1,)), Barrier(threads + 1)
    for _ in range(threads):
        workers.submit(started.wait)
    started.wait()
    torch.set_num_threads(threads)
    return workers
