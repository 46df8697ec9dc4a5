"""Follows the objects of one source: its detections in, the same with track ids out.

Knows no stage, no message and no model. A look is one call into `pipeline.kernels.tracks`, which knows the steps; here
is what lasts from look to look. Times are the source's own, in seconds: a gap is as long as it was, whatever lay in it.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.kernels import tracks as kernel
from pipeline.settings import TrackerSettings

ROOM = 64  # for tracks, at first; twice as much whenever that is not enough
# Looks that are usually further apart than tracks are remembered are no gaps. How far that is is learnt at this rate.
USUAL_GAPS = 1.5
LEARNT = 0.2


def kinds_of(class_names: Sequence[str], confused: Sequence[Sequence[str]]) -> NDArray[np.int32]:
    """The kind of each class (C,): its own number, or that of the first of its group."""
    kinds = np.arange(len(class_names), dtype=np.int32)
    for group in confused:
        numbers = [number for number, name in enumerate(class_names) if name in group]
        kinds[numbers] = min(numbers, default=0)
    return kinds


class Tracker:
    """Follows the objects of one source. Classes of different kinds never mix; ids count over all classes."""

    def __init__(
        self, settings: TrackerSettings | None = None, kinds: NDArray[np.int32] | None = None, ids_given: int = 0
    ) -> None:
        """`kinds` are those of `kinds_of`; without them each class is one of its own. The first id is the next after
        `ids_given`."""
        settings = settings or TrackerSettings()
        self._rules = kernel.Rules(
            # As exact as the scores: one that is equal to its limit reaches it.
            low_score=float(np.float32(settings.low_score)),
            high_score=float(np.float32(settings.high_score)),
            new_score=float(np.float32(settings.new_score)),
            first_overlap=settings.first_overlap,
            second_overlap=settings.second_overlap,
            confirm_frames=settings.confirm_frames,
        )
        self._missed = np.zeros((settings.held_looks + 1, 2))
        self._kinds = np.zeros(0, np.int32) if kinds is None else kinds
        self._lost_seconds = settings.lost_seconds
        self._tracks = np.zeros(ROOM, kernel.TRACK)
        self._count = 0
        self._last_seconds: float | None = None
        self._usual_seconds = 0.0
        self.ids_given = ids_given

    def update(self, detections: Detections, pts_seconds: float) -> Detections:
        """The detections of the next look, in the same order, with the ids of confirmed tracks. Of one that has an id
        the box is where its track is taken to be now, and the class is what the track was found as most. Behind them,
        best score first and `predicted`, those whose tracks were missed and will most likely be found in the next look.

        A look that is no later than the last one is taken to be as late as looks usually are. Detections without a
        finite, positive area are left alone. Raises ValueError for a time that is no number.
        """
        is_first = self._last_seconds is None
        seconds = self._passed(_finite(pts_seconds))
        # Copies: what is read-only would be another type, for which all is compiled once more.
        boxes_xyxy, scores = detections.boxes_xyxy.astype(np.float32, "C"), detections.scores.astype(np.float32)
        class_ids, track_ids = detections.class_ids.astype(np.int32), np.zeros(len(scores), np.int32)
        self._make_room(self._count + len(scores))
        self._count, held, self.ids_given = kernel.update(
            self._tracks,
            self._count,
            boxes_xyxy,
            scores,
            class_ids,
            track_ids,
            self._kinds,
            self._missed,
            seconds,
            max(self._lost_seconds, USUAL_GAPS * self._usual_seconds),
            self._rules,
            self.ids_given,
            is_first,
        )
        found = Detections(boxes_xyxy, detections.scores, class_ids, track_ids, np.zeros(len(scores), np.bool_))
        return found.and_then(self._ahead(0.0, least_misses=1)) if held else found

    def predicted(self, pts_seconds: float) -> Detections:
        """Where the tracks that were told of in the last look should be at this time, when nobody looks; best score
        first. Changes nothing. Raises ValueError for a time that is no number."""
        now = _finite(pts_seconds)
        return self._ahead(max(0.0, now - self._last_seconds) if self._last_seconds is not None else 0.0)

    def _ahead(self, seconds: float, least_misses: int = 0) -> Detections:
        room = self._count
        boxes_xyxy, scores = np.empty((room, 4), np.float32), np.empty(room, np.float32)
        class_ids, track_ids = np.empty(room, np.int32), np.empty(room, np.int32)
        count = kernel.ahead(self._tracks, self._count, seconds, least_misses, boxes_xyxy, scores, class_ids, track_ids)
        order = np.argsort(-scores[:count], kind="stable")
        predicted = np.ones(count, np.bool_)
        return Detections(boxes_xyxy[order], scores[order], class_ids[order], track_ids[order], predicted)

    @property
    def followed(self) -> frozenset[int]:
        """The ids of all tracks that are not given up, those that have not been found lately among them. No id is given
        twice."""
        return frozenset(self._tracks["track_id"][: self._count].tolist()) - {NO_TRACK}

    def _passed(self, pts_seconds: float) -> float:
        """Since the last look."""
        last, self._last_seconds = self._last_seconds, pts_seconds
        if last is None:
            return 0.0
        if pts_seconds <= last:
            return self._usual_seconds
        seconds = pts_seconds - last
        # One long gap does not make gaps usual.
        likely = min(seconds, 2 * self._usual_seconds) if self._usual_seconds else seconds
        self._usual_seconds += LEARNT * (likely - self._usual_seconds) if self._usual_seconds else likely
        return seconds

    def _make_room(self, wanted: int) -> None:
        room = len(self._tracks)
        if wanted > room:
            grown = np.zeros(max(wanted, 2 * room), kernel.TRACK)
            grown[:room] = self._tracks
            self._tracks = grown


def _finite(pts_seconds: float) -> float:
    if not math.isfinite(pts_seconds):
        raise ValueError(f"pts_seconds {pts_seconds}: must be a number")
    return pts_seconds


def warm_up() -> None:
    """Compile, or load from disk, what `Tracker` needs: seconds the first frame need not wait."""
    box = Detections.untracked(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    tracker = Tracker()
    tracker.update(box, 0.0)
    tracker.predicted(1.0)
