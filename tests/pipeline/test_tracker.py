"""A track's life: birth, confirmation, loss, re-finding and death; who never gets it, and what does not matter."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.settings import TrackerSettings
from pipeline.tracker import Tracker, kinds_of
from tests.kit.places import ROOT
from tests.kit.plain_tracker import PlainTracker

PERSON, CAR, TRUCK = 0, 1, 2
KINDS = kinds_of(("person", "car", "truck"), TrackerSettings().confused)
RATE = 10.0  # frames a second
LOST_FRAMES = 15  # the default time at this rate

Object = tuple[float, float, float, int]  # centre x, centre y, score, class


def detections(*objects: Object) -> Detections:
    """Boxes 40 wide and 100 high around the given centres."""
    table = np.array(objects, np.float64).reshape(-1, 4)
    x, y = table[:, 0], table[:, 1]
    boxes = np.stack([x - 20, y - 50, x + 20, y + 50], axis=1).astype(np.float32)
    return Detections.untracked(boxes, table[:, 2].astype(np.float32), table[:, 3].astype(np.int32))


def person(x: float, score: float = 0.9, y: float = 200) -> Object:
    return (x, y, score, PERSON)


NOBODY = detections()


class Follower:
    """A tracker that is given the frames of a camera."""

    def __init__(self, rate: float = RATE, **settings: float) -> None:
        self.tracker = Tracker(msgspec.convert(settings, TrackerSettings), KINDS)
        self.frame, self._rate = -1, rate

    def update(self, found: Detections, frames: int = 1) -> Detections:
        """So many frames after the last one."""
        self.frame += frames
        return self.tracker.update(found, self.frame / self._rate)

    def ids(self, *objects: Object, frames: int = 1) -> list[int]:
        return self.update(detections(*objects), frames).track_ids.tolist()

    def predicted(self, frames: int) -> Detections:
        return self.tracker.predicted((self.frame + frames) / self._rate)

    def nobody(self, frames: int = 1) -> "Follower":
        for _ in range(frames):
            self.update(NOBODY)
        return self

    def walking(self, frames: int = 10, step: float = 5.0) -> float:
        """One person walks so many frames; where the next step would be."""
        for frame in range(frames):
            self.ids(person(100 + step * frame))
        return 100 + step * frames


def begun(**settings: float) -> Follower:
    """After a first look, in which there was nobody."""
    return Follower(**settings).nobody()


# -- birth


def test_nothing_gives_nothing() -> None:
    follower = Follower()
    assert [len(follower.update(NOBODY)) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("confirm_frames", [1, 2, 3])
def test_a_track_gets_its_id_when_found_often_enough_and_keeps_it(confirm_frames: int) -> None:
    follower = begun(confirm_frames=confirm_frames)
    seen = [follower.ids(person(100 + 5 * frame)) for frame in range(5)]
    assert seen == [[NO_TRACK]] * (confirm_frames - 1) + [[1]] * (6 - confirm_frames)


@pytest.mark.parametrize(("score", "expected"), [(0.9, [1]), (0.51, [1]), (0.49, [NO_TRACK])])
def test_in_a_first_look_once_is_enough_for_a_good_score(score: float, expected: list[int]) -> None:
    assert Follower().ids(person(100, score)) == expected


def test_an_object_seen_once_gets_no_id_and_uses_none_up() -> None:
    follower = begun()
    follower.ids(person(100))
    follower.nobody(2)
    assert [follower.ids(person(400)) for _ in range(2)] == [[NO_TRACK], [1]]


def test_on_probation_one_miss_is_forgiven() -> None:
    follower = begun()
    follower.ids(person(100))
    follower.nobody()
    assert follower.ids(person(100)) == [1]


@pytest.mark.parametrize(("score", "begins"), [(0.34, False), (0.36, True), (0.4, True), (0.49, True)])
def test_a_steady_weak_score_is_tracked_after_a_while(score: float, begins: bool) -> None:
    follower = begun()
    seen = [follower.ids(person(100, score)) for _ in range(50)]
    assert seen[:5] == [[NO_TRACK]] * 5 and (seen[-1] == [1]) is begins


def test_of_two_peaks_on_one_object_one_is_a_track() -> None:
    follower = begun()
    seen = [follower.ids(person(100, 0.9), person(103, 0.6)) for _ in range(10)]
    assert seen == [[NO_TRACK, NO_TRACK]] + [[1, NO_TRACK]] * 9


def test_a_second_peak_on_whom_is_followed_starts_none() -> None:
    follower = begun()
    x = follower.walking(step=0)
    assert [follower.ids(person(x, 0.6), person(x + 3, 0.9)) for _ in range(5)] in (
        [[1, NO_TRACK]] * 5,
        [[NO_TRACK, 1]] * 5,
    )


def test_whoever_stands_beside_another_is_no_second_peak() -> None:
    follower = begun()
    follower.ids(person(100), person(125))
    assert sorted(follower.ids(person(100), person(125))) == [1, 2]


# -- loss, and how it ends


@pytest.mark.parametrize(("score", "continues"), [(0.34, True), (0.11, True), (0.09, False)])
def test_a_low_score_continues_a_track(score: float, continues: bool) -> None:
    follower = begun()
    x = follower.walking()
    assert follower.ids(person(x, score)) == [1 if continues else NO_TRACK]


def test_missed_once_and_then_weak_is_the_same_track() -> None:
    follower = begun()
    x = follower.walking()
    follower.nobody()
    assert follower.ids(person(x + 5, 0.2)) == [1]
    assert follower.ids(person(x + 10, 0.9)) == [1]


@pytest.mark.parametrize(("missed", "expected"), [(1, 1), (LOST_FRAMES - 2, 1), (LOST_FRAMES - 1, 1), (LOST_FRAMES, 0)])
def test_a_lost_track_is_found_again_where_it_was_heading_until_it_is_given_up(missed: int, expected: int) -> None:
    follower = begun()
    x = follower.walking()
    follower.nobody(missed)
    assert follower.ids(person(x + 5 * missed)) == [expected]


@pytest.mark.parametrize("step", [3.0, 5.0, 8.0])
@pytest.mark.parametrize("missed", [1, 5, 12])
def test_whoever_stops_while_hidden_is_found_again(missed: int, step: float) -> None:
    follower = begun()
    x = follower.walking(20, step)
    follower.nobody(missed)
    assert follower.ids(person(x)) == [1]


def test_what_shrinks_before_it_is_hidden_does_not_shrink_to_nothing() -> None:
    follower = begun()
    for frame in range(20):
        found = detections(person(100))
        found.boxes_xyxy[0] = (50 + frame, 100 + 2 * frame, 150 - frame, 300 - 2 * frame)
        follower.update(found)
    follower.nobody(10)
    assert follower.update(found).track_ids.tolist() == [1]


def test_after_its_death_the_same_place_gets_a_new_id() -> None:
    follower = begun()
    x = follower.walking()
    follower.nobody(LOST_FRAMES + 1)
    assert [follower.ids(person(x)) for _ in range(2)] == [[NO_TRACK], [2]]


def test_no_id_is_given_twice_though_another_process_goes_on() -> None:
    follower = begun()
    follower.walking()
    assert follower.tracker.ids_given == 1
    other = Tracker(ids_given=follower.tracker.ids_given)
    assert other.update(detections(person(100)), 0.0).track_ids.tolist() == [2]


# -- time


def test_the_lost_time_is_in_seconds() -> None:
    slow, fast = (Follower(rate, lost_seconds=0.5) for rate in (10.0, 30.0))
    for follower in (slow, fast):
        follower.walking(step=0)
        follower.nobody(8)
    assert (slow.ids(person(100)), fast.ids(person(100))) == ([NO_TRACK], [1])


@pytest.mark.parametrize("frames", [2, 5, LOST_FRAMES])
def test_a_gap_is_predicted_over(frames: int) -> None:
    follower = begun()
    x = follower.walking(20)
    assert follower.ids(person(x + 5 * (frames - 1)), frames=frames) == [1]


@pytest.mark.parametrize("frames", [LOST_FRAMES + 1, 1000, 10**9])
def test_after_too_long_a_gap_nobody_is_who_they_were(frames: int) -> None:
    follower = begun()
    follower.walking(step=0)
    assert follower.ids(person(100), frames=frames) == [NO_TRACK]
    assert follower.ids(person(100)) == [2]


@pytest.mark.parametrize("seconds", [2.0, 5.0, 60.0])
def test_of_a_camera_that_looks_seldom_a_usual_gap_is_none(seconds: float) -> None:
    tracker = Tracker()
    seen = [tracker.update(detections(person(100)), seconds * look).track_ids.tolist() for look in range(8)]
    assert seen == [[1]] * 8


def test_one_long_gap_does_not_make_gaps_usual() -> None:
    follower = begun()
    follower.walking(step=0)
    follower.ids(person(100), frames=10_000)
    follower.ids(person(100))
    assert follower.ids(person(100), frames=LOST_FRAMES + 1) == [NO_TRACK]


def test_uneven_time_is_seen() -> None:
    """At an even pace; frames come when they come."""
    tracker, rng = Tracker(), np.random.default_rng(0)
    times = np.cumsum(rng.choice([0.03, 0.1, 0.5, 0.9], 60))
    seen = [tracker.update(detections(person(100 + 50 * at)), at).track_ids.tolist() for at in times]
    assert seen == [[1]] * 60


@pytest.mark.parametrize("times", [(0, 0, 0, 0, 0), (0, 1, 0.9, 0.5, 1), (5, 4, 3, 2, 1)], ids=str)
def test_time_that_does_not_go_on_loses_nobody(times: tuple[float, ...]) -> None:
    tracker = Tracker()
    assert [tracker.update(detections(person(100)), at).track_ids.tolist() for at in times] == [[1]] * 5


@pytest.mark.parametrize("pts_seconds", [np.nan, np.inf, -np.inf])
def test_a_time_that_is_none_is_refused(pts_seconds: float) -> None:
    for call in (Tracker().predicted, lambda at: Tracker().update(NOBODY, at)):
        with pytest.raises(ValueError, match="pts_seconds"):
            call(pts_seconds)


# -- classes


def test_a_person_never_becomes_a_car() -> None:
    follower = begun()
    follower.walking(step=0)
    assert follower.ids((100, 200, 0.9, CAR)) == [NO_TRACK]
    assert follower.ids((100, 200, 0.9, CAR), person(100)) == [2, 1]


def test_a_class_that_flickers_is_voted() -> None:
    rng, follower = np.random.default_rng(0), begun()
    seen = [
        follower.update(detections((100 + frame, 200, 0.8, TRUCK if rng.random() < 0.2 else CAR)))
        for frame in range(500)
    ]
    assert {each.track_ids[0] for each in seen[1:]} == {1}
    assert sum(each.class_ids[0] != CAR for each in seen[5:]) == 0


def test_what_has_truly_changed_is_known_as_such_after_a_while() -> None:
    follower = begun()
    seen = [follower.update(detections((100, 200, 0.8, CAR if frame < 100 else TRUCK))) for frame in range(200)]
    assert seen[-1].track_ids[0] == 1 and seen[-1].class_ids[0] == TRUCK and seen[100].class_ids[0] == CAR


@pytest.mark.parametrize(
    ("names", "confused", "kinds"),
    [
        ((), (), []),
        (("a", "b"), (), [0, 1]),
        (("a", "b", "c", "d"), (("d", "b"),), [0, 1, 2, 1]),
        (("a", "b"), (("nobody", "b"), ("nor", "them")), [0, 1]),
    ],
)
def test_a_kind_is_the_first_class_of_its_group(names: tuple[str, ...], confused: tuple, kinds: list[int]) -> None:
    assert kinds_of(names, confused).tolist() == kinds


# -- many


def test_two_who_cross_keep_their_ids_in_whatever_order_they_come() -> None:
    follower, seen = begun(), set()
    for frame in range(41):
        eastward, westward = person(100 + 5 * frame), person(300 - 5 * frame, y=215)
        if frame % 2:
            seen.add(tuple(follower.ids(eastward, westward)))
        else:
            seen.add(tuple(follower.ids(westward, eastward)[::-1]))
    assert seen == {(0, 0), (1, 2)}


def test_a_thousand_objects_keep_their_ids() -> None:
    rng = np.random.default_rng(0)
    places = [(150.0 * column, 150.0 * row) for column in range(40) for row in range(25)]
    follower, seen = begun(), []
    for _ in range(4):
        seen.append(follower.ids(*((x + rng.normal(), y + rng.normal(), 0.9, PERSON) for x, y in places)))
    assert sorted(seen[1]) == list(range(1, 1001))
    assert seen[1] == seen[2] == seen[3]


@pytest.mark.parametrize(
    "box", [[50, 50, 50, 90], [50, 90, 90, 50], [np.nan, 0, 9, 9], [0, 0, np.inf, 9], [-np.inf, 0, np.inf, 9]]
)
def test_a_box_without_a_finite_area_is_left_alone(box: list[float]) -> None:
    follower = begun()
    x = follower.walking(step=0)
    odd = detections(person(100), person(x))
    odd.boxes_xyxy[0] = box
    for _ in range(3):
        assert follower.update(odd).track_ids.tolist() == [NO_TRACK, 1]


def test_boxes_all_alike_are_one_object() -> None:
    follower = begun()
    assert [sum(each > 0 for each in follower.ids(*[person(100)] * 50)) for _ in range(5)] == [0, 1, 1, 1, 1]


@pytest.mark.thorough
def test_a_million_looks_take_no_more_memory() -> None:
    """With births and deaths all the way; in a process of its own, whose memory nothing else changes."""
    code = f"from {__name__} import after_a_million_looks; print(*after_a_million_looks())"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    kilobytes, ids_given = map(int, child.stdout.split())
    assert kilobytes < 1024
    assert ids_given > 10_000


def after_a_million_looks() -> tuple[int, int]:
    """By how much memory has grown since a tenth of them, in kB, and how many ids were given."""
    rng, tracker, before = np.random.default_rng(0), Tracker(), 0
    looks = [
        detections(*((*rng.uniform(0, 1000, 2), rng.random(), PERSON) for _ in range(rng.integers(8))))
        for _ in range(1000)
    ]
    for number in range(1_000_000):
        tracker.update(looks[number % 1000], number / 10)
        if number == 100_000:
            before = own_kilobytes()
    return own_kilobytes() - before, tracker.ids_given


def own_kilobytes() -> int:
    return int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])


def test_a_crowd_all_over_each_other_is_followed() -> None:
    """Everybody overlaps hundreds of others."""
    rng, tracker = np.random.default_rng(0), Tracker()
    places = rng.uniform(0, 500, (1000, 2))
    for look in range(3):
        found = detections(*((*place, 0.9, PERSON) for place in places + rng.normal(0, 1, places.shape)))
        ids = tracker.update(found, look / 10).track_ids
    assert len(set(ids.tolist()) - {NO_TRACK}) == (ids != NO_TRACK).sum() > 100


# -- what is given out


def test_what_it_was_given_stays_as_it_was_and_may_be_read_only() -> None:
    found = detections(person(100), (300, 200, 0.05, CAR))
    for array in (found.boxes_xyxy, found.scores, found.class_ids):
        array.flags.writeable = False
    labelled = Follower().update(found)
    assert labelled.track_ids.tolist() == [1, NO_TRACK] and labelled.track_ids.dtype == np.int32
    assert labelled.scores is found.scores and found.track_ids.tolist() == [NO_TRACK, NO_TRACK]
    np.testing.assert_array_equal(labelled.boxes_xyxy[1], found.boxes_xyxy[1])
    np.testing.assert_array_equal(labelled.class_ids, found.class_ids)


def test_the_box_of_a_track_shakes_less_than_what_was_found() -> None:
    rng, follower = np.random.default_rng(0), begun()
    found = [detections(person(100 + 5 * frame + rng.normal(0, 3))) for frame in range(200)]
    told = [follower.update(each) for each in found]
    truth = np.array([100 + 5 * frame for frame in range(200)])
    errors = [np.std((centres_of(each) - truth)[20:]) for each in (found, told)]
    assert errors[1] < 0.95 * errors[0]


def centres_of(frames: list[Detections]) -> np.ndarray:
    return np.array([(each.boxes_xyxy[0, 0] + each.boxes_xyxy[0, 2]) / 2 for each in frames])


# -- who was missed


def flickering(frame: int) -> list[Object]:
    """Four people who walk, of whom another one is missed in each frame."""
    return [person(100 + 200 * who + 3 * frame) for who in range(4) if who != frame % 4]


def flickered(frames: int = 20, **settings: float) -> Follower:
    follower = Follower(**settings)
    for frame in range(frames):
        follower.ids(*flickering(frame))
    return follower


def test_where_most_who_are_missed_are_found_again_they_are_told_of_meanwhile() -> None:
    follower = flickered()
    for frame in range(20, 30):
        told = follower.update(detections(*flickering(frame)))
        assert told.predicted.tolist() == [False] * 3 + [True]
        assert sorted(told.track_ids.tolist()) == [1, 2, 3, 4]
        missed_x = 100 + 200 * (frame % 4) + 3 * frame
        assert centres_of([told.where(told.predicted)])[0] == pytest.approx(missed_x, abs=4)
        assert told.scores[3] == pytest.approx(0.9)


def test_who_is_predicted_between_looks_is_predicted_where_nobody_looks_as_well() -> None:
    follower = flickered(21)
    assert sorted(follower.predicted(1).track_ids.tolist()) == [1, 2, 3, 4]
    assert follower.predicted(1).predicted.all()


def test_who_has_gone_is_told_of_for_three_looks_and_no_longer() -> None:
    follower = Follower()
    for looks in [1, 1, 1, 1, 2, 2, 3] * 4:  # at least half are found in the next look after one miss, after two, three
        follower.walking(5, step=0)
        follower.nobody(looks)
    follower.walking(5, step=0)
    assert [int(follower.update(NOBODY).predicted.sum()) for _ in range(6)] == [1, 1, 1, 0, 0, 0]


def test_in_a_source_that_does_not_flicker_who_is_missed_is_not_told_of() -> None:
    follower = Follower()
    follower.walking(60)
    assert [len(follower.update(NOBODY)) for _ in range(5)] == [0] * 5


def test_it_is_learnt_that_who_is_missed_does_not_come_back() -> None:
    follower, told = flickered(300), []
    for person_number in range(90):
        for _ in range(3):
            follower.ids(person(3000 + 400 * person_number))
        told.append(int(follower.update(NOBODY).predicted.sum()))
        follower.nobody(LOST_FRAMES + 1)
    assert told[0] > 0 and told[-1] == 0


@pytest.mark.parametrize("looks", [0, 1])
def test_for_how_many_looks_can_be_said(looks: int) -> None:
    follower = flickered(held_looks=looks)
    follower.ids(*(person(100 + 200 * who + 60) for who in range(4)))
    assert [int(follower.update(NOBODY).predicted.sum()) for _ in range(3)] == [4 * looks, 0, 0]


def test_says_which_settings_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"low_score 0.5 must not exceed high_score 0.3"):
        TrackerSettings(high_score=0.3, low_score=0.5)
    with pytest.raises(msgspec.ValidationError, match="first_overlap"):
        Follower(first_overlap=1.5)
    with pytest.raises(ValueError, match="'car' stands in two groups"):
        TrackerSettings(confused=(("car", "bus"), ("truck", "car")))


# -- what it does not depend on


@st.composite
def streams(draw: st.DrawFn) -> list[tuple[Detections, float]]:
    """Frames with crowds that walk, flicker, change their class and lie upon each other; and gaps between them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    people = draw(st.integers(0, 12))
    places, steps = rng.uniform(0, 300, (people, 2)), rng.normal(0, 8, (people, 2))
    frames, at = [], 0.0
    for _ in range(draw(st.integers(1, 25))):
        places += steps
        seen = rng.random(people) < 0.8
        objects = [
            (*(place + rng.normal(0, 2, 2)), float(rng.choice([0.05, 0.1, 0.2, 0.35, 0.5, 0.9])), int(rng.integers(3)))
            for place in places[seen]
        ]
        if objects and rng.random() < 0.3:
            objects.append(objects[0])  # twice the same
        found = detections(*objects)
        for broken in (np.nan, np.inf, -np.inf):
            if len(found) and rng.random() < 0.1:
                found.boxes_xyxy[rng.integers(len(found)), rng.integers(4)] = broken
        frames.append((found, at))
        at += float(rng.choice([0.1, 0.1, 0.1, 0.2, 0.7, 4.0, 0.0, 0.04]))
    return frames


SETTINGS = ({}, {"held_looks": 0}, {"first_overlap": 0.0, "confirm_frames": 1}, {"lost_seconds": 0.0, "new_score": 0.1})


@given(streams(), st.sampled_from(SETTINGS))
def test_the_ids_are_those_of_the_plain_twin(frames: list[tuple[Detections, float]], settings: dict) -> None:
    asked = msgspec.convert(settings, TrackerSettings)
    tracker, plain = Tracker(asked, KINDS), PlainTracker(asked, KINDS)
    for found, at in frames:
        got, expected = tracker.update(found, at), plain.update(found, at)
        np.testing.assert_array_equal(got.track_ids, expected.track_ids)
        np.testing.assert_array_equal(got.class_ids, expected.class_ids)
        np.testing.assert_array_equal(got.predicted, expected.predicted)
        np.testing.assert_allclose(got.boxes_xyxy, expected.boxes_xyxy, rtol=1e-5)


def test_the_ids_of_a_crowd_that_grows_are_those_of_the_plain_twin() -> None:
    rng, tracker, plain = np.random.default_rng(0), Tracker(), PlainTracker()
    at = 0.0
    for count in (10, 60, 70, 150, 20, 200):
        for _ in range(3):
            found, at = detections(*((*rng.uniform(0, 2000, 2), 0.9, 0) for _ in range(count))), at + 0.1
            np.testing.assert_array_equal(tracker.update(found, at).track_ids, plain.update(found, at).track_ids)


def ids_by_number(frames: list[tuple[Detections, float]], change) -> list[dict[int, int]]:
    """The id of each detection, by its number, where the frames are changed; `change` tells which one each was, too."""
    tracker, told = Tracker(kinds=KINDS), []
    for found, at in frames:
        changed, at, numbers = change(found, at)
        ids = tracker.update(changed, at).track_ids[: len(changed)]
        told.append(dict(zip(numbers.tolist(), ids.tolist(), strict=True)))
    return told


def as_it_is(found: Detections, at: float):
    return found, at, np.arange(len(found))


@given(streams(), st.randoms(use_true_random=False))
def test_the_order_of_detections_does_not_matter(frames: list[tuple[Detections, float]], random) -> None:
    def shuffled(found: Detections, at: float):
        order = np.array(random.sample(range(len(found)), len(found)), np.int64)
        return found.where(order), at, order

    # Of two that are the same in all, either may have the id.
    some = [(found.where(np.unique(found.boxes_xyxy, axis=0, return_index=True)[1]), at) for found, at in frames]
    assert ids_by_number(some, shuffled) == ids_by_number(some, as_it_is)


def moved(found: Detections, boxes_xyxy: np.ndarray) -> Detections:
    return Detections.untracked(boxes_xyxy.astype(np.float32), found.scores, found.class_ids)


# Powers of two, so that the sums are the same to the last bit, which a gate may ask for.
@given(streams(), st.sampled_from([0.125, 0.5, 2.0, 16.0]))
def test_neither_does_the_size_of_the_picture(frames: list[tuple[Detections, float]], scale: float) -> None:
    assert ids_by_number(
        frames, lambda found, at: (moved(found, found.boxes_xyxy * scale), at, np.arange(len(found)))
    ) == ids_by_number(frames, as_it_is)


@given(streams(), st.sampled_from([0.0, 256.0, -64.0, 4096.0]), st.sampled_from([0.0, -512.0, 1024.0]))
def test_nor_where_in_the_picture_they_are(frames: list[tuple[Detections, float]], x: float, y: float) -> None:
    def rounded(found: Detections) -> np.ndarray:
        """To what can be moved without a loss."""
        return np.round(found.boxes_xyxy * 16) / 16

    shift = np.array([x, y, x, y])
    assert ids_by_number(
        frames, lambda found, at: (moved(found, rounded(found) + shift), at, np.arange(len(found)))
    ) == ids_by_number(frames, lambda found, at: (moved(found, rounded(found)), at, np.arange(len(found))))


@given(streams(), st.sampled_from([0.0, 1024.0, 2.0**20]))
def test_nor_when_it_began(frames: list[tuple[Detections, float]], began: float) -> None:
    at_sixteenths = [(found, round(at * 16) / 16) for found, at in frames]
    assert ids_by_number(at_sixteenths, lambda found, at: (found, began + at, np.arange(len(found)))) == ids_by_number(
        at_sixteenths, as_it_is
    )


@pytest.mark.parametrize("rate", [5.0, 10.0, 20.0, 30.0, 60.0])
def test_the_same_walk_has_the_same_ids_at_any_rate(rate: float) -> None:
    rng, follower = np.random.default_rng(1), Follower(rate)
    starts, paces = rng.uniform(0, 2000, (20, 2)), rng.normal(0, 40, (20, 2))
    seen = {
        tuple(follower.ids(*((*(place + rng.normal(0, 0.5, 2)), 0.9, PERSON) for place in starts + paces * at)))
        for at in np.arange(0, 4, 1 / rate)
    }
    assert len(seen) == 1


def test_the_same_input_gives_the_same_ids() -> None:
    def run() -> list[list[int]]:
        rng, follower = np.random.default_rng(0), Follower()
        crowd = [
            [(rng.uniform(0, 300), rng.uniform(0, 300), rng.random(), rng.integers(3)) for _ in range(rng.integers(30))]
            for _ in range(50)
        ]
        return [follower.ids(*objects) for objects in crowd]

    first = run()
    assert max(max(frame, default=0) for frame in first) > 10
    assert run() == first


# -- where nobody looks


def centres(followed: Detections) -> list[float]:
    return ((followed.boxes_xyxy[:, 0] + followed.boxes_xyxy[:, 2]) / 2).tolist()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_track_is_predicted_where_it_walks_to(frames: int) -> None:
    follower = begun()
    next_x = follower.walking(frames=20)
    predicted = follower.predicted(frames)
    assert centres(predicted) == pytest.approx([next_x + 5 * (frames - 1)], abs=2)
    assert predicted.track_ids.tolist() == [1] and predicted.class_ids.tolist() == [PERSON]
    assert predicted.scores.tolist() == pytest.approx([0.9])


def test_nothing_is_predicted_into_the_past() -> None:
    follower = begun()
    follower.walking()
    assert centres(follower.predicted(-5)) == centres(follower.predicted(0))


def test_whoever_is_followed_is_known_until_given_up() -> None:
    follower = begun(lost_seconds=0.3)
    known = [set(follower.tracker.followed)]
    for found in [[person(100)]] * 6 + [[]] * 4:
        follower.ids(*found)
        known.append(set(follower.tracker.followed))
    assert known == [set(), set(), *[{1}] * 8, set()]


def test_whoever_was_found_a_few_times_only_is_not_remembered_as_long() -> None:
    seldom, often = begun(), begun()
    seldom.walking(2, step=0)
    often.walking(6, step=0)
    for follower in (seldom, often):
        follower.nobody(6)
    assert (seldom.ids(person(100)), often.ids(person(100))) == ([NO_TRACK], [1])


def test_a_prediction_changes_nothing() -> None:
    follower, other = begun(), begun()
    for each in (follower, other):
        each.walking()
    before = follower.predicted(1)
    for frames in (1, 7, 3):
        follower.predicted(frames)
    np.testing.assert_array_equal(follower.predicted(1).boxes_xyxy, before.boxes_xyxy)
    walk = [follower.update(detections(person(150 + 5 * step))) for step in range(3)]
    same = [other.update(detections(person(150 + 5 * step))) for step in range(3)]
    for one, two in zip(walk, same, strict=True):
        np.testing.assert_array_equal(one.boxes_xyxy, two.boxes_xyxy)


def test_only_what_was_confirmed_and_just_seen_is_predicted() -> None:
    follower = begun()
    follower.walking()
    follower.ids(person(155), person(500))  # the second is on probation
    assert follower.predicted(1).track_ids.tolist() == [1]
    follower.ids(person(500))
    assert follower.predicted(1).track_ids.tolist() == [2]  # the first was not found
    assert len(Follower().predicted(1)) == 0


def test_predictions_come_best_score_first() -> None:
    follower = begun()
    for _ in range(3):
        follower.ids(person(100, score=0.6), person(400, score=0.95))
    predicted = follower.predicted(1)
    assert predicted.scores.tolist() == pytest.approx([0.95, 0.6]) and predicted.track_ids.tolist() == [2, 1]
