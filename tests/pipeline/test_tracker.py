"""A track's life: birth, confirmation, loss, re-finding, death; and whom it is never given to."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.settings import TrackerSettings
from pipeline.tracker import ByteTracker
from tests.kit.plain_tracker import PlainTracker

PERSON, CAR = 0, 2
FRAMES_PER_SECOND = 10.0
LOST_FRAMES = 10  # the default second at this rate

Object = tuple[float, float, float, int]  # centre x, centre y, score, class


def detections(*objects: Object) -> Detections:
    """Boxes 40 wide and 100 high around the given centres."""
    table = np.array(objects, np.float64).reshape(-1, 4)
    x, y = table[:, 0], table[:, 1]
    return Detections(
        boxes_xyxy=np.stack([x - 20, y - 50, x + 20, y + 50], axis=1).astype(np.float32),
        scores=table[:, 2].astype(np.float32),
        class_ids=table[:, 3].astype(np.int32),
        track_ids=np.zeros(len(table), np.int32),
    )


def person(x: float, score: float = 0.9, y: float = 200) -> Object:
    return (x, y, score, PERSON)


NOBODY = detections()


def tracker(**settings: float) -> ByteTracker:
    return ByteTracker(msgspec.convert(settings, TrackerSettings), FRAMES_PER_SECOND)


def ids(followed: ByteTracker, *objects: Object, frames_elapsed: int = 1) -> list[int]:
    return followed.update(detections(*objects), frames_elapsed).track_ids.tolist()


def walking(followed: ByteTracker, frames: int = 10, step: float = 5.0) -> float:
    """Let one person walk so many frames; returns where the next step would be."""
    for frame in range(frames):
        ids(followed, person(100 + step * frame))
    return 100 + step * frames


def test_nothing_gives_nothing() -> None:
    followed = tracker()
    for _ in range(3):
        assert len(followed.update(NOBODY)) == 0


@pytest.mark.parametrize("confirm_frames", [1, 2, 3])
def test_a_track_gets_its_id_when_found_often_enough_and_keeps_it(confirm_frames: int) -> None:
    followed = tracker(confirm_frames=confirm_frames)
    seen = [ids(followed, person(100 + 5 * frame)) for frame in range(5)]
    assert seen == [[NO_TRACK]] * (confirm_frames - 1) + [[1]] * (6 - confirm_frames)


def test_an_object_seen_once_gets_no_id_and_uses_none_up() -> None:
    followed = tracker()
    ids(followed, person(100))
    followed.update(NOBODY)
    assert [ids(followed, person(400)) for _ in range(2)] == [[NO_TRACK], [1]]


@pytest.mark.parametrize(("score", "starts"), [(0.49, False), (0.51, True)])
def test_only_a_good_score_starts_a_track(score: float, starts: bool) -> None:
    followed = tracker()
    assert any(ids(followed, person(100, score)) != [NO_TRACK] for _ in range(4)) is starts


@pytest.mark.parametrize(("score", "continues"), [(0.34, True), (0.11, True), (0.09, False)])
def test_a_low_score_continues_a_track(score: float, continues: bool) -> None:
    followed = tracker()
    x = walking(followed)
    assert ids(followed, person(x, score)) == [1 if continues else NO_TRACK]


def test_a_low_score_does_not_bring_a_lost_track_back() -> None:
    followed = tracker()
    x = walking(followed)
    followed.update(NOBODY)
    assert ids(followed, person(x + 5, 0.3)) == [NO_TRACK]
    assert ids(followed, person(x + 10, 0.9)) == [1]


@pytest.mark.parametrize(("missed", "expected"), [(1, 1), (LOST_FRAMES - 1, 1), (LOST_FRAMES, 1), (LOST_FRAMES + 1, 0)])
def test_a_lost_track_is_found_again_where_it_was_heading_until_it_is_given_up(missed: int, expected: int) -> None:
    followed = tracker()
    x = walking(followed)
    for _ in range(missed):
        followed.update(NOBODY)
    assert ids(followed, person(x + 5 * missed)) == [expected]


def test_after_its_death_the_same_place_gets_a_new_id() -> None:
    followed = tracker()
    x = walking(followed)
    for _ in range(LOST_FRAMES + 1):
        followed.update(NOBODY)
    assert [ids(followed, person(x)) for _ in range(2)] == [[NO_TRACK], [2]]


def test_the_lost_time_is_in_seconds() -> None:
    settings = TrackerSettings(lost_seconds=0.5)
    slow, fast = (ByteTracker(settings, frames_per_second) for frames_per_second in (10.0, 30.0))
    for followed in (slow, fast):
        walking(followed, step=0)
        for _ in range(8):
            followed.update(NOBODY)
    assert (ids(slow, person(100)), ids(fast, person(100))) == ([NO_TRACK], [1])


@pytest.mark.parametrize("frames_elapsed", [2, LOST_FRAMES, 5 * LOST_FRAMES])
def test_a_gap_is_predicted_over_and_costs_no_track(frames_elapsed: int) -> None:
    followed = tracker()
    x = walking(followed)
    assert ids(followed, person(x + 5 * (frames_elapsed - 1)), frames_elapsed=frames_elapsed) == [1]


def test_a_gap_is_no_empty_frame_for_a_track_on_probation_or_a_low_score() -> None:
    followed = tracker()
    ids(followed, person(100))
    assert ids(followed, person(100), frames_elapsed=5) == [1]
    assert ids(followed, person(100, 0.2), frames_elapsed=5) == [1]


def test_after_a_gap_a_track_not_found_is_given_up_by_its_age() -> None:
    followed = tracker()
    walking(followed, step=0)
    followed.update(NOBODY, LOST_FRAMES + 1)
    assert ids(followed, person(100)) == [NO_TRACK]


def test_a_person_never_becomes_a_car() -> None:
    followed = tracker()
    walking(followed, step=0)
    assert ids(followed, (100, 200, 0.9, CAR)) == [NO_TRACK]
    assert ids(followed, (100, 200, 0.9, CAR), person(100)) == [2, 1]


def test_two_who_cross_keep_their_ids_in_whatever_order_they_come() -> None:
    followed, seen = tracker(), set()
    for frame in range(41):
        eastward, westward = person(100 + 5 * frame), person(300 - 5 * frame, y=215)
        if frame % 2:
            seen.add(tuple(ids(followed, eastward, westward)))
        else:
            seen.add(tuple(ids(followed, westward, eastward)[::-1]))
    assert seen in ({(0, 0), (1, 2)}, {(0, 0), (2, 1)})


def test_of_two_boxes_on_one_object_only_one_gets_its_id() -> None:
    followed = tracker()
    x = walking(followed, step=0)
    assert ids(followed, person(x + 6, 0.6), person(x + 1, 0.9)) == [NO_TRACK, 1]


def test_a_thousand_objects_keep_their_ids() -> None:
    rng = np.random.default_rng(0)
    places = [(150.0 * column, 150.0 * row) for column in range(40) for row in range(25)]
    followed, seen = tracker(), []
    for _ in range(4):
        shaken = [(x + rng.normal(), y + rng.normal(), 0.9, PERSON) for x, y in places]
        seen.append(ids(followed, *shaken))
    assert sorted(seen[1]) == list(range(1, 1001))
    assert seen[1] == seen[2] == seen[3]


def test_the_same_input_gives_the_same_ids() -> None:
    def run() -> list[list[int]]:
        rng, followed = np.random.default_rng(0), tracker()
        crowd = [
            [(rng.uniform(0, 300), rng.uniform(0, 300), rng.random(), rng.integers(3)) for _ in range(rng.integers(30))]
            for _ in range(50)
        ]
        return [ids(followed, *objects) for objects in crowd]

    first = run()
    assert max(max(frame, default=0) for frame in first) > 10
    assert run() == first


@pytest.mark.parametrize(
    "box", [[50, 50, 50, 90], [50, 90, 90, 50], [np.nan, 0, 9, 9], [0, 0, np.inf, 9], [-np.inf, 0, np.inf, 9]]
)
def test_a_box_without_a_finite_area_is_left_alone(box: list[float]) -> None:
    followed = tracker()
    x = walking(followed, step=0)
    odd = detections(person(100), person(x))
    odd.boxes_xyxy[0] = box
    for _ in range(3):
        assert followed.update(odd).track_ids.tolist() == [NO_TRACK, 1]


def test_returns_the_detections_it_was_given_which_may_be_read_only() -> None:
    given = detections(person(100), (300, 200, 0.05, CAR))
    for array in (given.boxes_xyxy, given.scores, given.class_ids):
        array.flags.writeable = False
    labelled = tracker(confirm_frames=1).update(given)
    assert labelled.boxes_xyxy is given.boxes_xyxy
    assert labelled.scores is given.scores
    assert labelled.class_ids is given.class_ids
    assert labelled.track_ids.tolist() == [1, NO_TRACK]
    assert labelled.track_ids.dtype == np.int32
    assert given.track_ids.tolist() == [NO_TRACK, NO_TRACK]


def test_says_which_settings_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"low_score 0.5 must not exceed high_score 0.3"):
        TrackerSettings(high_score=0.3, low_score=0.5)
    with pytest.raises(msgspec.ValidationError, match="first_iou"):
        tracker(first_iou=1.5)
    with pytest.raises(ValueError, match="frames_per_second 0"):
        ByteTracker(frames_per_second=0)
    with pytest.raises(ValueError, match="frames_elapsed 0"):
        tracker().update(NOBODY, frames_elapsed=0)


# --- against the plain twin ------------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[Detections, int]]:
    """Frames with crowds that walk, flicker, change their class and lie upon each other; and gaps between them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    people = draw(st.integers(0, 12))
    places, steps = rng.uniform(0, 300, (people, 2)), rng.normal(0, 8, (people, 2))
    frames = []
    for _ in range(draw(st.integers(1, 25))):
        places += steps
        seen = rng.random(people) < 0.8
        objects = [
            (*(place + rng.normal(0, 2, 2)), float(rng.choice([0.05, 0.1, 0.2, 0.35, 0.5, 0.9])), int(rng.integers(2)))
            for place in places[seen]
        ]
        found = detections(*objects)
        for broken in (np.nan, np.inf, -np.inf):
            if len(found) and rng.random() < 0.1:
                found.boxes_xyxy[rng.integers(len(found)), rng.integers(4)] = broken
        frames.append((found, int(rng.choice([1, 1, 1, 2, 7, 40]))))
    return frames


@given(
    streams(), st.sampled_from([{}, {"first_iou": 0.0, "confirm_frames": 1}, {"lost_seconds": 0.0, "new_score": 0.1}])
)
def test_the_ids_are_those_of_the_plain_twin(frames: list[tuple[Detections, int]], settings: dict[str, float]) -> None:
    followed = tracker(**settings)
    plain = PlainTracker(msgspec.convert(settings, TrackerSettings), FRAMES_PER_SECOND)
    for found, frames_elapsed in frames:
        expected = plain.update(found, frames_elapsed).track_ids
        np.testing.assert_array_equal(followed.update(found, frames_elapsed).track_ids, expected)


def test_the_ids_of_a_crowd_that_grows_are_those_of_the_plain_twin() -> None:
    rng = np.random.default_rng(0)
    followed, plain = tracker(), PlainTracker(frames_per_second=FRAMES_PER_SECOND)
    for count in (10, 60, 70, 300, 20, 500):
        for _ in range(3):
            found = detections(*((*rng.uniform(0, 3000, 2), 0.9, 0) for _ in range(count)))
            np.testing.assert_array_equal(followed.update(found).track_ids, plain.update(found).track_ids)


# --- where nobody looks ----------------------------------------------------------------------------------------------


def centres(followed: Detections) -> list[float]:
    return ((followed.boxes_xyxy[:, 0] + followed.boxes_xyxy[:, 2]) / 2).tolist()


@pytest.mark.parametrize("frames_ahead", [1, 2, 5])
def test_a_track_is_predicted_where_it_walks_to(frames_ahead: int) -> None:
    followed = tracker()
    next_x = walking(followed, frames=20)
    predicted = followed.predicted(frames_ahead)
    assert centres(predicted) == pytest.approx([next_x + 5 * (frames_ahead - 1)], abs=2)
    assert predicted.track_ids.tolist() == [1] and predicted.class_ids.tolist() == [PERSON]
    assert predicted.scores.tolist() == pytest.approx([0.9])


def test_a_prediction_changes_nothing() -> None:
    followed, other = tracker(), tracker()
    for each in (followed, other):
        walking(each)
    before = followed.predicted(1)
    for frames_ahead in (1, 7, 3):
        followed.predicted(frames_ahead)
    np.testing.assert_array_equal(followed.predicted(1).boxes_xyxy, before.boxes_xyxy)
    walk = [followed.update(detections(person(150 + 5 * step))) for step in range(3)]
    same = [other.update(detections(person(150 + 5 * step))) for step in range(3)]
    for one, two in zip(walk, same, strict=True):
        np.testing.assert_array_equal(one.track_ids, two.track_ids)


def test_only_what_was_confirmed_and_just_seen_is_predicted() -> None:
    followed = tracker()
    walking(followed)
    ids(followed, person(155), person(500))  # the second is on probation
    assert followed.predicted(1).track_ids.tolist() == [1]
    ids(followed, person(500))
    assert followed.predicted(1).track_ids.tolist() == [2]  # the first was not found
    assert len(tracker().predicted(1)) == 0


def test_predictions_come_best_score_first() -> None:
    followed = tracker()
    for _ in range(3):
        ids(followed, person(100, score=0.6), person(400, score=0.95))
    predicted = followed.predicted(1)
    assert predicted.scores.tolist() == pytest.approx([0.95, 0.6]) and predicted.track_ids.tolist() == [2, 1]


@pytest.mark.parametrize("frames_ahead", [0, -1])
def test_nothing_is_predicted_into_the_past(frames_ahead: int) -> None:
    with pytest.raises(ValueError, match="frames_ahead"):
        tracker().predicted(frames_ahead)
