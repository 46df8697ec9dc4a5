"""Weights into networks: does a file fit, how many classes does it hold, and what is it if it does not fit.

A network is filled completely or left as it was. Knows no file format and no architecture, only keys and shapes.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from models.build import build
from models.centernet import CenterNet
from models.checkpoints import CheckpointError, Loaded, a_few, file_format, read_safetensors
from models.spec import SPECS, ModelSpec
from models.torchfiles import read_torch_file
from models.zoo import resolve_weights

Weights = dict[str, Tensor]
Faults = dict[str, list[str]]

HEAT_MAP = "hm"
# The classifier with which DLA was trained on ImageNet: the public checkpoints hold it, detection does not need it.
UNUSED = "base.fc."
# Of batch norms; PyTorch before 0.4.1 did not save it, and no output depends on it.
COUNTER = ".num_batches_tracked"

ALLOW = "allow_head_mismatch=True"


def load_model(name: str, weights: str | Path | None = None, num_classes: int | None = None) -> CenterNet:
    """See `models.load_model`."""
    path = resolve_weights(weights, name)
    file_spec, tensors = read_weights(path)
    model = build(SPECS[name])
    classes = num_classes or _classes(tensors, like=model.state_dict()) or len(model.spec.class_names)
    if classes != len(model.spec.class_names):
        model = build(SPECS[name].with_classes(classes))
    _fill(model, path, file_spec, tensors, allow_head_mismatch=False)
    return model.eval()


def load_checkpoint(model: CenterNet, path: Path | str, allow_head_mismatch: bool = False) -> Loaded:
    """See `models.load_checkpoint`."""
    path = Path(path)
    return _fill(model, path, *read_weights(path), allow_head_mismatch)


def read_weights(path: Path) -> tuple[ModelSpec | None, Weights]:
    """A file in any format: its spec if it has one, its tensors by keys without `module.`. Raises CheckpointError."""
    form = file_format(path)
    spec, saved = read_safetensors(path) if form == "safetensors" else (None, read_torch_file(path, form == "zip"))
    weights = {key.removeprefix("module."): value for key, value in saved.items()}  # DataParallel's
    if len(weights) < len(saved):
        twice = sorted(key for key in saved if f"module.{key}" in saved)
        raise CheckpointError(f"{path}: holds keys with and without 'module.': {a_few(twice)}", {"twice": twice})
    return spec, weights


def _fill(
    model: CenterNet, path: Path, file_spec: ModelSpec | None, weights: Weights, allow_head_mismatch: bool
) -> Loaded:
    expected: Weights = model.state_dict()
    faults = _faults(expected, weights)
    wrong = {key for keys in faults.values() for key in keys}
    if wrong and not (allow_head_mismatch and all(_is_of_head(key, model, expected) for key in wrong)):
        raise _misfit(path, model, weights, faults)
    fresh = {_layer(key) for key in wrong if key in expected}
    filling = {
        key: weights[key].to(value.dtype)
        for key, value in expected.items()
        if key in weights and _layer(key) not in fresh
    }
    _check_finite(path, filling)
    reinitialised = tuple(key for key in expected if _layer(key) in fresh)
    spec = _spec(model, path, file_spec, reinitialised)
    model.load_state_dict(filling, strict=False)
    model.spec = spec
    return Loaded(spec, reinitialised, dropped=tuple(key for key in weights if key not in expected))


def _faults(expected: Weights, weights: Weights) -> Faults:
    """What keeps `weights` from being the `expected` ones: keys by the kind of fault, kinds without any left out."""
    faults = {
        "missing": [key for key in expected if key not in weights and not key.endswith(COUNTER)],
        "surplus": [key for key in weights if key not in expected and not key.startswith(UNUSED)],
        "other shape": [key for key in expected if key in weights and not _alike(expected[key], weights[key])],
    }
    return {fault: keys for fault, keys in faults.items() if keys}


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.is_floating_point() == b.is_floating_point()


def _layer(key: str) -> str:
    return key.rpartition(".")[0]


def _head_name(key: str) -> str:
    """The head that a key is of, if it is of one: `hm.2.bias` and `heads.hm.pointwise.bias` are of hm."""
    first, second = key.split(".")[0], key.split(".")[1:2]
    return second[0] if first == "heads" and second else first


def _is_of_head(key: str, model: CenterNet, expected: Weights) -> bool:
    """Also of one the model lacks, which shows in that under the name of another head the model would have the key."""
    name, known = _head_name(key), [head.name for head in model.head_specs]
    return name in known or any(key.replace(name, head, 1) in expected for head in known)


def _classes(weights: Weights, like: Weights) -> int | None:
    """How many classes the last layer of the heat maps has, if its input is as in the network `like`."""
    keys = [key for key in like if _head_name(key) == HEAT_MAP and key.endswith(".weight")]
    last = weights.get(keys[-1]) if keys else None
    return len(last) if last is not None and last.ndim > 1 and last.shape[1:] == like[keys[-1]].shape[1:] else None


def _check_finite(path: Path, weights: Weights) -> None:
    bad = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(f"{path}: NaN or infinity in {a_few(bad)}", {"not finite": bad})


def _spec(model: CenterNet, path: Path, file_spec: ModelSpec | None, reinitialised: tuple[str, ...]) -> ModelSpec:
    spec = replace(file_spec or model.spec, weights_file=path)
    if HEAT_MAP in map(_head_name, reinitialised):
        return replace(spec, class_names=model.spec.class_names)
    named, classes = len(spec.class_names), len(model.spec.class_names)
    if named != classes:
        raise CheckpointError(f"{path}: its description names {named} classes, but its heat maps are {classes}")
    return spec


def _misfit(path: Path, model: CenterNet, weights: Weights, faults: Faults) -> CheckpointError:
    name, expected = model.spec.name, model.state_dict()
    told = _told(expected, weights, faults)
    made, held = _classes(expected, like=expected), _classes(weights, like=expected)
    if not all(_is_of_head(key, model, expected) for keys in faults.values() for key in keys):
        other = _looks_like(weights)
        if other not in (None, name):
            return CheckpointError(f"{path}: looks like {other}, and the model is {name}", faults)
        return CheckpointError(f"{path}: does not fit {name}: {told}", faults)
    if held not in (None, made):
        create = f"create_model('{name}', num_classes={held})"
        what = f"holds {held} classes, the model was made for {made}: {create}"
        return CheckpointError(f"{path}: {what}, or {ALLOW} to keep the rest and start the heads anew", faults)
    return CheckpointError(f"{path}: has other heads than the model ({told}): {ALLOW} keeps what fits", faults)


def _told(expected: Weights, weights: Weights, faults: Faults) -> str:
    def with_shapes(key: str) -> str:
        return f"{key} {_kind(weights[key])} where the model has {_kind(expected[key])}"

    named = {**faults, "other shape": [with_shapes(key) for key in faults.get("other shape", ())]}
    return "; ".join(f"{fault}: {a_few(keys)}" for fault, keys in named.items() if keys)


def _kind(value: Tensor) -> str:
    shape = str(tuple(value.shape))
    return shape if value.is_floating_point() else f"{shape} {str(value.dtype).removeprefix('torch.')}"


def _looks_like(weights: Weights) -> str | None:
    """The known architecture of which `weights` has everything but the heads."""
    for name, spec in SPECS.items():
        with torch.device("meta"):  # keys and shapes without numbers
            model = build(spec.with_classes(1))
        heads = {head.name for head in model.head_specs}
        body = {key: value for key, value in model.state_dict().items() if _head_name(key) not in heads}
        if not _faults(body, weights).keys() - {"surplus"}:
            return name
    return None
