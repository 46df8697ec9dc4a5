"""Pictures that live, stand still or are empty: made ones, and what real encoders make of a still scene with noise."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.sources.watch import PictureWatch, luma_samples
from tests.kit import media
from tests.kit.places import CLIP

SIZE_HW = (108, 192)
FROZEN, GREY, RATE = 4.0, 1.5, 10
Samples = NDArray[np.uint8]


@pytest.fixture(scope="module")
def scene() -> NDArray[np.uint8]:
    """A picture from the street, RGB."""
    return next(street())


def street() -> Iterator[NDArray[np.uint8]]:
    """People walk; (H, W, 3) RGB."""
    with av.open(str(CLIP)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def with_noise(picture: NDArray[np.uint8], levels: float, seed: int) -> NDArray[np.uint8]:
    """The noise of a camera's sensor."""
    noise = np.random.default_rng(seed).normal(0, levels, (*picture.shape[:2], *(1,) * (picture.ndim - 2)))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def states(pictures: list[Samples], frozen: float = FROZEN, grey: float = GREY, is_key: bool = False) -> str:
    """The first letter of the state at each picture, ten a second."""
    watch = PictureWatch(frozen, grey)
    return "".join(watch.look(picture, is_key, n / RATE).state[0] for n, picture in enumerate(pictures))


def busy(seed: int = 0) -> Samples:
    return np.random.default_rng(seed).integers(0, 256, SIZE_HW, np.uint8).repeat(4, 0).repeat(4, 1)[:108, :192]


def flat(level: int) -> Samples:
    return np.full(SIZE_HW, level, np.uint8)


def lettering(picture: Samples, seed: int) -> Samples:
    """A clock in the corner."""
    written = picture.copy()
    written[4:8, 4:40] = np.random.default_rng(seed).integers(0, 2, (4, 36), np.uint8) * 255
    return written


# pictures → states
PICTURES: dict[str, tuple[list[Samples], str]] = {
    "another each time": ([busy(n) for n in range(60)], "l" * 60),
    "one for ever": ([busy()] * 60, "l" * 40 + "f" * 20),
    "one for a while": ([busy()] * 50 + [busy(1)] * 20, "l" * 40 + "f" * 10 + "l" * 20),
    "noise in a still scene": ([with_noise(busy(), 1.5, n) for n in range(60)], "l" * 60),
    "a clock that ticks on a still": ([lettering(busy(), n // 10) for n in range(80)], "l" * 80),
    "nothing": ([flat(128)] * 60, "l" * 15 + "g" * 45),
    "noise under a covered lens": ([with_noise(flat(20), 4, n) for n in range(60)], "l" * 15 + "g" * 45),
    "a clock on a covered lens": ([lettering(flat(16), n) for n in range(60)], "l" * 15 + "g" * 45),
    "a flash": ([busy(n) for n in range(9)] + [flat(255)] * 9 + [busy(n) for n in range(9)], "l" * 27),
    "covered, and not": ([flat(0)] * 20 + [busy(n) for n in range(5)], "l" * 15 + "g" * 5 + "l" * 5),
    "a slow dawn": ([np.clip(busy() // 2 + n, 0, 255).astype(np.uint8) for n in range(60)], "l" * 60),
}


@pytest.mark.parametrize(("pictures", "expected"), PICTURES.values(), ids=PICTURES)
def test_what_is_seen(pictures: list[Samples], expected: str) -> None:
    assert states(pictures) == expected


def test_since_when_it_is_so() -> None:
    watch = PictureWatch(FROZEN, GREY)
    views = [watch.look(busy(min(n, 7)), False, n / RATE) for n in range(60)]
    assert (views[7].state, views[-1].state, views[-1].since_seconds) == ("live", "frozen", 0.7)


def test_each_is_off_at_0() -> None:
    assert states([flat(128)] * 90, grey=0) == "l" * 40 + "f" * 50
    assert states([flat(128)] * 90, frozen=0, grey=0) == "l" * 90


def test_a_frozen_picture_with_noise_again_lives() -> None:
    pictures = [busy()] * 60 + [with_noise(busy(), 2, n) for n in range(30)]
    seen_states = states(pictures)
    assert (seen_states[40:60], seen_states[-15:]) == ("f" * 20, "l" * 15)


def test_a_time_in_which_nothing_came_is_no_time_without_life() -> None:
    """The key frame that ends it looks like the picture before it, and its noise counts for nothing."""
    watch = PictureWatch(FROZEN, GREY)
    for n in range(30):
        watch.look(with_noise(busy(), 2, n), n % 10 == 0, n / RATE)
    assert watch.look(with_noise(busy(), 2, 30), True, 60.0).state == "live"


def test_another_size_is_another_picture() -> None:
    assert states([busy()] * 45 + [busy()[:60]] * 5) == "l" * 40 + "f" * 5 + "l" * 5


@given(
    side=st.tuples(st.integers(1, 40), st.integers(1, 40)), levels=st.lists(st.integers(0, 255), min_size=2, max_size=9)
)
def test_every_size_can_be_looked_at(side: tuple[int, int], levels: list[int]) -> None:
    assert len(states([np.full(side, level, np.uint8) for level in levels])) == len(levels)


ENCODERS = {
    "crf": {"crf": "23", "g": "20"},
    "strong": {"crf": "32", "g": "20"},
    "a bit rate": {"b": "400000", "g": "20"},
    "quick": {"preset": "ultrafast", "g": "20", "crf": "28"},
}


def seen(path: Path) -> str:
    watch = PictureWatch(FROZEN, GREY)
    with av.open(str(path)) as container:
        frames = enumerate(container.decode(video=0))
        return "".join(watch.look(luma_samples(f), bool(f.key_frame), n / RATE).state[0] for n, f in frames)


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_a_picture_that_is_repeated_is_frozen_though_its_key_frames_are_coded_anew(
    options: dict[str, str], scene: NDArray[np.uint8], tmp_path: Path
) -> None:
    assert seen(media.write_video(tmp_path / "a.mkv", [scene] * 60, options=options)) == "l" * 40 + "f" * 20


@pytest.mark.parametrize("count", [60, 66, 72, 78])
def test_a_still_that_is_polished_after_each_of_many_key_frames_is_frozen(count: int, tmp_path: Path) -> None:
    """In five of ten pictures a second something changes, for as long as it stands."""
    quick = {"preset": "ultrafast", "tune": "zerolatency", "crf": "28", "g": "10"}
    moving = [cv2.resize(picture[100:460, 150:630], (320, 240)) for picture in islice(street(), 0, count, 2)]
    states_seen = seen(media.write_video(tmp_path / "a.mkv", moving + [moving[-1]] * 90, options=quick))
    assert set(states_seen[: len(moving) + 35]) == {"l"}
    assert set(states_seen[len(moving) + 45 :]) == {"f"}


@pytest.mark.parametrize("options", ENCODERS.values(), ids=ENCODERS)
def test_the_noise_of_a_camera_in_a_still_scene_is_life(
    options: dict[str, str], scene: NDArray[np.uint8], tmp_path: Path
) -> None:
    pictures = [with_noise(scene, 3, seed) for seed in range(60)]
    assert seen(media.write_video(tmp_path / "a.mkv", pictures, options=options)) == "l" * 60


def test_motion_jpeg_has_key_frames_alone(scene: NDArray[np.uint8], tmp_path: Path) -> None:
    noisy = [with_noise(scene, 3, seed) for seed in range(60)]
    same = {"qmin": "5", "qmax": "5"}
    still = media.write_video(tmp_path / "still.avi", [scene] * 60, "mjpeg", "yuvj420p", options=same)
    alive = media.write_video(tmp_path / "alive.avi", noisy, "mjpeg", "yuvj420p", options=same)
    assert (seen(still), seen(alive)) == ("l" * 40 + "f" * 20, "l" * 60)


@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuvj422p", "nv12", "yuyv422", "uyvy422", "yuv420p10le", "gray", "bgr0", "rgb24"]
)
def test_samples_are_the_luma_of_any_format(pixel_format: str) -> None:
    ramp = np.arange(640, dtype=np.float32) * 200 / 640 + 20
    picture = np.broadcast_to(ramp[None, :, None], (480, 640, 3)).astype(np.uint8)
    samples = luma_samples(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24").reformat(format=pixel_format)
    )
    assert samples.dtype == np.uint8 and 20_000 < samples.size < 45_000
    assert samples[:, 0].mean() == pytest.approx(30, abs=12)
    assert samples[:, -1].mean() == pytest.approx(212, abs=14)
    assert np.diff(samples.astype(int).mean(0)).min() > -1
