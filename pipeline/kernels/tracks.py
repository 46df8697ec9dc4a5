"""A frame of a tracker in one call: where boxes will be, who belongs to whom, whose track is born and whose ends. Knows
no setting and no detection but as arrays. In one file, for a compiled function calls only those of its own (see
`pipeline.kernels`).

**Where boxes will be**: a constant-velocity Kalman filter for each track (for tracking: SORT, arXiv 1602.00763), which
runs on seconds: what drives a box is noise in its acceleration (Bar-Shalom, Li and Kirubarajan, "Estimation with
Applications to Tracking and Navigation", section 6.2), so that one setting serves any rate, and any gap. A box is
centre x, centre y, width and height, each with its rate in pixels a second. All noises are independent from axis to
axis, so the 8 x 8 covariance falls apart into four 2 x 2 blocks and the filter into four of two numbers: the same
figures without a matrix. Noises are in proportion to the box, as in BoT-SORT (arXiv 2206.14651, section 3.1): its width
for x and width, its height for y and height; what is measured is trusted more the surer the detector was (NSA,
GIAOTracker, arXiv 2202.11983, section 3.2).

**How alike a box and a track are**: intersection over union times the overlap of their heights (HM-IoU of Hybrid-SORT,
arXiv 2308.00783, section 3.3), of boxes that are widened on all sides: by as much as the track is unsure of its own
place, and in a second try by a share of their size (C-BIoU, arXiv 2211.14317). Who was lost may also be found again
where it was seen last (OC-SORT, arXiv 2203.14360, section 3.3).

**Who belongs to whom**: rounds of optimal assignment, each with the right to stay alone, among the pairs that touch.
Those are found by sorted left edges, so that the cost grows with neighbours and not with the square. Shortest
augmenting paths (Jonker and Volgenant 1987, in the form of Crouse, "On implementing 2D rectangular assignment
algorithms", IEEE TAES 2016, section IV), where each row has one more column of its own that costs nothing: "unmatched".
So a gate is part of the optimum instead of a filter after it, any shape will do, and a search ends as soon as staying
alone is the cheapest way on; it never leaves its own neighbours.

**What becomes of tracks**: ByteTrack (Zhang et al., arXiv 2110.06864), see `update`.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNMATCHED = -1
NO_ID = 0

VALUE, RATE, VALUE_VARIANCE, COVARIANCE, RATE_VARIANCE = range(5)
STATE_SHAPE = (5, 4)  # a row for each quantity above, a column for each axis

# A track; only the first so many of an array count, the others are room for more. Eldest first.
TRACK = np.dtype(
    [
        ("state", "f8", STATE_SHAPE),
        ("seen_box", "f8", (4,)),  # where it was found last
        ("unseen_seconds", "f8"),  # since it was found
        ("score", "f8"),  # of the detection found last,
        ("best_score", "f8"),  # of the best so far,
        ("steady_scores", "f8"),  # and of all since it was missed last, their sum
        ("class_weight", "f8"),  # how much more of what was found was of its class than of others
        ("class_id", "i4"),  # what it was found as most
        ("kind", "i4"),  # what its classes are kinds of: it is never found as one of another
        ("track_id", "i4"),  # NO_ID until it is confirmed
        ("hits", "i4"),  # looks in which it was found
        ("misses", "i4"),  # looks since
        ("told", "b1"),  # whether it was told of in the last look: it was found, or will most likely be in the next
    ],
    align=True,
)


class Rules(NamedTuple):
    """See `pipeline.settings.TrackerSettings`."""

    low_score: float
    high_score: float
    new_score: float
    first_overlap: float
    second_overlap: float
    confirm_frames: int


class Found(NamedTuple):
    """The detections of one frame that may be somebody's, from left to right.

    numbers  (N,) int64, of each among all detections of the frame
    boxes    (N, 4) float64
    scores   (N,) float64
    kinds    (N,) int32
    reach    (N,) float64, how far to the right it and all before it come
    """

    numbers: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    kinds: NDArray[np.int32]
    reach: NDArray[np.float64]


class Expected(NamedTuple):
    """Where the tracks of one frame should be, and how sure that is.

    boxes   (T, 4) float64
    seen    (T, 4) float64, where they were found last
    unsure  (T, 2) float64, standard deviations of the centre, as shares of width and height
    kinds   (T,) int32
    scores  (T,) float64, of the detection found last
    """

    boxes: NDArray[np.float64]
    seen: NDArray[np.float64]
    unsure: NDArray[np.float64]
    kinds: NDArray[np.int32]
    scores: NDArray[np.float64]


class Pairs(NamedTuple):
    """What may belong together: track i and the detections columns[starts[i] : starts[i + 1]]."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int64]


class Partners(NamedTuple):
    """The detection of each track (T,) and the track of each detection (N,), or `UNMATCHED`."""

    found_by: NDArray[np.int64]
    track_of: NDArray[np.int64]


@njit(nogil=True, cache=True)
def update(
    tracks: Any,
    count: int,
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    track_ids: NDArray[np.int32],
    kinds: NDArray[np.int32],
    missed: NDArray[np.float64],
    seconds: float,
    lost_seconds: float,
    rules: Rules,
    ids_given: int,
    is_first: bool,
) -> tuple[int, int, int]:
    """The next look, `seconds` after the last one: `count` tracks follow the detections that they get, others start, or
    end after `lost_seconds`. There must be room for all of them.

    Of the detections (N,) the ids are written; of those that have one also the box, which is where their track is
    taken to be now, and the class, which is what it was found as most. `kinds` (C,) is the kind of each class; one
    that is not in it is of its own. `missed` is what lasts of `_count_missed`.

    Returns how many tracks there are, how many of them are told of though they were not found (see `ahead`), and how
    many ids were given by now.
    """
    _count_missed(tracks, count, missed)
    count = _forget(tracks, count, seconds, lost_seconds)
    for row in range(count):
        predict(tracks[row], seconds)
    found = _from_left_to_right(boxes_xyxy, scores, class_ids, kinds, rules.low_score)
    partners = _associate(tracks, count, found, rules)
    _count_found_again(tracks, count, partners.found_by, missed)
    for row in range(count):
        _follow(tracks[row], partners.found_by[row], found, class_ids)
    count = _end_unsure(tracks, count, partners, rules.new_score)
    count = _begin(tracks, count, found, partners.track_of, class_ids, rules)
    ids_given = _confirm(tracks, count, rules, ids_given, is_first)
    for place, row in enumerate(partners.track_of):
        if row != UNMATCHED and tracks[row].track_id != NO_ID:
            number = found.numbers[place]
            track_ids[number], class_ids[number] = tracks[row].track_id, tracks[row].class_id
            _write_box(tracks[row].state, boxes_xyxy[number])
    return count, _tell(tracks, count, missed), ids_given


# -- where boxes will be

# Standard deviations as shares of the box's width or height.
MEASURED = 0.06
TRUST = 0.8  # by how much of its variance a measurement is surer at a score of 1
VALUE_DRIFT = 0.18  # a root of a second
RATE_DRIFT = 0.385  # a second, a root of a second
SIZE_SHARE = 0.6  # of both, for sizes
INITIAL_VALUE = 0.1
INITIAL_RATE = 0.6  # a second

SMALLEST_SIDE = 1e-3  # pixels; a shrinking box never turns inside out


@njit(nogil=True, cache=True)
def predict(track: Any, seconds: float) -> None:
    """Move it on. While it is not found its size stays: what shrinks before it is hidden would shrink to nothing."""
    state = track.state
    width, height = state[VALUE, 2], state[VALUE, 3]
    for axis in range(4):
        side = (width if axis % 2 == 0 else height) * (1.0 if axis < 2 else SIZE_SHARE)
        value_noise, rate_noise = (VALUE_DRIFT * side) ** 2 * seconds, (RATE_DRIFT * side) ** 2 * seconds
        covariance, rate_variance = state[COVARIANCE, axis], state[RATE_VARIANCE, axis]
        if axis < 2 or track.misses == 0:
            state[VALUE, axis] += seconds * state[RATE, axis]
        state[VALUE_VARIANCE, axis] += (
            seconds * (2 * covariance + seconds * rate_variance) + value_noise + rate_noise * seconds**2 / 3
        )
        state[COVARIANCE, axis] += seconds * rate_variance + rate_noise * seconds / 2
        state[RATE_VARIANCE, axis] += rate_noise
    _keep_sides_positive(state)
    track.unseen_seconds += seconds


@njit(nogil=True, cache=True)
def correct(track: Any, box_xyxy: NDArray[np.float64], score: float) -> None:
    """Take in a measurement."""
    state = track.state
    width, height = state[VALUE, 2], state[VALUE, 3]
    for axis in range(4):
        side = width if axis % 2 == 0 else height
        variance, covariance = state[VALUE_VARIANCE, axis], state[COVARIANCE, axis]
        total = variance + (MEASURED * side) ** 2 * (1 - TRUST * score)
        surprise = _centre_or_size(box_xyxy, axis) - state[VALUE, axis]
        state[VALUE, axis] += variance / total * surprise
        state[RATE, axis] += covariance / total * surprise
        state[VALUE_VARIANCE, axis] -= variance / total * variance
        state[COVARIANCE, axis] -= variance / total * covariance
        state[RATE_VARIANCE, axis] -= covariance / total * covariance
    _keep_sides_positive(state)
    _write(box_xyxy, track.seen_box)


@njit(nogil=True, cache=True)
def start(track: Any, box_xyxy: NDArray[np.float64]) -> None:
    """It knows one measurement, and no motion."""
    state = track.state
    for axis in range(4):
        side = _centre_or_size(box_xyxy, 2 + axis % 2)
        state[VALUE, axis] = _centre_or_size(box_xyxy, axis)
        state[RATE, axis] = state[COVARIANCE, axis] = 0
        state[VALUE_VARIANCE, axis] = (INITIAL_VALUE * side) ** 2
        state[RATE_VARIANCE, axis] = (INITIAL_RATE * side) ** 2
    _write(box_xyxy, track.seen_box)


@njit(nogil=True, cache=True)
def _centre_or_size(box_xyxy: NDArray[np.float64], axis: int) -> float:
    low, high = box_xyxy[axis % 2], box_xyxy[axis % 2 + 2]
    return (low + high) / 2 if axis < 2 else high - low


@njit(nogil=True, cache=True)
def _write_box(state: NDArray[np.float64], box_xyxy: Any) -> None:
    for axis in range(2):
        half = state[VALUE, 2 + axis] / 2
        box_xyxy[axis], box_xyxy[axis + 2] = state[VALUE, axis] - half, state[VALUE, axis] + half


@njit(nogil=True, cache=True)
def _write(box_xyxy: NDArray[np.float64], target: NDArray[np.float64]) -> None:
    for side in range(4):
        target[side] = box_xyxy[side]


@njit(nogil=True, cache=True)
def _keep_sides_positive(state: NDArray[np.float64]) -> None:
    for axis in range(2, 4):
        state[VALUE, axis] = max(state[VALUE, axis], SMALLEST_SIDE)


@njit(nogil=True, cache=True)
def ahead(
    tracks: Any,
    count: int,
    seconds: float,
    least_misses: int,
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    track_ids: NDArray[np.int32],
) -> int:
    """Where those that were told of in the last look should be `seconds` later; how many that are. `least_misses` is 1
    for those alone that had not been found there, else 0. Changes no track."""
    shown = 0
    copy = np.empty(1, TRACK)
    for row in range(count):
        if not tracks[row].told or tracks[row].misses < least_misses:
            continue
        copy[0] = tracks[row]
        predict(copy[0], seconds)
        _write_box(copy[0].state, boxes_xyxy[shown])
        scores[shown], class_ids[shown] = tracks[row].score, tracks[row].class_id
        track_ids[shown] = tracks[row].track_id
        shown += 1
    return shown


# -- which detections, which pairs


@njit(nogil=True, cache=True)
def _from_left_to_right(
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
    kinds: NDArray[np.int32],
    low_score: float,
) -> Found:
    """Those with a finite, positive area and a score that is not too low. In whatever order they come, this one is the
    same: nothing depends on it."""
    numbers, count = np.empty(len(scores), np.int64), 0
    for number, box in enumerate(boxes_xyxy):
        width, height = box[2] - box[0], box[3] - box[1]
        if 0 < width < np.inf and 0 < height < np.inf and scores[number] >= low_score:  # no NaN is let through
            numbers[count] = number
            count += 1
    numbers = numbers[:count]
    numbers = numbers[np.argsort(boxes_xyxy[numbers, 0], kind="mergesort")]
    for place in range(1, count):  # those of one left edge by all else
        at = place
        while at and _is_before(numbers[at], numbers[at - 1], boxes_xyxy, scores, class_ids):
            numbers[at], numbers[at - 1] = numbers[at - 1], numbers[at]
            at -= 1
    boxes, reach, furthest = np.empty((count, 4)), np.empty(count), -np.inf
    found_scores, found_kinds = np.empty(count), np.empty(count, np.int32)
    for place in range(count):
        number = numbers[place]
        for side in range(4):
            boxes[place, side] = boxes_xyxy[number, side]
        found_scores[place], found_kinds[place] = scores[number], _kind(class_ids[number], kinds)
        furthest = max(furthest, boxes[place, 2])
        reach[place] = furthest
    return Found(numbers, boxes, found_scores, found_kinds, reach)


@njit(nogil=True, cache=True)
def _kind(class_id: int, kinds: NDArray[np.int32]) -> int:
    """One that is not listed is of its own kind."""
    return kinds[class_id] if 0 <= class_id < len(kinds) else class_id


@njit(nogil=True, cache=True)
def _is_before(
    a: int,
    b: int,
    boxes_xyxy: NDArray[np.float32],
    scores: NDArray[np.float32],
    class_ids: NDArray[np.int32],
) -> bool:
    for side in range(4):
        if boxes_xyxy[a, side] != boxes_xyxy[b, side]:
            return bool(boxes_xyxy[a, side] < boxes_xyxy[b, side])
    if scores[a] != scores[b]:
        return bool(scores[a] > scores[b])
    return bool(class_ids[a] < class_ids[b])


@njit(nogil=True, cache=True)
def _first_that_reaches(reach: NDArray[np.float64], x: float) -> int:
    """The first detection that may lie to the right of x, in part."""
    low, high = 0, len(reach)
    while low < high:
        middle = (low + high) // 2
        if reach[middle] > x:
            high = middle
        else:
            low = middle + 1
    return low


@njit(nogil=True, cache=True)
def _expected(tracks: Any, count: int) -> Expected:
    boxes, seen, unsure = np.empty((count, 4)), np.empty((count, 4)), np.empty((count, 2))
    kinds, scores = np.empty(count, np.int32), np.empty(count)
    for row in range(count):
        state = tracks[row].state
        _write_box(state, boxes[row])
        _write(tracks[row].seen_box, seen[row])
        for axis in range(2):
            unsure[row, axis] = np.sqrt(state[VALUE_VARIANCE, axis]) / state[VALUE, 2 + axis]
        kinds[row], scores[row] = tracks[row].kind, tracks[row].score
    return Expected(boxes, seen, unsure, kinds, scores)


@njit(nogil=True, cache=True)
def _pairs(expected: Expected, found: Found) -> Pairs:
    """All that may overlap in some round, and are of one kind."""
    count, boxes = len(expected.boxes), found.boxes
    starts, columns, so_far = np.zeros(count + 1, np.int64), np.empty(8 * count + 16, np.int64), 0
    for row in range(count):
        across, down = _margins(expected, row, WIDENED, UNSURE)
        box, seen = expected.boxes[row], expected.seen[row]
        left, right = min(box[0] - 2 * across, seen[0]), max(box[2] + 2 * across, seen[2])
        top, bottom = min(box[1] - 2 * down, seen[1]), max(box[3] + 2 * down, seen[3])
        # No view of a box: to make one for each pair takes longer than to look at it.
        for place in range(_first_that_reaches(found.reach, left), len(boxes)):
            if boxes[place, 0] >= right:
                break
            if boxes[place, 3] <= top or boxes[place, 1] >= bottom or boxes[place, 2] <= left:
                continue
            if found.kinds[place] != expected.kinds[row]:
                continue
            if so_far == len(columns):
                columns = _twice(columns)
            columns[so_far] = place
            so_far += 1
        starts[row + 1] = so_far
    return Pairs(starts, columns[:so_far])


@njit(nogil=True, cache=True)
def _twice(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same with twice the room."""
    more = np.empty(2 * len(numbers), np.int64)
    for place, number in enumerate(numbers):  # a slice would take three seconds to compile
        more[place] = number
    return more


@njit(nogil=True, cache=True)
def _margins(expected: Expected, row: int, widened: float, unsure: float) -> tuple[float, float]:
    """By how much a track's box is widened to the left and right, and up and down."""
    box = expected.boxes[row]
    across = (widened + unsure * expected.unsure[row, 0]) * (box[2] - box[0])
    return across, (widened + unsure * expected.unsure[row, 1]) * (box[3] - box[1])


# -- who belongs to whom

# By so many sigmas of a track's place boxes are widened on all sides, and in a second try by a share of their size.
UNSURE = 1.0
WIDENED = 0.3
# What the second try asks for, and one at the place where a lost track was seen last.
WIDE_OVERLAP = 0.3
SEEN_OVERLAP = 0.6
# How much less alike are two whose scores are one apart.
SCORE_WEIGHT = 0.2


class Round(NamedTuple):
    """What is asked for: a likeness above `least`, of boxes that are `widened` by a share of their size and by so many
    sigmas (`unsure`), and how much a difference of scores takes from it."""

    least: float
    widened: float
    unsure: float
    score_weight: float


@njit(nogil=True, cache=True)
def likeness(
    boxes_xyxy: NDArray[np.float64], row: int, others_xyxy: NDArray[np.float64], place: int, across: float, down: float
) -> float:
    """Intersection over union, times the overlap of heights, of two boxes that are widened on all sides by so many
    pixels; 0 where they do not overlap."""
    a, b, i, j = boxes_xyxy, others_xyxy, row, place
    width = min(a[i, 2], b[j, 2]) - max(a[i, 0], b[j, 0]) + 2 * across
    height = min(a[i, 3], b[j, 3]) - max(a[i, 1], b[j, 1]) + 2 * down
    if not (width > 0 and height > 0):
        return 0.0
    one = (a[i, 2] - a[i, 0] + 2 * across) * (a[i, 3] - a[i, 1] + 2 * down)
    other = (b[j, 2] - b[j, 0] + 2 * across) * (b[j, 3] - b[j, 1] + 2 * down)
    tall = max(a[i, 3], b[j, 3]) - min(a[i, 1], b[j, 1]) + 2 * down
    return width * height / (one + other - width * height) * (height / tall)


@njit(nogil=True, cache=True)
def _associate(tracks: Any, count: int, found: Found, rules: Rules) -> Partners:
    """Those on probation choose last. One whose scores never were good is not kept by what is weaker still."""
    expected = _expected(tracks, count)
    pairs = _pairs(expected, found)
    confirmed, lost, good = np.empty(count, np.bool_), np.empty(count, np.bool_), np.empty(count, np.bool_)
    for row in range(count):
        confirmed[row] = tracks[row].track_id != NO_ID
        lost[row] = confirmed[row] and tracks[row].misses > 0
        good[row] = confirmed[row] and _is_good(tracks[row], rules.new_score)
    high = found.scores >= rules.high_score
    partners = Partners(np.full(count, UNMATCHED, np.int64), np.full(len(high), UNMATCHED, np.int64))
    near = Round(rules.first_overlap, 0.0, UNSURE, SCORE_WEIGHT)
    wide = Round(WIDE_OVERLAP, WIDENED, UNSURE, SCORE_WEIGHT)
    where_seen = Round(SEEN_OVERLAP, 0.0, 0.0, SCORE_WEIGHT)
    weak = Round(rules.second_overlap, 0.0, 0.0, 0.0)
    _match(expected.boxes, expected, found, pairs, partners, confirmed, high, near)
    _match(expected.boxes, expected, found, pairs, partners, confirmed, high, wide)
    _match(expected.seen, expected, found, pairs, partners, lost, high, where_seen)
    _match(expected.boxes, expected, found, pairs, partners, good, ~high, weak)
    _match(expected.boxes, expected, found, pairs, partners, ~confirmed, high, near)
    return partners


@njit(nogil=True, cache=True)
def _match(
    boxes_xyxy: NDArray[np.float64],
    expected: Expected,
    found: Found,
    pairs: Pairs,
    partners: Partners,
    candidates: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    asked: Round,
) -> None:
    """Give those `candidates` (T,) without a detection, which are at `boxes_xyxy` (T, 4), the `wanted` (N,) that no
    track has."""
    found_by, track_of = partners
    if not (_any_alone(candidates, found_by) and _any_alone(wanted, track_of)):
        return
    starts, columns = np.zeros(len(candidates) + 1, np.int64), np.empty_like(pairs.columns)
    gains, so_far = np.empty(len(columns)), 0
    for row in range(len(candidates)):
        if candidates[row] and found_by[row] == UNMATCHED:
            across, down = _margins(expected, row, asked.widened, asked.unsure)
            for pair in range(pairs.starts[row], pairs.starts[row + 1]):
                place = pairs.columns[pair]
                if wanted[place] and track_of[place] == UNMATCHED:
                    alike = likeness(boxes_xyxy, row, found.boxes, place, across, down)
                    alike *= 1 - asked.score_weight * abs(found.scores[place] - expected.scores[row])
                    if alike > asked.least:
                        columns[so_far], gains[so_far] = place, alike - asked.least
                        so_far += 1
        starts[row + 1] = so_far
    if so_far:
        _give(_assign(starts, columns, gains, len(wanted)), partners)


@njit(nogil=True, cache=True)
def _any_alone(some: NDArray[np.bool_], partners: NDArray[np.int64]) -> bool:
    return bool(np.any(some & (partners == UNMATCHED)))


@njit(nogil=True, cache=True)
def _give(column_of: NDArray[np.int64], partners: Partners) -> None:
    for row, column in enumerate(column_of):
        if column != UNMATCHED:
            partners.found_by[row], partners.track_of[column] = column, row


@njit(nogil=True, cache=True)
def assign(gains: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column of each row (N,), or `UNMATCHED`, for which the sum of matched gains is largest.

    gains is (N, M) float64. Only finite gains above 0 are matched. The same gains give the same answer, ties or not.
    """
    rows, all_columns = gains.shape
    starts, columns, worth = np.zeros(rows + 1, np.int64), np.empty(gains.size, np.int64), np.empty(gains.size)
    so_far = 0
    for row in range(rows):
        for column in range(all_columns):
            if 0 < gains[row, column] < np.inf:
                columns[so_far], worth[so_far] = column, gains[row, column]
                so_far += 1
        starts[row + 1] = so_far
    return _assign(starts, columns, worth, all_columns)


@njit(nogil=True, cache=True)
def _assign(
    starts: NDArray[np.int64], columns: NDArray[np.int64], gains: NDArray[np.float64], all_columns: int
) -> NDArray[np.int64]:
    """The same of the pairs that may be matched: row i and the columns from starts[i] on, with what each gains."""
    rows = len(starts) - 1
    column_of, row_of = np.full(rows, UNMATCHED, np.int64), np.full(all_columns, UNMATCHED, np.int64)
    row_price, column_price = np.zeros(rows), np.zeros(all_columns)
    reach, came_from = np.full(all_columns, np.inf), np.empty(all_columns, np.int64)
    settled, touched = np.zeros(all_columns, np.bool_), np.empty(all_columns, np.int64)
    for row in range(rows):
        end, loser, distance, count = _search(
            starts, columns, gains, row, row_of, row_price, column_price, reach, came_from, settled, touched
        )
        row_price[row] += distance
        for column in touched[:count]:
            if settled[column]:
                row_price[row_of[column]] += distance - reach[column]
                column_price[column] -= distance - reach[column]
            reach[column], settled[column] = np.inf, False
        if end == UNMATCHED:
            end, column_of[loser] = column_of[loser], UNMATCHED
        while end != UNMATCHED:  # every row on the way back takes the column it reached, and leaves the one it had
            taker = came_from[end]
            row_of[end] = taker
            end, column_of[taker] = column_of[taker], end
    return column_of


@njit(nogil=True, cache=True)
def _search(
    starts: NDArray[np.int64],
    columns: NDArray[np.int64],
    gains: NDArray[np.float64],
    first: int,
    row_of: NDArray[np.int64],
    row_price: NDArray[np.float64],
    column_price: NDArray[np.float64],
    reach: NDArray[np.float64],
    came_from: NDArray[np.int64],
    settled: NDArray[np.bool_],
    touched: NDArray[np.int64],
) -> tuple[int, int, float, int]:
    """The cheapest way from row `first` to a free column, or to a row that is to be left alone (Dijkstra).

    Returns (column, -1, distance, count) or (-1, row, distance, count); writes `reach`, `came_from` and `settled`, of
    the first `count` columns of `touched` alone.
    """
    row, distance, count = first, 0.0, 0
    loser, alone = first, np.inf
    while True:
        if distance - row_price[row] < alone:
            loser, alone = row, distance - row_price[row]
        for pair in range(starts[row], starts[row + 1]):
            column = columns[pair]
            if settled[column]:
                continue
            length = distance - gains[pair] - row_price[row] - column_price[column]
            if length < reach[column]:
                if reach[column] == np.inf:
                    touched[count] = column
                    count += 1
                reach[column], came_from[column] = length, row
        nearest, shortest = UNMATCHED, np.inf
        for column in touched[:count]:
            if not settled[column] and (reach[column] < shortest or (reach[column] == shortest and column < nearest)):
                nearest, shortest = column, reach[column]
        if alone <= shortest:
            return UNMATCHED, loser, alone, count
        if row_of[nearest] == UNMATCHED:
            return nearest, UNMATCHED, shortest, count
        settled[nearest] = True
        row, distance = row_of[nearest], shortest


# -- what becomes of tracks

# Times are told to a microsecond: what adds up to as long as a limit is not longer.
SHORT_SECONDS = 1e-6
# Looks after which a track is remembered as long as any.
SETTLED_LOOKS = 6
# Looks in a row that a track on probation may be missed.
GRACE = 1
# A detection that lies upon a better one of its kind by more than this (intersection over union) starts no track.
DOUBLE = 0.7
# A track whose scores never reached `new_score` is confirmed when their sum is so many times that, without a miss.
WEAK = 28
# Of those that were missed: how many, and how many of them were found in the next look. Lately is the last hundred or
# so; before there were any, it is as if few had been found again.
ALL, FOUND_AGAIN = 0, 1
LATELY = 0.99
FEW, FEW_FOUND_AGAIN = 4.0, 1.0
# So much of its class at the most is remembered: then one that has truly changed is known after as many looks.
MOST_CLASS_WEIGHT = 8.0


@njit(nogil=True, cache=True)
def _forget(tracks: Any, count: int, seconds: float, lost_seconds: float) -> int:
    """Close ranks over those that nobody will have seen for too long; those that were found a few times only are not
    remembered as long."""
    kept = 0
    for row in range(count):
        is_new = tracks[row].misses > 0 and tracks[row].hits < SETTLED_LOOKS
        limit = lost_seconds * tracks[row].hits / SETTLED_LOOKS if is_new else lost_seconds
        if tracks[row].unseen_seconds + seconds <= limit + SHORT_SECONDS:
            _move(tracks, row, kept)
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _move(tracks: Any, row: int, to: int) -> None:
    if row != to:
        tracks[to] = tracks[row]


@njit(nogil=True, cache=True)
def _follow(track: Any, place: int, found: Found, class_ids: NDArray[np.int32]) -> None:
    if place == UNMATCHED:
        track.misses += 1
        track.steady_scores = 0
        return
    score, class_id = found.scores[place], class_ids[found.numbers[place]]
    correct(track, found.boxes[place], score)
    track.score, track.best_score = score, max(track.best_score, score)
    track.steady_scores += score
    track.hits += 1
    track.misses = 0
    track.unseen_seconds = 0
    # The majority, without a count for each class (Boyer and Moore, "MJRTY", 1981).
    track.class_weight += score if class_id == track.class_id else -score
    track.class_weight = min(track.class_weight, MOST_CLASS_WEIGHT)
    if track.class_weight < 0:
        track.class_id, track.class_weight = class_id, -track.class_weight


@njit(nogil=True, cache=True)
def _end_unsure(tracks: Any, count: int, partners: Partners, new_score: float) -> int:
    """Close ranks over those that were missed and had not shown that they are more than nothing."""
    kept = 0
    for row in range(count):
        if _is_over(tracks[row], new_score):
            continue
        _move(tracks, row, kept)
        if partners.found_by[row] != UNMATCHED:
            partners.track_of[partners.found_by[row]] = kept
        kept += 1
    return kept


@njit(nogil=True, cache=True)
def _is_over(track: Any, new_score: float) -> bool:
    """On probation it may be missed a little; what was never seen but weakly may not."""
    if track.track_id == NO_ID:
        return bool(track.misses > GRACE)
    return bool(track.misses > 0 and not _is_good(track, new_score))


@njit(nogil=True, cache=True)
def _is_good(track: Any, new_score: float) -> bool:
    """Whether it was found well once."""
    return bool(track.best_score >= new_score)


@njit(nogil=True, cache=True)
def _begin(
    tracks: Any, count: int, found: Found, track_of: NDArray[np.int64], class_ids: NDArray[np.int32], rules: Rules
) -> int:
    """A track, found once, for each good detection that has none and is not a second one of an object."""
    known = count
    for place in range(len(track_of)):
        if track_of[place] != UNMATCHED or found.scores[place] < rules.high_score:
            continue
        if _is_double(place, found, track_of, known, rules.high_score):
            continue
        track = tracks[count]
        start(track, found.boxes[place])
        track.score = track.best_score = track.steady_scores = track.class_weight = found.scores[place]
        track.class_id, track.kind = class_ids[found.numbers[place]], found.kinds[place]
        track.track_id, track.hits, track.misses, track.unseen_seconds = NO_ID, 1, 0, 0
        track_of[place] = count
        count += 1
    return count


@njit(nogil=True, cache=True)
def _is_double(place: int, found: Found, track_of: NDArray[np.int64], known: int, high_score: float) -> bool:
    """Whether it lies upon one that a known track has, or that is better."""
    box = found.boxes[place]
    other = _first_that_reaches(found.reach, box[0])
    while other < len(track_of) and found.boxes[other, 0] < box[2]:
        if other != place and found.kinds[other] == found.kinds[place] and found.scores[other] >= high_score:
            has_track = UNMATCHED != track_of[other] < known
            is_better = (found.scores[other], -other) > (found.scores[place], -place)
            if (has_track or is_better) and _iou(box, found.boxes[other]) > DOUBLE:
                return True
        other += 1
    return False


@njit(nogil=True, cache=True)
def _confirm(tracks: Any, count: int, rules: Rules, ids_given: int, is_first: bool) -> int:
    """Ids for those that were found often enough, and for all good ones of a first look."""
    for row in range(count):
        track = tracks[row]
        is_good = _is_good(track, rules.new_score)
        is_sure = track.hits >= rules.confirm_frames and (is_good or track.steady_scores >= WEAK * rules.new_score)
        if track.track_id == NO_ID and (is_sure or (is_first and is_good)):
            ids_given += 1
            track.track_id = ids_given
    return ids_given


@njit(nogil=True, cache=True)
def _count_missed(tracks: Any, count: int, missed: NDArray[np.float64]) -> None:
    """Before a look: those with an id that were missed in the last ones, and may be found again now. Row k of `missed`
    is of those missed in k looks in a row: how many lately, and how many of them were found in the next."""
    for row in range(count):
        misses = tracks[row].misses
        if tracks[row].track_id != NO_ID and 0 < misses < len(missed):
            missed[misses, ALL] = LATELY * missed[misses, ALL] + 1
            missed[misses, FOUND_AGAIN] *= LATELY


@njit(nogil=True, cache=True)
def _count_found_again(tracks: Any, count: int, found_by: NDArray[np.int64], missed: NDArray[np.float64]) -> None:
    for row in range(count):
        misses = tracks[row].misses
        if tracks[row].track_id != NO_ID and 0 < misses < len(missed) and found_by[row] != UNMATCHED:
            missed[misses, FOUND_AGAIN] += 1


@njit(nogil=True, cache=True)
def _tell(tracks: Any, count: int, missed: NDArray[np.float64]) -> int:
    """Mark those that are told of: all that have an id and were found, and those that were missed so few times in a row
    that at least half of the others who had been were found in the next look. How many of the latter there are."""
    looks, held = 0, 0
    while looks + 1 < len(missed) and 2 * missed[looks + 1, FOUND_AGAIN] + 2 * FEW_FOUND_AGAIN >= (
        missed[looks + 1, ALL] + FEW
    ):
        looks += 1
    for row in range(count):
        track = tracks[row]
        track.told = track.track_id != NO_ID and track.misses <= looks
        if track.told and track.misses > 0:
            held += 1
    return held


@njit(nogil=True, cache=True)
def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    # A NaN may slip through min and max, but not through the union.
    return common / union if width > 0 and height > 0 and union > 0 else 0.0


@njit(nogil=True, cache=True)
def iou(boxes_xyxy: NDArray[np.float64], others_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 where they do not overlap or hold a NaN."""
    overlaps = np.zeros((len(boxes_xyxy), len(others_xyxy)))
    for i, box in enumerate(boxes_xyxy):
        for j, other in enumerate(others_xyxy):
            overlaps[i, j] = _iou(box, other)
    return overlaps
