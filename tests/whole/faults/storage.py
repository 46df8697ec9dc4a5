"""Disks that are full, or that stand still. Need root; skip where the machine does not let us. Know no product."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.whole.faults.network import run


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk in memory with room for `size`, such as 64k."""
    _need("mount")
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _unmount(folder)


class StallingDisk:
    """A disk whose writers wait, unkillable, while it is frozen: what a dead network share does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def freeze(self) -> None:
        run("fsfreeze", "--freeze", str(self.folder))

    def thaw(self) -> None:
        subprocess.run(["fsfreeze", "--unfreeze", str(self.folder)], capture_output=True)


@contextmanager
def stalling_disk(folder: Path, megabytes: int = 64) -> Iterator[StallingDisk]:
    _need("mount", "fsfreeze", "mkfs.ext4")
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        os.truncate(file.fileno(), megabytes << 20)
    folder.mkdir()
    run("mkfs.ext4", "-q", str(image))
    _mount("-o", "loop", str(image), str(folder))
    disk = StallingDisk(folder)
    try:
        yield disk
    finally:
        disk.thaw()
        _unmount(folder)


def _need(*programs: str) -> None:
    if os.geteuid() != 0 or not all(map(shutil.which, programs)):
        pytest.skip(f"a disk of its own needs root and {', '.join(programs)}")


def _mount(*words: str) -> None:
    try:
        run("mount", *words)
    except RuntimeError as error:
        pytest.skip(f"no disk of its own here: {error}")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)
