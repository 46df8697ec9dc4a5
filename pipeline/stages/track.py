"""track: gives detections the ids of their tracks, one tracker for each source, and counts them in zones and across
lines. Knows no pixels.

A frame that looks as one before (`infer.still`) takes over here what was found in that, for here they come in order.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import still
from pipeline.flow.detections import Detections
from pipeline.flow.events import Moment
from pipeline.flow.frame import Frame
from pipeline.flow.messages import EndOfStream, FrameHeader, Start, StreamStart
from pipeline.kernels import compiled, preload
from pipeline.shapes import Layout
from pipeline.stage import Kit, Stage
from pipeline.tracker import Tracker, kinds_of, warm_up
from pipeline.zones import ZoneCounter


class Track(Stage):
    """The trackers' process."""

    in_order = True

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.track
        self._usual_threshold = kit.settings.infer.score()
        self._trackers: dict[str, Tracker] = {}
        self._score_thresholds: dict[str, float] = {}
        self._computed: dict[str, _Computed] = {}
        # Here, where tracks begin and end: who counts is lost with those whom it counts, and ids are never mixed up.
        self._counters: dict[str, ZoneCounter] = {}
        self._class_names: tuple[str, ...] = ()
        self._kinds = kinds_of((), ())

    @classmethod
    def preload(cls) -> None:
        preload()

    def prepare(self) -> None:
        self.kit.tell("compiling the tracker")
        compiled(warm_up)

    def begin(self, start: Start) -> None:
        self._class_names = start.model.class_names
        self._kinds = kinds_of(self._class_names, self._settings.confused)

    def stream_started(self, start: StreamStart) -> None:
        self._score_thresholds[start.source_id] = start.score_threshold
        self._lay_out(start.source_id, Layout(start.zones, start.lines))

    def _lay_out(self, source_id: str, layout: Layout) -> None:
        if counter := self._counters.get(source_id):
            counter.change(layout)
        elif layout:
            self._counters[source_id] = ZoneCounter(self._class_names, layout)

    def _begin(self, header: FrameHeader) -> Tracker:
        """Whom a process before this one followed nobody knows; but no id is given twice."""
        tracker = Tracker(self._settings, self._kinds, self.kit.ledger.ids_given(header.place))
        self._trackers[header.source_id] = tracker
        return tracker

    def process(self, frame: Frame) -> None:
        header = frame.header
        tracker = self._trackers.get(header.source_id) or self._begin(header)
        counter = self._counters.get(header.source_id)
        # Frames that were dropped or failed are a gap in time, not frames without objects.
        if header.unseen:
            frame.put_detections(_told(tracker.predicted(header.pts_seconds), header))
            if counter:
                header.counts = counter.counts()
            return
        found = self._found(frame)
        if found is None:
            header.failure = f"it looked as frame {header.same_as}, which has no result"
            return
        tracked = tracker.update(found, header.pts_seconds)
        boxes_xyxy = tracked.boxes_xyxy[: len(found)]
        if header.same_as is not None:  # the same picture has the same boxes, though the filter is surer now
            boxes_xyxy[:] = self._computed[header.source_id].boxes_xyxy
        elif header.audits is None:
            self._computed[header.source_id] = _Computed(header.seq, found, boxes_xyxy)
        self.kit.ledger.give_ids(header.place, tracker.ids_given)
        frame.put_detections(_told(tracked, header))
        if counter:
            self._count(header, tracked.where(~tracked.predicted), tracker.followed, counter)

    def _count(self, header: FrameHeader, tracked: Detections, followed: frozenset[int], counter: ZoneCounter) -> None:
        moment = Moment(header.source_id, header.seq, header.pts_seconds, header.captured_unix)
        events = counter.update(moment, tracked, header.width, header.height, followed)
        header.counts = counter.counts(events)
        if counter.is_over:
            del self._counters[header.source_id]

    def _found(self, frame: Frame) -> Detections | None:
        """In the frame itself, or in the one that it looks as; None where that had no result."""
        header = frame.header
        before = self._computed.get(header.source_id)
        if header.same_as is not None:
            return before.found if before and before.seq == header.same_as else None
        found = frame.detections()
        if before and before.seq == header.audits:
            score_threshold = self._score_thresholds.get(header.source_id, self._usual_threshold)
            header.audit = still.audit(found, before.found, score_threshold)
        return found

    def stream_ended(self, end: EndOfStream) -> None:
        of_sources = (self._trackers, self._score_thresholds, self._computed)
        for told in (*of_sources, self._counters):
            told.pop(end.source_id, None)


def _told(tracked: Detections, header: FrameHeader) -> Detections:
    """Best score first, without the predicted ones whose centre is outside of the picture: they have left it."""
    if not tracked.predicted.any():
        return tracked
    centres = (tracked.boxes_xyxy[:, :2] + tracked.boxes_xyxy[:, 2:]) / 2
    inside = ((centres >= 0) & (centres <= (header.width, header.height))).all(axis=1)
    order = np.argsort(-tracked.scores, kind="stable")
    return tracked.where(order[(inside | ~tracked.predicted)[order]])


class _Computed(NamedTuple):
    """What was found in the last frame of a source that others may take over from, and the boxes (N, 4) that were told
    of it."""

    seq: int
    found: Detections
    boxes_xyxy: NDArray[np.float32]
