"""Pixels out of the decoder are the right colours at the right place, whatever the format, matrix, range and turn."""

from itertools import product

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.sources.pixels import PixelConverter, turned
from tests.kit.media import red_corner

COLOURS = [(0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 60), (20, 180, 90), (30, 60, 220)]
# Luma weights of red and blue (BT.601-7 2.5.1, BT.709-6 3.2, BT.2020-2 table 4), by FFmpeg's number of the matrix.
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
UNTAGGED, LIMITED, FULL = 2, 1, 2
FORMATS = [
    "gray",
    "gray10le",
    "gray16be",
    "yuv420p",
    "yuvj420p",
    "yuv422p",
    "yuv444p",
    "yuv410p",
    "yuv420p10le",
    "yuv422p12le",
    "nv12",
    "nv21",
    "p010le",
    "yuyv422",
    "uyvy422",
    "yuva420p",
    "rgb24",
    "bgr24",
    "rgba",
    "bgra",
    "argb",
    "bgr0",
    "gbrp",
    "gbrp10le",
    "rgb48le",
    "rgb565le",
    "monow",
    "pal8",
]


def to_yuv(colour_rgb: tuple[int, int, int], red: float, blue: float, is_full: bool) -> list[int]:
    """The definition: luma is the weighted sum, chroma its differences to blue and red."""
    r, g, b = (value / 255 for value in colour_rgb)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma_blue, chroma_red = (b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)
    if is_full:
        return [round(255 * luma), round(128 + 255 * chroma_blue), round(128 + 255 * chroma_red)]
    return [round(16 + 219 * luma), round(128 + 224 * chroma_blue), round(128 + 224 * chroma_red)]


def filled(width: int, height: int, pixel_format: str, values: list[int]) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, pixel_format)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def each_way(frame: av.VideoFrame) -> tuple[NDArray[np.uint8], ...]:
    """The frame in full size, at 64×48, and as a picture of at most 64 and of any width, all as RGB."""
    converter = PixelConverter()
    full_bgr = np.empty((frame.height, frame.width, 3), np.uint8)
    small_rgb = np.empty((48, 64, 3), np.uint8)
    converter.write_bgr(frame, 0, full_bgr)
    converter.write_input(frame, 0, small_rgb)
    pictures_bgr = [converter.picture_bgr(frame, 0, most_width).copy() for most_width in (64, 9999)]
    return full_bgr[..., ::-1], small_rgb, *(picture_bgr[..., ::-1] for picture_bgr in pictures_bgr)


@pytest.mark.parametrize("colour_rgb", COLOURS)
@pytest.mark.parametrize(("matrix", "is_full"), list(product(MATRICES, [False, True])))
def test_matrix_and_range_are_those_of_the_frame(colour_rgb, matrix: int, is_full: bool) -> None:  # type: ignore[no-untyped-def]
    frame = filled(640, 480, "yuv420p", to_yuv(colour_rgb, *MATRICES[matrix], is_full))
    frame.colorspace, frame.color_range = matrix, FULL if is_full else LIMITED
    for pixels_rgb in each_way(frame):
        assert np.abs(pixels_rgb.astype(int) - colour_rgb).max() <= 3  # a step of 8-bit chroma is two of blue


@pytest.mark.parametrize(("width", "height", "matrix"), [(640, 480, 5), (768, 576, 5), (1280, 720, 1), (720, 1280, 1)])
@pytest.mark.parametrize("colour_rgb", COLOURS)
def test_untagged_video_is_bt709_from_high_definition_on(width, height, matrix, colour_rgb) -> None:  # type: ignore[no-untyped-def]
    frame = filled(width, height, "yuv420p", to_yuv(colour_rgb, *MATRICES[matrix], False))
    frame.colorspace = UNTAGGED
    for pixels_rgb in each_way(frame):
        assert np.abs(pixels_rgb.astype(int) - colour_rgb).max() <= 3


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(640, 480), (7, 5), (1, 1)])
def test_every_pixel_format_of_every_size_is_read(pixel_format: str, width: int, height: int) -> None:
    white = av.VideoFrame.from_ndarray(np.full((height, width, 3), 255, np.uint8), "rgb24")
    # Nothing can be converted to a palette: all pixels are entry 0 of one that is white throughout.
    is_palette = pixel_format == "pal8"
    frame = filled(width, height, "pal8", [0, 255]) if is_palette else white.reformat(format=pixel_format)
    for pixels_rgb in each_way(frame):
        assert pixels_rgb.min() >= 245  # rgb565 has five bits of red


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_a_turned_frame_is_upright(degrees: int, resize: str) -> None:
    upright = red_corner(64, 48)
    stored = np.ascontiguousarray(np.rot90(upright, degrees // 90))
    frame = av.VideoFrame.from_ndarray(stored, "rgb24")
    converter = PixelConverter()
    full_bgr, small_rgb = np.empty_like(upright), np.empty((24, 32, 3), np.uint8)
    converter.write_bgr(frame, degrees, full_bgr)
    converter.write_input(frame, degrees, small_rgb, resize)  # type: ignore[arg-type]
    np.testing.assert_array_equal(full_bgr[..., ::-1], upright)
    np.testing.assert_allclose(small_rgb, upright[::2, ::2], atol=3)
    np.testing.assert_array_equal(converter.picture_bgr(frame, degrees, 64)[..., ::-1], upright)
    np.testing.assert_allclose(converter.picture_bgr(frame, degrees, 32)[..., ::-1], upright[::2, ::2], atol=3)
    assert turned(frame.width, frame.height, degrees) == (64, 48)


def test_letterbox_bars_are_black_also_in_used_memory() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((20, 40, 3), 255, np.uint8), "rgb24")
    out_hwc = np.full((32, 32, 3), 99, np.uint8)
    PixelConverter().write_input(frame, 0, out_hwc, "letterbox")
    assert (out_hwc[:8] == 0).all()
    assert (out_hwc[8:24] == 255).all()
    assert (out_hwc[24:] == 0).all()


def test_shrinking_averages_every_pixel() -> None:
    """Against the plain mean of each block: a sampler that skips pixels would flicker on small objects."""
    noise = np.random.default_rng(0).integers(0, 256, (192, 256, 3), np.uint8)
    small_rgb = np.empty((48, 64, 3), np.uint8)
    PixelConverter().write_input(av.VideoFrame.from_ndarray(noise, "rgb24"), 0, small_rgb)
    # On the way four pixels share their chroma: compare brightness.
    weights = (0.299, 0.587, 0.114)
    means = noise.reshape(48, 4, 64, 4, 3).mean((1, 3)) @ weights
    assert np.abs(small_rgb @ weights - means).max() <= 4


@pytest.mark.parametrize("degrees", [0, 90])
@pytest.mark.parametrize(
    ("size", "most_width", "shown"),
    [
        ((1, 1), 1, (1, 1)),
        ((3, 500), 1, (1, 167)),
        ((700, 1), 3, (3, 1)),
        ((641, 481), 320, (320, 240)),
        ((3840, 2160), 480, (480, 270)),
        ((640, 480), 640, (640, 480)),
        ((640, 480), 641, (640, 480)),
        ((641, 480), 640, (640, 479)),
    ],
)
def test_a_picture_is_no_wider_than_it_may_be_and_keeps_its_shape(
    size: tuple[int, int], most_width: int, shown: tuple[int, int], degrees: int
) -> None:
    frame = av.VideoFrame(*turned(*size, degrees), "yuv420p")
    assert PixelConverter().picture_bgr(frame, degrees, most_width).shape == (*shown[::-1], 3)


def test_the_caller_may_own_any_strides() -> None:
    frame = av.VideoFrame.from_ndarray(red_corner(33, 21), "rgb24")
    padded = np.zeros((21, 40, 3), np.uint8)
    PixelConverter().write_bgr(frame, 0, padded[:, :33])
    np.testing.assert_array_equal(padded[:, :33, ::-1], red_corner(33, 21))
    assert not padded[:, 33:].any()


def test_one_converter_follows_changing_frames() -> None:
    converter, out_hwc = PixelConverter(), np.empty((16, 16, 3), np.uint8)
    for width, height, pixel_format, level in [(64, 48, "yuv420p", 90), (7, 5, "rgb24", 20), (64, 48, "nv12", 200)]:
        grey = av.VideoFrame.from_ndarray(np.full((height, width, 3), level, np.uint8), "rgb24")
        converter.write_input(grey.reformat(format=pixel_format), 0, out_hwc)
        assert np.abs(out_hwc.astype(int) - level).max() <= 2


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs \(48, 64, 3\), got \(64, 48, 3\)"):
        PixelConverter().write_bgr(av.VideoFrame(64, 48, "rgb24"), 0, np.empty((64, 48, 3), np.uint8))
