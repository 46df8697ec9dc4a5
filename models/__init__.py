"""The networks: built by name, filled from a file. Knows no pipeline.

    model = create_model("mobilenetv3")
    spec = load_checkpoint(model, SPECS["mobilenetv3"].weights_file)

Importing this package does not import torch; `create_model` and `load_checkpoint` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from models.checkpoints import CheckpointError, load_checkpoint, read_spec, save_checkpoint
from models.spec import DEFAULT_MODEL, SPECS, ModelSpec

if TYPE_CHECKING:
    from models.centernet import CenterNet
    from models.heads import Head

__all__ = [
    "DEFAULT_MODEL",
    "SPECS",
    "CheckpointError",
    "ModelSpec",
    "create_model",
    "list_models",
    "load_checkpoint",
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
    if name not in SPECS:
        raise ValueError(f"model '{name}': allowed are {', '.join(list_models())}")
    if num_classes < 1:
        raise ValueError(f"num_classes {num_classes}: give 1 or more")
    from models.build import build

    return build(SPECS[name].with_classes(num_classes), heads)
