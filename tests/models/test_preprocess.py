"""From an image to a network's input and back: the reference's figures, where pixels land, colours, bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import SPECS
from models.preprocess import preprocess
from tests.kit.places import DATA

PAPER = SPECS["res_18"]
PLAIN = SPECS["mobilenetv3"]  # neither mean nor std: its input holds the pixels themselves


def pixels(prepared):
    """(H, W, 3), as the network sees them."""
    return prepared.images_bchw[0].permute(1, 2, 0).numpy()


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_boxes_lie_in_the_image_where_the_reference_has_them():
    fixture = np.load(DATA / "models_postprocess.npz")
    width, height = fixture["image_wh"]
    prepared = preprocess(np.zeros((height, width, 3), np.uint8), PAPER)
    assert tuple(prepared.images_bchw.shape[2:]) == tuple(4 * fixture["out_wh"])
    detections = torch.from_numpy(fixture["dets"][0])
    boxes = prepared.to_image(detections[:, :4]).numpy()
    for class_id in range(3):
        expected, got = fixture[f"class{class_id + 1}"], boxes[detections[:, 5] == class_id]
        np.testing.assert_allclose(got, expected[:, :4], rtol=0, atol=1e-3)


def test_no_boxes_are_no_boxes_in_the_image():
    assert preprocess(noise(5, 7), PAPER).to_image(torch.zeros(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(
    "image",
    [
        None,
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_image_is_told_in_one_line(image):
    with pytest.raises(ValueError, match=r"^image of shape .*: give RGB pixels \(H, W, 3\), uint8") as caught:
        preprocess(image, PAPER)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": float("nan")},
        {"scale": float("inf")},
        {"input_wh": (0, 32)},
        {"input_wh": (64, 64), "keep_res": True},
    ],
)
def test_options_that_make_no_input(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        preprocess(noise(8, 8), PAPER, **options)


def test_colours_are_normalised_and_in_the_network_s_order():
    image = np.full((6, 6, 3), (255, 0, 51), np.uint8)
    spec = replace(PAPER, mean_rgb=(55.0, 10.0, 1.0), std_rgb=(2.0, 5.0, 10.0))
    red, green, blue = 100.0, -2.0, 5.0
    for order, expected in (("rgb", [red, green, blue]), ("bgr", [blue, green, red])):
        middle = pixels(preprocess(image, replace(spec, channel_order=order), input_wh=(64, 64)))[32, 32]
        np.testing.assert_allclose(middle, expected)


def test_a_border_is_black_before_the_normalisation():
    prepared = preprocess(np.full((8, 16, 3), 200, np.uint8), PAPER, input_wh=(64, 64))
    black = -np.array(PAPER.mean_rgb)[::-1] / np.array(PAPER.std_rgb)[::-1]
    np.testing.assert_allclose(pixels(prepared)[[0, 10, 55, 63]], np.broadcast_to(black, (4, 64, 3)), rtol=1e-6)
    assert (pixels(prepared)[20:44, 4:60] > 0).all()


def test_a_letterbox_is_bilinear_between_pixel_centres_at_whole_numbers():
    image = noise(32, 32)
    doubled = pixels(preprocess(image, replace(PLAIN, resize="letterbox"), input_wh=(64, 64)))
    np.testing.assert_array_equal(doubled[::2, ::2], image)
    between = (image[:, :-1].astype(float) + image[:, 1:]) / 2
    np.testing.assert_allclose(doubled[::2, 1:-1:2], between, atol=0.51)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_an_image_of_the_network_s_size_stays_as_it_is(resize):
    image = noise(512, 512)
    np.testing.assert_array_equal(pixels(preprocess(image, replace(PLAIN, resize=resize))), image)


def test_sides_that_are_no_multiple_are_padded_right_and_below():
    got = pixels(preprocess(np.full((50, 100, 3), 9, np.uint8), PLAIN, input_wh=(100, 50)))
    assert got.shape == (64, 128, 3)
    assert (got[:50, :100] == 9).all()
    assert got.sum() == 9 * 50 * 100 * 3


@pytest.mark.parametrize(("scale", "side"), [(0.001, 32), (0.5, 256), (1.0, 512), (1.1, 576), (1.5, 768)])
def test_a_scale_is_of_the_input(scale, side):
    for spec in (PAPER, PLAIN):
        assert preprocess(noise(30, 40), spec, scale=scale).images_bchw.shape == (1, 3, side, side)


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("mobilenetv3", (1, 1), (32, 32)),
        ("res_18", (31, 32), (32, 64)),
        ("res_18", (480, 640), (512, 672)),
        ("dla_34", (427, 511), (448, 512)),
        ("hourglass", (127, 128), (128, 256)),
    ],
)
def test_an_image_keeps_its_resolution_amid_black_up_to_the_next_multiple(name, size, expected):
    image = noise(*size)
    prepared = preprocess(image, replace(SPECS[name], mean_rgb=PLAIN.mean_rgb, std_rgb=PLAIN.std_rgb), keep_res=True)
    assert prepared.images_bchw.shape[2:] == expected
    left, top = (-int(shift) for shift in prepared.shift_xy)
    seen = pixels(prepared)[..., :: -1 if SPECS[name].channel_order == "bgr" else 1]
    np.testing.assert_array_equal(seen[top : top + size[0], left : left + size[1]], image)
    assert seen.sum(dtype=np.float64) == image.sum()
    assert (left, top) == (expected[1] // 2 - size[1] // 2, expected[0] // 2 - size[0] // 2)


def test_a_scaled_image_has_whole_sides_rounded_down_and_boxes_know_it():
    prepared = preprocess(noise(427, 333), PAPER, keep_res=True, scale=0.75)  # 320.25 and 249.75
    assert prepared.images_bchw.shape[2:] == (352, 256)
    left, top = 128 - 249 // 2, 176 - 320 // 2
    whole = torch.tensor([left, top, left + 249, top + 320]) / PAPER.stride
    torch.testing.assert_close(prepared.to_image(whole), torch.tensor([0.0, 0.0, 333.0, 427.0]), atol=1e-3, rtol=0)


def test_a_picture_made_smaller_is_averaged_from_all_pixels():
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, ::4] = 200
    assert (pixels(preprocess(image, PLAIN, input_wh=(32, 32))) == 50).all()


@settings(max_examples=150)
@given(
    st.tuples(st.integers(12, 300), st.integers(12, 300)),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.sampled_from(["stretch", "letterbox", "keep_res"]),
    st.floats(0.5, 2),
    st.tuples(st.integers(40, 300), st.integers(40, 300)),
)
def test_a_box_comes_back_to_the_pixels_it_was_seen_in(size, corners, way, scale, input_wh):
    height, width = size
    left, top = int(corners[0] * (width - 8)), int(corners[1] * (height - 8))
    right, bottom = left + 8 + int(corners[2] * (width - left - 8)), top + 8 + int(corners[3] * (height - top - 8))
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    if way == "keep_res":
        prepared = preprocess(image, PLAIN, keep_res=True, scale=scale)
    else:
        prepared = preprocess(image, replace(PLAIN, resize=way), scale=scale, input_wh=input_wh)
    rows, columns = (pixels(prepared)[:, :, 0] > 127).nonzero()
    if not len(rows):  # a picture reduced so far that nothing bright is left of the patch
        assert max(prepared.scale_xy) / PLAIN.stride > 4
        return
    seen = torch.tensor([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]) / PLAIN.stride
    input_pixel = np.tile(prepared.scale_xy, 2) / PLAIN.stride
    missed = np.abs(prepared.to_image(seen)[0].numpy() - (left, top, right, bottom))
    assert (missed <= input_pixel + 1).all()
