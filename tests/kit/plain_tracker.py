"""`pipeline.tracker.Tracker` once more, slow and plain: its tracks are objects in a list, each step is a line or two.

The same sums in the same order, so that the same ids can be asked for to the last bit. Only the assignment is taken
from there, which has tests of its own against every possible one.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.kernels import tracks as kernel
from pipeline.kernels.tracks import UNMATCHED, assign
from pipeline.settings import TrackerSettings
from pipeline.tracker import LEARNT, USUAL_GAPS

Array = NDArray[np.float64]


@dataclass(slots=True, eq=False)
class _Detection:
    number: int
    box: Array  # (4,) left, top, right, bottom
    score: float
    class_id: int
    kind: int

    def key(self) -> tuple[Any, ...]:
        return (*self.box.tolist(), -self.score, self.class_id)


class _Track:
    """Rows of `values` and `rates` are centre x, centre y, width and height, of the covariance (4, 2, 2) too."""

    def __init__(self, found: _Detection) -> None:
        self.values, self.rates = _measured(found.box), np.zeros(4)
        sides = np.tile(self.values[2:], 2)
        self.covariance = np.zeros((4, 2, 2))
        self.covariance[:, 0, 0] = (kernel.INITIAL_VALUE * sides) ** 2
        self.covariance[:, 1, 1] = (kernel.INITIAL_RATE * sides) ** 2
        self.class_id, self.kind, self.class_weight = found.class_id, found.kind, found.score
        self.scores, self.steady_scores = [found.score], found.score
        self.track_id, self.misses, self.unseen_seconds = NO_TRACK, 0, 0.0
        self.detection: _Detection | None = found
        self.seen_box = found.box

    def predict(self, seconds: float) -> None:
        sides = np.tile(self.values[2:], 2) * (1.0, 1.0, kernel.SIZE_SHARE, kernel.SIZE_SHARE)
        value_noise = (kernel.VALUE_DRIFT * sides) ** 2 * seconds
        rate_noise = (kernel.RATE_DRIFT * sides) ** 2 * seconds
        covariance, rate_variance = self.covariance[:, 0, 1].copy(), self.covariance[:, 1, 1].copy()
        moving = slice(0, 2 if self.misses else 4)
        self.values[moving] += seconds * self.rates[moving]
        self.covariance[:, 0, 0] += (
            seconds * (2 * covariance + seconds * rate_variance) + value_noise + rate_noise * (seconds * seconds) / 3
        )
        self.covariance[:, 0, 1] += seconds * rate_variance + rate_noise * seconds / 2
        self.covariance[:, 1, 1] += rate_noise
        self._keep_sides_positive()
        self.unseen_seconds += seconds

    def follow(self, found: _Detection | None) -> None:
        self.detection = found
        if found is None:
            self.misses += 1
            self.steady_scores = 0.0
            return
        sides = np.tile(self.values[2:], 2)
        variance, covariance = self.covariance[:, 0, 0].copy(), self.covariance[:, 0, 1].copy()
        total = variance + (kernel.MEASURED * sides) ** 2 * (1 - kernel.TRUST * found.score)
        surprise = _measured(found.box) - self.values
        self.values += variance / total * surprise
        self.rates += covariance / total * surprise
        self.covariance[:, 0, 0] -= variance / total * variance
        self.covariance[:, 0, 1] -= variance / total * covariance
        self.covariance[:, 1, 1] -= covariance / total * covariance
        self._keep_sides_positive()
        self.scores.append(found.score)
        self.steady_scores += found.score
        self.seen_box = found.box
        self.misses, self.unseen_seconds = 0, 0.0
        self.class_weight += found.score if found.class_id == self.class_id else -found.score
        self.class_weight = min(self.class_weight, kernel.MOST_CLASS_WEIGHT)
        if self.class_weight < 0:
            self.class_id, self.class_weight = found.class_id, -self.class_weight

    def _keep_sides_positive(self) -> None:
        self.values[2:] = np.maximum(self.values[2:], kernel.SMALLEST_SIDE)

    def limit(self, lost_seconds: float) -> float:
        looks = len(self.scores)
        is_new = self.misses > 0 and looks < kernel.SETTLED_LOOKS
        return lost_seconds * looks / kernel.SETTLED_LOOKS if is_new else lost_seconds

    def is_over(self, settings: TrackerSettings) -> bool:
        return self.misses > 0 and not self.is_good(settings) if self.track_id else self.misses > kernel.GRACE

    def is_good(self, settings: TrackerSettings) -> bool:
        return max(self.scores) >= float(np.float32(settings.new_score))

    @property
    def box(self) -> Array:
        half = self.values[2:] / 2
        return np.concatenate([self.values[:2] - half, self.values[:2] + half])

    def place(self, widened: float, unsure: float, where_seen: bool) -> tuple[Array, Array]:
        """Its box (4,), and by how much that is widened on each side (2,)."""
        box = self.box
        doubt = np.sqrt(self.covariance[:2, 0, 0]) / self.values[2:]
        return self.seen_box if where_seen else box, (widened + unsure * doubt) * (box[2:] - box[:2])


class PlainTracker:
    """Follows the objects of one source, as there."""

    def __init__(self, settings: TrackerSettings | None = None, kinds: NDArray[np.int32] | None = None) -> None:
        self._settings = settings or TrackerSettings()
        self._kinds = kinds
        self._tracks: list[_Track] = []
        self._ids_given = 0
        self._times: list[float] = []
        self._usual_seconds = 0.0
        # By how often in a row they were missed: how many lately, and how many of them were found in the next look
        self._missed, self._found_again = np.zeros((2, self._settings.held_looks + 1))

    def update(self, detections: Detections, pts_seconds: float) -> Detections:
        is_first, seconds = not self._times, self._passed(pts_seconds)
        lost_seconds = max(self._settings.lost_seconds, USUAL_GAPS * self._usual_seconds)
        missed = [(each, each.misses) for each in self._tracks if each.track_id]
        missed = [(each, misses) for each, misses in missed if 0 < misses <= self._settings.held_looks]
        self._tracks = [
            each
            for each in self._tracks
            if each.unseen_seconds + seconds <= each.limit(lost_seconds) + kernel.SHORT_SECONDS
        ]
        for track in self._tracks:
            track.predict(seconds)
        found = self._sound(detections)
        self._associate(found)
        for _, misses in missed:
            self._missed[misses] = self._missed[misses] * kernel.LATELY + 1
            self._found_again[misses] *= kernel.LATELY
        for track, misses in missed:
            self._found_again[misses] += track.misses == 0
        self._tracks = [each for each in self._tracks if not each.is_over(self._settings)]
        self._begin(found)
        self._confirm(is_first)
        return self._labelled(detections)

    def _passed(self, pts_seconds: float) -> float:
        last = self._times[-1] if self._times else None
        self._times.append(pts_seconds)
        if last is None or pts_seconds <= last:
            return self._usual_seconds
        seconds = pts_seconds - last
        if not self._usual_seconds:
            self._usual_seconds = seconds
        else:
            self._usual_seconds += LEARNT * (min(seconds, 2 * self._usual_seconds) - self._usual_seconds)
        return seconds

    def _sound(self, detections: Detections) -> list[_Detection]:
        """In an order in which they stand whatever order they came in."""
        found = []
        for number, class_id in enumerate(detections.class_ids.tolist()):
            box = detections.boxes_xyxy[number].astype(np.float64)
            with np.errstate(invalid="ignore"):  # inf - inf is the NaN that no comparison lets through
                sides = box[2:] - box[:2]
            is_sound = (sides > 0).all() and (sides < np.inf).all()
            score, is_known = float(detections.scores[number]), self._kinds is not None and class_id < len(self._kinds)
            if is_sound and score >= np.float32(self._settings.low_score):
                kind = int(self._kinds[class_id]) if self._kinds is not None and is_known else class_id
                found.append(_Detection(number, box, score, class_id, kind))
        return sorted(found, key=_Detection.key)

    def _associate(self, found: list[_Detection]) -> None:
        settings, weight = self._settings, kernel.SCORE_WEIGHT
        high = [each for each in found if each.score >= np.float32(settings.high_score)]
        low = [each for each in found if each.score < np.float32(settings.high_score)]
        confirmed = [track for track in self._tracks if track.track_id]
        others = [track for track in self._tracks if not track.track_id]
        partners: dict[_Track, _Detection] = {}
        match(confirmed, high, partners, settings.first_overlap, weight, 0.0, kernel.UNSURE)
        match(confirmed, high, partners, kernel.WIDE_OVERLAP, weight, kernel.WIDENED, kernel.UNSURE)
        lost = [track for track in confirmed if track.misses]
        match(lost, high, partners, kernel.SEEN_OVERLAP, weight, 0.0, 0.0, where_seen=True)
        good = [track for track in confirmed if track.is_good(settings)]
        match(good, low, partners, settings.second_overlap, 0.0, 0.0, 0.0)
        match(others, high, partners, settings.first_overlap, weight, 0.0, kernel.UNSURE)
        for track in self._tracks:
            track.follow(partners.get(track))

    def _begin(self, found: list[_Detection]) -> None:
        high = [each for each in found if each.score >= np.float32(self._settings.high_score)]
        taken = [track.detection for track in self._tracks if track.detection is not None]
        for place, one in enumerate(high):
            if any(one is each for each in taken):
                continue
            better = [*taken, *(each for each in high[:place] if each.score >= one.score)]
            better += [each for each in high[place + 1 :] if each.score > one.score]
            if not any(each.kind == one.kind and iou(one.box, each.box) > kernel.DOUBLE for each in better):
                self._tracks.append(_Track(one))

    def _confirm(self, is_first: bool) -> None:
        new_score = float(np.float32(self._settings.new_score))
        for track in self._tracks:
            is_good = track.is_good(self._settings)
            is_sure = len(track.scores) >= self._settings.confirm_frames
            is_sure = is_sure and (is_good or track.steady_scores >= kernel.WEAK * new_score)
            if not track.track_id and (is_sure or (is_first and is_good)):
                self._ids_given += 1
                track.track_id = self._ids_given

    def _labelled(self, detections: Detections) -> Detections:
        boxes, class_ids = detections.boxes_xyxy.copy(), detections.class_ids.copy()
        track_ids = np.full(len(detections), NO_TRACK, np.int32)
        for track in self._tracks:
            if track.detection is not None and track.track_id:
                number = track.detection.number
                boxes[number], class_ids[number] = track.box, track.class_id
                track_ids[number] = track.track_id
        found = Detections(boxes, detections.scores, class_ids, track_ids, np.zeros(len(boxes), np.bool_))
        return found.and_then(self._held())

    def _held(self) -> Detections:
        chances = (self._found_again + kernel.FEW_FOUND_AGAIN) / (self._missed + kernel.FEW)
        looks = next((k for k, chance in enumerate(chances[1:]) if chance < 0.5), self._settings.held_looks)
        held = [track for track in self._tracks if track.track_id and 0 < track.misses <= looks]
        held.sort(key=lambda track: -np.float32(track.scores[-1]))
        return Detections(
            np.array([track.box for track in held], np.float32).reshape(-1, 4),
            np.array([track.scores[-1] for track in held], np.float32),
            np.array([track.class_id for track in held], np.int32),
            np.array([track.track_id for track in held], np.int32),
            np.ones(len(held), np.bool_),
        )


def match(
    tracks: list[_Track],
    found: list[_Detection],
    partners: dict[_Track, _Detection],
    least: float,
    score_weight: float,
    widened: float,
    unsure: float,
    where_seen: bool = False,
) -> None:
    """Of those that are still alone."""
    free = [track for track in tracks if track not in partners]
    taken = set(map(id, partners.values()))
    wanted = [each for each in found if id(each) not in taken]
    if not free or not wanted:
        return
    places = [track.place(widened, unsure, where_seen) for track in free]
    gains = np.full((len(free), len(wanted)), -1.0)
    for row, column in np.argwhere(may_touch(places, wanted)):
        track, one = free[row], wanted[column]
        if track.kind == one.kind:
            alike = likeness(places[row][0], one.box, *places[row][1])
            gains[row, column] = alike * (1 - score_weight * abs(one.score - track.scores[-1])) - least
    for track, column in zip(free, assign(gains), strict=True):
        if column != UNMATCHED:
            partners[track] = wanted[column]


def may_touch(places: list[tuple[Array, Array]], wanted: list[_Detection]) -> NDArray[np.bool_]:
    """(T, N): not those that are more than a pixel apart, of which there are many."""
    boxes, margins = (np.array(each)[:, None] for each in zip(*places, strict=True))
    others = np.array([each.box for each in wanted])
    reach = 2 * margins + 1
    return ((boxes[..., :2] - reach < others[:, 2:]) & (others[:, :2] < boxes[..., 2:] + reach)).all(axis=-1)


def likeness(a: Array, b: Array, across: float, down: float) -> float:
    """Of two boxes (4,), widened by so many pixels: intersection over union, times the overlap of heights."""
    margin = np.array([across, down])
    overlap = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 2 * margin
    if not (overlap > 0).all():
        return 0.0
    width, height = overlap
    one, other = ((box[2] - box[0] + 2 * across) * (box[3] - box[1] + 2 * down) for box in (a, b))
    tall = max(a[3], b[3]) - min(a[1], b[1]) + 2 * down
    return float(width * height / (one + other - width * height) * (height / tall))


def iou(a: Array, b: Array) -> float:
    overlap = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common = overlap[0] * overlap[1]
    return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))


def _measured(box: Array) -> Array:
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
