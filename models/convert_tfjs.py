"""The shipped weights from their origin: the TensorFlow.js graph in the npm package @vladmandic/human 3.3.6.

    python -m models.convert_tfjs PACKAGE_DIR_OR_TGZ OUT.safetensors

Every constant of the graph is either a weight, used exactly once, or a number the layers here have built in; anything
else is an error. The same package gives the same bytes.
Knows the graph's names and layout; needs no TensorFlow.
"""

import argparse
import hashlib
import json
import math
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from configs import startup
from models import SPECS, create_model, save_checkpoint
from models.backbones.mobilenetv3 import ROWS

SHA256 = {
    "models/centernet.json": "bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
    "models/centernet.bin": "1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
}

# The graph's sizes are in units of 16 input pixels, ours in cells of 4. A power of two: exact in half floats.
SIZE_HEAD_GAIN = 4

# The graph's hard swish and hard sigmoid end in the half float next to 1/6, which is smaller by this factor. Left
# out it would cost 2 % of a box; the layers keep the true 1/6, and the weights behind them take the factor.
HARD_GAIN = float(np.float16(1 / 6)) * 6

# How the graph names the weights of a scope {}, by the kind of layer; our names on the left.
WEIGHT_NAMES = {
    "conv": {"weight": "tower_0/{}/Conv2D_weights", "bias": "tower_0/{}/Conv2D_bn_offset"},
    "depthwise": {"weight": "tower_0/{}/depthwise_weights", "bias": "tower_0/{}/depthwise_bn_offset"},
    "plain": {"weight": "{}/weights", "bias": "{}/biases"},
    "gate": {"weight": "{}/weights"},
    "separable": {
        "depthwise.weight": "{}/depthwise_weights",
        "pointwise.weight": "tower_0/{}/separable_conv2d_weights",
        "pointwise.bias": "tower_0/{}/separable_conv2d_bn_offset",
    },
    "head": {
        "depthwise.weight": "{}/depthwise_weights",
        "pointwise.weight": "{}/pointwise_weights",
        "pointwise.bias": "{}/biases",
    },
}

# Numbers the layers have built in: x·relu6(x + 3)/6, sizes in 16 pixels, points in 4.
BUILT_IN = (
    (r"(hard_swish/mul_1|squeeze_excite/Conv_1/mul)/y", float(np.float16(1 / 6))),
    (r"(hard_swish|squeeze_excite/Conv_1)/add/y", 3.0),
    (r"^tower_0/mul/y", 16.0),
    (r"^tower_0/mul_[3-6]/y", 4.0),
)


class ConversionError(ValueError):
    """The package is not the one this converter knows; one line."""


def layer_scopes() -> Iterator[tuple[str, str, str]]:
    """(our layer, its kind, the graph's scope) for every layer that has weights."""
    yield "backbone.stem", "conv", "MobilenetV3/Conv"
    yield "backbone.last", "conv", "extern1"
    for i, row in enumerate(ROWS):
        ours, theirs = f"backbone.blocks.{i}", "MobilenetV3/expanded_conv" + (f"_{i}" if i else "")
        if i:
            yield f"{ours}.expand", "conv", f"{theirs}/expand"
        yield f"{ours}.depthwise", "depthwise", f"{theirs}/depthwise"
        if row.squeezed:
            yield f"{ours}.squeeze_excite.reduce", "plain", f"{theirs}/squeeze_excite/Conv"
            yield f"{ours}.squeeze_excite.expand", "plain", f"{theirs}/squeeze_excite/Conv_1"
        yield f"{ours}.project", "conv", f"{theirs}/project"
    for level in range(3):
        lateral, upsample = f"CenternetHead/c{level + 2}_reverse", f"CenternetHead/c{level + 3}_upsample"
        yield f"neck.laterals.{level}.reduce", "conv", f"{lateral}/1x1"
        yield f"neck.laterals.{level}.separable", "separable", f"{lateral}/3x3"
        yield f"neck.upsamples.{level}.near", "separable", f"{upsample}/branch_x_upsample_resize"
        yield f"neck.upsamples.{level}.far", "separable", f"{upsample}/branch_y_upsample_resize"
    yield "neck.attention.reduce", "conv", "CenternetHead/conv1x1_se_a"
    yield "neck.attention.expand", "gate", "CenternetHead/conv1x1_se_b"
    yield "heads.hm", "head", "CenternetHead/centernet_cls_output"
    yield "heads.wh", "head", "CenternetHead/centernet_wh_output"


def graph_names() -> dict[str, str]:
    """Our state_dict key: the graph's constant."""
    return {
        f"{layer}.{weight}": name.format(scope)
        for layer, kind, scope in layer_scopes()
        for weight, name in WEIGHT_NAMES[kind].items()
    }


def read_package(path: Path) -> dict[str, bytes]:
    """The two files of the model out of the package, unpacked or as .tgz, with their hashes checked."""
    if path.is_dir():
        found = {name: (path / name).read_bytes() for name in SHA256 if (path / name).is_file()}
    else:
        with tarfile.open(path, "r:gz") as archive:
            members = {member.name: member for member in archive.getmembers() if member.isfile()}
            present = (name for name in SHA256 if f"package/{name}" in members)
            opened = ((name, archive.extractfile(members[f"package/{name}"])) for name in present)
            found = {name: file.read() for name, file in opened if file is not None}
    for name, expected in SHA256.items():
        if name not in found:
            raise ConversionError(f"{path}: no {name} in it; expected the npm package @vladmandic/human 3.3.6")
        if hashlib.sha256(found[name]).hexdigest() != expected:
            raise ConversionError(f"{path}: {name} is not that of @vladmandic/human 3.3.6 (SHA-256 differs)")
    return found


def read_constants(manifest_json: bytes, binary: bytes) -> dict[str, NDArray[Any]]:
    """Every constant by name, as stored: half floats or int32, one after the other in the manifest's order."""
    constants: dict[str, NDArray[Any]] = {}
    start = 0
    for entry in (entry for group in json.loads(manifest_json)["weightsManifest"] for entry in group["weights"]):
        dtype = np.dtype("<" + {"float16": "f2", "int32": "i4"}[entry.get("quantization", entry)["dtype"]])
        count = math.prod(entry["shape"])
        constants[entry["name"]] = np.frombuffer(binary, dtype, count, start).reshape(entry["shape"])
        start += count * dtype.itemsize
    if start != len(binary):
        raise ConversionError(f"centernet.bin has {len(binary)} bytes, its manifest describes {start}")
    return constants


def to_torch_layout(key: str, value: NDArray[Any]) -> NDArray[Any]:
    """Kernels from height, width, in, out (depthwise: channel, 1) to out, in, height, width."""
    if value.ndim != 4:
        return value
    return value.transpose(2, 3, 0, 1) if "depthwise" in key else value.transpose(3, 2, 0, 1)


def convert(constants: dict[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    """The graph's weights as our state_dict, in half floats where that is exact.

    Raises ConversionError unless every one fits and is used once.
    """
    names = graph_names()
    expected = {key: tuple(value.shape) for key, value in create_model("mobilenetv3").state_dict().items()}
    if set(names) != set(expected) or len(set(names.values())) != len(names):
        raise ConversionError(f"names that do not pair off: {sorted(set(names) ^ set(expected))[:5]}")
    check_leftovers({name: value for name, value in constants.items() if name not in names.values()})
    gains = dict(weight_gains())
    converted = {}
    for key, name in names.items():
        if name not in constants:
            raise ConversionError(f"{name}: not in the graph, but {key} comes from it")
        value = to_torch_layout(key, constants[name])
        if value.shape != expected[key]:
            raise ConversionError(f"{name}: shape {value.shape}, but {key} has {expected[key]}")
        converted[key] = torch.from_numpy(in_halves_if_exact(value.astype(np.float64) * gains.get(key, 1.0)))
    return converted


def weight_gains() -> Iterator[tuple[str, float]]:
    """(key, factor) for the weights that take over a constant of the graph."""
    yield "heads.wh.pointwise.weight", SIZE_HEAD_GAIN
    yield "heads.wh.pointwise.bias", SIZE_HEAD_GAIN
    yield "neck.upsamples.2.near.depthwise.weight", HARD_GAIN
    yield "neck.upsamples.2.far.depthwise.weight", HARD_GAIN
    # Block 0 adds its input, the stem's hard swish, to its output: the factor of that sum passes on to block 1.
    yield "backbone.blocks.0.depthwise.weight", HARD_GAIN
    yield "backbone.blocks.0.project.weight", 1 / HARD_GAIN
    yield "backbone.blocks.0.project.bias", 1 / HARD_GAIN
    yield "backbone.blocks.1.expand.weight", HARD_GAIN
    for i, row in enumerate(ROWS):
        swish, gate = row.activation is F.hardswish, row.squeezed > 0
        if swish:
            yield f"backbone.blocks.{i}.depthwise.weight", HARD_GAIN
        if swish and gate:
            yield f"backbone.blocks.{i}.squeeze_excite.reduce.weight", HARD_GAIN
        if swish or gate:
            yield f"backbone.blocks.{i}.project.weight", HARD_GAIN ** (swish + gate)


def in_halves_if_exact(value: NDArray[np.float64]) -> NDArray[np.float16 | np.float32]:
    halves = value.astype(np.float16)
    return halves if (halves == value).all() else value.astype(np.float32)


def check_leftovers(constants: dict[str, NDArray[Any]]) -> None:
    """What is no weight must be an index or a size (int32), or a number built into our layers."""
    for name, value in constants.items():
        known = any(re.search(pattern, name) and value.shape == () and value == number for pattern, number in BUILT_IN)
        if value.dtype != np.int32 and not known:
            raise ConversionError(f"{name}: a constant of shape {value.shape} that nothing here uses")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m models.convert_tfjs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("package", type=Path, help="@vladmandic/human 3.3.6, unpacked or as .tgz")
    parser.add_argument("out", type=Path, help="the .safetensors file to write")
    arguments = parser.parse_args()
    try:
        files = read_package(arguments.package)
        state_dict = convert(read_constants(files["models/centernet.json"], files["models/centernet.bin"]))
        save_checkpoint(state_dict, arguments.out, SPECS["mobilenetv3"])
    except (ConversionError, OSError, tarfile.TarError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    print(f"{hashlib.sha256(arguments.out.read_bytes()).hexdigest()}  {arguments.out}")
    return 0


if __name__ == "__main__":
    startup.run(main)
