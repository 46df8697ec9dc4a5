"""Pixels and heat maps at rest: pools of equal slots in anonymous shared memory.

The memory has no name anywhere: processes inherit its file descriptor, and the kernel frees it with the last of them,
however they end. Nothing can be left in /dev/shm, and Docker's 64 MB limit on it does not apply.

A pool is sparse: a slot is as large as the largest frame allowed, but only pages that were written take memory, and
free slots are reused last in, first out. Knows no socket: who holds which slot is told by the `Slot`s of a
message, and the lessor's `Leases` hear of those given back.

Behind its slots a pool has a table with a record for each, which outlives any process. Only the lessor writes it. A
slot's generation grows with each lease and each return, so a `Slot` is good for exactly one lease: who returns it
twice, or reads it after its return, is found out.
"""

import fcntl
import math
import mmap
import os
import tempfile
import threading
from collections.abc import Callable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Slot

ALIGNMENT_BYTES = 4096
# A slot's record in the table, on a cache line of its own; there is room for further fields.
RECORD = np.dtype({"names": ["generation"], "formats": ["<u8"], "offsets": [0], "itemsize": 64})


def aligned(size_bytes: int) -> int:
    """`size_bytes` rounded up to whole pages, so that arrays in a slot start on their own."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


class PoolSpec(msgspec.Struct, frozen=True):
    """All that another process needs to map a pool: an inherited file descriptor and the geometry."""

    name: str
    fd: int
    slots: int
    slot_bytes: int

    @property
    def table_start_bytes(self) -> int:
        return self.slots * self.slot_bytes

    @property
    def size_bytes(self) -> int:
        return self.table_start_bytes + aligned(self.slots * RECORD.itemsize)


def create_pool(name: str, slots: int, slot_bytes: int) -> PoolSpec:
    """Reserve (not yet take) memory for `slots` slots; the caller owns and closes the file descriptor."""
    slot_bytes = aligned(slot_bytes)
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(f"centerstream-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:  # macOS: a file without a name, which is as good
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    spec = PoolSpec(name, fd, slots, slot_bytes)
    os.ftruncate(fd, spec.size_bytes)
    if hasattr(os, "memfd_create"):  # memory that shrinks under a process that maps it kills the process
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return spec


class Pool:
    """A mapped pool: slots as flat uint8 arrays, and their table."""

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        self._map = mmap.mmap(spec.fd, spec.size_bytes)
        table = np.ndarray(spec.slots, RECORD, self._map, spec.table_start_bytes)
        self._generations = table["generation"]

    def holds(self, slot: Slot) -> bool:
        """Whether the place still belongs to this lease."""
        return 0 <= slot.index < self.spec.slots and bool(self._generations[slot.index] == slot.generation)

    def lease(self, index: int) -> Slot:
        """A new lease of a free place; for the lessor."""
        self._generations[index] += 1
        return Slot(self.spec.name, index, int(self._generations[index]))

    def end_lease(self, slot: Slot) -> bool:
        """Whether this was the place's lease, which is over now; for the lessor."""
        if not self.holds(slot):
            return False
        self._generations[slot.index] += 1
        return True

    def array(self, index: int, offset_bytes: int, dtype: str, shape: tuple[int, ...]) -> NDArray:
        """A view, not a copy, of `shape` and `dtype` in slot `index`.

        Raises ValueError for a slot or an extent outside the pool: a message must not reach beyond its own memory.
        """
        size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        inside = 0 <= index < self.spec.slots and offset_bytes >= 0 and min(shape, default=0) >= 0
        if not inside or offset_bytes + size_bytes > self.spec.slot_bytes:
            raise ValueError(
                f"pool {self.spec.name}: {dtype} {shape} at byte {offset_bytes} of slot {index} does not fit "
                f"{self.spec.slots} slots of {self.spec.slot_bytes} bytes"
            )
        return np.ndarray(shape, dtype, self._map, index * self.spec.slot_bytes + offset_bytes)


class Returns(Protocol):
    """Where given-back slots arrive, one by one; None when none came in time."""

    def receive(self, timeout_seconds: float) -> Slot | None: ...


class Leases:
    """The lessor's list of free slots. A slot leased is a frame allowed: this is the pipeline's back-pressure.

    Several threads may lease. `limit` is how many slots may be out at the same time. `refused(slot)` is called for each
    return of a lease that is over already: to take it would put two frames into one place.
    """

    def __init__(self, pool: Pool, returns: Returns, refused: Callable[[Slot], None]) -> None:
        self.limit = pool.spec.slots
        self._pool = pool
        self._free = list(reversed(range(pool.spec.slots)))
        self._returns = returns
        self._refused = refused
        self._lock = threading.Lock()

    def lease(self, timeout_seconds: float) -> Slot | None:
        """A free slot, waiting for one at most `timeout_seconds`; None when none came back in time."""
        with self._lock:
            while (slot := self._returns.receive(0.0)) is not None:
                self._take_back(slot)
            if not self._may_lease() and (slot := self._returns.receive(timeout_seconds)) is not None:
                self._take_back(slot)
            return self._pool.lease(self._free.pop()) if self._may_lease() else None

    def _may_lease(self) -> bool:
        return self._pool.spec.slots - len(self._free) < self.limit

    def _take_back(self, slot: Slot) -> None:
        if self._pool.end_lease(slot):
            self._free.append(slot.index)
        else:
            self._refused(slot)

    def restore(self, slot: Slot) -> None:
        """The lessor itself has no more use for `slot`."""
        with self._lock:
            self._take_back(slot)
