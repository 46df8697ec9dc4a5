"""Decoding of boxes: the reference's figures, both forms of size, and what a peak is."""

import numpy as np
import pytest
import torch

from models.decode import decode
from tests.kit.places import DATA


@pytest.mark.parametrize("number", [0, 1, 2])
def test_gives_the_boxes_of_the_reference(number):
    fixture = np.load(DATA / f"models_decode_{number}.npz")
    b, c, h, w = fixture["shape"]
    rng = np.random.default_rng(int(fixture["seed"]))
    heatmap = (1.5 * rng.standard_normal((b, c, h, w)) - 3).astype(np.float32)
    size = 10 * np.abs(rng.standard_normal((b, 2, h, w)).astype(np.float32))
    offset = rng.uniform(0, 1, (b, 2, h, w)).astype(np.float32)
    got = decode(*map(torch.from_numpy, (heatmap, size, offset)), k=int(fixture["K"]))
    np.testing.assert_allclose(got.numpy(), fixture["dets"], rtol=0, atol=1e-3)


def one_peak(size_channels):
    """Two images, 3 classes, 6 × 8 cells: a peak of class 2 at (5, 1), one of class 0 at (0, 4)."""
    heatmap = torch.full((2, 3, 6, 8), -10.0)
    heatmap[0, 2, 1, 5] = 2.0
    heatmap[1, 0, 4, 0] = 1.0
    size = torch.zeros(2, len(size_channels), 6, 8)
    size[0, :, 1, 5] = size[1, :, 4, 0] = torch.tensor(size_channels)
    return heatmap, size


@pytest.mark.parametrize(
    ("size_channels", "offset", "expected"),
    [
        ((4.0, 2.0), None, [(3.5, 0.5, 7.5, 2.5), (-1.5, 3.5, 2.5, 5.5)]),
        ((4.0, 2.0), (0.25, 0.75), [(3.25, 0.75, 7.25, 2.75), (-1.75, 3.75, 2.25, 5.75)]),
        ((1.0, 2.0, 3.0, 4.0), None, [(4.0, -1.0, 8.0, 5.0), (-1.0, 2.0, 3.0, 8.0)]),
        ((1.0, 2.0, 3.0, 4.0), (0.25, 0.75), [(4.25, -0.25, 8.25, 5.75), (-0.75, 2.75, 3.25, 8.75)]),
    ],
)
def test_a_box_from_its_point_size_and_offset(size_channels, offset, expected):
    heatmap, size = one_peak(size_channels)
    offsets = None if offset is None else torch.tensor(offset)[None, :, None, None].expand(2, 2, 6, 8)
    best = decode(heatmap, size, offsets, k=5)[:, 0]
    torch.testing.assert_close(best[:, :4], torch.tensor(expected))
    torch.testing.assert_close(best[:, 4], torch.tensor([2.0, 1.0]).sigmoid())
    assert best[:, 5].tolist() == [2, 0]


def test_a_neighbour_that_is_higher_silences_a_cell():
    heatmap = torch.full((1, 1, 5, 5), -10.0)
    heatmap[0, 0, 2, 2], heatmap[0, 0, 3, 3], heatmap[0, 0, 0, 0] = 3.0, 2.0, 1.0
    scores = decode(heatmap, torch.zeros(1, 2, 5, 5), k=3)[0, :, 4]
    torch.testing.assert_close(scores[:2], torch.tensor([3.0, 1.0]).sigmoid())
    assert scores[2] < 1e-3


def test_equal_neighbours_both_stay():
    heatmap = torch.full((1, 1, 3, 4), -10.0)
    heatmap[0, 0, 1, 1:3] = 1.0
    boxes = decode(heatmap, torch.ones(1, 2, 3, 4), k=2)[0]
    assert sorted(boxes[:, 0].tolist()) == [1.0, 2.0]


def test_a_peak_of_one_class_does_not_silence_another():
    heatmap = torch.full((1, 2, 3, 3), -10.0)
    heatmap[0, 0, 1, 1], heatmap[0, 1, 1, 0] = 2.0, 1.0
    assert decode(heatmap, torch.ones(1, 2, 3, 3), k=2)[0, :, 5].tolist() == [0, 1]


def test_k_is_at_most_the_number_of_values():
    assert decode(torch.zeros(2, 1, 2, 3), torch.ones(2, 4, 2, 3), k=100).shape == (2, 6, 6)
    assert decode(torch.zeros(0, 1, 2, 3), torch.ones(0, 4, 2, 3), k=1).shape == (0, 1, 6)
