"""All that a training needs to go on as if it had not stopped: one safetensors file, complete or absent. Knows no loop.

Tensors by part and name; what is not a tensor is JSON in the metadata. Nothing in it can run.
"""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.files import check_is_file, whole_file

METADATA_KEY = "centerstream_training"
Tensors = dict[str, Tensor]


class StateError(ValueError):
    """A state file that cannot be read, or that is not of this training; one line."""


class Progress(msgspec.Struct):
    """Where a training is.

    step    of the whole training, the next to be made
    best    the highest average precision so far, and the epoch it came with; -1 and 0 before the first evaluation
    scaler  of the gradient scaler for half precision
    rate_scale  of the recipe's learning rate, which was halved whenever the training diverged
    first_loss  what the loss was before anything was learnt, where a guard asked for it
    recipe  as JSON
    """

    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    scaler: dict[str, float] = {}
    recipe: str = ""
    rate_scale: float = 1.0
    first_loss: float | None = None


@dataclass
class State:
    """Progress, and tensors by part ("network", "optimiser", "average", "random")."""

    progress: Progress
    parts: dict[str, Tensors] = field(default_factory=dict)


def save_state(state: State, path: Path) -> None:
    """Raises OSError where it cannot be written; what was there before is then still there."""
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous().clone()
        for part, named in state.parts.items()
        for name, tensor in named.items()
    }
    try:
        with whole_file(path) as partial:
            save_file(tensors, partial, metadata={METADATA_KEY: msgspec.json.encode(state.progress).decode()})
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error})") from None


def load_state(path: Path) -> State:
    """Raises StateError."""
    try:
        check_is_file(path)
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get(METADATA_KEY)
            if described is None:
                raise StateError(f"{path}: no state of a training; --resume takes the state.safetensors in its folder")
            state = State(msgspec.json.decode(described, type=Progress))
            for key in file.keys():  # noqa: SIM118
                part, _, name = key.partition("/")
                state.parts.setdefault(part, {})[name] = file.get_tensor(key)
    except (SafetensorError, OSError, msgspec.MsgspecError) as error:
        raise StateError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    return state


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> Tensors:
    """The optimiser's memory of each weight, by `place.name`."""
    states = optimiser.state_dict()["state"]
    return {f"{place}.{name}": value for place, named in states.items() for name, value in named.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Tensors) -> None:
    states: dict[int, Tensors] = {}
    for key, value in tensors.items():
        place, _, name = key.partition(".")
        states.setdefault(int(place), {})[name] = value
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
