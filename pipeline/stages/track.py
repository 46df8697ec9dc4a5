"""track: gives detections the ids of their tracks, one tracker for each source. Knows no pixels.

A frame that looks as one before (`infer.still`) takes over here what was found in that, for here they come in order.
"""

from typing import NamedTuple

from pipeline import still
from pipeline.flow.detections import Detections
from pipeline.flow.frame import Frame
from pipeline.flow.messages import EndOfStream, SignalChange, StreamStart
from pipeline.kernels import compiled
from pipeline.stage import Kit, Stage
from pipeline.tracker import ByteTracker, warm_up

USUAL_FRAMES_PER_SECOND = 25.0


class Track(Stage):
    """The trackers' process."""

    in_order = True

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.track
        self._usual_threshold = kit.settings.infer.score_threshold
        self._trackers: dict[str, ByteTracker] = {}
        self._last_seq: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._score_thresholds: dict[str, float] = {}
        self._computed: dict[str, _Computed] = {}

    def prepare(self) -> None:
        self.kit.tell("compiling the tracker")
        compiled(warm_up)

    def stream_started(self, start: StreamStart) -> None:
        self._score_thresholds[start.source_id] = start.score_threshold
        if start.source_id not in self._trackers:
            self._begin(start.source_id, start.seq, start.frames_per_second)

    def _begin(self, source_id: str, seq: int, frames_per_second: float | None) -> ByteTracker:
        rate = self._rates[source_id] = frames_per_second or USUAL_FRAMES_PER_SECOND
        tracker = ByteTracker(self._settings, rate)
        self._trackers[source_id], self._last_seq[source_id] = tracker, seq - 1
        return tracker

    def signal_changed(self, signal: SignalChange) -> None:
        """A time in which nothing was captured is a gap like one of frames that were dropped."""
        if signal.outage and signal.outage.state in ("lost", "paused") and signal.source_id in self._trackers:
            missed_seconds = max(0.0, signal.outage.end_unix - signal.outage.start_unix)
            self._last_seq[signal.source_id] -= round(missed_seconds * self._rates[signal.source_id])

    def process(self, frame: Frame) -> None:
        source_id, seq = frame.header.source_id, frame.header.seq
        tracker = self._trackers.get(source_id) or self._begin(source_id, seq, None)
        # Frames that were dropped or failed are a gap in time, not frames without objects.
        frames_elapsed = seq - self._last_seq[source_id]
        if frame.header.unseen:
            frame.put_detections(tracker.predicted(frames_elapsed))
            return
        found = self._found(frame)
        if found is None:
            frame.header.failure = f"it looked as frame {frame.header.same_as}, which has no result"
            return
        self._last_seq[source_id] = seq
        frame.put_detections(tracker.update(found, frames_elapsed))

    def _found(self, frame: Frame) -> Detections | None:
        """In the frame itself, or in the one that it looks as; None where that had no result."""
        header = frame.header
        before = self._computed.get(header.source_id)
        if header.same_as is not None:
            return before.found if before and before.seq == header.same_as else None
        found = frame.detections()
        if header.audits is None:
            self._computed[header.source_id] = _Computed(header.seq, found)
        elif before and before.seq == header.audits:
            score_threshold = self._score_thresholds.get(header.source_id, self._usual_threshold)
            header.audit = still.audit(found, before.found, score_threshold)
        return found

    def stream_ended(self, end: EndOfStream) -> None:
        of_sources = (self._trackers, self._last_seq, self._rates, self._score_thresholds, self._computed)
        for told in of_sources:
            told.pop(end.source_id, None)


class _Computed(NamedTuple):
    """What was found in the last frame of a source that others may take over from."""

    seq: int
    found: Detections
