"""How a process of ours is started, and in what environment. Imports nothing that takes time."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Each thread keeps up to 7 freed blocks of each size for itself: the outputs' 50 threads fill theirs for hours, which
# looks like a leak of 3 MB an hour, and malloc_trim does not reach it.
NO_THREAD_CACHE = "glibc.malloc.tcache_count=0"


def _tunables() -> str:
    """The user's own stay."""
    given = os.environ.get("GLIBC_TUNABLES", "").split(":")
    return ":".join([*(tunable for tunable in given if tunable not in ("", NO_THREAD_CACHE)), NO_THREAD_CACHE])


WORKER_ENVIRONMENT = {
    # Idle threads that spin would take the cores from the other stages.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc gives large buffers back to the kernel at each free, and every frame pays for the page faults again:
    # 2,000 a frame in the network's step.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "GLIBC_TUNABLES": _tunables(),
}


def start_module(
    module: str,
    *words: str,
    stdin: int = subprocess.PIPE,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A process of ours, in a worker's environment and a group of its own, that listens to its standard input."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *words],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        env=os.environ | WORKER_ENVIRONMENT | {"PYTHONPATH": paths},
        process_group=0,
    )
