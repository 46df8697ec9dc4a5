"""What is known about one frame when it is delivered: the input of the overlay and of every sink.

Knows no stage, no sink and no pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.flow.events import Event, LineCount, ZoneCount
from pipeline.flow.fates import Drop
from pipeline.flow.heat import HeatMap
from pipeline.flow.messages import Clock, Hop
from pipeline.shapes import Layout


@dataclass(frozen=True, slots=True)
class FrameResult:
    """One frame of one source, seen by all stages.

    source_id          name of the source
    seq                number of the frame in its source, from 0
    pts_seconds        presentation time in the source's own clock
    captured_unix      wall-clock time of capture, seconds since 1970 (UTC), by `clock`
    width, height      size of the source frame in pixels
    failure            None: all went well. Otherwise why there is no result; "no result" is never "no objects"
    dropped            where and why the frame ended before it came here; then there is no picture and no result
    predicted          nobody looked at this frame: its objects are tracks as they should be by now
    latency_ms         capture to delivery
    detections         all that the tracker saw, also below the score threshold; empty after a failure
    score_threshold    from this score on a detection is an object
    class_names        name of each class id
    frames_per_second  measured rate of the source, None while unknown
    taken_from         it looked as that frame did, and took over what was found there; None: it was computed itself
    layout             where the source's zones and lines lie
    zones, lines       their counts by name; empty where the source has none, and without a result
    events             what happened there with this frame
    captured_ns        capture on the monotonic clock
    heat               what the network says of a class, by its name: of those that somebody looks at
    trace              its way through the stages; of the last, which still has it, only when it came
    """

    source_id: str
    seq: int
    pts_seconds: float
    captured_unix: float
    width: int
    height: int
    clock: Clock
    failure: str | None
    dropped: Drop | None
    predicted: bool
    latency_ms: float
    detections: Detections
    score_threshold: float
    class_names: tuple[str, ...]
    frames_per_second: float | None
    taken_from: int | None = None
    layout: Layout = field(default_factory=Layout)
    zones: Mapping[str, ZoneCount] = field(default_factory=dict)
    lines: Mapping[str, LineCount] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    captured_ns: int = 0
    heat: Mapping[str, HeatMap] = field(default_factory=dict)
    trace: tuple[Hop, ...] = ()

    def objects(self) -> Detections:
        """The detections that reach the score threshold, tracked or not."""
        return self.detections.where(self._scores_high())

    def tracked(self) -> Detections:
        """The detections of confirmed tracks, whatever their score: a track does not flicker with its score."""
        return self.detections.where(self.detections.track_ids != NO_TRACK)

    def visible(self) -> Detections:
        """What a person is shown: the objects and all that is tracked."""
        return self.detections.where(self._scores_high() | (self.detections.track_ids != NO_TRACK))

    def _scores_high(self) -> NDArray[np.bool_]:
        return self.detections.scores >= np.float32(self.score_threshold)
