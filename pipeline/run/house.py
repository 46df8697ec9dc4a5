"""What a run's workers live in: shared memory, a private folder with the queues' sockets, the way to the supervisor.

`house` gives all of it back, however the run ends: no socket file and no shared memory outlives it. Knows no worker.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pipeline.control.words import FOLDER_PREFIX, SOCKET, folder_for_runs
from pipeline.errors import UsageError
from pipeline.flow.frame import Parts
from pipeline.flow.ledger import Ledger, LedgerSpec, create_ledger
from pipeline.flow.sharedmem import Pool, PoolSpec, create_pool
from pipeline.flow.transport import Context, Hub, Replier, RunKey, Sender, Transport
from pipeline.settings import MOST_SOURCES


@dataclass
class House:
    """The one of a run.

    endpoints  the prefix of every queue's name
    key        the run's secret; None where the stages share a process
    replier    where words from outside come; None where the stages share a process
    """

    endpoints: str
    key: RunKey | None
    context: Context
    transport: Transport
    hub: Hub
    replier: Replier | None
    pool_specs: list[PoolSpec]
    pools: dict[str, Pool]
    ledger_spec: LedgerSpec
    ledger: Ledger
    _senders: dict[str, Sender] = field(default_factory=dict)

    @property
    def descriptors(self) -> list[int]:
        """Of its memory, for each process that works in it."""
        return [*(spec.fd for spec in self.pool_specs), self.ledger_spec.fd]

    def send(self, worker: str, parts: Parts) -> None:
        """To a worker's queue of frames, which takes it when it can."""
        if worker not in self._senders:
            self._senders[worker] = self.transport.sender(f"{self.endpoints}/{worker}")
        self._senders[worker].send(parts, given_up=lambda: True)


@contextmanager
def house(pools: list[tuple[str, int, int]], threads: bool) -> Iterator[House]:
    """`pools` are names, slots and bytes. The caller sees that no worker is left before it leaves.

    Raises UsageError when this machine cannot give it.
    """
    with ExitStack() as stack:
        endpoints = stack.enter_context(_endpoints(threads))
        pool_specs, ledger_spec = stack.enter_context(_memory(pools))
        key = None if threads else RunKey.new()
        context = Context()
        transport = Transport(context, key)
        stack.callback(transport.close)
        yield House(
            endpoints=endpoints,
            key=key,
            context=context,
            transport=transport,
            hub=transport.hub(f"{endpoints}/control"),
            replier=None if threads else transport.replier(f"{endpoints}/{SOCKET}"),
            pool_specs=pool_specs,
            pools={spec.name: Pool(spec) for spec in pool_specs},
            ledger_spec=ledger_spec,
            ledger=Ledger(ledger_spec),
        )


@contextmanager
def signals(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal are counted, not raised, so that they cannot break in anywhere."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup a run outlives its terminal
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: on_signal(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _endpoints(threads: bool) -> Iterator[str]:
    """For processes, socket files in a folder that only this user can enter."""
    if threads:
        yield "inproc://centerstream"
        return
    try:
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=folder_for_runs())
    except OSError as error:
        raise UsageError(f"no folder for temporary files can be written ({error.strerror}); set TMPDIR") from None
    try:
        yield "ipc://" + folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _memory(sizes: list[tuple[str, int, int]]) -> Iterator[tuple[list[PoolSpec], LedgerSpec]]:
    with ExitStack() as stack:
        try:
            pools = []
            for name, slots, slot_bytes in sizes:
                pools.append(create_pool(name, slots, slot_bytes))
                stack.callback(os.close, pools[-1].fd)
            ledger = create_ledger(MOST_SOURCES)
            stack.callback(os.close, ledger.fd)
        except OSError as error:
            raise UsageError(f"cannot reserve shared memory: {error.strerror}") from None
        yield pools, ledger
