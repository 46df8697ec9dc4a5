"""Outputs: each a sink with a bounded queue and a thread of its own, so that one that stalls stalls nobody. A frame's
picture stays in its slot until the last output has done with it. Knows no stage and no format.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pipeline.errors import OutputError
from pipeline.flow.frame import Frame
from pipeline.flow.messages import OutputCounts, SignalChange
from pipeline.flow.results import FrameResult
from pipeline.kinds import SinkKind
from pipeline.sinks import Image, Missed, Sink
from pipeline.sinks.window import StopRequested

# Frames of a live source that may wait for an output, those with pictures and those without. A file's wait as long as
# they have slots.
WAITING_FRAMES, WAITING_LINES = 4, 64
# Of all that waits for an output, so that one that stalls for days takes no memory.
MOST_WAITING = 2000
# How long a closed output may take for what still waits, when others wait for it.
CLOSE_SECONDS = 60.0


class Ticket:
    """A frame on its way through the outputs.

    `told(taken)` is called once: with True as soon as one output has taken the frame, with False when none did.
    The frame's slots are given back as soon as that is told and nobody `reads` its picture any more: until it is told,
    they say that the frame is there.
    """

    def __init__(self, frame: Frame, told: Callable[[Frame, bool], None]) -> None:
        self._frame, self._told = frame, told
        self._lock = threading.Lock()
        self._open = self._readers = 1  # who offers it
        self._is_told = False

    def hold(self, reads: bool = True) -> None:
        with self._lock:
            self._open += 1
            self._readers += reads

    def taken(self) -> None:
        """By one output, which still holds it."""
        self.hold()
        self.release(taken=True)

    def release(self, taken: bool = False, reads: bool = True) -> None:
        """As it was held."""
        with self._lock:
            self._open -= 1
            self._readers -= reads
            was_told, had_readers = self._is_told, self._readers + reads > 0
            self._is_told = was_told or taken or not self._open
            tells = self._is_told and not was_told
            gives_back = self._is_told and not self._readers and (tells or had_readers)
        if tells:
            self._told(self._frame, taken)
        if gives_back:
            self._frame.give_back()


def _nothing() -> None:
    pass


class _Item:
    """What waits for an output: something to do with the sink. `ticket` is its frame's, held as `reads` says; `then()`
    is called once it is done, or given up."""

    def __init__(
        self,
        work: Callable[[Sink], None],
        ticket: Ticket | None = None,
        source_id: str = "",
        reads: bool = False,
        counts: bool = False,
        then: Callable[[], None] = _nothing,
    ) -> None:
        self.work, self.ticket, self.source_id, self.reads = work, ticket, source_id, reads
        self.counts, self.then = counts, then


class Output:
    """A sink at work. It is opened by its own thread, with the first thing that it is to take.

    `failed(error)` is called when it can take no more, `stop_requested()` when the person at a window wants the end;
    both by its thread.
    """

    def __init__(
        self,
        name: str,
        counts: OutputCounts,
        make: Callable[[], Sink],
        failed: Callable[[OutputError], None],
        stop_requested: Callable[[], None],
        kind: SinkKind,
    ) -> None:
        """Whoever reads the frames' pictures keeps their slots."""
        self.kind = kind
        self.name, self.counts = name, counts
        self._make, self._failed, self._stop_requested = make, failed, stop_requested
        self._sink: Sink | None = None
        self._path = counts.path  # of the file that is being written, and where that lies
        self._place: os.stat_result | None = None
        self._lost = 0
        self._items: deque[_Item] = deque()
        self._at: list[_Item] = []
        self._following = threading.Lock()
        self._waiting: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closing = False
        self.is_over = False
        self._thread = threading.Thread(target=self._run, name=f"output {name}", daemon=True)
        self._thread.start()

    # -- whoever delivers

    def offer(
        self,
        ticket: Ticket,
        result: FrameResult,
        image_bgr: Image | None,
        may_wait: bool,
        then: Callable[[], None] | None = None,
    ) -> bool:
        """A frame, or that one was dropped; whether it is taken, and `then()` will be called. Without `may_wait` it is
        missed, and counted so, when too many wait already."""
        # What waits without a bound of its own is bounded by the slots.
        has_picture = self.kind.has_pictures and not (self.kind.on_demand and image_bgr is None)
        reads = has_picture or may_wait or then is not None
        most_frames = WAITING_FRAMES if has_picture else WAITING_LINES
        is_frame = result.dropped is None
        item = _Item(
            lambda sink: sink.write(result, image_bgr), ticket, result.source_id, reads, is_frame, then or _nothing
        )
        with self._changed:
            if self.is_over or self._closing:
                return False
            waiting = self._waiting.get(item.source_id, 0)
            if len(self._items) >= MOST_WAITING or (is_frame and not may_wait and waiting >= most_frames):
                self.counts.missed += 1
                return False
            ticket.hold(reads)
            if is_frame:
                self._waiting[item.source_id] = waiting + 1
            self._put(item)
            return True

    @property
    def is_heard(self) -> bool:
        """Whether anybody looks. One that has had nothing to do does not know yet."""
        return self._sink is None or self._sink.is_heard

    def is_behind(self, source_id: str) -> bool:
        """As many frames of it wait as others can take at once: nobody else should wait for this output."""
        return self._waiting.get(source_id, 0) >= WAITING_FRAMES - 1

    def let_pass(self) -> None:
        """What is to follow on its items follows now, in their order."""
        with self._following:
            with self._changed:
                items = [*self._at, *self._items]
            for item in items:
                self._follow(item)

    def record(self, signal: SignalChange) -> None:
        self._do(lambda sink: sink.record(signal))

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        with self._changed:
            if self._waiting.get(source_id, 0) < WAITING_FRAMES and len(self._items) < 8 * WAITING_FRAMES:
                self._put(_Item(lambda sink: sink.still(source_id, pts_seconds, image_bgr)))

    def look(self) -> None:
        """What it wants may have changed without a frame."""
        with self._changed:
            if not (self.is_over or self._items):
                self._put(_Item(lambda sink: sink.look()))

    def open(self) -> None:
        """Also without a frame: a source without any came to a good end."""
        self._do(lambda sink: None)

    def end(self, source_id: str) -> None:
        """Nothing more comes of this source, for now."""
        with self._changed:
            is_open = self._sink is not None or self._items  # what was never opened is not opened for that
            if is_open and not self.is_over and len(self._items) < MOST_WAITING:
                self._put(_Item(lambda sink: sink.end(source_id)))

    def _do(self, work: Callable[[Sink], None]) -> None:
        with self._changed:
            if self.is_over:
                return
            if len(self._items) >= MOST_WAITING:
                self.counts.missed += 1
                return
            self._put(_Item(work))

    def _put(self, item: _Item) -> None:
        self._items.append(item)
        self._changed.notify_all()

    def close(self) -> None:
        """What waits is written, then the sink is closed; `join` waits for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(CLOSE_SECONDS)

    # -- the output's own thread

    def _run(self) -> None:
        while (item := self._next()) is not None:
            taken, error = False, None
            try:
                taken = self._work(item)
            except OutputError as caught:
                error = caught
            if item.counts:
                with self._changed:
                    self._served(item.source_id)
                    self.counts.missed += not (taken or error)
                self.counts.frames += taken
            self._done(item, taken)
            if error:
                self._give_up(error)
        self._close_sink()

    def _done(self, item: _Item, taken: bool) -> None:
        if item.ticket and taken and not self.kind.on_demand:
            item.ticket.taken()
        with self._following:
            self._follow(item)
        if item.ticket:
            item.ticket.release(reads=item.reads)

    @staticmethod
    def _follow(item: _Item) -> None:
        """Once; what follows on several items is in their order as long as this is, which `_following` sees to."""
        then, item.then = item.then, _nothing
        then()

    def _served(self, source_id: str) -> None:
        self._waiting[source_id] -= 1
        if not self._waiting[source_id]:
            del self._waiting[source_id]

    def _next(self) -> _Item | None:
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closing)
            self._at = [self._items.popleft()] if self._items else []
            return self._at[0] if self._at else None

    def _work(self, item: _Item) -> bool:
        """Whether the sink has taken it."""
        is_taken = True
        if self._sink is None:
            self._sink = self._make()
            self._path = self.counts.path = self._sink.path or self.counts.path
        try:
            item.work(self._sink)
        except StopRequested:
            self._stop_requested()
        except Missed:
            is_taken = False
        self._tell_of(self._sink)
        if self._sink.path and self._sink.path != self._path:
            self._path, self._place = self._sink.path, None
            self.counts.segments += 1
        if item.ticket and self._place is None:  # the file is there from the first frame on
            self._place = self._stat()
        return is_taken

    def _tell_of(self, sink: Sink) -> None:
        self.counts.way = sink.way
        with self._changed:
            self.counts.missed += sink.lost - self._lost
            self._lost = sink.lost

    def _stat(self) -> os.stat_result | None:
        with suppress(OSError):
            return Path(self._path).stat() if self._path else None
        return None

    def _give_up(self, error: OutputError) -> None:
        with self._changed:
            self.is_over = self._closing = True
            left = list(self._items)
            self._items.clear()
        self.counts.problem = self.counts.problem or str(error)
        for item in left:
            self._done(item, taken=False)
        self._failed(error)

    def _close_sink(self) -> None:
        sink, self._sink = self._sink, None
        try:
            if sink:
                sink.close()
                self._tell_of(sink)
        except OutputError as error:
            if not self.counts.problem:
                self.counts.problem = str(error)
                self._failed(error)
        before, after = self._place, self._stat()
        if before and not (after and os.path.samestat(before, after)):
            self.counts.is_gone = True
        self.is_over = True
