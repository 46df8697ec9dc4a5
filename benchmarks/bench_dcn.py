"""Deformable convolution on a CPU: ours against torchvision's operator, and a plain 3×3 convolution as a yardstick.

    python benchmarks/bench_dcn.py [--count 20] [--threads 1 2] [--networks dla_34 resdcn_18]

The layers are those of DLA-34 at 512 × 512 and one of four times the size; offsets are N(0, 2 pixels), images and
weights channels_last, as the inference stage has them. Then whole networks, with weights and offsets by chance.
The candidates take turns, so that whatever else the machine does slows all of them alike.
"""

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from common import finish, machine, percentiles
from torch import Tensor
from torch.nn.functional import conv2d

import models
import models.dcn
from models.dcn import DeformConv

LAYERS = ((64, 64, 128), (128, 64, 64), (128, 128, 64), (256, 128, 32), (512, 256, 16), (64, 64, 256))
OFFSET_PIXELS = 2.0


def take_turns(calls: dict[str, Callable[[], object]], count: int) -> dict[str, dict[str, float]]:
    """Milliseconds of each call, after two rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-2, count):
        for name, call in calls.items():
            start = time.perf_counter_ns()
            call()
            if turn >= 0:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return {f"{name}_ms": percentiles(values) for name, values in times.items()}


def ratios(timed: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times faster ours is, by the best of each and by the medians."""
    ours, theirs = timed["ours_ms"], timed["torchvision_ms"]
    return {f"times_faster_{key}": round(theirs[key] / ours[key], 2) for key in ("min", "p50")}


def layer(in_channels: int, out_channels: int, side: int, count: int) -> dict[str, Any]:
    def image(batch: int, channels: int, height: int, width: int) -> Tensor:
        return torch.randn(batch, channels, height, width).to(memory_format=torch.channels_last)

    x, offset_mask = image(1, in_channels, side, side), image(1, 27, side, side)
    offset_mask[:, :18] *= OFFSET_PIXELS
    weight, bias = image(out_channels, in_channels, 3, 3) / (3 * math.sqrt(in_channels)), torch.zeros(out_channels)
    arguments = (x, offset_mask, weight, bias)
    ours, theirs = torch.ops.centerstream.deform_conv2d, models.dcn.by_torchvision
    torch.testing.assert_close(ours(*arguments), theirs(*arguments), atol=1e-4, rtol=0)
    timed = take_turns(
        {
            "ours": lambda: ours(*arguments),
            "torchvision": lambda: theirs(*arguments),
            "convolution": lambda: conv2d(x, weight, bias, padding=1),
        },
        count,
    )
    return {"layer": f"{in_channels} to {out_channels} at {side} x {side}", **timed, **ratios(timed)}


def network(name: str, count: int) -> dict[str, Any]:
    model = models.create_model(name).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    for module in model.modules():
        if isinstance(module, DeformConv):  # otherwise every offset would be 0
            torch.nn.init.normal_(module.conv_offset_mask.bias, std=OFFSET_PIXELS)
    images = torch.randn(1, 3, 512, 512).to(memory_format=torch.channels_last)
    chosen = models.dcn.is_plain_inference

    def by_torchvision() -> object:
        models.dcn.is_plain_inference = lambda *arguments: False
        try:
            return model(images)
        finally:
            models.dcn.is_plain_inference = chosen

    timed = take_turns({"ours": lambda: model(images), "torchvision": by_torchvision}, count)
    return {"network": f"{name} at 512 x 512", **timed, **ratios(timed)}


def report(result: dict[str, Any]) -> None:
    ours, theirs = result["ours_ms"], result["torchvision_ms"]
    yardstick = f", convolution {result['convolution_ms']['p50']:.1f}" if "convolution_ms" in result else ""
    print(
        f"{result['threads']} threads, {result.get('layer') or result['network']:24} "
        f"ours {ours['p50']:.1f} ms, torchvision {theirs['p50']:.1f}{yardstick}: {result['times_faster_p50']} times "
        f"faster; least {ours['min']:.1f} and {theirs['min']:.1f}, {result['times_faster_min']} times",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="timed turns of a layer; a network gets a quarter")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--networks", nargs="*", default=["dla_34", "resdcn_18"])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    here = machine("torch", "torchvision", "numba")
    print(here)
    results = []
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for sizes in LAYERS:
                results.append({"threads": threads, **layer(*sizes, arguments.count)})
                report(results[-1])
            for name in arguments.networks:
                results.append({"threads": threads, **network(name, max(1, arguments.count // 4))})
                report(results[-1])
    finish({"benchmark": "dcn", "machine": here, "results": results})


if __name__ == "__main__":
    main()
