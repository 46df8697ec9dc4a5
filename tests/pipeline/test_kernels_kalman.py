"""The filter of four independent axes against the textbook's matrices, and what it tells of moving boxes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.kernels import tracks

BOX = np.array([[10.0, 20.0, 50.0, 120.0]])


class MatrixFilter:
    """The same model with 8 x 8 matrices, as in any textbook: x' = F x, P' = F P F^T + Q, K = P H^T S^-1."""

    def __init__(self, box: NDArray[np.float64]) -> None:
        self.mean = np.concatenate([centre_and_size(box), np.zeros(4)])
        self.covariance = np.diag(np.concatenate([self.noise(tracks.INITIAL_VALUE), self.noise(tracks.INITIAL_RATE)]))

    def noise(self, fraction: float) -> NDArray[np.float64]:
        return (fraction * np.tile(self.mean[2:4], 2)) ** 2

    def predict(self, frames: int) -> None:
        step = np.eye(8) + np.eye(8, k=4)
        noise = np.diag(np.concatenate([self.noise(tracks.VALUE_DRIFT), self.noise(tracks.RATE_DRIFT)]))
        for _ in range(frames):
            self.mean = step @ self.mean
            self.covariance = step @ self.covariance @ step.T + noise

    def correct(self, box: NDArray[np.float64]) -> None:
        seen = np.eye(4, 8)
        total = seen @ self.covariance @ seen.T + np.diag(self.noise(tracks.MEASURED))
        gain = self.covariance @ seen.T @ np.linalg.inv(total)
        self.mean = self.mean + gain @ (centre_and_size(box) - seen @ self.mean)
        self.covariance = (np.eye(8) - gain @ seen) @ self.covariance


def centre_and_size(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def test_equals_the_matrix_filter() -> None:
    rng = np.random.default_rng(0)
    states, matrix = tracks.start(BOX), MatrixFilter(BOX[0])
    for frame, frames_elapsed in enumerate([1, 1, 1, 4, 1, 25, 1, 2]):
        tracks.predict(states, frames_elapsed)
        matrix.predict(frames_elapsed)
        box = BOX + 3 * frame + rng.standard_normal((1, 4))
        tracks.correct(states, np.array([0]), box)
        matrix.correct(box[0])
        mean = states[0, [tracks.VALUE, tracks.RATE]].ravel()
        np.testing.assert_allclose(mean, matrix.mean, rtol=1e-9)
        for axis in range(4):
            block = matrix.covariance[np.ix_([axis, axis + 4], [axis, axis + 4])]
            ours = states[0, [tracks.VALUE_VARIANCE, tracks.COVARIANCE, tracks.RATE_VARIANCE], axis]
            np.testing.assert_allclose(ours, [block[0, 0], block[0, 1], block[1, 1]], rtol=1e-9)


def test_no_boxes() -> None:
    states = tracks.start(np.empty((0, 4)))
    tracks.predict(states, 1)
    tracks.correct(states, np.empty(0, np.int64), np.empty((0, 4)))
    assert states.shape == (0, *tracks.STATE_SHAPE)
    assert tracks.to_boxes(states).shape == (0, 4)


def test_a_new_state_is_its_box_and_stands_still() -> None:
    states = tracks.start(BOX)
    tracks.predict(states, 100)
    np.testing.assert_allclose(tracks.to_boxes(states), BOX)


def test_learns_a_constant_motion_and_carries_it_over_a_gap() -> None:
    motion = np.array([4.0, -2.0, 4.0, -2.0])
    states = tracks.start(BOX)
    for frame in range(1, 40):
        tracks.predict(states, 1)
        tracks.correct(states, np.array([0]), BOX + frame * motion)
    tracks.predict(states, 10)
    np.testing.assert_allclose(tracks.to_boxes(states), BOX + 49 * motion, atol=1.0)


def test_corrects_only_the_rows_it_is_told() -> None:
    states = tracks.start(np.repeat(BOX, 3, axis=0))
    tracks.correct(states, np.array([2]), BOX + 8)
    shifts = tracks.to_boxes(states) - BOX
    assert (shifts[:2] == 0).all()
    assert ((shifts[2] > 0) & (shifts[2] < 8)).all()


@pytest.mark.parametrize("frames", [1, 1000])
def test_a_shrinking_box_keeps_positive_sides(frames: int) -> None:
    states = tracks.start(BOX)
    states[0, tracks.RATE, 2:] = -60.0
    tracks.predict(states, frames)
    assert (states[0, tracks.VALUE, 2:] > 0).all()
