"""What looks the same: noise is no change, somebody small is, and what is slow adds up; and what an audit counts."""

from collections.abc import Iterator
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.flow.detections import Detections
from pipeline.flow.messages import Audit
from pipeline.kernels.tiles import block_sums, tile_changes
from pipeline.sources.pixels import PixelConverter
from pipeline.still import Scene, audit, is_still
from tests.kit.places import CLIP
from tests.kit.still import STANDING, WALKING, write_still_clip

SIDE = 256
PERSON_WIDE, PERSON_HIGH = 12, 30  # far away, in pixels of the input


def street(seed: int = 0) -> NDArray[np.float64]:
    """Something with edges and areas, of levels that noise does not clip."""
    random = np.random.default_rng(seed)
    return np.kron(random.integers(70, 180, (SIDE // 32, SIDE // 32, 3)), np.ones((32, 32, 1)))


def seen(scene_hwc: NDArray[np.float64], noise_levels: float = 0.0, seed: int = 1) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, noise_levels, scene_hwc.shape)
    return np.clip(scene_hwc + noise, 0, 255).round().astype(np.uint8)


def with_person(scene_hwc: NDArray[np.float64], x: int, y: int, contrast: float) -> NDArray[np.float64]:
    scene_hwc = scene_hwc.copy()
    scene_hwc[y : y + PERSON_HIGH, x : x + PERSON_WIDE] += contrast
    return scene_hwc


def looks_same(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return is_still(tile_changes(block_sums(one), block_sums(other), *one.shape[:2]))


# --- the test --------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.floats(0, 15), st.integers(0, 10_000))
def test_a_cameras_noise_is_no_change(noise_levels: float, seed: int) -> None:
    assert looks_same(seen(street(), noise_levels, 2 * seed), seen(street(), noise_levels, 2 * seed + 1))


@settings(max_examples=60)
@given(
    st.integers(8, SIDE - PERSON_WIDE - 8),
    st.integers(0, SIDE - PERSON_HIGH),
    st.sampled_from([-60, -30, 30, 60]),
    st.floats(0, 4),
    st.sampled_from([-6, -4, 4, 6]),
)
def test_a_small_person_who_has_gone_a_third_of_the_own_width_is_one(
    x: int, y: int, contrast: float, noise_levels: float, step: int
) -> None:
    before = seen(with_person(street(), x, y, contrast), noise_levels, 1)
    after = seen(with_person(street(), x + step, y, contrast), noise_levels, 2)
    assert not looks_same(before, after)


@settings(max_examples=30)
@given(st.integers(8, SIDE - PERSON_WIDE - 8), st.integers(0, SIDE - PERSON_HIGH), st.sampled_from([-16, 16]))
def test_where_there_is_no_noise_less_contrast_is_enough(x: int, y: int, contrast: float) -> None:
    before, after = (seen(with_person(street(), x + step, y, contrast)) for step in (0, 4))
    assert not looks_same(before, after)


@settings(max_examples=30)
@given(st.integers(0, SIDE - PERSON_WIDE), st.integers(0, SIDE - PERSON_HIGH), st.floats(0, 5))
def test_a_small_person_who_comes_or_goes_is_one(x: int, y: int, noise_levels: float) -> None:
    without, with_one = seen(street(), noise_levels, 1), seen(with_person(street(), x, y, 25), noise_levels, 2)
    assert not looks_same(without, with_one) and not looks_same(with_one, without)


def test_somebody_of_the_backgrounds_brightness_is_seen_by_the_colour() -> None:
    coloured = street()
    coloured[100:130, 100:112] += (60, -30, -30)
    assert not looks_same(seen(street()), seen(coloured))


@pytest.mark.parametrize("levels", [-20, 20])
def test_light_that_goes_on_everywhere_is_one_though_no_tile_differs_from_the_others(levels: int) -> None:
    assert not looks_same(seen(street(), 2, 1), seen(street() + levels, 2, 2))


def inputs(path, width: int = 512) -> Iterator[NDArray[np.uint8]]:
    converter = PixelConverter()
    with av.open(str(path)) as video:
        for frame in video.decode(video=0):
            picture = np.empty((512, width, 3), np.uint8)
            converter.write_input(frame, 0, picture)
            yield picture


@pytest.mark.parametrize("noise_levels", [1, 4, 8])
def test_real_people_who_stand_are_none_through_noise_and_codec_and_each_step_is(noise_levels: float, tmp_path) -> None:
    frames = STANDING // 3 + WALKING
    path = write_still_clip(tmp_path / "still.mp4", frames, noise_levels, standing=STANDING // 3)
    sums = [block_sums(picture) for picture in inputs(path)]
    same = [is_still(tile_changes(sums[seq], sums[seq - 1], 512, 512)) for seq in range(1, frames)]
    # The codec sharpens its first pictures step by step.
    assert all(same[4 : STANDING // 3 - 1]) and not any(same[STANDING // 3 - 1 :])
    to_first = [is_still(tile_changes(sums[seq], sums[4], 512, 512)) for seq in range(5, STANDING // 3)]
    assert all(to_first)


def test_on_a_street_where_people_walk_no_frame_is_as_the_one_before() -> None:
    sums = [block_sums(picture) for picture in inputs(CLIP)]
    assert not any(is_still(tile_changes(sums[seq], sums[seq - 1], 512, 512)) for seq in range(1, len(sums)))


# --- a source --------------------------------------------------------------------------------------------------------


def looked_at(scene: Scene, seq: int, picture: NDArray[np.uint8], without_result: int = 0) -> int | None:
    """As gather does it: what does not take over is computed."""
    before = scene.as_computed(seq, picture, without_result)
    if before is None:
        scene.compute(seq)
    return before


def test_a_frame_takes_over_from_the_last_computed_one_and_so_many_in_a_row() -> None:
    scene, picture = Scene(3, None), seen(street())
    assert [looked_at(scene, seq, picture) for seq in range(10)] == [None, 0, 0, 0, None, 4, 4, 4, None, 8]


def test_a_change_is_computed_and_taken_over_from_after_that() -> None:
    scene, empty, person = Scene(100, None), seen(street()), seen(with_person(street(), 50, 50, 40))
    came = [looked_at(scene, seq, picture) for seq, picture in enumerate([empty, empty, person, person, empty, empty])]
    assert came == [None, 0, None, 2, None, 4]


def test_what_is_too_slow_to_be_seen_from_frame_to_frame_adds_up() -> None:
    """Each step is one grey level of a person who fades in: none of it is a change, four of them are."""
    scene = Scene(1000, None)
    pictures = [seen(with_person(street(), 50, 50, level)) for level in range(0, 60, 2)]
    assert all(looks_same(one, other) for one, other in pairwise(pictures))
    came = [looked_at(scene, seq, picture) for seq, picture in enumerate(pictures)]
    computed = [seq for seq, before in enumerate(came) if before is None]
    assert len(computed) > 4
    assert all(1 < later - earlier < 8 for earlier, later in pairwise(computed))


def test_nothing_is_taken_over_from_before_a_change_of_the_source() -> None:
    """It is told as soon as it is known, and frames before it may still wait."""
    scene, picture = Scene(100, None), seen(street())
    assert looked_at(scene, 0, picture) is None
    scene.change(3)
    scene.change(5)
    assert [looked_at(scene, seq, picture) for seq in (1, 2, 3, 4, 5, 6)] == [0, 0, None, 3, None, 5]


def test_nothing_is_taken_over_once_a_frame_had_no_result() -> None:
    scene, picture = Scene(100, None), seen(street())
    came = [looked_at(scene, seq, picture, lost) for seq, lost in enumerate([0, 0, 1, 1, 1, 2])]
    assert came == [None, 0, None, 2, 2, None]


def test_a_frame_is_looked_at_once() -> None:
    """It had changed, and waits for its turn."""
    scene, picture = Scene(100, None), seen(street())
    looked_at(scene, 0, picture)
    changed = seen(with_person(street(), 50, 50, 40))
    assert scene.as_computed(1, changed, 0) is None and scene.as_computed(1, picture, 0) is None
    scene.compute(1)
    assert looked_at(scene, 2, changed) == 1


def test_one_in_so_many_is_audited_and_changes_nothing_for_the_others() -> None:
    scene, picture = Scene(4, 3), seen(street())
    came, audited = [], []
    for seq in range(12):
        before = looked_at(scene, seq, picture)
        came.append(before)
        if before is not None and scene.is_audited():
            audited.append(seq)
    assert came == [None, 0, 0, 0, 0, None, 5, 5, 5, 5, None, 10]
    assert audited == [3, 7, 11]


def test_none_is_audited_where_none_is_asked_for() -> None:
    scene = Scene(4, None)
    assert not any(scene.is_audited() for _ in range(1000))


# --- the audit -------------------------------------------------------------------------------------------------------


def found(*rows: tuple[float, float, int]) -> Detections:
    """Left edge, score and class of boxes 40 x 100."""
    lefts = np.array([row[0] for row in rows], np.float32)
    boxes = np.stack([lefts, 0 * lefts + 50, lefts + 40, 0 * lefts + 150], axis=1)
    return Detections.untracked(
        boxes.reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )


PERSON, CAR = 0, 1


@pytest.mark.parametrize(
    ("name", "now", "before", "expected"),
    [
        ("nothing there", found(), found(), (0, 0)),
        ("all there", found((100, 0.9, PERSON), (300, 0.5, CAR)), found((300, 0.5, CAR), (100, 0.8, PERSON)), (2, 0)),
        ("one came", found((100, 0.9, PERSON), (300, 0.5, PERSON)), found((100, 0.9, PERSON)), (2, 1)),
        ("nothing was there", found((100, 0.9, PERSON)), found(), (1, 1)),
        ("one went, and nothing is missed", found(), found((100, 0.9, PERSON)), (0, 0)),
        ("of another class", found((100, 0.9, PERSON)), found((100, 0.9, CAR)), (1, 1)),
        ("went a quarter of the width, IoU 0.6", found((110, 0.9, PERSON)), found((100, 0.9, PERSON)), (1, 0)),
        ("went half the width, IoU 0.33", found((120, 0.9, PERSON)), found((100, 0.9, PERSON)), (1, 1)),
        ("half over: IoU is 0.5", found((0, 0.9, PERSON)), found((40 / 3, 0.9, PERSON)), (1, 0)),
        ("no object now", found((100, 0.29, PERSON)), found(), (0, 0)),
        ("just an object", found((100, 0.3, PERSON)), found((100, 0.11, PERSON)), (1, 0)),
        ("two where one was", found((100, 0.9, PERSON), (108, 0.8, PERSON)), found((104, 0.9, PERSON)), (2, 1)),
        ("a second peak on one", found((104, 0.8, PERSON), (100, 0.9, PERSON)), found((102, 0.9, PERSON)), (1, 0)),
        ("one peak as good as the other", found((100, 0.9, PERSON), (104, 0.9, PERSON)), found(), (1, 1)),
        ("two classes on one", found((100, 0.9, PERSON), (104, 0.8, CAR)), found((102, 0.9, PERSON)), (2, 1)),
    ],
)
def test_an_audit_counts_what_none_of_the_earlier_ones_matches(name, now, before, expected) -> None:
    assert audit(now, before, 0.3) == Audit(*expected), name
