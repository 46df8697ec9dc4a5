"""A frame in a stage's hands: its header, and its arrays wherever they lie. One place knows how it is put on a wire.

A stage reads `frame.array("heatmap")` and cannot tell whether that lies in shared memory or came over a network.
Whether what lies in shared memory still is the frame's own is looked at before and after (`is_ghost`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.flow import messages
from pipeline.flow.detections import Detections
from pipeline.flow.fates import Drop
from pipeline.flow.messages import ArrayRef, DataHeader, Dtype, FrameHeader, Slot
from pipeline.flow.sharedmem import Pool, aligned

Parts = Sequence[bytes | memoryview]
DETECTIONS = "detections"  # the array that holds them

# By what NumPy has for them: a dtype's own name is made up anew each time.
DTYPES: dict[np.dtype, Dtype] = {np.dtype(name): name for name in get_args(Dtype)}

# Why there is no result where a slot was given back too early.
NOT_ITS_OWN = "its pixels were given to another frame"


class Frame:
    """A frame header with its arrays.

    Raises ValueError (also `msgspec.ValidationError`) when built from parts that do not describe arrays truthfully.
    """

    def __init__(
        self, header: FrameHeader, pools: Mapping[str, Pool], buffers: Iterator[bytes | memoryview] | None = None
    ) -> None:
        """`buffers` is read as far as this frame's arrays go."""
        self.header = header
        self._pools = pools
        self._arrays: dict[str, NDArray] = {}
        inline = buffers or iter(())
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
        self.header.arrays.append(ArrayRef(name, DTYPES[array.dtype], array.shape))
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
        self.discard(DETECTIONS)
        self.put(DETECTIONS, detections.packed())

    def detections(self) -> Detections:
        return Detections.unpacked(self.array(DETECTIONS))

    def discard(self, *names: str) -> None:
        """Arrays that no later stage reads."""
        self.header.arrays = [ref for ref in self.header.arrays if ref.name not in names]
        for name in names:
            self._arrays.pop(name, None)

    @property
    def is_ghost(self) -> bool:
        """One of its leases is over: somebody else told its fate, and what lies in its slots may be another frame."""
        return not all(slot.pool in self._pools and self._pools[slot.pool].holds(slot) for slot in self.header.leases)

    def taken_by(self, worker: int) -> None:
        for slot in self.header.leases:
            self._pools[slot.pool].take(slot, worker)

    def sent_to(self, worker: int) -> None:
        for slot in self.header.leases:
            self._pools[slot.pool].send(slot, worker)

    def give_back(self, pool: str | None = None) -> bool:
        """End the leases of `pool` (all when None); arrays in them are gone. Whether they were the frame's own to the
        last: if not, what was read there may be another frame's."""
        given = [slot for slot in self.header.leases if pool in (None, slot.pool)]
        self.discard(*[ref.name for ref in self.header.arrays if ref.slot in given])
        self.header.leases = [slot for slot in self.header.leases if slot not in given]
        ended = [slot.pool in self._pools and self._pools[slot.pool].end_lease(slot) for slot in given]
        return all(ended)

    def drop(self, fate: Drop) -> None:
        """It ends here: from now on only its header travels, to be counted."""
        self.give_back()
        self.discard(*[ref.name for ref in self.header.arrays])
        self.header.dropped = fate

    def buffers(self) -> list[NDArray]:
        return [self._arrays[ref.name] for ref in self.header.arrays if ref.slot is None]


Message = messages.StreamStart | Frame | messages.SignalChange | messages.EndOfStream


def to_parts(message: Message | messages.Free) -> Parts:
    """Header first, then the raw buffers of the arrays that are not in shared memory."""
    if isinstance(message, Frame):
        return [messages.encode(message.header), *(array.data for array in message.buffers())]
    return [messages.encode(message)]


def round_to_parts(frames: Sequence[Frame]) -> Parts:
    buffers = [array.data for frame in frames for array in frame.buffers()]
    return [messages.encode(messages.Round([frame.header for frame in frames])), *buffers]


def from_parts(parts: Parts, pools: Mapping[str, Pool]) -> list[Message] | messages.Free:
    """The messages in `parts`: one, or the frames of a round. Raises ValueError when they are none."""
    header: DataHeader = messages.decode_data_header(parts[0])
    if isinstance(header, messages.Free):
        return header
    buffers = iter(parts[1:])
    try:
        if isinstance(header, messages.Round):
            return [Frame(one, pools, buffers) for one in header.frames]
        return [Frame(header, pools, buffers) if isinstance(header, FrameHeader) else header]
    except StopIteration:
        raise msgspec.ValidationError("a frame names more arrays than it carries") from None
