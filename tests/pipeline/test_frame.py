"""Frames on the wire and in shared memory: what is put in comes out, and what lies is refused."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import messages
from pipeline.detections import Detections
from pipeline.frame import Frame, from_parts, to_parts
from pipeline.messages import ArrayRef, EndOfStream, FrameHeader, Hop, Slot, StreamStart
from pipeline.sharedmem import Pool, create_pool


def header(**changes) -> FrameHeader:
    facts = {"source_id": "door", "seq": 7, "pts_seconds": 0.28, "captured_ns": 123, "captured_unix": 1.5}
    return FrameHeader(**(facts | {"width": 640, "height": 480} | changes))


@pytest.fixture
def pools():
    return {"frames": Pool(create_pool("frames", slots=2, slot_bytes=100_000))}


MESSAGES = [
    StreamStart("door", False, "block", 640, 480, None, None),
    StreamStart("door", True, "latest", 640, 480, 29.97, 100),
    EndOfStream("door", 0),
    EndOfStream("door", 12, "connection lost"),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_starts_and_ends_travel(message) -> None:
    assert from_parts(to_parts(message), {}) == message


@pytest.mark.parametrize("count", [0, 1, 100])
def test_a_frame_travels_with_its_detections(count: int, pools) -> None:
    rng = np.random.default_rng(0)
    detections = Detections.untracked(
        rng.random((count, 4), np.float32), rng.random(count, np.float32), rng.integers(0, 80, count, np.int32)
    )
    frame = Frame(header(failure="because", trace=[Hop("decode", 1, 2)]), pools)
    frame.put_detections(detections)
    parts = [bytes(part) for part in to_parts(frame)]
    arrived = from_parts(parts, pools)
    assert isinstance(arrived, Frame)
    assert (arrived.header.source_id, arrived.header.seq, arrived.header.failure) == ("door", 7, "because")
    assert arrived.header.trace == [Hop("decode", 1, 2)]
    for name in ("boxes_xyxy", "scores", "class_ids", "track_ids"):
        np.testing.assert_array_equal(getattr(arrived.detections(), name), getattr(detections, name))


def test_putting_detections_twice_replaces_them(pools) -> None:
    frame = Frame(header(), pools)
    frame.put_detections(Detections.empty())
    frame.put_detections(
        Detections.untracked(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.ones(1, np.int32))
    )
    assert len(from_parts([bytes(p) for p in to_parts(frame)], pools).detections()) == 1


def test_arrays_in_a_slot_lie_beside_each_other_and_are_not_sent(pools) -> None:
    slot = pools["frames"].lease(1)
    frame = Frame(header(leases=[slot]), pools)
    frame.place("input_rgb", slot, "uint8", (10, 10, 3))[:] = 1
    frame.place("image_bgr", slot, "uint8", (20, 20, 3))[:] = 2
    parts = to_parts(frame)
    arrived = from_parts(parts, pools)
    assert len(parts) == 1
    assert (arrived.array("input_rgb") == 1).all() and (arrived.array("image_bgr") == 2).all()


def test_giving_a_slot_back_takes_its_arrays_along(pools) -> None:
    slot = pools["frames"].lease(0)
    frame = Frame(header(leases=[slot]), pools)
    frame.place("input_rgb", slot, "uint8", (4, 4, 3))
    assert frame.take_leases("heatmaps") == []
    assert frame.take_leases("frames") == [slot]
    assert "input_rgb" not in frame and frame.header.leases == []


@pytest.fixture
def two_slots(pools):
    """A frame with a picture in one slot, heat maps in another, and a detection; and those slots."""
    picture, heatmaps = pools["frames"].lease(0), pools["frames"].lease(1)
    frame = Frame(header(leases=[picture, heatmaps]), pools)
    frame.place("image_bgr", picture, "uint8", (4, 4, 3))
    frame.place("hm", heatmaps, "float32", (4, 4))
    frame.put_detections(Detections.empty())
    return frame, picture, heatmaps


def test_a_frame_whose_slots_are_its_own_is_left_alone(two_slots) -> None:
    frame, picture, heatmaps = two_slots
    frame.check_slots()
    assert frame.header.failure is None and frame.header.leases == [picture, heatmaps]


@pytest.mark.parametrize("look", [Frame.check_slots, Frame.take_leases])
def test_a_slot_that_holds_another_frame_is_no_result_and_is_not_given_back(two_slots, pools, look) -> None:
    frame, _, heatmaps = two_slots
    pools["frames"].end_lease(heatmaps)
    look(frame)
    assert frame.header.failure == "its pixels were given to another frame"
    assert "hm" not in frame and "scores" not in frame
    assert heatmaps not in frame.header.leases


def test_what_lies_in_the_slots_that_are_still_its_own_stays(two_slots, pools) -> None:
    frame, picture, heatmaps = two_slots
    pools["frames"].end_lease(heatmaps)
    frame.check_slots()
    assert "image_bgr" in frame and frame.take_leases() == [picture]


def test_a_lease_in_a_pool_that_is_not_there_is_none_of_ours(pools) -> None:
    frame = Frame(header(leases=[Slot("elsewhere", 0, 1), Slot("frames", 7, 1)]), pools)
    assert frame.take_leases() == [] and frame.header.failure


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


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_not_run(noise: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, ValueError)):
        from_parts([noise], {})
