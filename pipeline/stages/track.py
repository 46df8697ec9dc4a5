"""track: gives detections the ids of their tracks, one tracker for each source. Knows no pixels."""

from pipeline.frame import Frame
from pipeline.kernels import compiled
from pipeline.messages import EndOfStream, StreamStart
from pipeline.stage import Kit, Stage
from pipeline.tracker import ByteTracker, warm_up

USUAL_FRAMES_PER_SECOND = 25.0


class Track(Stage):
    """The trackers' process."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.track
        self._trackers: dict[str, ByteTracker] = {}
        self._last_seq: dict[str, int] = {}

    def prepare(self) -> None:
        self.kit.tell("compiling the tracker")
        compiled(warm_up)

    def stream_started(self, start: StreamStart) -> None:
        rate = start.frames_per_second or USUAL_FRAMES_PER_SECOND
        self._trackers[start.source_id] = ByteTracker(self._settings, rate)
        self._last_seq[start.source_id] = -1

    def process(self, frame: Frame) -> None:
        source_id, seq = frame.header.source_id, frame.header.seq
        # Frames that were dropped or failed are a gap in time, not frames without objects.
        frames_elapsed = seq - self._last_seq[source_id]
        self._last_seq[source_id] = seq
        frame.put_detections(self._trackers[source_id].update(frame.detections(), frames_elapsed))

    def stream_ended(self, end: EndOfStream) -> None:
        del self._trackers[end.source_id], self._last_seq[end.source_id]
