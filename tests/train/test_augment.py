"""Augmentation: pixels and boxes go together, an unchanged image comes as `models.preprocess` gives it, and colours
change as they are said to."""

from dataclasses import replace
from itertools import permutations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.preprocess import preprocess
from models.spec import SPECS
from train.augment import (
    COLOUR_AXES,
    COLOUR_SPREADS,
    GREY,
    covered,
    draw_colours,
    draw_placement,
    fit,
    jitter_colours,
    move_boxes,
    place,
    warp,
)
from train.recipe import AugmentSettings

RESIZES = ("letterbox", "stretch")
STILL = AugmentSettings(
    scale_low=1, scale_high=1, crop=False, flip=0, brightness=0, contrast=0, saturation=0, lighting=0
)
SIDES = st.integers(1, 300)


def rng(seed=0):
    return np.random.default_rng(seed)


def smooth_image(width, height, seed=0):
    """Without hard edges, so that half a pixel matters little."""
    coarse = rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def as_preprocessed(image, resize, input_wh):
    plain = replace(SPECS["res_18"], resize=resize, mean_rgb=(0, 0, 0), std_rgb=(1, 1, 1), channel_order="rgb")
    width, height = input_wh
    prepared = preprocess(image, replace(plain, input_width=width, input_height=height))
    return prepared, prepared.images_bchw[0].permute(1, 2, 0).numpy()


# -- geometry


@settings(max_examples=60)
@given(width=SIDES, height=SIDES, resize=st.sampled_from(RESIZES))
def test_boxes_of_a_still_image_lie_as_preprocess_places_them(width, height, resize):
    prepared, _ = as_preprocessed(np.zeros((height, width, 3), np.uint8), resize, (96, 64))
    box = np.array([[0.1 * width, 0.2 * height, 0.9 * width, height]], np.float32)
    placement = draw_placement(rng(), (width, height), (96, 64), resize, STILL)
    assert np.allclose([*placement.scale_xy, *placement.shift_xy], _flat(fit((width, height), (96, 64), resize)))
    moved = box * np.array(placement.scale_xy * 2) + np.array(placement.shift_xy * 2)
    back = prepared.to_image(torch.from_numpy(moved) / 4).numpy()
    assert np.allclose(back, box, atol=1e-3)


def _flat(placement):
    return [*placement.scale_xy, *placement.shift_xy]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 96), (33, 20), (200, 150), (31, 290)])
def test_pixels_of_a_still_letterbox_are_those_of_preprocess(width, height):
    image = smooth_image(width, height)
    _, expected = as_preprocessed(image, "letterbox", (96, 64))
    warped = warp(image, fit((width, height), (96, 64), "letterbox"), (96, 64), "letterbox")
    assert np.abs(warped.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(33, 20), (96, 64), (200, 150), (500, 700)])
def test_pixels_of_a_still_stretched_image_are_nearly_those_of_preprocess(width, height):
    image = smooth_image(width, height)
    _, expected = as_preprocessed(image, "stretch", (96, 64))
    warped = warp(image, fit((width, height), (96, 64), "stretch"), (96, 64), "stretch")
    inside = np.abs(warped.astype(int) - expected)[2:-2, 2:-2]
    assert inside.max() <= 6 and inside.mean() < 1


def test_an_image_stretched_much_smaller_is_averaged():
    stripes = np.zeros((1500, 2000, 3), np.uint8)
    stripes[:, ::2] = 255
    warped = warp(stripes, fit((2000, 1500), (64, 64), "stretch"), (64, 64), "stretch")
    assert np.abs(warped[1:-1, 1:-1].astype(int) - 127).max() <= 10


@settings(max_examples=40)
@given(
    image_wh=st.tuples(st.integers(60, 300), st.integers(60, 300)),
    resize=st.sampled_from(RESIZES),
    seed=st.integers(0, 2**32),
)
def test_a_box_stays_on_what_it_was_drawn_around(image_wh, resize, seed):
    width, height = image_wh
    image, box = np.zeros((height, width, 3), np.uint8), np.array([[width // 4, height // 3, width // 2, height // 2]])
    left, top, right, bottom = box[0]
    image[top:bottom, left:right] = 255
    placement = draw_placement(rng(seed), image_wh, (128, 96), resize, AugmentSettings(flip_vertical=0.5))
    bright = warp(image, placement, (128, 96), resize)[:, :, 0] > 127
    (moved,), (seen,) = move_boxes(box.astype(np.float32), placement, (128, 96))
    if not seen:
        assert bright.sum() <= 128
    elif bright.any():
        rows, columns = bright.any(1).nonzero()[0], bright.any(0).nonzero()[0]
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert np.abs(found - moved).max() <= 1.5
    else:
        assert (moved[2:] - moved[:2]).min() <= 2


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("size", [0.7, 1.0, 1.6])
def test_to_mirror_is_to_take_the_mirrored_image(resize, size):
    image, input_wh = smooth_image(150, 100), (96, 64)
    both = place((150, 100), input_wh, resize, size, (60, 70), (True, True))
    warped = warp(image, both, input_wh, resize)
    expected = warp(
        np.ascontiguousarray(image[::-1, ::-1]), place((150, 100), input_wh, resize, size, (90, 30)), input_wh, resize
    )
    assert np.abs(warped.astype(int) - expected).max() <= 2


def test_mirroring_goes_by_its_share():
    def mirrored(flip, flip_vertical):
        chosen = AugmentSettings(flip=flip, flip_vertical=flip_vertical)
        drawn = [draw_placement(rng(seed), (64, 48), (64, 64), "letterbox", chosen).scale_xy for seed in range(400)]
        return (np.array(drawn) < 0).mean(axis=0)

    assert mirrored(0, 0).tolist() == [0, 0]
    assert mirrored(1, 0).tolist() == [1, 0]
    assert np.allclose(mirrored(0.5, 0.25), [0.5, 0.25], atol=0.08)


def test_scales_are_drawn_between_the_two():
    chosen = AugmentSettings(scale_low=0.5, scale_high=2, flip=0)  # of what is seen: twice to half the size
    drawn = [draw_placement(rng(seed), (80, 40), (64, 64), "stretch", chosen).scale_xy for seed in range(300)]
    sizes = np.array(drawn) * (80 / 64, 40 / 64)
    assert np.allclose(sizes[:, 0], sizes[:, 1])
    assert 0.5 <= sizes.min() < 0.52 and 1.95 < sizes.max() <= 2


@pytest.mark.parametrize("scale", [0.6, 1.0, 1.3, 4.0])
def test_crops_show_every_corner_at_times_and_always_much_of_the_image(scale):
    chosen = replace_scale(scale)
    corners = np.array([[0, 0, 20, 20], [280, 180, 300, 200], [140, 90, 160, 110]], np.float32)
    seen, area = np.zeros(3), []
    for seed in range(300):
        placement = draw_placement(rng(seed), (300, 200), (128, 128), "stretch", chosen)
        seen += move_boxes(corners, placement, (128, 128))[1]
        rows, columns = covered((300, 200), placement, (128, 128))
        area.append((rows.stop - rows.start) * (columns.stop - columns.start) / 128**2)
    assert seen.min() > 0
    assert min(area) >= min(1, 1 / scale**2) / 2.2


def replace_scale(scale):
    return AugmentSettings(scale_low=scale, scale_high=scale)


def test_one_setting_changes_nothing_of_what_is_drawn_for_another():
    settings = [AugmentSettings(), AugmentSettings(flip=1), AugmentSettings(crop=False, flip=0)]
    first, flipped, centred = (draw_placement(rng(3), (90, 60), (64, 64), "letterbox", each) for each in settings)
    assert np.allclose(np.abs(first.scale_xy), np.abs(flipped.scale_xy))
    assert np.allclose(np.abs(first.scale_xy), centred.scale_xy)


BOXES = [
    ("no boxes", [], []),
    ("inside", [[10, 10, 20, 30]], [[5, 5, 10, 15]]),
    ("over the edge", [[-50, 190, 30, 260]], [[0, 95, 15, 100]]),
    ("outside", [[-20, 5, -2, 9]], []),
    ("less than a pixel left", [[-20, 5, 1, 90]], []),
    ("a pixel left", [[-20, 4, 2, 90]], [[0, 2, 1, 45]]),
]


@pytest.mark.parametrize(("boxes", "expected"), [row[1:] for row in BOXES], ids=[row[0] for row in BOXES])
def test_boxes_are_clipped_and_dropped_when_nothing_is_left(boxes, expected):
    placement = fit((200, 200), (100, 100), "letterbox")
    moved, seen = move_boxes(np.array(boxes, np.float32).reshape(-1, 4), placement, (100, 100))
    assert moved.dtype == np.float32 and moved.shape == (len(boxes), 4)
    assert moved[seen].tolist() == expected


# -- colours

NONE = AugmentSettings(brightness=0, contrast=0, saturation=0, lighting=0)
MEAN = np.array([150.0, 90.0, 60.0])


def colours(seed=0, **amounts):
    return draw_colours(rng(seed), MEAN, replace_colours(**amounts))


def replace_colours(**amounts):
    return AugmentSettings(**({"brightness": 0, "contrast": 0, "saturation": 0, "lighting": 0} | amounts))


def test_no_jitter_changes_nothing():
    pixels = smooth_image(40, 30)
    assert (jitter_colours(pixels, rng(), NONE) == pixels).all()
    assert jitter_colours(pixels[:0], rng(), AugmentSettings()).shape == (0, 40, 3)


@pytest.mark.parametrize("seed", range(5))
def test_brightness_multiplies(seed):
    matrix = colours(seed, brightness=0.4)
    assert np.allclose(matrix, np.eye(3, 4) * matrix[0, 0])
    assert 0.6 <= matrix[0, 0] <= 1.4 and matrix[0, 0] != 1


@pytest.mark.parametrize("seed", range(5))
def test_contrast_keeps_the_mean_grey(seed):
    matrix = colours(seed, contrast=0.4)
    assert np.allclose(matrix[:, :3], np.eye(3) * matrix[0, 0]) and 0.6 <= matrix[0, 0] <= 1.4
    assert np.isclose(GREY @ matrix @ (*MEAN, 1), GREY @ MEAN)


@pytest.mark.parametrize("seed", range(5))
def test_saturation_keeps_the_grey_of_each_pixel(seed):
    matrix = colours(seed, saturation=0.4)
    assert np.allclose(GREY @ matrix[:, :3], GREY) and not matrix[:, 3].any()
    assert np.allclose(matrix @ (7, 7, 7, 1), 7)
    red, green, _ = matrix @ (200, 100, 0, 1)
    assert 0.6 <= (red - green) / 100 <= 1.4


def test_jitters_together_are_one_after_the_other():
    """Each turns about what the one before left; which is first does not matter."""
    amounts = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    matrix = colours(4, **amounts)
    factors = 1 + 0.4 * rng(4).uniform(-1, 1, 3)
    for order in permutations(range(3)):
        colour, mean = np.array([200.0, 30.0, 90.0]), MEAN
        for which in order:
            turns_about = (0, GREY @ mean, GREY @ colour)[which]
            colour = turns_about + factors[which] * (colour - turns_about)
            about = (0, GREY @ mean, GREY @ mean)[which]
            mean = about + factors[which] * (mean - about)
        assert np.allclose(matrix @ (200, 30, 90, 1), colour)


def test_lighting_varies_as_colours_do():
    drawn = np.array([colours(seed, lighting=0.1) for seed in range(3000)])
    assert np.allclose(drawn[:, :, :3], np.eye(3))
    shifts = drawn[:, :, 3] / 255
    expected = COLOUR_AXES @ np.diag((0.1 * COLOUR_SPREADS) ** 2) @ COLOUR_AXES.T
    assert np.allclose(np.cov(shifts.T), expected, atol=0.1 * expected.max())
    assert np.allclose(COLOUR_AXES.T @ COLOUR_AXES, np.eye(3), atol=1e-3)


def test_jittered_pixels_are_the_matrix_applied_and_cut_off():
    pixels = rng(1).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    strong = AugmentSettings(brightness=1, contrast=1, saturation=1, lighting=1)
    matrix = draw_colours(rng(5), np.array(cv2.mean(pixels)[:3]), strong)
    expected = (pixels @ matrix[:, :3].T + matrix[:, 3]).clip(0, 255)
    assert np.abs(jitter_colours(pixels, rng(5), strong) - expected).max() <= 1.5
    assert jitter_colours(pixels, rng(5), strong).dtype == np.uint8
