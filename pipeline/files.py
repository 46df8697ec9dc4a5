"""The files that a run is to read and to write: none is both, none is written twice, and each can be written. Looked at
by what they are, not by what they are called, before anything is opened. Knows no format and no stage.
"""

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from configs.uri import shown_text
from pipeline.errors import OutputError, UsageError

STANDARD_OUTPUT = "-"
_DESCRIPTOR = 1

# (device, inode) of what is there; the path, links followed, of what is not there yet
Identity: TypeAlias = tuple[int, int] | str


def check_files(inputs: Mapping[str, Iterable[Path]], outputs: Mapping[str, str]) -> None:
    """Paths by what they are ("the source", "deliver.jsonl"); an output of `-` is standard output.

    Raises UsageError for one that is used twice, OutputError for an output that cannot be written.
    """
    written: dict[Identity, str] = {}
    for name, target in outputs.items():
        _check_writable(name, target)
        identity = _identity(target)
        if identity is None:
            continue
        if identity in written:
            raise UsageError(
                f"{name}: {shown_text(target)} is the output of {written[identity]} too; give another file"
            )
        written[identity] = name
    for name, paths in inputs.items():
        for path in paths if written else ():
            output = written.get(_identity(path) or "")
            if output:
                raise UsageError(
                    f"{output}: {shown_text(outputs[output])} is {name}, and would be overwritten; give another file"
                )


def _identity(path: str | Path) -> Identity | None:
    """None for a device such as /dev/null, which any number may write to."""
    try:
        status = os.fstat(_DESCRIPTOR) if path == STANDARD_OUTPUT else Path(path).stat()
    except OSError:
        return os.path.realpath(path)
    if stat.S_ISCHR(status.st_mode):
        return STANDARD_OUTPUT if path == STANDARD_OUTPUT else None
    return status.st_dev, status.st_ino


def _check_writable(name: str, path: str) -> None:
    if path == STANDARD_OUTPUT:
        return
    place = Path(path)
    try:
        exists, is_folder = place.exists(), place.is_dir()
        folder_exists = place.absolute().parent.is_dir()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a name a file can have"
        raise UsageError(f"{name}: {shown_text(path)}: {why}") from None
    if not folder_exists:
        raise UsageError(f"{name}: the folder of {shown_text(path)} does not exist; make it first")
    if is_folder:
        raise OutputError(f"{name}: cannot write {shown_text(path)}: it is a folder")
    if not os.access(path if exists else place.absolute().parent, os.W_OK):
        raise OutputError(f"{name}: cannot write {shown_text(path)}: no permission")
