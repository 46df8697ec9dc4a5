"""The nursery: a process that loads what stages are made of once, and forks their workers. Most of a start was the same
imports in one process after the other; so each is there within milliseconds, at any time, and shares that memory.

`Nursery` is the run's end of it. `python -m pipeline.run.nursery` is the other: on its standard input, a socket, come
the ids of workers that are to share a process, with the descriptors that are to be open there, and its pid goes back.
Knows no worker but by its id. What a stage loads only when it gets ready, as torch, is not loaded here: that may bring
threads, and a process with threads cannot be forked safely.
"""

import ctypes
import fcntl
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from configs import startup
from pipeline.run.start import start_module

# What takes longer, as to load from a slow disk, is started without it.
PATIENCE_SECONDS = 10.0
MOST_BYTES, MOST_DESCRIPTORS = 1 << 16, 64
PR_SET_CHILD_SUBREAPER = 36


class Order(msgspec.Struct):
    """`ids` of the workers, and which number each descriptor that comes along is to have."""

    ids: list[str]
    numbers: list[int]


_decode_order = msgspec.json.Decoder(Order).decode


class Nursery:
    """What every stage needs it loads from the start on."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_SECONDS)
        with theirs:
            self._process = start_module("pipeline.run.nursery", stdin=theirs.fileno())

    def fork(self, ids: Sequence[str], descriptors: Sequence[int]) -> "Forked | None":
        """A process for these workers, which is a child of this one and has these open; None where that cannot be, now
        or ever."""
        theirs, ours = os.pipe()
        order = Order([*ids], [0, *descriptors])
        try:
            with _adopting():
                socket.send_fds(self._socket, [msgspec.json.encode(order)], [theirs, *descriptors])
                pid = int(self._socket.recv(MOST_BYTES) or -1)
        except OSError:
            self.close()
            pid = -1
        finally:
            os.close(theirs)
        if pid < 0:
            os.close(ours)
            return None
        return Forked(pid, os.fdopen(ours, "wb"))

    def close(self) -> None:
        """It forks no more; its children stay."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


class Forked:
    """A child of ours that the nursery has forked: of `subprocess.Popen` what a worker's process needs."""

    def __init__(self, pid: int, stdin: IO[bytes]) -> None:
        self.pid, self.stdin = pid, stdin
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # SIGCHLD is ignored, or somebody else has waited: nobody knows how it ended
                pid, status = self.pid, 0
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


@contextmanager
def _adopting() -> Iterator[None]:
    """A process whose parent ends becomes a child of this one (prctl(2)), which learns how it ends.

    Raises OSError where the system knows no such thing.
    """
    _adopt(True)
    try:
        yield
    finally:
        _adopt(False)


def _adopt(on: bool) -> None:
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is None or prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(on), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no process can be adopted here")


# -- the other end


def main() -> int | None:
    """Ends when the run's end does; in a child, when that has ended.

    The first worker of a stage loads for itself what only that needs, beside all else that is to be loaded; for those
    after it, it is loaded here.
    """
    # Here alone: whoever asks for children need not load what they are made of.
    from pipeline.run.worker import be_called, ignore_signals
    from pipeline.run.worker import main as work
    from pipeline.stage import COMPILED

    ignore_signals()
    gc.disable()
    orders = socket.socket(fileno=sys.stdin.fileno())
    to_load = set(COMPILED)
    while received := _received(orders):
        order, descriptors = received
        for stage in (worker_id.partition(":")[0] for worker_id in order.ids):
            if stage in to_load:
                _load(stage)
            to_load.add(stage)
        child = _fork()
        if child == 0:
            orders.detach()
            _renumber(descriptors, order.numbers)
            gc.enable()
            os.setpgid(0, 0)
            be_called(order.ids)
            return work()
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ConnectionError):  # the run has gone, which the child sees as well
            orders.send(b"%d" % child)
    return None


def _received(orders: socket.socket) -> tuple[Order, list[int]] | None:
    """The next, with its descriptors; None when the run has gone."""
    try:
        text, descriptors, _, _ = socket.recv_fds(orders, MOST_BYTES, MOST_DESCRIPTORS)
    except ConnectionError:  # without having heard our last answer
        return None
    return (_decode_order(text), descriptors) if text else None


def _load(stage: str) -> None:
    """What fails here fails in the worker, which can tell of it."""
    from pipeline.run.worker import stage_class

    with suppress(Exception):
        stage_class(stage).preload()


def _fork() -> int:
    """The pid of a process whose parent has ended, as `os.fork` tells it: so it becomes a child of the run, if that
    adopts. -1 where there can be none."""
    if not _has_one_thread():
        return -1
    gc.freeze()  # what is never looked at is never written to, and stays shared
    reader, writer = os.pipe()
    between = os.fork()
    if between:
        os.close(writer)
        with os.fdopen(reader, "rb") as told:
            pid = int(told.read() or -1)
        os.waitpid(between, 0)
        return pid
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        os.write(writer, b"%d" % pid)
        os._exit(0)
    os.close(reader)
    os.close(writer)
    return 0


def _has_one_thread() -> bool:
    """Those that a library has started are among them; where nobody can tell, it may have."""
    with suppress(OSError):
        return len(list(Path("/proc/self/task").iterdir())) == 1
    return False


def _renumber(descriptors: list[int], numbers: list[int]) -> None:
    """First out of each other's way."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 1 + max(numbers)) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(high, numbers, strict=True):
        os.dup2(descriptor, number, inheritable=number == 0)
        os.close(descriptor)


if __name__ == "__main__":
    startup.run(main)
