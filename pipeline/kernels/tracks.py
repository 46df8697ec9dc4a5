"""A frame of a tracker in one call: where boxes will be, who belongs to whom, whose track is born and whose ends. Knows
no setting and no detection but as arrays. In one file, for a compiled function calls only those of its own (see
`pipeline.kernels`).

**Where boxes will be**: a constant-velocity Kalman filter over many boxes at once (for tracking: SORT, arXiv
1602.00763). A box is centre x, centre y, width and height, each with its rate in pixels per frame. All noises are
independent from axis to axis, so the 8 x 8 covariance falls apart into four 2 x 2 blocks and the filter into four of
two numbers: the same figures without a matrix. Noises are in proportion to the box, as in BoT-SORT (arXiv 2206.14651,
section 3.1): its width for x and width, its height for y and height. `states` is (T, 5, 4) float64: T boxes, a row for
each quantity below, a column for each axis.

**Who belongs to whom**: optimal assignment with the right to stay alone. Shortest augmenting paths (Jonker and
Volgenant 1987, in the form of Crouse, "On implementing 2D rectangular assignment algorithms", IEEE TAES 2016, section
IV), where each row has one more column of its own that costs nothing: "unmatched". So a gate is part of the optimum
instead of a filter after it, any shape will do, and a search ends as soon as staying alone is the cheapest way on.

**What becomes of tracks**: ByteTrack (Zhang et al., arXiv 2110.06864), see `update`.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

UNMATCHED = -1
NO_ID = 0

VALUE, RATE, VALUE_VARIANCE, COVARIANCE, RATE_VARIANCE = range(5)
STATE_SHAPE = (5, 4)

# Standard deviations as fractions of the box's width or height. The rate is twice as free as the usual 1 / 160, which
# was found at 30 frames per second: cameras are often analysed at 5 to 15, where a person turns within a few frames.
MEASURED = 1 / 20
VALUE_DRIFT = 1 / 40  # per frame
RATE_DRIFT = 1 / 80  # per frame
INITIAL_VALUE = 1 / 10
INITIAL_RATE = 1 / 16

SMALLEST_SIDE = 1e-3  # pixels; a shrinking box never turns inside out


@njit(nogil=True, cache=True)
def start(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """States (N, 5, 4) that know one measurement each, boxes (N, 4), and no motion."""
    states = np.zeros((len(boxes_xyxy), 5, 4))
    for state, box in zip(states, boxes_xyxy):  # noqa: B905, Numba has no strict
        _write_centre_and_size(box, state[VALUE])
        for axis in range(4):
            side = _side(state, axis)
            state[VALUE_VARIANCE, axis] = (INITIAL_VALUE * side) ** 2
            state[RATE_VARIANCE, axis] = (INITIAL_RATE * side) ** 2
    return states


@njit(nogil=True, cache=True)
def predict(states: NDArray[np.float64], frames: int) -> None:
    """Move all states `frames` (1 or more) on: the sum of so many single steps, all with the first one's noise."""
    n = float(frames)
    steps, squares = n * (n - 1) / 2, n * (n - 1) * (2 * n - 1) / 6  # 0 + 1 + ... + (n - 1), and of their squares
    for state in states:
        for axis in range(4):  # centres before sizes: all four see the box the state starts from
            side = _side(state, axis)
            value_noise, rate_noise = (VALUE_DRIFT * side) ** 2, (RATE_DRIFT * side) ** 2
            covariance, rate_variance = state[COVARIANCE, axis], state[RATE_VARIANCE, axis]
            state[VALUE, axis] += n * state[RATE, axis]
            state[VALUE_VARIANCE, axis] += n * (2 * covariance + n * rate_variance + value_noise) + squares * rate_noise
            state[COVARIANCE, axis] += n * rate_variance + steps * rate_noise
            state[RATE_VARIANCE, axis] += n * rate_noise
        _keep_sides_positive(state)


@njit(nogil=True, cache=True)
def correct(states: NDArray[np.float64], rows: NDArray[np.int64], boxes_xyxy: NDArray[np.float64]) -> None:
    """Take the measurements `boxes_xyxy` (M, 4) into the states `rows` (M,)."""
    measured = np.empty(4)
    for row, box in zip(rows, boxes_xyxy):  # noqa: B905, Numba has no strict
        state = states[row]
        _write_centre_and_size(box, measured)
        for axis in range(4):
            variance, covariance = state[VALUE_VARIANCE, axis], state[COVARIANCE, axis]
            total = variance + (MEASURED * _side(state, axis)) ** 2
            surprise = measured[axis] - state[VALUE, axis]
            state[VALUE, axis] += variance / total * surprise
            state[RATE, axis] += covariance / total * surprise
            state[VALUE_VARIANCE, axis] -= variance / total * variance
            state[COVARIANCE, axis] -= variance / total * covariance
            state[RATE_VARIANCE, axis] -= covariance / total * covariance
        _keep_sides_positive(state)


@njit(nogil=True, cache=True)
def to_boxes(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Left, top, right, bottom (T, 4) of all states."""
    boxes_xyxy = np.empty((len(states), 4))
    for state, box in zip(states, boxes_xyxy):  # noqa: B905, Numba has no strict
        for axis in range(2):
            half = state[VALUE, 2 + axis] / 2
            box[axis], box[axis + 2] = state[VALUE, axis] - half, state[VALUE, axis] + half
    return boxes_xyxy


@njit(nogil=True, cache=True)
def _side(state: NDArray[np.float64], axis: int) -> float:
    """Width for x and width, height for y and height."""
    return state[VALUE, 2 + axis % 2]


@njit(nogil=True, cache=True)
def _write_centre_and_size(box_xyxy: NDArray[np.float64], target: NDArray[np.float64]) -> None:
    for axis in range(2):
        target[axis] = (box_xyxy[axis] + box_xyxy[axis + 2]) / 2
        target[axis + 2] = box_xyxy[axis + 2] - box_xyxy[axis]


@njit(nogil=True, cache=True)
def _keep_sides_positive(state: NDArray[np.float64]) -> None:
    for axis in range(2, 4):
        state[VALUE, axis] = max(state[VALUE, axis], SMALLEST_SIDE)


@njit(nogil=True, cache=True)
def assign(gains: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column of each row (N,), or `UNMATCHED`, for which the sum of matched gains is largest.

    gains is (N, M) float64. Only finite gains above 0 are matched. The same gains give the same answer, ties or not.
    """
    rows, columns = gains.shape
    column_of = np.full(rows, UNMATCHED, np.int64)
    row_of = np.full(columns, UNMATCHED, np.int64)
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    reach, came_from = np.empty(columns), np.empty(columns, np.int64)
    settled = np.empty(columns, np.bool_)
    for row in range(rows):
        reach[:] = np.inf
        settled[:] = False
        end, loser, distance = _search(gains, row, row_of, row_price, column_price, reach, came_from, settled)
        row_price[row] += distance
        for column in np.flatnonzero(settled):
            row_price[row_of[column]] += distance - reach[column]
            column_price[column] -= distance - reach[column]
        if end == UNMATCHED:
            end, column_of[loser] = column_of[loser], UNMATCHED
        while end != UNMATCHED:  # every row on the way back takes the column it reached, and leaves the one it had
            taker = came_from[end]
            row_of[end] = taker
            end, column_of[taker] = column_of[taker], end
    return column_of


@njit(nogil=True, cache=True)
def _search(
    gains: NDArray[np.float64],
    start: int,
    row_of: NDArray[np.int64],
    row_price: NDArray[np.float64],
    column_price: NDArray[np.float64],
    reach: NDArray[np.float64],
    came_from: NDArray[np.int64],
    settled: NDArray[np.bool_],
) -> tuple[int, int, float]:
    """The cheapest way from row `start` to a free column, or to a row that is to be left alone (Dijkstra).

    Returns (column, -1, distance) or (-1, row, distance); writes `reach`, `came_from` and `settled`.
    """
    row, distance = start, 0.0
    loser, alone = start, np.inf
    while True:
        if distance - row_price[row] < alone:
            loser, alone = row, distance - row_price[row]
        nearest, shortest = UNMATCHED, np.inf
        for column in range(row_of.size):
            if settled[column]:
                continue
            if 0 < gains[row, column] < np.inf:
                length = distance - gains[row, column] - row_price[row] - column_price[column]
                if length < reach[column]:
                    reach[column], came_from[column] = length, row
            if reach[column] < shortest:
                nearest, shortest = column, reach[column]
        if alone <= shortest:
            return UNMATCHED, loser, alone
        if row_of[nearest] == UNMATCHED:
            return nearest, UNMATCHED, shortest
        settled[nearest] = True
        row, distance = row_of[nearest], shortest


class Tracks(NamedTuple):
    """Tracks as parallel arrays, eldest first; only the first so many count, the others are room for more.

    states         (T, 5, 4) float64
    class_ids      (T,) int32
    track_ids      (T,) int32, `NO_ID` until confirmed
    hits           (T,) int64, frames in which it was found
    unseen_frames  (T,) int64, frames since it was found
    scores         (T,) float32, of the detection found last
    """

    states: NDArray[np.float64]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int32]
    hits: NDArray[np.int64]
    unseen_frames: NDArray[np.int64]
    scores: NDArray[np.float32]


class Found(NamedTuple):
    """The detections of one frame, (N, 4) float64, (N,) float32 and (N,) int32."""

    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]


class Rules(NamedTuple):
    """See `pipeline.settings.TrackerSettings`."""

    high_score: np.float32
    low_score: np.float32
    new_score: np.float32
    first_iou: float
    second_iou: float
    confirm_frames: int
    lost_frames: int


@njit(nogil=True, cache=True)
def update(
    tracks: Tracks, count: int, found: Found, frames: int, rules: Rules, ids_given: int
) -> tuple[int, int, NDArray[np.int32]]:
    """The next frame, `frames` after the last one: `count` tracks follow the detections that they get, others start or
    end. There must be room for all of them.

    Returns how many tracks there are and how many ids were given by now, and the id of each detection (N,).
    """
    predict(tracks.states[:count], frames)
    tracks.unseen_frames[:count] += frames
    sound = _are_sound(found.boxes_xyxy)
    found_by, track_of = _associate(tracks, count, found, sound, frames, rules)
    _follow(tracks, found, found_by)
    count = _keep(tracks, found_by, track_of, rules.lost_frames)
    fresh = sound & (track_of == UNMATCHED) & (found.scores >= max(rules.new_score, rules.high_score))
    count = _begin(tracks, count, found, np.flatnonzero(fresh), track_of)
    for row in range(count):
        if tracks.track_ids[row] == NO_ID and tracks.hits[row] >= rules.confirm_frames:
            ids_given += 1
            tracks.track_ids[row] = ids_given
    ids = np.full(len(track_of), NO_ID, np.int32)
    for detection, row in enumerate(track_of):
        if row != UNMATCHED:
            ids[detection] = tracks.track_ids[row]
    return count, ids_given, ids


@njit(nogil=True, cache=True)
def _associate(
    tracks: Tracks, count: int, found: Found, sound: NDArray[np.bool_], frames: int, rules: Rules
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The detection of each track (T,) and the track of each detection (N,), or `UNMATCHED`. Those on probation choose
    last."""
    high = sound & (found.scores >= rules.high_score)
    low = sound & (found.scores >= rules.low_score) & ~high
    confirmed = tracks.track_ids[:count] != NO_ID
    just_seen = tracks.unseen_frames[:count] == frames
    overlaps = iou(to_boxes(tracks.states[:count]), found.boxes_xyxy)
    for row in range(count):
        overlaps[row, found.class_ids != tracks.class_ids[row]] = 0
    found_by, track_of = np.full(count, UNMATCHED, np.int64), np.full(len(high), UNMATCHED, np.int64)
    _match(overlaps, rules.first_iou, confirmed, high, found_by, track_of)
    _match(overlaps, rules.second_iou, confirmed & just_seen, low, found_by, track_of)
    _match(overlaps, rules.first_iou, ~confirmed, high, found_by, track_of)
    return found_by, track_of


@njit(nogil=True, cache=True)
def _follow(tracks: Tracks, found: Found, found_by: NDArray[np.int64]) -> None:
    """Those with a detection take it in."""
    rows = np.flatnonzero(found_by != UNMATCHED)
    correct(tracks.states, rows, found.boxes_xyxy[found_by[rows]])
    for row in rows:
        tracks.scores[row] = found.scores[found_by[row]]
        tracks.hits[row] += 1
        tracks.unseen_frames[row] = 0


@njit(nogil=True, cache=True)
def _keep(tracks: Tracks, found_by: NDArray[np.int64], track_of: NDArray[np.int64], lost_frames: int) -> int:
    """Close ranks over those that end: on probation with the first miss, others when they were unseen for too long."""
    kept = 0
    for row, detection in enumerate(found_by):
        is_remembered = tracks.track_ids[row] != NO_ID and tracks.unseen_frames[row] <= lost_frames
        if detection == UNMATCHED and not is_remembered:
            continue
        tracks.states[kept] = tracks.states[row]
        tracks.class_ids[kept] = tracks.class_ids[row]
        tracks.track_ids[kept] = tracks.track_ids[row]
        tracks.hits[kept] = tracks.hits[row]
        tracks.unseen_frames[kept] = tracks.unseen_frames[row]
        tracks.scores[kept] = tracks.scores[row]
        if detection != UNMATCHED:
            track_of[detection] = kept
        kept += 1
    return kept


@njit(nogil=True, cache=True)
def _begin(tracks: Tracks, count: int, found: Found, fresh: NDArray[np.int64], track_of: NDArray[np.int64]) -> int:
    """A track, found once, for each of the `fresh` detections."""
    tracks.states[count : count + len(fresh)] = start(found.boxes_xyxy[fresh])
    for detection in fresh:
        tracks.class_ids[count] = found.class_ids[detection]
        tracks.track_ids[count] = NO_ID
        tracks.hits[count] = 1
        tracks.unseen_frames[count] = 0
        tracks.scores[count] = found.scores[detection]
        track_of[detection] = count
        count += 1
    return count


@njit(nogil=True, cache=True)
def _are_sound(boxes_xyxy: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes (N, 4) have a finite, positive area; no comparison lets a NaN through."""
    sound = np.empty(len(boxes_xyxy), np.bool_)
    for number, box in enumerate(boxes_xyxy):
        width, height = box[2] - box[0], box[3] - box[1]
        sound[number] = 0 < width < np.inf and 0 < height < np.inf
    return sound


@njit(nogil=True, cache=True)
def iou(boxes_xyxy: NDArray[np.float64], others_xyxy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 where they do not overlap or hold a NaN."""
    overlaps = np.zeros((len(boxes_xyxy), len(others_xyxy)))
    for i, a in enumerate(boxes_xyxy):
        for j, b in enumerate(others_xyxy):
            width = min(a[2], b[2]) - max(a[0], b[0])
            height = min(a[3], b[3]) - max(a[1], b[1])
            common = width * height
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
            if width > 0 and height > 0 and union > 0:  # a NaN may slip through min and max, but not through the union
                overlaps[i, j] = common / union
    return overlaps


@njit(nogil=True, cache=True)
def _match(
    overlaps: NDArray[np.float64],
    least_iou: float,
    candidates: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    found_by: NDArray[np.int64],
    track_of: NDArray[np.int64],
) -> None:
    """Give those `candidates` (T,) without a detection the `wanted` (N,) that no track has; written into both."""
    rows = np.flatnonzero(candidates & (found_by == UNMATCHED))
    columns = np.flatnonzero(wanted & (track_of == UNMATCHED))
    if not len(rows) or not len(columns):
        return
    gains = np.empty((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            gains[i, j] = overlaps[row, column] - least_iou
    for i, chosen in enumerate(assign(gains)):
        if chosen != UNMATCHED:
            found_by[rows[i]], track_of[columns[chosen]] = columns[chosen], rows[i]
