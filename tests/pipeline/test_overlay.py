"""The overlay draws what it should where it should, never fails, and forgets what is gone."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow.detections import Detections
from pipeline.flow.events import LineCount, ZoneCount
from pipeline.flow.results import FrameResult
from pipeline.overlay import (
    MAX_SOURCES,
    NEUTRAL,
    TRAIL_SECONDS,
    TRAIL_STEP_SECONDS,
    Overlay,
    clock,
    track_colour,
)
from pipeline.shapes import Layout, Line, Zone

GREY = 90
# In the lower half of the picture, and from top to bottom of it: forward is to the left.
YARD = Zone(((0.25, 0.5), (0.75, 0.5), (0.75, 0.875), (0.25, 0.875)))
GATE = Line(((0.5, 0.25), (0.5, 1.0)))


def picture(height: int = 240, width: int = 320) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def result(
    boxes: list[tuple[float, float, float, float]] = (),  # type: ignore[assignment]
    *,
    tracks: list[int] | None = None,
    scores: list[float] | None = None,
    predicted: bool = False,
    seconds: float = 12.3,
    source_id: str = "door",
    failure: str | None = None,
    **more: Any,
) -> FrameResult:
    count = len(boxes)
    return FrameResult(
        source_id=source_id,
        seq=round(seconds * 10),
        pts_seconds=seconds,
        captured_unix=1.7e9,
        width=320,
        height=240,
        clock="arrival",
        failure=failure,
        dropped=None,
        predicted=False,
        latency_ms=20.0,
        detections=Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(scores or [0.9] * count, np.float32),
            np.zeros(count, np.int32),
            np.array(tracks or [0] * count, np.int32),
            np.full(count, predicted),
        ),
        score_threshold=0.5,
        class_names=("person",),
        frames_per_second=10.0,
        **more,
    )


def drawn(frame: FrameResult, height: int = 240, width: int = 320) -> np.ndarray:
    image = picture(height, width)
    Overlay().draw(image, frame)
    return image


def changed(image: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.any(image != other, axis=2)


def test_an_empty_scene_changes_only_the_info_line_at_the_top_left() -> None:
    touched = changed(drawn(result()), picture())
    assert touched[:20, :40].any()
    assert not touched[30:].any()


def test_a_tracked_box_is_drawn_on_its_edges_in_its_colour_and_not_inside() -> None:
    image = drawn(result([(100, 80, 180, 200)], tracks=[7]))
    for y, x in [(80, 140), (200, 140), (140, 100), (140, 180)]:
        assert tuple(image[y, x]) == track_colour(7)
    assert (image[100:190, 110:170] == GREY).all()


def test_the_label_stands_above_the_box_in_its_colour() -> None:
    image = drawn(result([(100, 80, 180, 200)], tracks=[7]))
    background = np.array([GREY // 4 + channel * 3 // 4 for channel in track_colour(7)])
    assert np.abs(image[70:78, 100:103].astype(int) - background).max() <= 2


@pytest.mark.parametrize("top", [-50, 0, 5, 465])
def test_the_label_stays_inside_the_picture_wherever_the_box_is(top: int) -> None:
    def letters(box: tuple[float, float, float, float]) -> int:
        return int((drawn(result([box], tracks=[7]), 480, 640).max(axis=2) < 30).sum())  # only labels are that dark

    assert letters((600, top, 660, top + 900)) == letters((100, 100, 180, 200)) > 20


def test_where_something_was_not_found_its_box_is_dashed() -> None:
    image = drawn(result([(100, 80, 180, 200)], tracks=[7], predicted=True))
    for edge in (image[80, 100:181], image[200, 100:181], image[80:201, 100], image[80:201, 180]):
        is_drawn = (edge == track_colour(7)).all(axis=1)
        assert 0.4 < is_drawn.mean() < 0.9


def test_an_untracked_box_is_neutral() -> None:
    image = drawn(result([(100, 80, 180, 200)]))
    assert tuple(image[140, 100]) == NEUTRAL


@pytest.mark.parametrize(("track", "is_drawn"), [(0, False), (3, True)])
def test_below_the_threshold_only_tracks_are_drawn(track: int, is_drawn: bool) -> None:
    image = drawn(result([(100, 80, 180, 200)], tracks=[track], scores=[0.2]))
    assert changed(image, picture())[140, 100] == is_drawn


def test_a_failure_shows_a_banner_and_no_box() -> None:
    image = drawn(result(failure="the model gave no answer"))
    middle = image[120, 2].astype(int)
    assert middle[2] > middle[0] + 50, "a red band across the middle"
    assert tuple(image[120, 2]) == tuple(image[120, 317])
    assert changed(image, picture())[40:100].sum() == 0


def test_a_long_reason_is_shortened_to_the_picture() -> None:
    image = drawn(result(failure="a reason that does not fit " * 20))
    letters = np.flatnonzero((image[100:140] > 200).all(axis=2).any(axis=0))
    assert 0 < letters[0] < 20
    assert 300 < letters[-1] < 319


def test_crowded_labels_do_not_cover_each_other() -> None:
    """Two boxes on one another: both labels are seen."""
    image = drawn(result([(100, 80, 180, 200), (101, 81, 181, 201)], tracks=[1, 2]))
    for track in (1, 2):
        background = np.array([GREY // 4 + channel * 3 // 4 for channel in track_colour(track)])
        assert (np.abs(image.astype(int) - background).max(axis=2) <= 2).sum() > 200


def test_a_trail_follows_the_bottom_centre_and_fades() -> None:
    overlay = Overlay()
    for step in range(11):
        image = picture()
        x = 60 + 10 * step
        overlay.draw(image, result([(x, 100, x + 20, 160)], tracks=[1], seconds=step / 10))
    touched = changed(image, picture())
    assert touched[160, 75:160].all()
    recent, old = (np.abs(image[160, x].astype(int) - GREY).sum() for x in (155, 75))
    assert recent > old


def test_trails_of_two_sources_do_not_mix() -> None:
    overlay = Overlay()
    overlay.draw(picture(), result([(10, 100, 30, 160)], tracks=[1], seconds=0.0, source_id="left"))
    image = picture()
    overlay.draw(image, result([(200, 100, 220, 160)], tracks=[1], seconds=0.1, source_id="right"))
    assert not changed(image, picture())[155:165, 40:190].any()


def test_a_source_that_starts_again_has_no_trail_from_before() -> None:
    overlay = Overlay()
    overlay.draw(picture(), result([(10, 100, 30, 160)], tracks=[1], seconds=50.0))
    image = picture()
    overlay.draw(image, result([(200, 100, 220, 160)], tracks=[1], seconds=0.0))
    assert not changed(image, picture())[155:165, 40:190].any()


def test_memory_is_bounded_over_many_tracks_frames_and_sources() -> None:
    overlay, image = Overlay(), picture(8, 8)
    for step in range(2000):
        frame = result([(1, 1, 5, 5), (2, 2, 6, 6)], tracks=[1, step + 2], seconds=step / 100)
        overlay.draw(image, frame)
    trails = overlay._trails["door"]
    assert len(trails) <= TRAIL_SECONDS * 100 + 2, "tracks that are gone are forgotten"
    assert max(map(len, trails.values())) <= TRAIL_SECONDS / TRAIL_STEP_SECONDS + 2
    for number in range(3 * MAX_SOURCES):
        overlay.draw(image, result([(1, 1, 5, 5)], tracks=[1], source_id=f"camera {number}"))
    assert len(overlay._trails) == MAX_SOURCES


def test_a_colour_stays_with_its_track_and_neighbours_differ() -> None:
    assert [track_colour(i) for i in range(1, 200)] == [track_colour(i) for i in range(1, 200)]
    for track_id in range(1, 200):
        difference = np.abs(np.subtract(track_colour(track_id), track_colour(track_id + 1)))
        assert difference.max() > 80, track_id


any_number = st.one_of(
    st.floats(-50, 400, width=32),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.sampled_from([math.nan, math.inf, -math.inf, 3.0e38, -3.0e38]),
)


@settings(max_examples=150)
@given(
    height=st.sampled_from([1, 2, 7, 63, 64, 65, 240]),
    width=st.sampled_from([1, 2, 5, 63, 64, 200]),
    frames=st.lists(
        st.lists(st.tuples(any_number, any_number, any_number, any_number), max_size=5), min_size=1, max_size=3
    ),
    failure=st.one_of(st.none(), st.text(max_size=30)),
)
def test_never_fails_and_never_draws_outside(height, width, frames, failure) -> None:  # type: ignore[no-untyped-def]
    room = np.full((height + 2, width, 3), 77, np.uint8)
    overlay = Overlay()
    for step, boxes in enumerate(frames):
        tracks = [index % 3 for index in range(len(boxes))]
        overlay.draw(room[1:-1], result(boxes, tracks=tracks, seconds=step / 2))
    overlay.draw(room[1:-1], result(failure=failure))
    assert (room[0] == 77).all()
    assert (room[-1] == 77).all()


@pytest.mark.parametrize(
    "box", [(-50, -50, -10, -10), (400, 10, 500, 90), (10, 300, 90, 400), (math.nan, 0, 50, 50), (-9, -9, 999, 999)]
)
def test_a_box_of_which_no_edge_is_inside_leaves_no_line(box: tuple[float, ...]) -> None:
    image = drawn(result([box], tracks=[1]))  # type: ignore[list-item]
    assert (image[40:, 120:] == GREY).all()


def test_a_zone_is_drawn_on_its_edge_thin_and_not_inside() -> None:
    image = drawn(result(layout=Layout({"yard": YARD})))
    for y, x in [(120, 160), (209, 160), (160, 80), (160, 239)]:
        assert image[y, x].min() > 200
    assert (image[125:200, 90:230] == GREY).all()


def test_a_line_has_an_arrow_to_where_forward_is() -> None:
    left, right = (slice(60, 240), slice(140, 157)), (slice(60, 240), slice(164, 200))
    image = drawn(result(layout=Layout(lines={"gate": GATE})))
    assert image[200, 160].min() > 200
    assert changed(image, picture())[left].sum() > 20 and not changed(image, picture())[right].any()
    turned = drawn(result(layout=Layout(lines={"gate": Line(GATE.points[::-1])})))
    assert changed(turned, picture())[right].sum() > 20 and not changed(turned, picture())[left].any()


def written(frame: FrameResult) -> int:
    """White pixels of the labels, which stand on a dark ground, above the zone and beside the line's upper end."""
    image = drawn(frame, 480, 640)
    return int((image[60:240].min(axis=2) > 200).sum())


def test_counts_are_written_beside_zones_and_lines() -> None:
    of_zone, of_line = Layout({"yard": YARD}), Layout(lines={"gate": GATE})
    none, few = ZoneCount({}), ZoneCount({"car": 1, "person": 2})
    assert written(result()) == 0
    assert written(result(layout=of_zone, zones={"yard": none})) > 0
    assert written(result(layout=of_zone, zones={"yard": none})) < written(result(layout=of_zone, zones={"yard": few}))
    ones, more = LineCount({"person": 1}, {}), LineCount({"person": 88}, {"car": 88})
    assert written(result(layout=of_line, lines={"gate": ones})) < written(result(layout=of_line, lines={"gate": more}))


def test_labels_of_objects_leave_room_for_the_counts() -> None:
    frame = result(layout=Layout({"yard": YARD}), zones={"yard": ZoneCount({"person": 1})})
    beside = result(
        [(160, 240, 200, 300)], tracks=[7], layout=Layout({"yard": YARD}), zones={"yard": ZoneCount({"person": 1})}
    )
    assert (drawn(frame, 480, 640)[222:236, 162:200] == drawn(beside, 480, 640)[222:236, 162:200]).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 1), (7, 5), (64, 64), (65, 200)])
def test_zones_and_lines_fit_into_every_picture(height: int, width: int) -> None:
    edge = Zone(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)))
    across = Line(((0.0, 1.0), (1.0, 0.0)))
    room = np.full((height + 2, width, 3), 77, np.uint8)
    Overlay().draw(room[1:-1], result(layout=Layout({"all": edge}, {"across": across})))
    assert (room[0] == 77).all() and (room[-1] == 77).all()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "00:00.0"),
        (12.3, "00:12.3"),
        (59.99, "00:59.9"),
        (73.9, "01:13.9"),
        (3612.3, "1:00:12.3"),
        (-1.5, "-00:01.5"),
        (math.nan, "--:--"),
        (math.inf, "--:--"),
    ],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
