"""Memory that runs out: a control group with a bound for some processes. Needs root; knows no product.

What the kernel does where a pool of ours cannot be had (memfds are not bounded by the size of /dev/shm):

    prlimit --fsize=N      the pool cannot be made: ftruncate fails, "File too large"
    prlimit --as=N         it cannot be mapped: mmap fails, "Cannot allocate memory"
    a group's bound        it is made and mapped, and who touches a page too many is killed (SIGKILL): a memfd's pages
                           count for the group of who touched them first

`Options.before` of the rig takes the first two as they are, and `MemoryGroup.before`.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT_V1, ROOT_V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


class MemoryGroup:
    """Processes that may have so much memory together."""

    def __init__(self, folder: Path, bound: Path) -> None:
        self._folder = folder
        self._bound = bound

    @property
    def before(self) -> list[str]:
        """Runs a command in the group, and all that it starts."""
        return ["sh", "-c", f'echo $$ > {self._folder}/cgroup.procs && exec "$0" "$@"']

    def limit(self, megabytes: int) -> None:
        self._bound.write_text(str(megabytes << 20))

    def add(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def memory_group(megabytes: int) -> Iterator[MemoryGroup]:
    """Skips where the machine has none to give."""
    is_v2 = (ROOT_V2 / "cgroup.controllers").exists()
    folder = (ROOT_V2 if is_v2 else ROOT_V1) / f"cs{os.getpid()}"
    group = MemoryGroup(folder, folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"))
    try:
        folder.mkdir()
        group.limit(megabytes)
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no memory group here: {error.strerror}")
    try:
        yield group
    finally:
        _remove(folder)


def _remove(folder: Path, seconds: float = 5.0) -> None:
    """Once its last process has gone."""
    deadline = time.monotonic() + seconds
    while folder.exists() and time.monotonic() < deadline:
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.05)
