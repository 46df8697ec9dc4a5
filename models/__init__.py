"""The networks: built by name, filled from a file. Knows no pipeline.

    model = load_model("mobilenetv3")                       # as it ships; model.spec has its classes and size
    model = load_model("dla_34", "ctdet_coco_dla_2x.pth")   # a public checkpoint
    model = create_model("dla_34", num_classes=3)           # random weights, to be trained

Importing this package does not import torch; to create or load a model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import configs  # noqa: F401  how a process of ours starts
from models.checkpoints import CheckpointError, Loaded, description, read_spec, save_checkpoint
from models.spec import DEFAULT_MODEL, NUMBERED_CLASS, SPECS, ModelSpec

if TYPE_CHECKING:
    from models.centernet import CenterNet
    from models.heads import Head

__all__ = [
    "DEFAULT_MODEL",
    "NUMBERED_CLASS",
    "SPECS",
    "CheckpointError",
    "Loaded",
    "ModelSpec",
    "create_model",
    "describe_weights",
    "list_models",
    "load_checkpoint",
    "load_model",
    "read_spec",
    "save_checkpoint",
]


def list_models() -> list[str]:
    """The names `create_model` takes."""
    return sorted(SPECS)


def create_model(name: str, num_classes: int = 80, heads: Sequence[Head] | None = None) -> CenterNet:
    """A network with random weights, and the heads for 2D boxes or those given (their names become attributes).

    Raises ValueError for a name that is not in `list_models()` or fewer than one class.
    """
    _check(name, num_classes)
    from models.build import build

    return build(SPECS[name].with_classes(num_classes), heads)


def load_model(name: str, weights: str | Path | None = None, num_classes: int | None = None) -> CenterNet:
    """A network with its weights: the one way to get one that is ready. Its `spec` says what it expects and finds.

    weights      a checkpoint's path, its name in `python -m models.zoo`, or None for what ships with the model
    num_classes  what the checkpoint must hold; None takes what it holds

    Class names are those in the checkpoint, else COCO's where it holds 80 classes, else class_0, class_1, …
    Raises ValueError as `create_model` does, CheckpointError as `load_checkpoint` does and for weights not found.
    """
    _check(name, num_classes)
    from models import loading

    return loading.load_model(name, weights, num_classes)


def describe_weights(name: str, weights: str | Path | None = None) -> tuple[Path, ModelSpec | None]:
    """The file of weights that `load_model` would take, and what it says about itself, None where it says nothing.

    Reads the head of the file and imports no torch. Raises as `load_model` does, for all that shows there.
    """
    _check(name, None)
    from models.zoo import resolve_weights

    path = resolve_weights(weights, name)
    spec = description(path)
    if spec and spec.name != name and spec.name in SPECS:
        raise CheckpointError(f"{path}: looks like {spec.name}, and the model is {name}")
    return path, spec


def load_checkpoint(model: CenterNet, path: Path | str, allow_head_mismatch: bool = False) -> Loaded:
    """Fills `model` with the weights of a file, in the model's own precision, and sets `model.spec`.

    The file is safetensors, ours or another's, or was written by torch.save: a state_dict, bare or with epoch and
    optimizer beside it, keys with or without `module.`, as in the public CenterNet checkpoints. Nothing in it can run.

    With `allow_head_mismatch` head layers that do not fit stay as they are in the model, and heads that the model lacks
    are dropped; what is returned names them. Raises CheckpointError, and the model is then as it was.
    """
    from models import loading

    return loading.load_checkpoint(model, path, allow_head_mismatch)


def _check(name: str, num_classes: int | None) -> None:
    if name not in SPECS:
        raise ValueError(f"model '{name}': allowed are {', '.join(list_models())}")
    if num_classes is not None and num_classes < 1:
        raise ValueError(f"num_classes {num_classes}: give 1 or more")
