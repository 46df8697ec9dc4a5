"""The bar code is read after everything that a picture goes through, and is never read wrong."""

import io

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.places import CLIP
from tests.whole.witness import barcode
from tests.whole.witness.barcode import Code

NUMBERS = st.integers(0, 2**32 - 1)
SOURCES = st.integers(0, 255)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """People on a street, 320 × 240 BGR."""
    with av.open(str(CLIP)) as clip:
        return next(clip.decode(video=0)).to_ndarray(width=320, height=240, format="bgr24")


def coded(scene: np.ndarray, source: int = 3, number: int = 123_456_789) -> np.ndarray:
    picture = scene.copy()
    barcode.draw(picture, source, number)
    return picture


def through_h264(pictures: list[np.ndarray], crf: int) -> list[np.ndarray]:
    height, width = pictures[0].shape[:2]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": str(crf), "preset": "ultrafast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@given(source=SOURCES, number=NUMBERS)
def test_any_number_comes_back(scene, source, number) -> None:
    picture = coded(scene, source, number)
    assert barcode.read(picture) == Code(source, number)
    assert barcode.read(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)) == Code(source, number)
    assert not barcode.is_grey(picture)


@given(number=NUMBERS, scale=st.floats(0.5, 2.0), quality=st.integers(20, 95), seed=st.integers(0, 99))
def test_noise_scaling_and_jpeg_leave_it_readable(scene, number, scale, quality, seed) -> None:
    noise = np.random.default_rng(seed).normal(0, 25, scene.shape)
    picture = np.clip(coded(scene, 7, number) + noise, 0, 255).astype(np.uint8)
    scaled = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", scaled, [cv2.IMWRITE_JPEG_QUALITY, quality])
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert barcode.read(picture) == Code(7, number) and not barcode.is_grey(picture)


def test_two_encoders_of_low_quality_leave_it_readable(scene) -> None:
    numbers = [1_000_003 * i for i in range(30)]
    pictures = through_h264(through_h264([coded(scene, 1, number) for number in numbers], crf=38), crf=38)
    assert [barcode.read(picture) for picture in pictures] == [Code(1, number) for number in numbers]
    assert not any(map(barcode.is_grey, pictures))


@given(number=NUMBERS, places=st.lists(st.tuples(st.integers(0, 260), st.integers(0, 220)), max_size=4))
def test_outlines_over_it_do_not_matter(scene, number, places) -> None:
    picture = coded(scene, 1, number)
    for left, top in places:
        cv2.rectangle(picture, (left, top), (left + 50, top + 90), (40, 225, 255), 1)
    assert barcode.read(picture) == Code(1, number)


@given(number=NUMBERS, left=st.integers(0, 220), row=st.sampled_from(barcode.STRIP_ROWS))
def test_a_label_over_one_strip_does_not_matter(scene, number, left, row) -> None:
    picture = coded(scene, 1, number)
    cv2.rectangle(picture, (left, row * 8), (left + 100, row * 8 + 16), (40, 225, 255), -1)
    assert barcode.read(picture) == Code(1, number)


@given(number=NUMBERS, blocks=st.lists(st.tuples(st.integers(0, 300), st.integers(0, 220), st.integers(0, 255))))
def test_whatever_is_hidden_nothing_wrong_is_read(scene, number, blocks) -> None:
    picture = coded(scene, 1, number)
    for left, top, level in blocks:
        picture[top : top + 40, left : left + 120] = level
    assert barcode.read(picture) in (Code(1, number), None)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_picture_without_a_code_has_none(scene, seed) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, scene.shape, np.uint8)
    assert barcode.read(noise) is None and barcode.is_grey(noise)
    assert barcode.read(scene) is None and barcode.is_grey(scene)


@pytest.mark.parametrize("level", [0, 24, 128, 232, 255])
def test_an_even_picture_has_none(scene, level) -> None:
    assert barcode.read(np.full_like(scene, level)) is None


def test_half_of_one_picture_and_half_of_the_next_are_no_wrong_number(scene) -> None:
    first, second = coded(scene, number=1), coded(scene, number=2)
    for row in range(0, 240, 4):
        torn = np.concatenate([first[:row], second[row:]])
        assert barcode.read(torn) in (Code(3, 1), Code(3, 2), None)


def test_a_greyed_picture_is_told_from_a_frame(scene) -> None:
    grey = cv2.cvtColor(cv2.cvtColor(coded(scene, 3, 5), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    [shown] = through_h264([grey], crf=23)
    assert barcode.read(shown) == Code(3, 5) and barcode.is_grey(shown)
