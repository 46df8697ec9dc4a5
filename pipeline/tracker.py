"""ByteTrack (Zhang et al., arXiv 2110.06864): the detections of one source in, the same with track ids out.

Knows no stage, no message and no model. One `ByteTracker` follows one source. A frame is one call into
`pipeline.kernels.tracks`, which knows the steps; here is what lasts from frame to frame.
"""

from dataclasses import replace

import numpy as np

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.kernels import tracks as kernel
from pipeline.settings import TrackerSettings

ROOM = 64  # for tracks, at first; twice as much whenever that is not enough


class ByteTracker:
    """Follows the objects of one source. Classes never mix; ids count from 1 over all classes."""

    def __init__(self, settings: TrackerSettings | None = None, frames_per_second: float = 30.0) -> None:
        """Raises ValueError unless frames_per_second, the rate of the source, is above 0."""
        if not frames_per_second > 0:
            raise ValueError(f"frames_per_second {frames_per_second}: must be above 0")
        settings = settings or TrackerSettings()
        self._rules = kernel.Rules(
            # As exact as the scores: one that is equal to its limit reaches it.
            high_score=np.float32(settings.high_score),
            low_score=np.float32(settings.low_score),
            new_score=np.float32(settings.new_score),
            first_iou=settings.first_iou,
            second_iou=settings.second_iou,
            confirm_frames=settings.confirm_frames,
            lost_frames=round(settings.lost_seconds * frames_per_second),
        )
        self._tracks = _with_room(ROOM)
        self._count = 0
        self._ids_given = 0

    def update(self, detections: Detections, frames_elapsed: int = 1) -> Detections:
        """The same detections of the next frame, in the same order, with the ids of confirmed tracks.

        frames_elapsed is the distance to the frame of the last call; above 1 the frames between were dropped or failed.
        Nobody looked then, so no track counts as missed: it is predicted over the gap, and judged by what is seen now.
        Detections without a finite, positive area are left alone. Raises ValueError for frames_elapsed below 1.
        """
        if frames_elapsed < 1:
            raise ValueError(f"frames_elapsed {frames_elapsed}: must be 1 or more")
        # Copies: what is read-only would be another type, for which all is compiled once more.
        found = kernel.Found(
            np.array(detections.boxes_xyxy, np.float64, order="C"),
            np.array(detections.scores, np.float32),
            np.array(detections.class_ids, np.int32),
        )
        self._make_room(self._count + len(detections))
        self._count, self._ids_given, track_ids = kernel.update(
            self._tracks, self._count, found, frames_elapsed, self._rules, self._ids_given
        )
        return replace(detections, track_ids=track_ids)

    def predicted(self, frames_ahead: int) -> Detections:
        """Where the confirmed tracks of the last frame should be `frames_ahead` later, where nobody looks; best score
        first. Changes nothing. Raises ValueError for frames_ahead below 1."""
        if frames_ahead < 1:
            raise ValueError(f"frames_ahead {frames_ahead}: must be 1 or more")
        tracks, some = self._tracks, slice(self._count)
        shown = np.flatnonzero((tracks.track_ids[some] != NO_TRACK) & (tracks.unseen_frames[some] == 0))
        shown = shown[np.argsort(-tracks.scores[shown], kind="stable")]
        states = tracks.states[shown]
        kernel.predict(states, frames_ahead)
        boxes_xyxy = kernel.to_boxes(states).astype(np.float32)
        return Detections(boxes_xyxy, tracks.scores[shown], tracks.class_ids[shown], tracks.track_ids[shown])

    def _make_room(self, wanted: int) -> None:
        room = len(self._tracks.hits)
        if wanted <= room:
            return
        grown = _with_room(max(wanted, 2 * room))
        for name, array in self._tracks._asdict().items():
            getattr(grown, name)[:room] = array
        self._tracks = grown


def _with_room(count: int) -> kernel.Tracks:
    return kernel.Tracks(
        states=np.zeros((count, *kernel.STATE_SHAPE)),
        class_ids=np.zeros(count, np.int32),
        track_ids=np.zeros(count, np.int32),
        hits=np.zeros(count, np.int64),
        unseen_frames=np.zeros(count, np.int64),
        scores=np.zeros(count, np.float32),
    )


def warm_up() -> None:
    """Compile, or load from disk, what `ByteTracker` needs: seconds the first frame need not wait."""
    box = Detections(
        np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32), np.zeros(1, np.int32)
    )
    tracker = ByteTracker()
    for _ in range(2):
        tracker.update(box)
    tracker.predicted(1)
