"""PyTorch's own files (.pth), such as the public CenterNet checkpoints. Knows no network.

A pickle is a program, and a zip may unpack to any size. So a file is looked through first, and what asks for more than
tensors or claims more than it holds is refused; only then torch reads it, as weights only.
"""

import mmap
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import CheckpointError, a_few, one_line

# What torch.save needs for tensors, numbers and strings; beside these the storage types, torch.FloatStorage and so on.
# torch.load(weights_only=True) allows more, such as `bytearray(n)` of any size.
NEEDED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch device",
    *(f"torch {name}" for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "bool")),
}
ADVICE = "save the network's state_dict() alone"
PROTOCOL = 2
LEGACY_PICKLES = 5  # magic number, protocol, system, what was saved, keys of the storages; then the storages

# Where a training run keeps the state_dict: CenterNet's own and Lightning's; PyTorch's tutorials'; DETR's and others'.
WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_torch_file(path: Path, is_zip: bool) -> dict[str, Tensor]:
    """The state_dict in a file of torch.save, bare or wrapped with epoch and optimizer; on the CPU, as it was saved.

    Raises CheckpointError, before anything is unpacked or allocated where a file asks for code or claims too much.
    """
    try:
        _check_asks_for_tensors_only(path, _zip_pickles(path) if is_zip else _legacy_pickles(path))
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a damaged program comes to
        what = f"{type(error).__name__}: {one_line(error)[:100]}"
        raise CheckpointError(f"{path}: damaged or cut short, or not a file of torch.save ({what})") from None
    return _state_dict(path, content)


def _zip_pickles(path: Path) -> Iterator[str]:
    """What the pickles in a zip ask for. torch stores without compression, so nothing may be larger than the file."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
        claimed = sum(member.file_size for member in members)
        if any(member.filename.endswith("/constants.pkl") for member in members):
            raise CheckpointError(f"{path}: a TorchScript archive, which is a program; {ADVICE}")
        if packed:
            raise CheckpointError(f"{path}: compressed members ({a_few(packed)}), which torch.save never writes")
        if claimed > size:
            raise CheckpointError(f"{path}: claims to hold {claimed} bytes in a file of {size}")
        for member in members:
            if member.filename.endswith(".pkl"):
                yield from _asked_for(archive.read(member))


def _legacy_pickles(path: Path) -> Iterator[str]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for _ in range(LEGACY_PICKLES):
            yield from _asked_for(content)


def _asked_for(program: Any) -> Iterator[str]:
    """The Python objects a pickle imports, as "module name"; nothing of it runs."""
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "PROTO" and argument != PROTOCOL:
            raise ValueError(f"pickle protocol {argument}, where torch.save writes {PROTOCOL}")
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
            yield opcode.name


def _check_asks_for_tensors_only(path: Path, asked_for: Iterator[str]) -> None:
    others = {name for name in asked_for if name not in NEEDED and not _is_storage(name)}
    if others:
        names = a_few(sorted(name.replace(" ", ".") for name in others))
        raise CheckpointError(
            f"{path}: a pickle that asks for {names}, so it is more than weights; nothing of it was run; {ADVICE}"
        )


def _is_storage(name: str) -> bool:
    module, _, name = name.partition(" ")
    return module == "torch" and name.endswith("Storage")


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, dict):
        content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, not a state_dict")
    others = [
        f"{key} ({type(value).__name__})"
        for key, value in content.items()
        if not (isinstance(key, str) and isinstance(value, Tensor))
    ]
    if others:
        raise CheckpointError(f"{path}: a state_dict holds plain tensors only, this one {a_few(others)}")
    size = path.stat().st_size
    larger = [key for key, value in content.items() if value.numel() * value.element_size() > size]
    if larger:
        raise CheckpointError(f"{path}: claims to hold more than its {size} bytes: {a_few(larger)}")
    return content
