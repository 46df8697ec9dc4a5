"""The project's tracker, as the harness takes it, and its plain twin."""

import numpy as np

from benchmarks.mot.sequences import Frame
from benchmarks.mot.trackers import Make, Thresholds, Tracker, Tracks
from pipeline.command.config import load_settings, parse_assignment
from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.settings import TrackerSettings
from pipeline.tracker import Tracker as Ours
from tests.kit.plain_tracker import PlainTracker


def thresholds() -> Thresholds:
    """Those of the default settings, which all others are given too."""
    settings = TrackerSettings()
    return Thresholds(settings.low_score, settings.high_score, settings.new_score)


def make_with(thresholds: Thresholds, assignments: tuple[str, ...], kind: type = Ours) -> Make:
    """Of `track.KEY=VALUE` assignments; it looks at the lowest scores itself, and at the times instead of the rate."""
    settings = load_settings(None, [parse_assignment(text) for text in assignments]).track
    least_score = min(thresholds.low, settings.low_score)

    def make(rate: float) -> Tracker:
        ours = kind(settings)
        return Tracker(lambda given: ours.update(*given), _given, _told, least_score)

    return make


def make_twin(thresholds: Thresholds, assignments: tuple[str, ...]) -> Make:
    return make_with(thresholds, assignments, PlainTracker)


def _given(frame: Frame) -> tuple[Detections, float]:
    return Detections.untracked(frame.boxes_xyxy, frame.scores, frame.class_ids), frame.pts_seconds


def _told(detections: Detections) -> Tracks:
    followed = detections.where(detections.track_ids != NO_TRACK)
    return Tracks(followed.track_ids.astype(np.int64), followed.boxes_xyxy.astype(np.float64))
