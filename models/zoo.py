"""The zoo: which networks there are, which public weights they have, what both are worth, and where the weights lie.

    python -m models.zoo [--json]

Sizes are counted on the networks themselves; accuracies and speeds are those that were published. Downloads nothing.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

from configs import startup
from configs.folders import home
from configs.uri import shown_text
from models.checkpoints import CheckpointError
from models.command import exit_code
from models.spec import SPECS, WEIGHTS_DIR

SUFFIXES = (".safetensors", ".pth")
CENTERNET_ZOO = "the model zoo of the CenterNet repository (github.com/xingyizhou/CenterNet)"


@dataclass(frozen=True, slots=True)
class PublicWeights:
    """Weights with a name.

    name            the file's, without suffix
    model           the network they are for
    origin          where to get them, in words
    licence         of the weights and of the code they were trained with
    ap              COCO AP (val 2017, percent) as published: plain, with the flipped image, at five scales
    frames_per_s    as published: network and decoding of one image, without test-time augmentation, on `gpu`
    """

    name: str
    model: str
    origin: str
    licence: str
    ap: tuple[float, float, float] | None = None
    frames_per_s: int | None = None
    gpu: str | None = None


def _of_centernet(
    name: str, model: str, ap: tuple[float, float, float], frames_per_s: int, parts_of: str
) -> PublicWeights:
    """Figures of the paper's table 1 and, for the short schedule 1x, of the zoo's own table."""
    licence = f"MIT; BSD-3-Clause in parts ({parts_of})"
    return PublicWeights(name, model, f"{name}.pth of {CENTERNET_ZOO}", licence, ap, frames_per_s, "Titan Xp")


ZOO: dict[str, PublicWeights] = {
    weights.name: weights
    for weights in (
        PublicWeights(
            "mobilenetv3_coco",
            "mobilenetv3",
            "ships with CenterStream; from the npm package @vladmandic/human 3.3.6",
            "MIT; see models/weights/NOTICE",
        ),
        _of_centernet("ctdet_coco_resdcn18", "resdcn_18", (28.1, 30.0, 33.2), 142, "DCNv2"),
        _of_centernet("ctdet_coco_resdcn101", "resdcn_101", (34.6, 36.2, 39.3), 45, "DCNv2"),
        _of_centernet("ctdet_coco_dla_1x", "dla_34", (36.3, 38.2, 40.7), 52, "DLA, DCNv2"),
        _of_centernet("ctdet_coco_dla_2x", "dla_34", (37.4, 39.2, 41.7), 52, "DLA, DCNv2"),
        _of_centernet("ctdet_coco_hg", "hourglass", (40.3, 42.2, 45.1), 14, "CornerNet"),
    )
}


def weights_folders() -> list[Path]:
    """Where weights are looked for, in this order."""
    given, own = os.environ.get("CENTERSTREAM_WEIGHTS"), home()
    places = [Path(given) if given else None, own and own / ".cache" / "centerstream" / "weights"]
    return [WEIGHTS_DIR, *filter(None, places)]


def find_weights(name: str) -> Path | None:
    """The file of public weights, if it is on this machine."""
    places = (folder / (name + suffix) for folder in weights_folders() for suffix in SUFFIXES)
    return next((place for place in places if _is_file(place)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # in a folder that may not be entered
        return False


def resolve_weights(name_or_path: str | Path | None, model: str) -> Path:
    """The file that is meant: a path, the name of public weights, or None for what ships with `model`.

    Raises CheckpointError where there is none, or where the named weights are another network's.
    """
    if name_or_path is None:
        return _shipped(model)
    given = ZOO.get(str(name_or_path))
    if given is None:
        return _existing(Path(name_or_path))
    if given.model != model:
        raise CheckpointError(f"{given.name} is for {given.model}, and the model is {model}")
    found = find_weights(given.name)
    if found is None:
        raise CheckpointError(f"{given.name} is not on this machine: put {given.origin} into {_one_of_the_folders()}")
    return found


def _shipped(model: str) -> Path:
    path = SPECS[model].weights_file
    if path is None:
        known = [weights.name for weights in ZOO.values() if weights.model == model]
        known_too = f", or the name of public ones: {' or '.join(known)}" if known else ""
        raise CheckpointError(f"{model} ships without weights; give a file of them{known_too}")
    return path


def _existing(path: Path) -> Path:
    try:
        path.stat()
    except FileNotFoundError:
        known = f"{', '.join(ZOO)} (looked for in {_one_of_the_folders()})"
        raise CheckpointError(f"{shown_text(str(path))}: no such file, nor a name of known weights: {known}") from None
    except OSError:
        pass  # whoever opens it will say why
    return path


def _one_of_the_folders() -> str:
    return " or ".join(map(str, weights_folders()))


@cache
def count(model: str) -> tuple[int, int]:
    """(parameters, floating point operations for one image at the network's own size) of a network for COCO.

    Two operations for each multiply-add of convolutions and matrix products; sampling, norms, activations and decoding
    are left out. Nothing is computed, only shapes.
    """
    import torch  # slow, and finding weights needs none
    import torchvision.ops  # noqa: F401  brings the operator
    from torch.utils.flop_counter import FlopCounterMode

    from models.build import build

    spec, deformable = SPECS[model], {torch.ops.torchvision.deform_conv2d: _deform_conv_flop}
    with torch.device("meta"):
        network = build(spec).eval()
    images = torch.empty(1, 3, spec.input_height, spec.input_width, device="meta")
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=deformable) as counter:
        network(images)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops()


def _deform_conv_flop(
    images_shape: tuple[int, ...], weight_shape: tuple[int, ...], *_: Any, out_shape: tuple[int, ...], **__: Any
) -> int:
    batch, _channels, height, width = out_shape
    return 2 * batch * height * width * prod(weight_shape)


HEADINGS = ("weights", "model", "M params", "GFLOP", "AP", "flip", "multi", "frames/s", "file")
LEGEND = """
GFLOP      two operations a multiply-add, one image at the network's own size
AP         COCO val 2017, as published: plain, with the flipped image (flip), at five scales (multi)
frames/s   as published: network and decoding of one image on a Titan Xp, plain"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A network as it is listed: input_size is (height, width)."""

    model: str
    input_size: tuple[int, int]
    parameters: int
    flop: int
    weights: list[PublicWeights]


def entries() -> Iterator[Entry]:
    for name, spec in SPECS.items():
        weights = [weights for weights in ZOO.values() if weights.model == name]
        yield Entry(name, (spec.input_height, spec.input_width), *count(name), weights)


def as_json() -> str:
    models = [asdict(entry) for entry in entries()]
    for weights in (weights for model in models for weights in model["weights"]):
        file = find_weights(weights["name"])
        weights["file"] = str(file) if file else None
    return json.dumps({"folders": [str(folder) for folder in weights_folders()], "models": models}, indent=2)


def as_table() -> str:
    rows = [HEADINGS, *(row for entry in entries() for row in _rows(entry))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(_cell(i, *cell) for i, cell in enumerate(zip(row, widths, strict=True))).rstrip() for row in rows
    ]
    origins = [f"{weights.name}: {weights.licence}\n    {weights.origin}" for weights in ZOO.values()]
    return "\n".join([*table, LEGEND, "", *origins, "", f"Weights are looked for in {_one_of_the_folders()}."])


def _rows(entry: Entry) -> Iterator[tuple[str, ...]]:
    size = (entry.model, f"{entry.parameters / 1e6:.1f}", f"{entry.flop / 1e9:.1f}")
    for weights in entry.weights:
        ap = [f"{ap:.1f}" for ap in weights.ap or ()] or ["", "", ""]
        file = find_weights(weights.name)
        yield weights.name, *size, *ap, str(weights.frames_per_s or ""), str(file or "not here")
    if not entry.weights:
        yield "", *size, "", "", "", "", ""


def _cell(column: int, text: str, width: int) -> str:
    """Names to the left, figures to the right."""
    return text.ljust(width) if column in (0, 1, len(HEADINGS) - 1) else text.rjust(width)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m models.zoo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="the same for machines")
    given = parser.parse_args(arguments)
    return exit_code(lambda: print(as_json() if given.json else as_table(), flush=True))


if __name__ == "__main__":
    startup.run(main)
