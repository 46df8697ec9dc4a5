"""Starts a worker as a process or as a thread, and tells whether it lives. Knows nothing of what workers say."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from configs.uri import Uri
from pipeline.flow.transport import Context, Transport
from pipeline.run.worker import Worker, WorkerSpec

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
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A process of ours, in a worker's environment and a group of its own, that listens to its standard input."""
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *words],
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=stderr,
        pass_fds=pass_fds,
        env=os.environ | WORKER_ENVIRONMENT | {"PYTHONPATH": paths},
        process_group=0,
    )


# One that ended as it should has said so before, and what it said may still be on its way.
LAST_WORDS_SECONDS = 1.0


class Launched(Protocol):
    """A worker that was started."""

    def death(self) -> str | None:
        """How it ended, in words; None while it lives, and as long as its last words may be under way."""

    def kill(self) -> None:
        """End it now, whatever it does."""

    def join(self, timeout_seconds: float) -> bool:
        """Wait for its end; whether it came."""


class _LastWords:
    """Of one that ended in peace: whether they should have been heard by now."""

    def __init__(self) -> None:
        self._since: float | None = None

    def are_over(self) -> bool:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since >= LAST_WORDS_SECONDS


class WorkerProcess:
    """One worker, or several, in a process group of their own, which a terminal's Ctrl-C does not reach. They live no
    longer than we do: their standard input closes with us."""

    def __init__(self, specs: Sequence[WorkerSpec]) -> None:
        self._last_words = _LastWords()
        descriptors = [*(pool.fd for pool in specs[0].pools), specs[0].ledger.fd]
        self._process = start_module("pipeline.run.worker", *(spec.plan.id for spec in specs), pass_fds=descriptors)
        assert self._process.stdin is not None
        lines = b"".join(msgspec.json.encode(spec, enc_hook=Uri.reveal) + b"\n" for spec in specs)
        with suppress(BrokenPipeError):  # it died at once: `death` tells
            self._process.stdin.write(lines)
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    def death(self) -> str | None:
        code = self._process.poll()
        if code is None or (code == 0 and not self._last_words.are_over()):
            return None
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def kill(self) -> None:
        self._process.kill()

    def join(self, timeout_seconds: float) -> bool:
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # one that died at once has not read what is still to be written
            self._process.stdin.close()
        return True


class ThreadWorker:
    """A worker in a thread of this process. It cannot be killed, only asked to stop."""

    def __init__(self, spec: WorkerSpec, context: Context) -> None:
        self._spec, self._context = spec, context
        self._last_words = _LastWords()
        self._thread = threading.Thread(target=self._run, name=spec.plan.id, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        transport = Transport(self._context)
        Worker(self._spec, transport).run()
        transport.close()

    def death(self) -> str | None:
        return "ended" if not self._thread.is_alive() and self._last_words.are_over() else None

    def kill(self) -> None:
        """Threads end with the process."""

    def join(self, timeout_seconds: float) -> bool:
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()
