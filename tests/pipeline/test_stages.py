"""postprocess and track with their real parts: each source has what it asked for, and a gap is a gap."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from pipeline.flow.detections import Detections
from pipeline.flow.events import LineCount
from pipeline.flow.frame import DETECTIONS, NOT_ITS_OWN, Frame
from pipeline.flow.messages import Audit, Start
from pipeline.settings import PostprocessSettings, Settings
from pipeline.shapes import Line, Zone
from pipeline.stage import FRAMES, HEATMAPS
from pipeline.stages.postprocess import Postprocess
from pipeline.stages.track import Track
from tests.kit.bench import CARD, LIMITS, STAGE, Bench, end_of, live, start_of

PERSON, CAR = 0, 1


@pytest.fixture
def bench() -> Bench:
    return Bench(slots=40)


# --- postprocess -----------------------------------------------------------------------------------------------------


@pytest.fixture
def postprocess(bench) -> Postprocess:
    stage = Postprocess(bench.kit())
    stage.prepare()
    stage.begin(Start(CARD, LIMITS, []))
    return stage


def with_heads(bench: Bench, seq: int = 0, source_id: str = "door", place: int = 0) -> Frame:
    """A person with score 0.9 in the middle, and a car with 0.5 left of it, as the network would say it."""
    frame = bench.frame(seq, source_id, place, width=512, height=512)
    heatmaps = bench.pools[HEATMAPS]
    slot = heatmaps.lease(heatmaps.first_free(0, 40), place, seq, STAGE)
    frame.header.leases.append(slot)
    hm = frame.place("hm", slot, "float32", (2, 128, 128))
    hm[:] = -9.0
    hm[PERSON, 64, 64], hm[CAR, 64, 20] = np.log(0.9 / 0.1), 0.0
    frame.place("wh", slot, "float32", (2, 128, 128))[:] = 10.0
    return frame


def found(postprocess: Postprocess, frame: Frame) -> list[tuple[int, float]]:
    postprocess.process(frame)
    detections = frame.detections()
    return sorted(
        zip(detections.class_ids.tolist(), [round(score, 2) for score in detections.scores.tolist()], strict=True)
    )


def test_peaks_become_detections_and_the_heat_maps_slot_is_free(postprocess, bench) -> None:
    frame = with_heads(bench)
    assert found(postprocess, frame) == [(PERSON, 0.9), (CAR, 0.5)]
    assert bench.leased(HEATMAPS) == 0 and bench.leased(FRAMES) == 1 and "hm" not in frame


def test_where_only_some_heat_maps_are_computed_the_classes_keep_their_numbers(bench) -> None:
    names = ("bus", "person", "dog", "car")
    wanted = PostprocessSettings(classes=("car", "person"))
    bench.settings = msgspec.structs.replace(bench.settings, postprocess=wanted)
    stage = Postprocess(bench.kit())
    stage.prepare()
    stage.begin(Start(msgspec.structs.replace(CARD, class_names=names, channels=(1, 3)), LIMITS, []))
    assert found(stage, with_heads(bench)) == [(1, 0.9), (3, 0.5)]
    stage.stream_started(start_of(classes=("car",)))
    assert found(stage, with_heads(bench, 1)) == [(3, 0.5)]
    candidates = bench.frame(2, width=512, height=512)
    slot = candidates.header.leases[0]
    rows = [(0, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0.5, 1)]
    candidates.place("candidates", slot, "float32", (2, 6))[:] = rows
    assert found(stage, candidates) == [(3, 0.5)]


def test_each_source_gets_the_classes_that_it_asked_for(postprocess, bench) -> None:
    postprocess.stream_started(start_of("door", 0, classes=("car",)))
    postprocess.stream_started(start_of("yard", 1, classes=("person",)))
    assert found(postprocess, with_heads(bench, 0, "door", 0)) == [(CAR, 0.5)]
    assert found(postprocess, with_heads(bench, 0, "yard", 1)) == [(PERSON, 0.9)]
    assert found(postprocess, with_heads(bench, 0, "gate", 2)) == [(PERSON, 0.9), (CAR, 0.5)]  # not heard of yet


def test_a_change_holds_from_its_frame_on_though_it_comes_before_those_in_the_network(postprocess, bench) -> None:
    postprocess.stream_started(start_of())
    postprocess.stream_started(start_of(seq=2, classes=("car",)))
    assert [len(found(postprocess, with_heads(bench, seq))) for seq in (0, 1, 2, 3)] == [2, 2, 1, 1]


def test_what_was_asked_for_holds_for_frames_that_come_after_the_end_was_told(postprocess, bench) -> None:
    """The end goes past the network."""
    postprocess.stream_started(start_of(classes=("car",)))
    postprocess.stream_ended(end_of(2))
    assert found(postprocess, with_heads(bench, 1)) == [(CAR, 0.5)]


def test_heat_maps_that_were_given_to_another_frame_meanwhile_are_no_result(postprocess, bench) -> None:
    frame = with_heads(bench)
    slot = frame.header.leases[1]
    bench.pools[HEATMAPS].end_lease(slot)
    bench.pools[HEATMAPS].lease(slot.index, 0, 7, STAGE)
    postprocess.process(frame)
    assert frame.header.failure == NOT_ITS_OWN and DETECTIONS not in frame


# --- track -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def track(bench) -> Track:
    stage = Track(bench.kit())
    stage.prepare()
    return stage


def person(x: float) -> Detections:
    box = np.array([[x, 100, x + 40, 200]], np.float32)
    return Detections.untracked(box, np.array([0.9], np.float32), np.array([PERSON], np.int32))


def walked(track: Track, bench: Bench, *seqs: int, source_id: str = "door", place: int = 0) -> list[int]:
    """Ids of a person that goes 4 pixels a frame."""
    ids = []
    for seq in seqs:
        frame = bench.frame(seq, source_id, place)
        frame.put_detections(person(100 + 4 * seq))
        track.process(frame)
        ids.append(int(frame.detections().track_ids[0]))
        frame.give_back()
    return ids


def test_a_gap_is_not_a_frame_without_objects(track, bench) -> None:
    track.stream_started(start_of())
    # Eight frames were dropped: the person walked on meanwhile.
    assert walked(track, bench, 0, 1, 2, 10, 11) == [1, 1, 1, 1, 1]


def test_each_source_has_tracks_of_its_own(track, bench) -> None:
    track.stream_started(start_of("door", 0))
    track.stream_started(start_of("yard", 1))
    assert walked(track, bench, 0, 1) == [1, 1]
    assert walked(track, bench, 0, 1, source_id="yard", place=1) == [1, 1]


def test_a_change_of_settings_begins_no_new_tracks(track, bench) -> None:
    track.stream_started(start_of())
    assert walked(track, bench, 0, 1) == [1, 1]
    track.stream_started(start_of(seq=2, score_threshold=0.7))
    assert walked(track, bench, 2, 3) == [1, 1]


def test_a_tracker_that_comes_after_another_begins_where_it_finds_the_source(track, bench) -> None:
    """It hears of the last change first, and that may be of a frame that is still to come."""
    track.stream_started(start_of(seq=0))
    assert walked(track, bench, 500, 501) == [1, 1]
    track.stream_ended(end_of(502))
    # A frame without a start: that died with an earlier process. Nobody is taken for another.
    assert walked(track, bench, 502, 503) == [2, 2]


def test_where_nobody_looked_tracks_are_where_they_should_be(track, bench) -> None:
    track.stream_started(start_of())
    walked(track, bench, *range(10))
    frames = [bench.frame(seq, unseen=True) for seq in (10, 11, 12)]
    for frame in frames:
        track.process(frame)
    lefts = [float(frame.detections().boxes_xyxy[0, 0]) for frame in frames]
    assert lefts == pytest.approx([140, 144, 148], abs=3)
    assert [frame.detections().track_ids.tolist() for frame in frames] == [[1]] * 3
    assert walked(track, bench, 13, 14) == [1, 1]


def after_a_minute(bench: Bench, seq: int, found: Detections) -> Frame:
    """A frame that follows an outage: the source's own time went on."""
    frame = bench.frame(seq, pts_seconds=seq / 10 + 60)
    frame.put_detections(found)
    return frame


def test_after_an_outage_who_stands_where_another_stood_is_another(track, bench) -> None:
    track.stream_started(live())
    assert walked(track, bench, *range(5))[-1] == 1
    frames = [after_a_minute(bench, seq, person(100 + 4 * seq)) for seq in (5, 6)]
    for frame in frames:
        track.process(frame)
    assert [frame.detections().track_ids.tolist() for frame in frames] == [[0], [2]]


@pytest.mark.parametrize(("confused", "ids"), [([], [1, 0]), ([["person", "car"]], [1, 1])])
def test_classes_that_are_taken_for_each_other_are_told_by_name(confused: list, ids: list[int], bench) -> None:
    settings = msgspec.convert({"track": {"confused": confused}}, Settings)
    stage = Track(replace(bench.kit(), settings=settings))
    stage.begin(Start(CARD, LIMITS, []))
    person_then_car = (person(100), replace(person(100), class_ids=np.array([CAR], np.int32)))
    frames = [tracked(stage, bench, seq, found) for seq, found in enumerate(person_then_car)]
    assert [int(frame.detections().track_ids[0]) for frame in frames] == ids


# --- zones and lines -------------------------------------------------------------------------------------------------

# The person of `walked` comes into it with frame 5, and crosses the line with frame 6, at 144 pixels of 640.
YARD = Zone(((138 / 640, 0.0), (1.0, 0.0), (1.0, 1.0), (138 / 640, 1.0)))
GATE = Line(((142 / 640, 1.0), (142 / 640, 0.0)))


@pytest.fixture
def counting(track) -> Track:
    track.begin(Start(CARD, LIMITS, []))
    track.stream_started(start_of(zones={"yard": YARD}, lines={"gate": GATE}))
    return track


def counted(track: Track, bench: Bench, *seqs: int, source_id: str = "door", place: int = 0, **more) -> list[list[str]]:
    """What is told of each frame of a person that goes 4 pixels a frame, and how many are inside after it."""
    told = []
    for seq in seqs:
        frame = bench.frame(seq, source_id, place, **more)
        if "unseen" not in more:
            frame.put_detections(person(100 + 4 * seq))
        track.process(frame)
        counts = frame.header.counts
        assert counts is not None
        inside = {name: sum(zone.inside.values()) for name, zone in counts.zones.items()}
        told.append([f"{event.seq} {event.event} {event.track_id}" for event in counts.events] + [f"{inside}"])
        frame.give_back()
    return told


def test_who_is_found_is_counted_with_the_frame(counting, bench) -> None:
    empty, one = "{'yard': 0}", "{'yard': 1}"
    assert counted(counting, bench, *range(8)) == [
        [empty], [empty], [empty], [empty], [empty], ["5 entered 1", one], ["6 crossed 1", one], [one]
    ]  # fmt: skip


def test_an_event_has_the_time_of_its_frame_and_the_name_of_the_class(counting, bench) -> None:
    walked(counting, bench, *range(5))
    frame = tracked(counting, bench, 5, person(120), captured_unix=7.25)
    (event,) = frame.header.counts.events
    assert (event.source, event.seq, event.pts_seconds, event.at_unix) == ("door", 5, 0.5, 7.25)
    assert (event.zone, event.track_id, event.class_name) == ("yard", 1, "person")


def test_without_zones_and_lines_a_frame_has_no_counts(track, bench) -> None:
    track.begin(Start(CARD, LIMITS, []))
    track.stream_started(start_of())
    assert tracked(track, bench, 0, person(100)).header.counts is None
    assert tracked(track, bench, 1, unseen=True).header.counts is None


def test_what_was_dropped_failed_or_not_looked_at_changes_nothing(counting, bench) -> None:
    """Frames 5 to 9 never come to track, in 10 and 11 nobody looked."""
    walked(counting, bench, *range(5))
    assert counted(counting, bench, 10, 11, unseen=True) == [["{'yard': 0}"]] * 2
    failed = tracked(counting, bench, 12, same_as=7)
    assert failed.header.failure and failed.header.counts is None
    assert counted(counting, bench, 13) == [["13 entered 1", "13 crossed 1", "{'yard': 1}"]]


def test_an_outage_is_no_leaving_but_who_is_not_there_after_it_has_left(counting, bench) -> None:
    walked(counting, bench, *range(8))
    nobody = after_a_minute(bench, 8, Detections.empty())
    counting.process(nobody)
    assert [(event.event, event.lost, event.dwell_seconds) for event in nobody.header.counts.events] == [
        ("left", True, 0.2)
    ]
    assert nobody.header.counts.zones["yard"].inside == {}


def test_who_is_lost_inside_leaves_when_the_tracker_gives_up(counting, bench) -> None:
    walked(counting, bench, *range(8))
    told = [tracked(counting, bench, seq, Detections.empty()).header.counts for seq in range(8, 24)]
    assert [len(counts.events) for counts in told] == [0] * 15 + [1], "a second and a half at 10 frames a second"
    assert told[14].zones["yard"].inside == {"person": 1} and told[15].events[0].lost is True


def test_each_source_has_zones_of_its_own(counting, bench) -> None:
    counting.stream_started(start_of("yard", 1, zones={"west": YARD}))
    assert counted(counting, bench, 5, 6, 7)[-1] == ["{'yard': 1}"]
    assert counted(counting, bench, 5, 6, source_id="yard", place=1) == [
        ["5 entered 1", "{'west': 1}"],
        ["{'west': 1}"],
    ]


def test_zones_change_on_the_way_and_go(counting, bench) -> None:
    walked(counting, bench, *range(8))
    counting.stream_started(start_of(seq=8, zones={"yard": YARD, "all": Zone(((0, 0), (1, 0), (1, 1), (0, 1)))}))
    assert counted(counting, bench, 8) == [["8 entered 1", "{'yard': 1, 'all': 1}"]]
    counting.stream_started(start_of(seq=9))
    assert counted(counting, bench, 9) == [["9 left 1", "9 left 1", "{}"]]
    assert tracked(counting, bench, 10, person(140)).header.counts is None


def test_after_another_process_everything_is_counted_anew_like_the_tracks(counting, bench) -> None:
    """And is told of no more than once: the frame that comes first is the one after the last that was taken."""
    walked(counting, bench, *range(8))
    again = Track(bench.kit(incarnation=1))
    again.prepare()
    again.begin(Start(CARD, LIMITS, []))
    again.stream_started(start_of(zones={"yard": YARD}, lines={"gate": GATE}))
    frames = [tracked(again, bench, seq, person(100 + 4 * seq)) for seq in (8, 9, 10)]
    assert [[event.event for event in frame.header.counts.events] for frame in frames] == [["entered"], [], []]
    assert frames[2].header.counts.lines == {"gate": LineCount({}, {})}


def test_another_source_of_the_same_name_begins_anew(counting, bench) -> None:
    walked(counting, bench, *range(8))
    counting.stream_ended(end_of(8))
    counting.stream_started(start_of(zones={"yard": YARD}))
    assert counted(counting, bench, 8, 9) == [["8 entered 2", "{'yard': 1}"], ["{'yard': 1}"]]


# --- what stands still -----------------------------------------------------------------------------------------------


def tracked(track: Track, bench: Bench, seq: int, found: Detections | None = None, **header: object) -> Frame:
    frame = bench.frame(seq, **header)
    if found is not None:
        frame.put_detections(found)
    track.process(frame)
    return frame


def test_what_was_found_in_another_frame_is_taken_over_with_its_tracks(track, bench) -> None:
    track.stream_started(start_of())
    tracked(track, bench, 0, person(100))
    told = tracked(track, bench, 1, person(104)).detections()
    frames = [tracked(track, bench, seq, same_as=1) for seq in (2, 3, 4)]
    for frame in frames:
        detections = frame.detections()
        np.testing.assert_array_equal(detections.boxes_xyxy, told.boxes_xyxy)
        assert detections.track_ids.tolist() == [1] and frame.header.failure is None


def flickering(track: Track, bench: Bench, last: int, first_x: float = 100, **header: object) -> Frame:
    """The last frame of a person who walks and is missed in every third look, of which the tracker learns."""
    for seq in range(last + 1):
        found = Detections.empty() if seq % 3 == 2 else person(first_x + 4 * seq)
        frame = tracked(track, bench, seq, found, **header)
        frame.give_back()
    return frame


def test_who_was_missed_where_most_are_found_again_is_told_of_as_predicted(track, bench) -> None:
    told = flickering(track, bench, 32).detections()
    assert (told.track_ids.tolist(), told.predicted.tolist()) == ([1], [True])
    assert told.boxes_xyxy[0] == pytest.approx(person(100 + 4 * 32).boxes_xyxy[0], abs=3)


@pytest.mark.parametrize(("width", "expected"), [(640, [1]), (226, [])])
def test_who_was_missed_and_should_have_left_the_picture_is_not_told_of(width: int, expected, track, bench) -> None:
    assert flickering(track, bench, 32, width=width).detections().track_ids.tolist() == expected


def test_in_a_picture_that_is_taken_over_who_was_missed_is_told_of_as_well(track, bench) -> None:
    track.stream_started(start_of())
    flickering(track, bench, 31)
    found = tracked(track, bench, 32, person(500))  # somebody else; who walks is missed
    taken = tracked(track, bench, 33, same_as=32).detections()
    np.testing.assert_array_equal(taken.boxes_xyxy[0], found.detections().boxes_xyxy[0])
    assert len(found.detections()) == 2 and not taken.predicted[0]


def test_who_is_predicted_in_a_zone_enters_it_when_found_there(counting, bench) -> None:
    frame = flickering(counting, bench, 32, first_x=-8)
    (left, _, right, _), counts = frame.detections().boxes_xyxy[0], frame.header.counts
    assert (left + right) / 2 > 138 and counts and not counts.events
    after = tracked(counting, bench, 33, person(124))
    assert [event.event for event in after.header.counts.events] == ["entered", "crossed"]


def test_nothing_found_is_taken_over_as_such(track, bench) -> None:
    tracked(track, bench, 0, Detections.empty())
    frame = tracked(track, bench, 1, same_as=0)
    assert len(frame.detections()) == 0 and frame.header.failure is None


@pytest.mark.parametrize("how", ["failed", "lost", "with an earlier track"])
def test_what_has_no_result_cannot_be_taken_over_and_is_no_empty_scene(how: str, track, bench) -> None:
    if how != "with an earlier track":
        tracked(track, bench, 0, person(100))  # frame 1 was lost, or failed: track sees nothing of it
    frame = tracked(track, bench, 2, same_as=1)
    assert frame.header.failure == "it looked as frame 1, which has no result" and DETECTIONS not in frame
    assert tracked(track, bench, 3, person(100)).header.failure is None


def test_each_source_takes_over_from_its_own_frames(track, bench) -> None:
    tracked(track, bench, 0, person(100))
    tracked(track, bench, 0, Detections.empty(), source_id="yard", place=1)
    assert len(tracked(track, bench, 1, same_as=0).detections()) == 1
    assert len(tracked(track, bench, 1, same_as=0, source_id="yard", place=1).detections()) == 0


def test_an_audit_tells_what_would_be_missed_and_has_its_own_result(track, bench) -> None:
    track.stream_started(start_of(score_threshold=0.8))
    tracked(track, bench, 0, Detections.empty())
    audited = tracked(track, bench, 1, person(100), audits=0)
    assert audited.header.audit == Audit(1, 1) and len(audited.detections()) == 1
    assert len(tracked(track, bench, 2, same_as=0).detections()) == 0  # as it would be without the audit
    track.stream_started(start_of(seq=3, score_threshold=0.95))
    assert tracked(track, bench, 3, person(100), audits=0).header.audit == Audit(0, 0)


def test_an_audit_of_what_has_no_result_tells_nothing(track, bench) -> None:
    assert tracked(track, bench, 2, person(100), audits=1).header.audit is None


def test_of_a_source_that_has_ended_nothing_is_taken_over(track, bench) -> None:
    tracked(track, bench, 0, person(100))
    track.stream_ended(end_of(1))
    assert tracked(track, bench, 1, same_as=0).header.failure
