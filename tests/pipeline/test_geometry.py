"""A point of the frame, put into the input and taken back, is where it was; letterbox keeps the aspect ratio."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import fit_input

SIZES = st.integers(1, 8192)
INPUTS = st.integers(1, 2048)


@pytest.mark.parametrize(
    ("source", "target", "resize", "rectangle", "affine"),
    [
        ((1, 1), (1, 1), "stretch", (0, 0, 1, 1), (1, 1, 0, 0)),
        ((1024, 512), (512, 512), "stretch", (0, 0, 512, 512), (2, 1, 0, 0)),
        ((1024, 512), (512, 512), "letterbox", (0, 128, 512, 256), (2, 2, 0, -256)),
        ((256, 512), (512, 512), "letterbox", (128, 0, 256, 512), (1, 1, -128, 0)),
        ((10, 5), (512, 512), "letterbox", (0, 128, 512, 256), (10 / 512, 5 / 256, 0, -2.5)),
        ((8000, 1), (512, 512), "letterbox", (0, 255, 512, 1), (15.625, 1, 0, -255)),
    ],
)
def test_known_geometries(source, target, resize, rectangle, affine) -> None:  # type: ignore[no-untyped-def]
    box = fit_input(*source, *target, resize)
    assert (box.left, box.top, box.width, box.height) == rectangle
    assert box.affine == pytest.approx(affine)


@given(SIZES, SIZES, INPUTS, INPUTS, st.sampled_from(["stretch", "letterbox"]))
def test_the_rectangle_lies_in_the_input_and_maps_onto_the_whole_frame(
    source_width: int, source_height: int, input_width: int, input_height: int, resize: str
) -> None:
    box = fit_input(source_width, source_height, input_width, input_height, resize)  # type: ignore[arg-type]
    assert 0 <= box.left < box.left + box.width <= input_width
    assert 0 <= box.top < box.top + box.height <= input_height
    scale_x, scale_y, shift_x, shift_y = box.affine
    assert box.left * scale_x + shift_x == pytest.approx(0, abs=1e-6)
    assert box.top * scale_y + shift_y == pytest.approx(0, abs=1e-6)
    assert (box.left + box.width) * scale_x + shift_x == pytest.approx(source_width)
    assert (box.top + box.height) * scale_y + shift_y == pytest.approx(source_height)


@given(st.integers(100, 8192), st.integers(100, 8192))
def test_letterbox_fills_one_side_and_keeps_the_aspect_ratio(source_width: int, source_height: int) -> None:
    box = fit_input(source_width, source_height, 512, 512, "letterbox")
    assert max(box.width, box.height) == 512
    assert box.width * source_height / source_width == pytest.approx(
        box.height, abs=0.500001 * max(1, source_height / source_width)
    )


@pytest.mark.parametrize(
    ("sizes", "resize", "message"),
    [
        ((0, 4, 4, 4), "stretch", "at least 1x1, got 0x4 into 4x4"),
        ((4, 4, 4, 4), "crop", "must be 'stretch' or 'letterbox', got 'crop'"),
    ],
)
def test_what_cannot_be_fitted(sizes: tuple[int, int, int, int], resize: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_input(*sizes, resize)  # type: ignore[arg-type]


@given(SIZES, SIZES, INPUTS, INPUTS, st.sampled_from(["stretch", "letterbox"]), st.sampled_from([1, 4, 8]))
def test_the_cells_that_a_frame_touches_cover_it_and_no_more(
    source_width: int, source_height: int, input_width: int, input_height: int, resize: str, stride: int
) -> None:
    box = fit_input(source_width, source_height, input_width, input_height, resize)  # type: ignore[arg-type]
    columns, rows = -(-input_width // stride), -(-input_height // stride)
    left, top, right, bottom = box.cells(stride, columns, rows)
    assert 0 <= left < right <= columns and 0 <= top < bottom <= rows
    x0, y0, x1, y1 = box.to_source(stride * left, stride * top, stride * right, stride * bottom)
    cell_width, cell_height = stride * box.scale_x, stride * box.scale_y
    rounding = 1e-6 * (source_width + source_height)
    for beyond, cell in ((-x0, cell_width), (-y0, cell_height), (x1 - source_width, cell_width)):
        assert -rounding <= beyond < cell + rounding
    assert -rounding <= y1 - source_height < cell_height + rounding
