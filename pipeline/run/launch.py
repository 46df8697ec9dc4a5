"""Starts a worker as a process or as a thread, and tells whether it lives. Knows nothing of what workers say."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Protocol

import msgspec

from configs.uri import Uri
from pipeline.flow.transport import Context, Transport
from pipeline.run.worker import Worker, WorkerSpec

WORKER_ENVIRONMENT = {
    # Idle threads that spin would take the cores from the other stages.
    "OMP_WAIT_POLICY": "PASSIVE",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc gives large buffers back to the kernel at each free, and every frame pays for the page faults again:
    # 2,000 a frame in the network's step.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
}


class Launched(Protocol):
    """A worker that was started."""

    def death(self) -> str | None:
        """How it ended, in words; None while it lives."""

    def kill(self) -> None:
        """End it now, whatever it does."""

    def join(self, timeout_seconds: float) -> bool:
        """Wait for its end; whether it came."""


class ProcessWorker:
    """A worker in its own process group, which a terminal's Ctrl-C does not reach. It lives no longer than we do:
    its standard input closes with us."""

    def __init__(self, spec: WorkerSpec) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pipeline.run.worker", spec.plan.id],
            stdin=subprocess.PIPE,
            env=os.environ | WORKER_ENVIRONMENT | {"PYTHONPATH": paths},
            pass_fds=[*(pool.fd for pool in spec.pools), spec.ledger.fd],
            process_group=0,
        )
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(spec, enc_hook=Uri.reveal) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died at once: `death` tells

    @property
    def pid(self) -> int:
        return self._process.pid

    def death(self) -> str | None:
        code = self._process.poll()
        if code is None:
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
        self._process.stdin.close()
        return True


class ThreadWorker:
    """A worker in a thread of this process. It cannot be killed, only asked to stop."""

    def __init__(self, spec: WorkerSpec, context: Context) -> None:
        self._spec, self._context = spec, context
        self._thread = threading.Thread(target=self._run, name=spec.plan.id, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        transport = Transport(self._context)
        Worker(self._spec, transport).run()
        transport.close()

    def death(self) -> str | None:
        return None if self._thread.is_alive() else "ended"

    def kill(self) -> None:
        """Threads end with the process."""

    def join(self, timeout_seconds: float) -> bool:
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()
