"""Checkpoints: one safetensors file that describes itself. Knows no network; a spec is read without torch.

The spec (`ModelSpec.to_json`) is the only entry of the file's metadata, under `centerstream`. Two entries would be
written in no fixed order, and the same weights should always be the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from models.spec import ModelSpec

if TYPE_CHECKING:  # two seconds that a reader of specs need not pay
    from torch import Tensor, nn

METADATA_KEY = "centerstream"
NAMED_KEYS = 5
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")  # torch.save: a zip since 1.6, a bare pickle before


class CheckpointError(ValueError):
    """A weights file that cannot be read, or that does not belong to this model; one line."""


def save_checkpoint(state_dict: dict[str, Tensor], path: Path | str, spec: ModelSpec) -> None:
    """Writes the weights with what `spec` says; the file is complete or absent. The same input gives the same bytes."""
    from safetensors.torch import save

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()}
    partial.write_bytes(save(tensors, metadata={METADATA_KEY: spec.to_json()}))
    partial.replace(path)


def read_spec(path: Path | str) -> ModelSpec:
    """What a checkpoint says about itself. Raises CheckpointError."""
    return _read(Path(path), with_weights=False)[0]


def load_checkpoint(model: nn.Module, path: Path | str) -> ModelSpec:
    """Fills `model` with the weights of a file, in the model's own precision, and returns the file's spec.

    Raises CheckpointError; the model is then as it was.
    """
    import torch

    spec, weights = _read(Path(path), with_weights=True)
    _check_fit(path, {key: tuple(value.shape) for key, value in model.state_dict().items()}, weights)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return spec


def _read(path: Path, with_weights: bool) -> tuple[ModelSpec, dict[str, np.ndarray[Any, Any]]]:
    _check_kind(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()} if with_weights else {}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, cut short or not a safetensors file ({_one_line(error)})") from None
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path}: safetensors, but not of CenterStream: no '{METADATA_KEY}' entry in its metadata"
        )
    try:
        spec = ModelSpec.from_json(metadata[METADATA_KEY], weights_file=path)
    except ValueError as error:
        raise CheckpointError(f"{path}: its description is not valid ({_one_line(error)})") from None
    _check_finite(path, weights)
    return spec, weights


def _check_kind(path: Path) -> None:
    """Turns away what is no safetensors file, with the reason a person can act on."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if not start:
        raise CheckpointError(f"{path}: the file is empty (0 bytes)")
    if path.suffix in (".pth", ".pt") or start.startswith(_PICKLE_STARTS):
        raise CheckpointError(f"{path}: a PyTorch pickle; only .safetensors checkpoints are read")
    if start[8:] != b"{":
        raise CheckpointError(f"{path}: not a safetensors file")


def _check_finite(path: Path, weights: dict[str, np.ndarray[Any, Any]]) -> None:
    bad = [key for key, value in weights.items() if value.dtype.kind == "f" and not np.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"{path}: NaN or infinity in {_a_few(bad)}")


def _check_fit(
    path: Path | str, expected: dict[str, tuple[int, ...]], weights: dict[str, np.ndarray[Any, Any]]
) -> None:
    missing = [key for key in expected if key not in weights]
    surplus = [key for key in weights if key not in expected]
    reshaped = [
        f"{key} {weights[key].shape} where the model has {shape}"
        for key, shape in expected.items()
        if key in weights and weights[key].shape != shape
    ]
    faults = (("missing", missing), ("surplus", surplus), ("other shape", reshaped))
    told = "; ".join(f"{kind}: {_a_few(keys)}" for kind, keys in faults if keys)
    if told:
        raise CheckpointError(f"{path}: does not fit the model: {told}")


def _a_few(keys: Iterable[str]) -> str:
    """The first keys by name, then how many more."""
    keys = list(keys)
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(keys[:NAMED_KEYS]) + more


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
