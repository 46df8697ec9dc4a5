"""postprocess and track with their real parts: each source has what it asked for, and a gap is a gap."""

import msgspec
import numpy as np
import pytest

from pipeline.flow.detections import Detections
from pipeline.flow.frame import NOT_ITS_OWN, Frame
from pipeline.flow.messages import Audit, Outage, SignalChange, Start
from pipeline.settings import PostprocessSettings
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
    assert frame.header.failure == NOT_ITS_OWN and "scores" not in frame


def test_what_nobody_looked_at_has_nothing_found(postprocess, bench) -> None:
    frame = bench.frame(0, unseen=True)
    postprocess.process(frame)
    assert "scores" not in frame and frame.header.failure is None


def test_what_looks_as_another_frame_has_nothing_found_here(postprocess, bench) -> None:
    frame = bench.frame(1, same_as=0)
    postprocess.process(frame)
    assert "scores" not in frame and frame.header.failure is None


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
    assert walked(track, bench, 0, 1, 2, 10, 11) == [0, 1, 1, 1, 1]


def test_each_source_has_tracks_of_its_own(track, bench) -> None:
    track.stream_started(start_of("door", 0))
    track.stream_started(start_of("yard", 1))
    assert walked(track, bench, 0, 1) == [0, 1]
    assert walked(track, bench, 0, 1, source_id="yard", place=1) == [0, 1]


def test_a_change_of_settings_begins_no_new_tracks(track, bench) -> None:
    track.stream_started(start_of())
    assert walked(track, bench, 0, 1) == [0, 1]
    track.stream_started(start_of(seq=2, score_threshold=0.7))
    assert walked(track, bench, 2, 3) == [1, 1]


def test_a_tracker_that_comes_after_another_begins_where_it_finds_the_source(track, bench) -> None:
    """It hears of the last change first, and that may be of a frame that is still to come."""
    track.stream_started(start_of(seq=0))
    assert walked(track, bench, 500, 501) == [0, 1]
    track.stream_ended(end_of(502))
    assert walked(track, bench, 502, 503) == [0, 1]  # a frame without a start: it died with an earlier process


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


def outage(state: str, seconds: float, seq: int) -> SignalChange:
    return SignalChange("door", 0, seq, "live", "", 0.0, Outage(state, "", 100.0, 100.0 + seconds, 1))


@pytest.mark.parametrize(("state", "ids"), [("lost", [2]), ("paused", [2]), ("frozen", [1])])
def test_time_without_a_signal_is_a_gap_like_one_of_frames(state: str, ids: list[int], track, bench) -> None:
    """Somebody who stands where another stood a minute ago is another."""
    track.stream_started(live())
    assert walked(track, bench, *range(5))[-1] == 1
    track.signal_changed(outage(state, 60.0, 5))
    assert walked(track, bench, 5, 6, 7)[-1:] == ids


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
    tracked(track, bench, 1, person(104))
    frames = [tracked(track, bench, seq, same_as=1) for seq in (2, 3, 4)]
    for frame in frames:
        detections = frame.detections()
        np.testing.assert_array_equal(detections.boxes_xyxy, person(104).boxes_xyxy)
        assert detections.track_ids.tolist() == [1] and frame.header.failure is None


def test_nothing_found_is_taken_over_as_such(track, bench) -> None:
    tracked(track, bench, 0, Detections.empty())
    frame = tracked(track, bench, 1, same_as=0)
    assert len(frame.detections()) == 0 and frame.header.failure is None


@pytest.mark.parametrize("how", ["failed", "lost", "with an earlier track"])
def test_what_has_no_result_cannot_be_taken_over_and_is_no_empty_scene(how: str, track, bench) -> None:
    if how != "with an earlier track":
        tracked(track, bench, 0, person(100))  # frame 1 was lost, or failed: track sees nothing of it
    frame = tracked(track, bench, 2, same_as=1)
    assert frame.header.failure == "it looked as frame 1, which has no result" and "scores" not in frame
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
