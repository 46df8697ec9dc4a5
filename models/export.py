"""A network as an ONNX file: uint8 RGB frames in, raw heads out. `python -m models.export --help`

Deformable convolutions become the standard's own operator, DeformConv (opset 19), so nothing needs an extension.
Knows no runtime that might load the file. Needs the packages onnx and onnxscript.
"""

import argparse
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import torchvision.ops  # noqa: F401  puts its operators into torch.ops

from configs import startup
from models import DEFAULT_MODEL, load_model
from models.command import exit_code
from models.files import check_not_read, whole_file
from models.pixels import PixelDetector, PixelNetwork

OPSET = 20
INPUT_NAME = "images_bhwc"


def export_onnx(module: PixelNetwork, path: Path | str, height: int, width: int, batch: int | None = 1) -> None:
    """Writes `module` for images of one size: input `images_bhwc`, outputs by the names of the module. Where `batch` is
    None, for any number of them.

    The file is complete or absent; its metadata has the network's spec (`ModelSpec.to_json`, under `centerstream`).
    Raises ImportError without the packages onnx and onnxscript, ValueError for a size the network cannot take.
    """
    path = Path(path)
    spec = module.network.spec
    step = spec.size_multiple
    if (batch is not None and batch < 1) or height < step or width < step or height % step or width % step:
        raise ValueError(f"{batch} images of {width}x{height}: give 1 or more, both sides multiples of {step}")
    program = _program(module, batch, height, width)
    program.model.metadata_props["centerstream"] = spec.to_json()
    with whole_file(path) as partial:
        program.save(partial)


def _program(module: PixelNetwork, batch: int | None, height: int, width: int) -> Any:
    device = next(module.parameters()).device
    images_bhwc = torch.zeros(batch or 2, height, width, 3, dtype=torch.uint8)  # from one alone it would learn "one"
    with warnings.catch_warnings():  # about the exporter's own workings
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        return torch.onnx.export(
            module,
            (images_bhwc.to(device),),
            dynamic_shapes=None if batch else ({0: torch.export.Dim("batch", min=1)},),
            input_names=[INPUT_NAME],
            output_names=list(module.names),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.torchvision.deform_conv2d.default: _deform_conv},
        )


def _deform_conv(
    x: Any, weight: Any, offset: Any, mask: Any, bias: Any,
    stride_h: int, stride_w: int, pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
    groups: int, offset_groups: int, use_mask: bool,
) -> Any:  # fmt: skip
    """torchvision::deform_conv2d in the words of ONNX, whose offsets and masks have the same layout."""
    from onnxscript import opset20 as op

    return op.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w, pad_h, pad_w],
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.export", description="Write a network as an ONNX file.")
    parser.add_argument("out", type=Path, help="the .onnx file to write")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the network")
    parser.add_argument("--weights", help="a checkpoint, or its name in `python -m models.zoo`")
    parser.add_argument("--width", type=int, help="of the input in pixels; default: what the model was made for")
    parser.add_argument("--height", type=int, help="the same")
    parser.add_argument("--batch", type=int, default=1, help="images at a time (1)")
    parser.add_argument("--top-k", type=int, default=0, help="search the peaks, too: the best K come out, not heads")
    given = parser.parse_args(arguments)
    return exit_code(lambda: run(given))


def run(given: argparse.Namespace) -> None:
    """Raises ValueError or OSError with one line."""
    network = load_model(given.model, given.weights)
    spec, batch = network.spec, given.batch
    check_not_read(given.out, filter(None, [spec.weights_file]))
    module = PixelDetector(network, given.top_k) if given.top_k else PixelNetwork(network)
    width, height = given.width or spec.input_width, given.height or spec.input_height
    try:
        export_onnx(module, given.out, height, width, batch)
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: pip install onnx onnxscript") from None
    shapes = ", ".join(f"{name} {(batch, *shape)}" for name, shape in module.output_shapes(height, width).items())
    print(f"wrote {given.out}: {INPUT_NAME} ({batch}, {height}, {width}, 3) uint8 RGB to {shapes}")


if __name__ == "__main__":
    startup.run(main)
