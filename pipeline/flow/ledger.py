"""The ledger: for each source how many frames were captured, and what became of them. A table in anonymous shared
memory, so that no count dies with a process.

The source's decoder counts what it captures, deliver the fates, track the ids that it gave; everybody reads. Knows no
stage and no socket.
"""

import mmap
from dataclasses import dataclass, field, fields

import msgspec
import numpy as np

from pipeline.flow.fates import DELIVERED, FAILED, FATES, LOST, UNHEARD, Drop
from pipeline.flow.messages import Audit
from pipeline.flow.sharedmem import anonymous_memory

# Of so many frames of a source it is known whether their fate was told: more are never on their way to the outputs.
LAST_TOLD = 4096
# The stages that take a source's frames in order, each once.
IN_ORDER = ("track", "deliver")
ROW = np.dtype(
    [
        ("captured", "<i8"),
        ("pts_seconds", "<f8"),
        ("captured_ns", "<i8"),
        ("arrived", "<i8", len(IN_ORDER)),
        ("fates", "<i8", len(FATES)),
        ("told", "<i8", LAST_TOLD),
        ("taken_over", "<i8"),
        ("audits", "<i8", 3),
        ("ids_given", "<i8"),
    ]
)
_COLUMN = {fate: column for column, fate in enumerate(FATES)}
_WITHOUT_RESULT = [_COLUMN[fate] for fate in (FAILED, *LOST.values(), UNHEARD)]


@dataclass
class Page:
    """The ledger of one source: captured = delivered + failed + dropped + in flight.

    failed      handed to the outputs as "no result", with the reason
    dropped     what ended elsewhere, with the number of frames
    taken_over  of those delivered, how many took over what was found in one before
    audits, audited_objects, missed_objects
                of those delivered, how many could have, and were computed all the same; what was found in them, and how
                much of it they would have missed
    """

    captured: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: dict[Drop, int] = field(default_factory=dict)
    taken_over: int = 0
    audits: int = 0
    audited_objects: int = 0
    missed_objects: int = 0

    @property
    def in_flight(self) -> int:
        return self.captured - self.delivered - self.failed - self.dropped_frames

    @property
    def dropped_frames(self) -> int:
        return sum(self.dropped.values())

    def plus(self, other: "Page") -> "Page":
        """Both on one page."""
        dropped = {
            fate: self.dropped.get(fate, 0) + other.dropped.get(fate, 0) for fate in {**self.dropped, **other.dropped}
        }
        counts = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "dropped"}
        return Page(**{name: count + getattr(other, name) for name, count in counts.items()}, dropped=dropped)


class LedgerSpec(msgspec.Struct, frozen=True):
    """All that another process needs to map the ledger. `places` is how many sources there may be."""

    fd: int
    places: int

    @property
    def size_bytes(self) -> int:
        return self.places * ROW.itemsize


def create_ledger(places: int) -> LedgerSpec:
    """The caller owns and closes the file descriptor."""
    return LedgerSpec(anonymous_memory("ledger", places * ROW.itemsize), places)


class Ledger:
    """The mapped table; a source is known by its place in it."""

    def __init__(self, spec: LedgerSpec) -> None:
        self._map = mmap.mmap(spec.fd, spec.size_bytes)
        self._rows = np.ndarray(spec.places, ROW, self._map)

    def capture(self, place: int, pts_seconds: float, captured_ns: int) -> None:
        """One more frame, taken at this moment of the source's own time and of the monotonic clock."""
        row = self._rows[place]
        row["pts_seconds"], row["captured_ns"] = pts_seconds, captured_ns
        row["captured"] += 1

    def captured(self, place: int) -> int:
        return int(self._rows["captured"][place])

    def last_capture(self, place: int) -> tuple[float, int]:
        """pts_seconds and captured_ns of the last frame."""
        row = self._rows[place]
        return float(row["pts_seconds"]), int(row["captured_ns"])

    def tell(self, place: int, fate: Drop, seq: int) -> None:
        """The frame came to `fate`. Raises KeyError for one that is none of FATES."""
        self._rows["fates"][place, _COLUMN[fate]] += 1
        self._rows["told"][place, seq % LAST_TOLD] = seq + 1

    def tell_taken_over(self, place: int) -> None:
        """A frame that was delivered took over what was found in one before."""
        self._rows["taken_over"][place] += 1

    def tell_audit(self, place: int, audit: Audit) -> None:
        """A frame that was delivered could have, and was computed all the same."""
        self._rows["audits"][place] += (1, audit.objects, audit.missed)

    def without_result(self, place: int) -> int:
        """Frames that failed or were lost with a worker."""
        return int(self._rows["fates"][place, _WITHOUT_RESULT].sum())

    def untold(self, place: int, stage: str) -> list[int]:
        """Frames that have come to a stage in order and whose fate was not told."""
        next_seq = self.next_seq(place, stage)
        seqs = np.arange(max(0, next_seq - LAST_TOLD), next_seq)
        return [int(seq) for seq in seqs[self._rows["told"][place, seqs % LAST_TOLD] != seqs + 1]]

    def next_seq(self, place: int, stage: str) -> int:
        """The seq that a stage in order waits for."""
        return int(self._rows["arrived"][place, IN_ORDER.index(stage)])

    def arrive(self, place: int, stage: str, next_seq: int) -> None:
        self._rows["arrived"][place, IN_ORDER.index(stage)] = next_seq

    def ids_given(self, place: int) -> int:
        """The last id that a track of the source was given, by whatever process."""
        return int(self._rows["ids_given"][place])

    def give_ids(self, place: int, last: int) -> None:
        self._rows["ids_given"][place] = last

    def page(self, place: int) -> Page:
        row = self._rows[place]
        counts = row["fates"].tolist()
        dropped = {
            fate: count for fate, count in zip(FATES, counts, strict=True) if count and fate not in (DELIVERED, FAILED)
        }
        return Page(
            int(row["captured"]),
            counts[_COLUMN[DELIVERED]],
            counts[_COLUMN[FAILED]],
            dropped,
            int(row["taken_over"]),
            *row["audits"].tolist(),
        )

    def clear(self, place: int) -> None:
        """A new source takes the place."""
        self._rows[place] = np.zeros((), ROW)
