"""Checkpoints: one safetensors file that describes itself. Knows no network; a spec is read without torch.

The spec (`ModelSpec.to_json`) is the only entry of the file's metadata, under `centerstream`. Two entries would be
written in no fixed order, and the same weights should always be the same bytes. Files without it are read too.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from safetensors import SafetensorError, safe_open

from configs.uri import shown_text
from models.files import whole_file
from models.spec import ModelSpec

if TYPE_CHECKING:  # two seconds that a reader of specs need not pay
    from torch import Tensor

METADATA_KEY = "centerstream"
NAMED_KEYS = 5
LONGEST_KEY = 200

FileFormat: TypeAlias = Literal["safetensors", "zip", "pickle"]


class CheckpointError(ValueError):
    """A weights file that cannot be read, or that does not belong to this model; one line.

    The line names a few keys; `keys` has them all, by what is wrong with them ("missing", "surplus", …).
    """

    def __init__(self, message: str, keys: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__(message)
        self.keys = {fault: tuple(names) for fault, names in (keys or {}).items()}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What loading a checkpoint came to.

    spec           what the weights are for: the file's own description, else the model's, with the file as weights_file
    reinitialised  keys of head layers that the file did not fill; they are as the model had them
    dropped        keys of the file that the model has no use for
    """

    spec: ModelSpec
    reinitialised: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def save_checkpoint(state_dict: dict[str, Tensor], path: Path | str, spec: ModelSpec) -> None:
    """Writes the weights with what `spec` says; the file is complete or absent. The same input gives the same bytes."""
    from safetensors.torch import save

    path = Path(path)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in state_dict.items()}
    with whole_file(path) as partial:
        partial.write_bytes(save(tensors, metadata={METADATA_KEY: spec.to_json()}))


def description(path: Path) -> ModelSpec | None:
    """What a file of weights says about itself, None where it says nothing. Raises CheckpointError for no such file.

    Only the head of the file is read.
    """
    if file_format(path) != "safetensors":
        return None
    with _opened(path, "numpy") as file:
        return _spec(path, file)


def read_spec(path: Path | str) -> ModelSpec:
    """What a checkpoint says about itself. Raises CheckpointError where it is another's file and says nothing."""
    path = Path(path)
    spec = description(path)
    if spec is None and file_format(path) != "safetensors":
        raise CheckpointError(f"{path}: a PyTorch file, which does not describe itself; load_model reads it")
    if spec is None:
        raise CheckpointError(
            f"{path}: safetensors, but not of CenterStream: no '{METADATA_KEY}' entry in its metadata"
        )
    return spec


def read_safetensors(path: Path) -> tuple[ModelSpec | None, dict[str, Tensor]]:
    """The weights of a safetensors file, and what it says about itself, if it is ours. Raises CheckpointError."""
    with _opened(path, "pt") as file:
        return _spec(path, file), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def file_format(path: Path) -> FileFormat:
    """By the first bytes, for a suffix proves nothing: PyTorch writes zips since 1.6, and wrote bare pickles before.

    Raises CheckpointError for what is no file of weights, with the reason a person can act on.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
            raise CheckpointError(f"{path}: {'a directory' if path.is_dir() else 'not a regular file'}; give a file")
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{shown_text(str(path))}: cannot be read ({error.strerror})") from None
    if not start:
        raise CheckpointError(f"{path}: the file is empty (0 bytes)")
    if start[8:] == b"{":  # behind a length, whose first byte may be any
        return "safetensors"
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    if start.startswith(b"\x80"):
        return "pickle"
    raise CheckpointError(f"{path}: no weights file: neither safetensors nor written by torch.save")


def a_few(keys: Iterable[str]) -> str:
    """The first keys by name, then how many more."""
    keys = list(keys)
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(map(_printable, keys[:NAMED_KEYS])) + more


def _printable(key: str) -> str:
    """A file may hold any key, and a message is one line."""
    return key if key.isprintable() and len(key) <= LONGEST_KEY else ascii(key[:LONGEST_KEY])


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, cut short or not a safetensors file ({one_line(error)})") from None


def _spec(path: Path, file: Any) -> ModelSpec | None:
    text = (file.metadata() or {}).get(METADATA_KEY)
    try:
        return None if text is None else ModelSpec.from_json(text, weights_file=path)
    except ValueError as error:
        raise CheckpointError(f"{path}: its description is not valid ({one_line(error)})") from None
