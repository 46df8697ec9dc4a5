"""The filter of four independent axes against the textbook's matrices, and what it tells of moving boxes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.kernels import tracks

BOX = np.array([10.0, 20.0, 50.0, 120.0])


class MatrixFilter:
    """The same model with 8 x 8 matrices, as in any textbook: x' = F x, P' = F P F^T + Q, K = P H^T S^-1."""

    def __init__(self, box: NDArray[np.float64]) -> None:
        self.mean = np.concatenate([centre_and_size(box), np.zeros(4)])
        self.covariance = np.diag(np.concatenate([self.noise(tracks.INITIAL_VALUE), self.noise(tracks.INITIAL_RATE)]))

    def noise(self, fraction: float) -> NDArray[np.float64]:
        return (fraction * np.tile(self.mean[2:4], 2)) ** 2

    def predict(self, seconds: float) -> None:
        step = np.eye(8) + seconds * np.eye(8, k=4)
        share = np.array([1, 1, tracks.SIZE_SHARE, tracks.SIZE_SHARE]) ** 2
        value, rate = (np.diag(share * self.noise(drift)) for drift in (tracks.VALUE_DRIFT, tracks.RATE_DRIFT))
        zero = np.zeros((4, 4))
        noise = np.block([[value * seconds, zero], [zero, zero]])
        # Of a white acceleration: the integral of the steps that are still to come.
        noise += np.block([[rate * seconds**3 / 3, rate * seconds**2 / 2], [rate * seconds**2 / 2, rate * seconds]])
        self.mean = step @ self.mean
        self.covariance = step @ self.covariance @ step.T + noise

    def correct(self, box: NDArray[np.float64], score: float) -> None:
        seen = np.eye(4, 8)
        measured = np.diag(self.noise(tracks.MEASURED)) * (1 - tracks.TRUST * score)
        gain = self.covariance @ seen.T @ np.linalg.inv(seen @ self.covariance @ seen.T + measured)
        self.mean = self.mean + gain @ (centre_and_size(box) - seen @ self.mean)
        self.covariance = (np.eye(8) - gain @ seen) @ self.covariance


def centre_and_size(box: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])


def started(box: NDArray[np.float64] = BOX) -> NDArray[np.void]:
    """(1,) tracks."""
    some = np.zeros(1, tracks.TRACK)
    tracks.start(some[0], box)
    return some


def box_of(track: np.void) -> NDArray[np.float64]:
    x, y, width, height = track["state"][tracks.VALUE]
    return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def assert_same(track: np.void, matrix: MatrixFilter) -> None:
    state = track["state"]
    np.testing.assert_allclose(state[[tracks.VALUE, tracks.RATE]].ravel(), matrix.mean, rtol=1e-9)
    for axis in range(4):
        block = matrix.covariance[np.ix_([axis, axis + 4], [axis, axis + 4])]
        ours = state[[tracks.VALUE_VARIANCE, tracks.COVARIANCE, tracks.RATE_VARIANCE], axis]
        np.testing.assert_allclose(ours, [block[0, 0], block[0, 1], block[1, 1]], rtol=1e-9)


def test_equals_the_matrix_filter() -> None:
    rng = np.random.default_rng(0)
    some, matrix = started(), MatrixFilter(BOX)
    for number, (seconds, score) in enumerate(
        [(0.1, 0.9), (0.1, 0.2), (0.0, 0.5), (1.5, 1.0), (0.03, 0.0), (2.0, 0.7)]
    ):
        tracks.predict(some[0], seconds)
        matrix.predict(seconds)
        assert_same(some[0], matrix)
        box = BOX + 3 * number + rng.standard_normal(4)
        tracks.correct(some[0], box, score)
        matrix.correct(box, score)
        assert_same(some[0], matrix)


def test_many_small_steps_are_one_large_one() -> None:
    """So no rate is another filter, and no gap."""
    one, many = started(), started()
    for some in (one, many):
        some["state"][0, tracks.RATE, :2] = (30.0, -12.0)
    tracks.predict(one[0], 1.0)
    for _ in range(64):
        tracks.predict(many[0], 1 / 64)
    np.testing.assert_allclose(many["state"], one["state"], rtol=1e-9)
    assert one["unseen_seconds"][0] == many["unseen_seconds"][0] == 1.0


def test_a_new_track_is_its_box_and_stands_still() -> None:
    some = started()
    tracks.predict(some[0], 100.0)
    np.testing.assert_allclose(box_of(some[0]), BOX)


def test_learns_a_constant_motion_and_carries_it_over_a_gap() -> None:
    motion = np.array([40.0, -20.0, 40.0, -20.0])  # a second
    some = started()
    for frame in range(1, 40):
        tracks.predict(some[0], 0.1)
        tracks.correct(some[0], BOX + frame / 10 * motion, 0.9)
    tracks.predict(some[0], 1.0)
    np.testing.assert_allclose(box_of(some[0]), BOX + 4.9 * motion, atol=1.0)


@pytest.mark.parametrize("seconds", [0.1, 1000.0])
def test_a_shrinking_box_keeps_positive_sides(seconds: float) -> None:
    some = started()
    some["state"][0, tracks.RATE, 2:] = -600.0
    tracks.predict(some[0], seconds)
    assert (some["state"][0, tracks.VALUE, 2:] > 0).all()


def test_of_one_that_is_not_found_the_size_stays_and_the_place_moves_on() -> None:
    some = started()
    some["state"][0, tracks.RATE] = (10.0, 0.0, -10.0, -10.0)
    some["misses"] = 1
    tracks.predict(some[0], 1.0)
    np.testing.assert_allclose(some["state"][0, tracks.VALUE], centre_and_size(BOX) + np.array([10, 0, 0, 0]))
