"""Frames on the wire and in shared memory: what is put in comes out, and what lies is refused."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow import messages
from pipeline.flow.detections import Detections
from pipeline.flow.events import Counts, Event, LineCount, ZoneCount
from pipeline.flow.fates import NEWER
from pipeline.flow.frame import DETECTIONS, Frame, from_parts, round_to_parts, to_parts
from pipeline.flow.messages import (
    ArrayRef,
    EndOfStream,
    FrameHeader,
    Free,
    Hop,
    Outage,
    SignalChange,
    Slot,
    StreamStart,
)
from pipeline.flow.sharedmem import Pool, create_pool
from pipeline.shapes import Line, Zone


def header(**changes) -> FrameHeader:
    facts = {"source_id": "door", "place": 0, "seq": 7, "pts_seconds": 0.28, "captured_ns": 123, "captured_unix": 1.5}
    return FrameHeader(**(facts | {"width": 640, "height": 480} | changes))


@pytest.fixture
def pools():
    return {name: Pool(create_pool(name, slots=2, slot_bytes=100_000)) for name in ("frames", "heatmaps")}


def lease(pools, name: str = "frames") -> Slot:
    """For frame 7 of the first source, by worker 1."""
    return pools[name].lease(pools[name].first_free(0, 2), 0, 7, 1)


YARD, GATE = Zone(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)), ("person",), 9.5), Line(((0.5, 1.0), (0.5, 0.0)))
MESSAGES = [
    StreamStart("door", 3, 0, False, "block", 640, 480, None, None, 0.3),
    StreamStart("door", 3, 9, True, "latest", 640, 480, 29.97, 100, 0.5, ("person", "car")),
    StreamStart("door", 3, 9, True, "latest", 640, 480, None, None, 0.5, (), {"yard": YARD}, {"gate": GATE}),
    SignalChange("door", 3, 9, "lost", "no data for 5 s", 1.5, None),
    SignalChange("door", 3, 9, "live", "", 2.5, Outage("lost", "no data for 5 s", 1.5, 2.5, 3)),
    EndOfStream("door", 3, 0),
    EndOfStream("door", 3, 12, "connection lost"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_said_of_a_source_travels(message) -> None:
    assert from_parts(to_parts(message), {}) == [message]


def test_a_free_lane_says_so() -> None:
    free = Free(worker=4, size=8, busy_ns=123)
    assert from_parts(to_parts(free), {}) == free


@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_frame_travels_with_its_detections(count: int, pools) -> None:
    rng = np.random.default_rng(0)
    detections = Detections(
        rng.random((count, 4), np.float32),
        rng.random(count, np.float32),
        rng.integers(0, 80, count, np.int32),
        rng.integers(-(2**31), 2**31 - 1, count, np.int32),
        rng.random(count) < 0.5,
    )
    frame = Frame(header(failure="because", trace=[Hop("decode", 1, 2)]), pools)
    frame.put_detections(detections)
    parts = [bytes(part) for part in to_parts(frame)]
    (arrived,) = from_parts(parts, pools)
    assert isinstance(arrived, Frame)
    assert (arrived.header.source_id, arrived.header.seq, arrived.header.failure) == ("door", 7, "because")
    assert arrived.header.trace == [Hop("decode", 1, 2)]
    for name in ("boxes_xyxy", "scores", "class_ids", "track_ids", "predicted"):
        np.testing.assert_array_equal(getattr(arrived.detections(), name), getattr(detections, name))


def test_a_frame_travels_with_what_zones_and_lines_tell(pools) -> None:
    moment = {"source": "door", "seq": 7, "pts_seconds": 0.7, "at_unix": 1.5, "track_id": 3, "class_name": "person"}
    events = (
        Event(event="left", zone="yard", dwell_seconds=2.5, lost=True, **moment),
        Event(event="crossed", line="gate", direction="backward", **moment),
    )
    counts = Counts(events, {"yard": ZoneCount({"person": 2})}, {"gate": LineCount({"person": 1}, {})})
    (arrived,) = from_parts(to_parts(Frame(header(counts=counts), pools)), {})
    assert isinstance(arrived, Frame) and arrived.header.counts == counts


def test_putting_detections_twice_replaces_them(pools) -> None:
    frame = Frame(header(), pools)
    frame.put_detections(Detections.empty())
    frame.put_detections(
        Detections.untracked(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    )
    assert len(from_parts([bytes(p) for p in to_parts(frame)], pools)[0].detections()) == 1


def test_arrays_in_a_slot_lie_beside_each_other_and_are_not_sent(pools) -> None:
    slot = lease(pools)
    frame = Frame(header(leases=[slot]), pools)
    frame.place("input_rgb", slot, "uint8", (10, 10, 3))[:] = 1
    frame.place("image_bgr", slot, "uint8", (20, 20, 3))[:] = 2
    parts = to_parts(frame)
    (arrived,) = from_parts(parts, pools)
    assert len(parts) == 1
    assert (arrived.array("input_rgb") == 1).all() and (arrived.array("image_bgr") == 2).all()


def test_giving_a_slot_back_takes_its_arrays_along(pools) -> None:
    slot = lease(pools)
    frame = Frame(header(leases=[slot]), pools)
    frame.place("input_rgb", slot, "uint8", (4, 4, 3))
    assert frame.give_back("heatmaps") and "input_rgb" in frame and pools["frames"].holds(slot)
    assert frame.give_back("frames")
    assert "input_rgb" not in frame and frame.header.leases == [] and not pools["frames"].holds(slot)


@pytest.fixture
def two_slots(pools):
    """A frame with a picture in one slot, heat maps in another, and a detection; and those slots."""
    picture, heatmaps = lease(pools), lease(pools, "heatmaps")
    frame = Frame(header(leases=[picture, heatmaps]), pools)
    frame.place("image_bgr", picture, "uint8", (4, 4, 3))
    frame.place("hm", heatmaps, "float32", (4, 4))
    frame.put_detections(Detections.empty())
    return frame, picture, heatmaps


def test_a_frame_is_a_ghost_as_soon_as_one_of_its_leases_is_over(two_slots, pools) -> None:
    frame, picture, heatmaps = two_slots
    assert not frame.is_ghost
    pools["heatmaps"].end_lease(heatmaps)
    assert frame.is_ghost
    pools["heatmaps"].lease(heatmaps.index, 0, 8, 1)  # for another frame
    assert frame.is_ghost and pools["frames"].holds(picture)


@pytest.mark.parametrize("slot", [Slot("elsewhere", 0, 1), Slot("frames", 7, 1), Slot("frames", -1, 1)])
def test_a_lease_that_is_not_there_makes_a_ghost(slot: Slot, pools) -> None:
    assert Frame(header(leases=[slot]), pools).is_ghost


def test_who_gives_back_too_late_learns_that_it_read_another_frame(two_slots, pools) -> None:
    frame, picture, heatmaps = two_slots
    pools["heatmaps"].end_lease(heatmaps)
    other = pools["heatmaps"].lease(heatmaps.index, 0, 8, 1)
    assert not frame.give_back("heatmaps")
    assert pools["heatmaps"].holds(other)
    assert "hm" not in frame and frame.header.leases == [picture] and "image_bgr" in frame and DETECTIONS in frame


def test_a_dropped_frame_is_a_header_and_no_more(two_slots, pools) -> None:
    frame, picture, heatmaps = two_slots
    frame.drop(NEWER)
    assert (frame.header.dropped, frame.header.leases, frame.header.arrays) == (NEWER, [], [])
    assert not pools["frames"].holds(picture) and not pools["heatmaps"].holds(heatmaps)
    (parts,) = [to_parts(frame)]
    (arrived,) = from_parts([bytes(part) for part in parts], pools)
    assert len(parts) == 1 and arrived.header == frame.header and not arrived.is_ghost


def test_a_round_travels_with_all_that_its_frames_carry(pools) -> None:
    frames = [Frame(header(seq=seq), pools) for seq in range(3)]
    for frame in frames[::2]:
        frame.put("x", np.array([frame.header.seq], np.int32))
    arrived = from_parts([bytes(part) for part in round_to_parts(frames)], pools)
    assert [frame.header.seq for frame in arrived] == [0, 1, 2]
    assert [frame.array("x").tolist() for frame in arrived[::2]] == [[0], [2]] and "x" not in arrived[1]


def test_who_holds_a_frame_and_who_gets_it_is_written_for_each_of_its_slots(two_slots, pools) -> None:
    frame, _, _ = two_slots
    frame.taken_by(5)
    frame.sent_to(6)
    for pool in pools.values():
        assert [held.seq for held in pool.held_by(5)] == [held.seq for held in pool.held_by(6)] == [7]
        assert pool.held_by(1) == []


LIES = {
    "a slot that is not there": ArrayRef("x", "uint8", (1,), Slot("frames", 2, 0)),
    "a negative slot": ArrayRef("x", "uint8", (1,), Slot("frames", -1, 0)),
    "beyond the slot's end": ArrayRef("x", "float32", (30_000,), Slot("frames", 0, 0)),
    "a negative offset": ArrayRef("x", "uint8", (1,), Slot("frames", 0, 0), -1),
    "a negative side": ArrayRef("x", "uint8", (-1, -5), Slot("frames", 0, 0)),
    "an overflowing shape": ArrayRef("x", "uint8", (2**32, 2**32), Slot("frames", 0, 0)),
    "a pool that is not mapped": ArrayRef("x", "uint8", (1,), Slot("elsewhere", 0, 0)),
    "more arrays than buffers": ArrayRef("x", "uint8", (1,)),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_header_that_lies_is_refused(lie: ArrayRef, pools) -> None:
    with pytest.raises(ValueError):
        from_parts([messages.encode(header(arrays=[lie]))], pools)


def test_a_buffer_of_another_size_is_refused(pools) -> None:
    with pytest.raises(ValueError):
        from_parts([messages.encode(header(arrays=[ArrayRef("x", "float32", (4,))])), b"123"], pools)


@given(st.binary(max_size=200))
def test_noise_is_refused_not_run(noise: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        from_parts([noise], {})
