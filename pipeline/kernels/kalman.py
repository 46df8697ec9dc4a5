"""A constant-velocity Kalman filter over many boxes at once (for tracking: SORT, arXiv 1602.00763). Knows no track.

A box is centre x, centre y, width and height, each with its rate in pixels per frame. All noises are independent from
axis to axis, so the 8 x 8 covariance falls apart into four 2 x 2 blocks and the filter into four of two numbers: the
same figures without a matrix. Noises are in proportion to the box, as in BoT-SORT (arXiv 2206.14651, section 3.1):
its width for x and width, its height for y and height.

`states` is (T, 5, 4) float64: T boxes, a row for each quantity below, a column for each axis.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

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


def to_boxes(states: NDArray[np.float64]) -> NDArray[np.float64]:
    """Left, top, right, bottom (T, 4) of all states."""
    centres, halves = states[:, VALUE, :2], states[:, VALUE, 2:] / 2
    return np.hstack([centres - halves, centres + halves])


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
