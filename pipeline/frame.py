"""A frame in a stage's hands: its header, and its arrays wherever they lie. One place knows how it is put on a wire.

A stage reads `frame.array("heatmap")` and cannot tell whether that lies in shared memory or came over a network.
Whether what lies in shared memory still is the frame's own is looked at before and after (`check_slots`).
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import messages
from pipeline.detections import Detections
from pipeline.messages import ArrayRef, DataHeader, FrameHeader, Slot
from pipeline.sharedmem import Pool, aligned

Parts = Sequence[bytes | memoryview]

# Why there is no result where a slot was given back too early.
NOT_ITS_OWN = "its pixels were given to another frame"


class Frame:
    """A frame header with its arrays.

    Raises ValueError (also `msgspec.ValidationError`) when built from parts that do not describe arrays truthfully.
    """

    def __init__(self, header: FrameHeader, pools: Mapping[str, Pool], buffers: Parts | None = None) -> None:
        self.header = header
        self._pools = pools
        self._arrays: dict[str, NDArray] = {}
        inline = iter(buffers or [])
        for ref in header.arrays:
            self._arrays[ref.name] = self._view(ref, inline)

    def _view(self, ref: ArrayRef, inline: Iterator[bytes | memoryview]) -> NDArray:
        if ref.slot is None:
            return np.frombuffer(next(inline), ref.dtype).reshape(ref.shape)
        if ref.slot.pool not in self._pools:
            raise ValueError(f"array {ref.name} lies in pool {ref.slot.pool}, which this stage does not map")
        return self._pools[ref.slot.pool].array(ref.slot.index, ref.offset_bytes, ref.dtype, ref.shape)

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def array(self, name: str) -> NDArray:
        return self._arrays[name]

    def put(self, name: str, array: NDArray) -> None:
        """Carry a small array in the message itself."""
        self.header.arrays.append(ArrayRef(name, array.dtype.name, array.shape))  # type: ignore[arg-type]
        self._arrays[name] = np.ascontiguousarray(array)

    def place(self, name: str, slot: Slot, dtype: str, shape: tuple[int, ...]) -> NDArray:
        """Room for a large array in `slot`, after what lies there already; the caller writes into it."""
        offset_bytes = sum(aligned(self._arrays[r.name].nbytes) for r in self.header.arrays if r.slot == slot)
        ref = ArrayRef(name, dtype, shape, slot, offset_bytes)  # type: ignore[arg-type]
        self._arrays[name] = self._view(ref, iter(()))
        self.header.arrays.append(ref)
        return self._arrays[name]

    def put_detections(self, detections: Detections) -> None:
        """Carry the frame's detections, in place of any it had."""
        names = [field.name for field in dataclasses.fields(Detections)]
        self.discard(*names)
        for name in names:
            self.put(name, getattr(detections, name))

    def detections(self) -> Detections:
        return Detections(**{field.name: self.array(field.name) for field in dataclasses.fields(Detections)})

    def discard(self, *names: str) -> None:
        """Arrays that no later stage reads."""
        self.header.arrays = [ref for ref in self.header.arrays if ref.name not in names]
        for name in names:
            self._arrays.pop(name, None)

    def check_slots(self) -> None:
        """A frame one of whose slots holds another frame by now has no result: what was read there since the last look
        may be the other's."""
        intact = [slot for slot in self.header.leases if self._holds(slot)]
        if len(intact) == len(self.header.leases):
            return
        self.header.failure = self.header.failure or NOT_ITS_OWN
        self.header.leases = intact
        self.discard(*[ref.name for ref in self.header.arrays if ref.slot not in intact])

    def _holds(self, slot: Slot) -> bool:
        return slot.pool in self._pools and self._pools[slot.pool].holds(slot)

    def take_leases(self, pool: str | None = None) -> list[Slot]:
        """The slots of `pool` (all when None), which the caller now gives back; arrays in them are gone.

        What was read there is checked one last time.
        """
        self.check_slots()
        given = [slot for slot in self.header.leases if pool in (None, slot.pool)]
        self.discard(*[ref.name for ref in self.header.arrays if ref.slot in given])
        self.header.leases = [slot for slot in self.header.leases if slot not in given]
        return given

    def buffers(self) -> list[NDArray]:
        return [self._arrays[ref.name] for ref in self.header.arrays if ref.slot is None]


Message = messages.StreamStart | Frame | messages.EndOfStream


def to_parts(message: Message) -> Parts:
    """Header first, then the raw buffers of the arrays that are not in shared memory."""
    if isinstance(message, Frame):
        return [messages.encode(message.header), *(array.data for array in message.buffers())]
    return [messages.encode(message)]


def from_parts(parts: Parts, pools: Mapping[str, Pool]) -> Message:
    """The message in `parts`. Raises ValueError when they are not one."""
    header: DataHeader = messages.decode_data_header(parts[0])
    if not isinstance(header, FrameHeader):
        return header
    try:
        return Frame(header, pools, parts[1:])
    except StopIteration:
        raise msgspec.ValidationError("a frame names more arrays than it carries") from None
