"""Starts a worker as a process or as a thread, and tells whether it lives. Knows nothing of what workers say."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Protocol

import msgspec

from configs.uri import Uri
from pipeline.flow.transport import Context, Transport
from pipeline.run.start import start_module
from pipeline.run.worker import MODULE, Worker, WorkerSpec


class Process(Protocol):
    """Of `subprocess.Popen` what a worker's process needs."""

    pid: int

    @property
    def stdin(self) -> IO[bytes] | None: ...

    def poll(self) -> int | None: ...

    def kill(self) -> None: ...


# A process for the workers of these ids in which these descriptors are open, if there is a faster way to it.
Fork = Callable[[Sequence[str], Sequence[int]], Process | None]

# One that ended as it should has said so before, and what it said may still be on its way.
LAST_WORDS_SECONDS = 1.0
LOOK_SECONDS = 0.002


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

    def __init__(self, specs: Sequence[WorkerSpec], descriptors: Sequence[int], fork: Fork | None = None) -> None:
        """`descriptors` are open in the process. What `fork` cannot give is started."""
        self._last_words = _LastWords()
        ids = [spec.plan.id for spec in specs]
        forked = fork(ids, descriptors) if fork else None
        self._process: Process = forked or start_module(MODULE, *ids, pass_fds=descriptors)
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
        deadline = time.monotonic() + timeout_seconds
        while self._process.poll() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SECONDS)
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
