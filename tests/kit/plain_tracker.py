"""`pipeline.tracker.ByteTracker` once more, slow and plain: its tracks lie in arrays, and every step is a line of NumPy
over all of them. Boxes move, overlap and are assigned as there; that has tests of its own."""

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.kernels import tracks as kalman
from pipeline.kernels.tracks import UNMATCHED, assign, iou
from pipeline.settings import TrackerSettings


@dataclass(slots=True)
class _Tracks:
    """T tracks as parallel arrays, eldest first.

    states         (T, 5, 4) float64, see pipeline.kernels.tracks
    class_ids      (T,) int32
    track_ids      (T,) int32, `NO_TRACK` until confirmed
    hits           (T,) int64, frames in which it was found
    unseen_frames  (T,) int64, frames since it was found
    detections     (T,) int64, its detection in the last frame, or `UNMATCHED`
    scores         (T,) float32, of the detection found last
    """

    states: NDArray[np.float64]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int32]
    hits: NDArray[np.int64]
    unseen_frames: NDArray[np.int64]
    detections: NDArray[np.int64]
    scores: NDArray[np.float32]

    @classmethod
    def starting(
        cls,
        detections: NDArray[np.int64],
        boxes_xyxy: NDArray[np.float64],
        class_ids: NDArray[np.int32],
        scores: NDArray[np.float32],
    ) -> Self:
        """A track, found once, for each detection (N,) with its box (N, 4), class (N,) and score (N,)."""
        count = len(detections)
        return cls(
            states=kalman.start(boxes_xyxy),
            class_ids=class_ids,
            track_ids=np.full(count, NO_TRACK, np.int32),
            hits=np.ones(count, np.int64),
            unseen_frames=np.zeros(count, np.int64),
            detections=detections,
            scores=scores,
        )

    def ids_by_detection(self, count: int) -> NDArray[np.int32]:
        """The track id of each of the last frame's `count` detections, or `NO_TRACK`."""
        found = self.detections != UNMATCHED
        track_ids = np.full(count, NO_TRACK, np.int32)
        track_ids[self.detections[found]] = self.track_ids[found]
        return track_ids

    def without(self, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Those of the last frame's `wanted` detections (N,) that no track has."""
        wanted = wanted.copy()
        wanted[self.detections[self.detections != UNMATCHED]] = False
        return np.flatnonzero(wanted)

    def where(self, keep: NDArray[np.bool_]) -> "_Tracks":
        return _Tracks(*(getattr(self, field.name)[keep] for field in fields(self)))

    def followed_by(self, others: "_Tracks") -> "_Tracks":
        pairs = ((getattr(self, field.name), getattr(others, field.name)) for field in fields(self))
        return _Tracks(*(np.concatenate(pair) for pair in pairs))


class PlainTracker:
    """Follows the objects of one source. Classes never mix; ids count from 1 over all classes."""

    def __init__(self, settings: TrackerSettings | None = None, frames_per_second: float = 30.0) -> None:
        """As there."""
        self._settings = settings or TrackerSettings()
        self._lost_frames = round(self._settings.lost_seconds * frames_per_second)
        self._tracks = _Tracks.starting(
            np.empty(0, np.int64), np.empty((0, 4)), np.empty(0, np.int32), np.empty(0, np.float32)
        )
        self._ids_given = 0

    def update(self, detections: Detections, frames_elapsed: int = 1) -> Detections:
        """As there."""
        boxes_xyxy = np.array(detections.boxes_xyxy, np.float64, order="C")
        tracks = self._tracks
        tracks.unseen_frames += frames_elapsed
        kalman.predict(tracks.states, frames_elapsed)
        self._associate(boxes_xyxy, detections, just_seen=tracks.unseen_frames == frames_elapsed)
        found = tracks.detections != UNMATCHED
        kalman.correct(tracks.states, np.flatnonzero(found), boxes_xyxy[tracks.detections[found]])
        tracks.scores[found] = detections.scores[tracks.detections[found]]
        tracks.hits[found] += 1
        tracks.unseen_frames[found] = 0
        remembered = (tracks.track_ids != NO_TRACK) & (tracks.unseen_frames <= self._lost_frames)
        started = self._started_by(boxes_xyxy, detections)
        self._tracks = tracks.where(found | remembered).followed_by(started)
        self._confirm()
        return replace(detections, track_ids=self._tracks.ids_by_detection(len(detections)))

    def _associate(self, boxes_xyxy: NDArray[np.float64], detections: Detections, just_seen: NDArray[np.bool_]) -> None:
        """Write into the tracks which detection is theirs now; those on probation choose last."""
        tracks, settings = self._tracks, self._settings
        sound = _sound(boxes_xyxy)
        high = sound & (detections.scores >= settings.high_score)
        low = sound & ~high & (detections.scores >= settings.low_score)
        overlaps = iou(kalman.to_boxes(tracks.states), boxes_xyxy)
        overlaps[tracks.class_ids[:, None] != detections.class_ids] = 0
        confirmed = tracks.track_ids != NO_TRACK
        tracks.detections[:] = UNMATCHED
        _match(tracks, confirmed, high, overlaps - settings.first_iou)
        _match(tracks, confirmed & just_seen, low, overlaps - settings.second_iou)
        _match(tracks, ~confirmed, high, overlaps - settings.first_iou)

    def _started_by(self, boxes_xyxy: NDArray[np.float64], detections: Detections) -> _Tracks:
        """New tracks, of the good detections that found none."""
        good = detections.scores >= max(self._settings.new_score, self._settings.high_score)
        fresh = self._tracks.without(_sound(boxes_xyxy) & good)
        return _Tracks.starting(fresh, boxes_xyxy[fresh], detections.class_ids[fresh], detections.scores[fresh])

    def _confirm(self) -> None:
        """Give the next ids to tracks that have been found often enough."""
        ready = (self._tracks.track_ids == NO_TRACK) & (self._tracks.hits >= self._settings.confirm_frames)
        first, self._ids_given = self._ids_given + 1, self._ids_given + int(ready.sum())
        self._tracks.track_ids[ready] = np.arange(first, self._ids_given + 1)


def _sound(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes (N, 4) have a finite, positive area."""
    with np.errstate(invalid="ignore"):  # inf - inf is the NaN that no comparison lets through
        sides = boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]
    return (sides.min(axis=1) > 0) & (sides.max(axis=1) < np.inf)


def _match(
    tracks: _Tracks, candidates: NDArray[np.bool_], wanted: NDArray[np.bool_], gains: NDArray[np.float64]
) -> None:
    """Give those `candidates` (T,) without a detection the `wanted` (N,) that no track has; gains is (T, N)."""
    rows = np.flatnonzero(candidates & (tracks.detections == UNMATCHED))
    columns = tracks.without(wanted)
    if len(rows) and len(columns):
        chosen = assign(gains[np.ix_(rows, columns)])
        tracks.detections[rows] = np.where(chosen == UNMATCHED, UNMATCHED, columns[chosen])
