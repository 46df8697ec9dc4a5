"""Trackers that one can install, each as the harness takes it. Nothing that ships imports this, or any of them.

Their own defaults, but for what all have alike: the score thresholds, and a second for which a lost track is kept.
Where a package has one threshold for the first match and for a start, it is that of the first match; where it says
which detection a track was found in, that one's box is taken, for both score better. No pictures are given, so camera
motion, appearance and masks are off. BoxMOT is AGPL: measured against, and nothing of it is used elsewhere.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.mot.sequences import Frame
from benchmarks.mot.trackers import Make, Thresholds, Tracker, Tracks

LOST_SECONDS = 1.0


def _roboflow(kind: str, settings: Callable[[Thresholds], dict[str, Any]]) -> Callable[[Thresholds], Make]:
    """Of package `trackers`: supervision's Detections in and out, -1 for what is not tracked. Buffers are in frames at
    30 a second there, whatever the rate."""

    def of(thresholds: Thresholds) -> Make:
        supervision, tracker = import_module("supervision"), getattr(import_module("trackers"), kind)

        def given(frame: Frame) -> Any:
            return supervision.Detections(
                xyxy=frame.boxes_xyxy, confidence=frame.scores, class_id=frame.class_ids.astype(int)
            )

        def told(detections: Any) -> Tracks:
            followed = detections.tracker_id != -1
            return Tracks(detections.tracker_id[followed], detections.xyxy[followed].astype(np.float64))

        known = settings(thresholds) | {"lost_track_buffer": round(30 * LOST_SECONDS)}
        least_score = thresholds.high if kind == "SORTTracker" else thresholds.low
        return lambda rate: Tracker(tracker(frame_rate=rate, **known).update, given, told, least_score)

    return of


def _high_and_new(thresholds: Thresholds) -> dict[str, Any]:
    return {"high_conf_det_threshold": thresholds.high, "track_activation_threshold": thresholds.new}


def _without_camera_motion(thresholds: Thresholds) -> dict[str, Any]:
    return _high_and_new(thresholds) | {"enable_cmc": False}


def _trackforge(
    kind: str, settings: Callable[[Thresholds, int], dict[str, Any]], low: bool, embeddings: bool = False
) -> Callable[[Thresholds], Make]:
    """Lists of (left, top, width, height), score, class in; of id, box, score, class out. `low`: a second match."""

    def of(thresholds: Thresholds) -> Make:
        tracker = getattr(import_module("trackforge"), kind)

        def given(frame: Frame) -> Any:
            boxes = np.hstack([frame.boxes_xyxy[:, :2], frame.boxes_xyxy[:, 2:] - frame.boxes_xyxy[:, :2]]).tolist()
            return list(zip(boxes, frame.scores.tolist(), frame.class_ids.tolist(), strict=True))

        def told(rows: Any) -> Tracks:
            boxes = np.array([row[1] for row in rows], np.float64).reshape(-1, 4)
            return Tracks(
                np.array([row[0] for row in rows], np.int64), np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
            )

        def make(rate: float) -> Tracker:
            update = tracker(**settings(thresholds, round(rate * LOST_SECONDS))).update
            least_score = thresholds.low if low else thresholds.high
            return Tracker((lambda rows: update(rows, [])) if embeddings else update, given, told, least_score)

        return make

    return of


def _rows(frame: Frame) -> Any:
    return np.hstack([frame.boxes_xyxy, frame.scores[:, None]]).astype(np.float64)


def _rows_told(rows: Any) -> Tracks:
    """Of rows of left, top, right, bottom, id."""
    rows = np.asarray(rows, np.float64)
    rows = rows.reshape(len(rows), -1 if len(rows) else 5)
    return Tracks(rows[:, 4].astype(np.int64), rows[:, :4])


def _pyxtrackers(
    kind: str, settings: Callable[[Thresholds, float], dict[str, Any]], low: bool
) -> Callable[[Thresholds], Make]:
    def of(thresholds: Thresholds) -> Make:
        tracker, least_score = getattr(import_module("pyxtrackers"), kind), thresholds.low if low else thresholds.high
        return lambda rate: Tracker(tracker(**settings(thresholds, rate)).update, _rows, _rows_told, least_score)

    return of


def _norfair(thresholds: Thresholds) -> Make:
    norfair = import_module("norfair")

    def given(frame: Frame) -> Any:
        boxes, scores = frame.boxes_xyxy.astype(np.float64).reshape(-1, 2, 2), np.repeat(frame.scores[:, None], 2, 1)
        return [norfair.Detection(points=box, scores=score) for box, score in zip(boxes, scores, strict=True)]

    def told(objects: Any) -> Tracks:
        boxes = np.array([each.estimate.ravel() for each in objects]).reshape(-1, 4)
        return Tracks(np.array([each.id for each in objects], np.int64), boxes)

    def make(rate: float) -> Tracker:
        # Its own example's distance for boxes, and seconds as its defaults have them at 30 frames.
        frames = max(2, round(rate * LOST_SECONDS / 2))
        tracker = norfair.Tracker("iou", distance_threshold=0.7, hit_counter_max=frames, initialization_delay=1)
        return Tracker(tracker.update, given, told, thresholds.high)

    return make


def _boxmot_bytetrack(thresholds: Thresholds) -> Make:
    tracker = import_module("boxmot.trackers.box.bytetrack.tracker").ByteTrack
    # Its base class wants a picture for its size.
    picture = np.zeros((1080, 1920, 3), np.uint8)

    def given(frame: Frame) -> Any:
        return np.hstack([frame.boxes_xyxy, frame.scores[:, None], np.zeros((len(frame.scores), 1), np.float32)])

    def told(rows_and_given: Any) -> Tracks:
        """Of rows whose fifth column is the id and whose eighth the detection."""
        rows, detections = rows_and_given
        rows = np.asarray(rows, np.float64).reshape(-1, 8)
        return Tracks(rows[:, 4].astype(np.int64), detections[rows[:, 7].astype(int), :4].astype(np.float64))

    def make(rate: float) -> Tracker:
        kept = {"track_buffer": round(30 * LOST_SECONDS), "frame_rate": rate}
        update = tracker(min_conf=thresholds.low, track_thresh=thresholds.high, **kept).update
        return Tracker(lambda rows: (update(rows, picture), rows), given, told, thresholds.low)

    return make


PEERS: dict[str, Callable[[Thresholds], Make]] = {
    "trackers-sort": _roboflow("SORTTracker", lambda given: {"track_activation_threshold": given.new}),
    "trackers-bytetrack": _roboflow("ByteTrackTracker", _high_and_new),
    "trackers-ocsort": _roboflow("OCSORTTracker", lambda given: {"high_conf_det_threshold": given.high}),
    "trackers-botsort": _roboflow("BoTSORTTracker", _without_camera_motion),
    "trackers-cbiou": _roboflow("CBIoUTracker", _high_and_new),
    "trackers-mcbyte": _roboflow("McByteTracker", _without_camera_motion),
    "trackforge-sort": _trackforge("SORT", lambda given, lost: {"max_age": lost}, low=False),
    "trackforge-bytetrack": _trackforge(
        "BYTETRACK",
        lambda given, lost: {"track_thresh": given.high, "det_thresh": given.new, "track_buffer": lost},
        low=True,
    ),
    "trackforge-ocsort": _trackforge("OCSORT", lambda given, lost: {"max_age": lost}, low=False),
    "trackforge-tracktrack": _trackforge(
        "TRACKTRACK",
        lambda given, lost: {"det_thresh": given.high, "init_thresh": given.new, "track_buffer": lost},
        low=True,
        embeddings=True,
    ),
    "pyxtrackers-sort": _pyxtrackers("Sort", lambda given, rate: {"max_age": round(rate * LOST_SECONDS)}, low=False),
    # It starts tracks from 0.1 above the threshold of its first match.
    "pyxtrackers-bytetrack": _pyxtrackers(
        "BYTETracker",
        lambda given, rate: {
            "track_thresh": given.high,
            "track_buffer": round(30 * LOST_SECONDS),
            "frame_rate": rate,
        },
        low=True,
    ),
    "pyxtrackers-ocsort": _pyxtrackers(
        "OCSort",
        lambda given, rate: {"det_thresh": given.high, "max_age": round(rate * LOST_SECONDS), "use_byte": True},
        low=True,
    ),
    "norfair": _norfair,
    "boxmot-bytetrack": _boxmot_bytetrack,
}
