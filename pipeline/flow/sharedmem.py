"""Pixels and heat maps at rest: pools of equal slots in anonymous shared memory, and who has which.

The memory has no name anywhere: processes inherit its file descriptor, and the kernel frees it with the last of them,
however they end. Nothing can be left in /dev/shm, and Docker's 64 MB limit on it does not apply. A pool is sparse: a
slot is as large as the largest frame allowed, but only pages that were written take memory, and the first free slot is
taken, so that few are.

Behind its slots a pool has a table with a record for each, which outlives any process. A generation that is odd is a
lease, an even one is free. Only its lessor begins a slot's lease; whoever holds it may end it. With that a `Slot` is
good for exactly one lease: who reads it after its end is found out. Knows no socket and no stage.
"""

import fcntl
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.flow.messages import Slot

ALIGNMENT_BYTES = 4096
NOBODY = -1
# A slot's record in the table, on a cache line of its own.
RECORD = np.dtype(
    {
        "names": ["generation", "seq", "place", "holder", "bound_for", "told"],
        "formats": ["<u8", "<i8", "<i4", "<i4", "<i4", "<i4"],
        "itemsize": 64,
    }
)


def aligned(size_bytes: int) -> int:
    """`size_bytes` rounded up to whole pages, so that arrays in a slot start on their own."""
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def anonymous_memory(name: str, size_bytes: int) -> int:
    """A file descriptor of so much memory, all zero; the caller closes it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create(f"centerstream-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:  # macOS: a file without a name, which is as good
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size_bytes)
    if hasattr(os, "memfd_create"):  # memory that shrinks under a process that maps it kills the process
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


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
    spec = PoolSpec(name, -1, slots, aligned(slot_bytes))
    return msgspec.structs.replace(spec, fd=anonymous_memory(name, spec.size_bytes))


class Held(NamedTuple):
    """A lease as the table tells it; `told`: the fate of its frame was counted already."""

    slot: Slot
    place: int
    seq: int
    told: bool


class Pool:
    """A mapped pool: slots as flat uint8 arrays, and their table. Workers are known by their numbers."""

    def __init__(self, spec: PoolSpec) -> None:
        """Raises UsageError where there is no room for it among the process's addresses."""
        self.spec = spec
        try:
            self._map = mmap.mmap(spec.fd, spec.size_bytes)
        except OSError as error:
            wanted = f"{spec.size_bytes >> 30} GiB of addresses (not of memory)"
            raise UsageError(
                f"cannot map shared memory, {wanted}: {error.strerror}; is there a limit (ulimit -v)?"
            ) from None
        self._table = np.ndarray(spec.slots, RECORD, self._map, spec.table_start_bytes)
        self._generations = self._table["generation"]

    # -- leases

    def lease(self, index: int, place: int, seq: int, holder: int) -> Slot:
        """A new lease of a free slot for a frame of the source at `place`; for the lessor."""
        generation = int(self._generations[index]) + 1
        # The generation last: until then the slot is free for everybody.
        self._table[index] = (generation - 1, seq, place, holder, NOBODY, 0)
        self._generations[index] = generation
        return Slot(self.spec.name, index, generation)

    def holds(self, slot: Slot) -> bool:
        """Whether the slot still belongs to this lease."""
        return 0 <= slot.index < self.spec.slots and bool(self._generations[slot.index] == slot.generation)

    def end_lease(self, slot: Slot) -> bool:
        """Whether this was the slot's lease, which is over now."""
        if not self.holds(slot) or not slot.generation % 2:
            return False
        self._generations[slot.index] = slot.generation + 1
        return True

    def take(self, slot: Slot, holder: int) -> None:
        """`holder` has received what was sent."""
        self._table["holder"][slot.index] = holder
        self._table["bound_for"][slot.index] = NOBODY

    def send(self, slot: Slot, receiver: int) -> None:
        """It is on its way to `receiver`, and until that takes it, its sender's too: who of the two dies loses it."""
        self._table["bound_for"][slot.index] = receiver

    def rename(self, slot: Slot, seq: int) -> None:
        """It is for another frame of the same source."""
        self._table["seq"][slot.index] = seq

    def tell(self, slot: Slot) -> None:
        """The fate of the frame is counted, though somebody still reads the slot."""
        self._table["told"][slot.index] = 1

    # -- looking around

    def held_by(self, worker: int) -> list[Held]:
        """All that the worker holds, or was sent."""
        mine = (self._table["holder"] == worker) | (self._table["bound_for"] == worker)
        return list(self._held(np.flatnonzero(mine & self._leased())))

    def is_alive(self, place: int, seq: int) -> bool:
        """Whether a slot holds this frame."""
        return bool((self._leased() & (self._table["place"] == place) & (self._table["seq"] == seq)).any())

    def leased(self, first: int, count: int) -> int:
        """How many slots of a range are leased."""
        return int((self._generations[first : first + count] & np.uint64(1)).sum())

    def first_free(self, first: int, count: int) -> int | None:
        free = np.flatnonzero((self._generations[first : first + count] & np.uint64(1)) == 0)
        return first + int(free[0]) if len(free) else None

    def still_open(self, slots: list[Slot]) -> list[Slot]:
        """Those of `slots` whose frame has not come to its end: the lease is not over, and no fate is told yet."""
        return [slot for slot in slots if self.holds(slot) and not self._table["told"][slot.index]]

    def _leased(self) -> NDArray[np.bool_]:
        return (self._generations & np.uint64(1)).astype(bool)

    def _held(self, indices: NDArray[np.int64]) -> Iterator[Held]:
        for index in indices.tolist():
            generation, seq, place, _, _, told = self._table[index].item()
            yield Held(Slot(self.spec.name, index, generation), place, seq, bool(told))

    # -- memory

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


class Lessor:
    """A worker's own range of a pool, from which it alone leases. A slot leased is a frame allowed: this is the
    pipeline's back-pressure. Remembers nothing that the table does not know: after a restart it goes on.

    limit  how many slots of the range may be leased at the same time
    """

    def __init__(self, pool: Pool, first: int, count: int, worker: int) -> None:
        self.limit = count
        self._pool, self._first, self._count, self._worker = pool, first, count, worker

    def lease(self, place: int, seq: int) -> Slot | None:
        """A free slot, or None. For one thread at a time."""
        if self._pool.leased(self._first, self._count) >= self.limit:
            return None
        index = self._pool.first_free(self._first, self._count)
        return None if index is None else self._pool.lease(index, place, seq, self._worker)

    def keep_for(self, slot: Slot, seq: int) -> None:
        """Its frame came to another end; the lease goes on for this one of the same source."""
        self._pool.rename(slot, seq)
