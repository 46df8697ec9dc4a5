"""The files that a run is to read and to write: none is both, none is written twice, and each can be written. Looked at
by what they are, not by what they are called, before anything is opened. Knows no format and no stage.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from configs.startup import standard_output_is_closed
from configs.uri import shown_text
from pipeline.errors import OutputError, UsageError

STANDARD_OUTPUT = "-"
_DESCRIPTOR = 1
_DESCRIPTORS = re.compile(r"/proc/\d+(/task/\d+)?/fd")
_MOST_LINKS = 40

# (device, inode) of what is there; the path, links followed, of what is not there yet
Identity: TypeAlias = tuple[int, int] | str


def check_outputs(outputs: Mapping[str, str]) -> dict[Identity, str]:
    """Outputs by what they are ("deliver.jsonl"), a path or "-" each; the files they will be, with words for each.

    Raises UsageError for a file that would be written twice, OutputError for one that cannot be written.
    """
    written: dict[Identity, str] = {}
    for name, target in outputs.items():
        place = STANDARD_OUTPUT if _descriptor_of(name, target) == _DESCRIPTOR else target
        _check_writable(name, place)
        identity = _identity(place)
        if identity in written:
            raise UsageError(f"{written[identity]} is the file of {name} too; give another file")
        if identity is not None:
            written[identity] = f"{name}: {shown_text(target)}"
    return written


def check_folders(outputs: Mapping[str, str]) -> None:
    """Outputs that write into a folder, by what they are; it and the one that it lies in are made where they are not.

    Raises UsageError for a folder that two would write into, OutputError for one that cannot be written.
    """
    names: dict[str, str] = {}
    for name, path in outputs.items():
        _check_folder(name, Path(path))
        other = names.setdefault(os.path.realpath(path), name)
        if other != name:
            raise UsageError(f"{other}: {shown_text(path)} is the folder of {name} too; give another folder")


def _check_folder(name: str, path: Path) -> None:
    places = [path, *path.parents][:3]
    try:
        os.path.realpath(path)  # `exists` takes what no name can be for one that is not there
        place = next((place for place in places if place.exists()), None)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {shown_text(str(path))}: {_why_no_name(error)}") from None
    if place is None:
        raise UsageError(f"{name}: the folder of {shown_text(str(path.parent))} does not exist; make it first")
    if not place.is_dir():
        raise OutputError(f"{name}: cannot write into {shown_text(str(place))}: it is no folder")
    if not os.access(place, os.W_OK):
        raise OutputError(f"{name}: cannot write into {shown_text(str(place))}: no permission")


def _descriptor_of(name: str, path: str) -> int | None:
    """1 for /dev/stdout, /dev/fd/1 and the like, 2 for standard error, None for a path that leads to no descriptor.

    Raises UsageError for others: the process that writes has its own, and another file under the same number.
    """
    for _ in range(_MOST_LINKS):
        folder, last = os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path)  # noqa: PTH119, PTH120
        if last.isdecimal() and _DESCRIPTORS.fullmatch(folder):
            if int(last) in (1, 2):
                return int(last)
            raise UsageError(f"{name}: {shown_text(path)} is a descriptor; give a path, or - for standard output")
        if not os.path.islink(os.path.join(folder, last)):  # noqa: PTH114, PTH118 (false for a name that is too long)
            return None
        path = os.path.join(folder, Path(folder, last).readlink())  # noqa: PTH118 (an absolute target takes its place)
    return None


def check_inputs(inputs: Mapping[str, Iterable[Path]], written: Mapping[Identity, str]) -> None:
    """Inputs by what they are ("the source"). Raises UsageError for one that is among the `written`."""
    for name, paths in inputs.items():
        for path in paths if written else ():
            if output := written.get(_identity(path) or ""):
                raise UsageError(f"{output} is {name}, and would be overwritten; give another file")


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
        if standard_output_is_closed():
            raise OutputError(f"{name}: standard output is closed; give a file, or leave it open")
        return
    try:
        place = Path(os.path.realpath(path))  # a link that leads to nothing yet is written where it leads
        exists, is_folder = place.exists(), place.is_dir() or path.endswith("/")
        folder_exists = place.parent.is_dir()
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {shown_text(path)}: {_why_no_name(error)}") from None
    if not folder_exists:
        raise UsageError(f"{name}: the folder of {shown_text(path)} does not exist; make it first")
    if is_folder:
        raise OutputError(f"{name}: cannot write {shown_text(path)}: it is a folder")
    if not os.access(place if exists else place.parent, os.W_OK):
        raise OutputError(f"{name}: cannot write {shown_text(path)}: no permission")


def _why_no_name(error: Exception) -> str:
    return getattr(error, "strerror", None) or "not a name a file can have"
