"""Stages with their real parts, one at a time: a failure is a failure, a gap is a gap."""

import json
import time
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.detections import Detections
from pipeline.frame import Frame, Message
from pipeline.messages import EndOfStream, FrameHeader, ModelCard, Slot, StreamStart
from pipeline.metrics import Meter
from pipeline.settings import DeliverSettings, Settings, SourceSettings
from pipeline.sharedmem import Leases, Pool, create_pool
from pipeline.sources import late
from pipeline.stage import FRAMES, HEATMAPS, Kit
from pipeline.stages.decode import Decode
from pipeline.stages.deliver import Deliver
from pipeline.stages.infer import Infer
from pipeline.stages.track import Track
from tests.kit.media import noise, write_video

START = StreamStart("door", False, "block", 640, 480, 10.0, None)
CARD = ModelCard("m", "w", ("person", "car"), 512, 512, 512, 512, 4, "stretch", "cpu", "eager", {}, "fp32", 1, 1)


class Bench:
    """A kit on the workbench: real pools and leases, and a list of what was given back."""

    def __init__(self, sources=None, **settings) -> None:
        self.pools = {name: Pool(create_pool(name, 2, 16 << 20)) for name in (FRAMES, HEATMAPS)}
        self.leases = Leases(self.pools[HEATMAPS], SimpleNamespace(receive=lambda timeout_seconds: None), print)
        self.returned: list[Slot] = []
        self.kit = Kit(
            settings=Settings(sources=sources or {"door": SourceSettings(uri="x")}, **settings),
            pools=self.pools,
            leases=self.leases,
            meter=Meter("bench", owns_process=True),
            give_back=self.returned.extend,
            tell=lambda doing: None,
            ask_stop=lambda: None,
            stopped=lambda: False,
        )

    def frame(self, seq: int = 0, input_side: int | None = None) -> Frame:
        slot = self.pools[FRAMES].lease(0)
        frame = Frame(FrameHeader("door", seq, seq / 10, 0, 0.0, 640, 480, leases=[slot]), self.pools)
        if input_side:
            frame.place("input_rgb", slot, "uint8", (input_side, input_side, 3))[:] = 127
        return frame


@pytest.fixture(scope="module")
def infer():
    bench = Bench()
    stage = Infer(bench.kit)
    card = stage.prepare()
    return bench, stage, card


def test_the_model_card_says_what_runs(infer) -> None:
    _, _, card = infer
    assert (card.name, card.input_width, card.stride, card.class_names[0]) == ("mobilenetv3", 512, 4, "person")


def test_heads_lie_in_a_leased_slot(infer) -> None:
    bench, stage, _ = infer
    frame = bench.frame(input_side=512)
    stage.process(frame)
    assert frame.header.failure is None
    assert frame.array("hm").shape == (80, 128, 128) and frame.array("wh").shape == (4, 128, 128)
    (slot,) = frame.take_leases(HEATMAPS)
    bench.leases.restore(slot)


def test_a_failed_inference_is_no_empty_result(infer) -> None:
    bench, stage, _ = infer
    frame = bench.frame(input_side=100)  # not a multiple of the stride: the network refuses it
    stage.process(frame)
    assert frame.header.failure and "inference failed" in frame.header.failure
    assert "hm" not in frame and [(slot.pool, slot.index) for slot in frame.header.leases] == [(FRAMES, 0)]
    assert stage.problem is not None and stage.problem.exit_code == 4


def decoded(bench: Bench) -> list[Message]:
    """All that decode says of the bench's source; every slot comes back at once."""
    stage = Decode(bench.kit)
    stage.begin(CARD)
    said: list[Message] = []

    def emit(message: Message) -> None:
        said.append(message)
        if isinstance(message, Frame):
            for slot in message.take_leases():
                bench.leases.restore(slot)
            time.sleep(0.05)

    stage.run(emit)
    stage.close()
    return said


def test_frames_that_are_late_have_a_number_and_a_fate(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    options = {"g": "10", "bf": "0"}
    path = write_video(tmp_path / "v.mkv", noise(90, 64, 48), time_base=Fraction(1, 60), options=options)
    bench = Bench(sources={"door": SourceSettings(uri=str(path), realtime=True)})
    said = decoded(bench)
    frames = [message for message in said if isinstance(message, Frame)]
    page = bench.kit.meter.report(0).sources["door"]
    assert page.captured == 90 and said[-1] == EndOfStream("door", 90)
    ((reason, left_out),) = page.dropped.items()
    assert "late" in reason and left_out == 90 - len(frames) > 0
    # The tracker sees by the numbers how much is missing.
    assert [round(f.header.pts_seconds * 60) for f in frames] == [f.header.seq for f in frames]


def person(x: float) -> Detections:
    box = np.array([[x, 100, x + 40, 200]], np.float32)
    return Detections.untracked(box, np.array([0.9], np.float32), np.array([0], np.int32))


def test_a_gap_is_not_a_frame_without_objects() -> None:
    bench = Bench()
    track = Track(bench.kit)
    track.prepare()
    track.stream_started(START)
    ids = []
    for seq in (0, 1, 2, 10, 11):  # eight frames were dropped: the person walked on meanwhile
        frame = bench.frame(seq)
        frame.put_detections(person(100 + 4 * seq))
        track.process(frame)
        ids.append(int(frame.detections().track_ids[0]))
    assert ids == [0, 1, 1, 1, 1]


def delivered(tmp_path, *frames: tuple[int, str | None, Detections]) -> tuple[Deliver, Bench, list[dict]]:
    bench = Bench(deliver=DeliverSettings(jsonl=str(tmp_path / "o.jsonl")))
    stage = Deliver(bench.kit)
    stage.prepare()
    stage.begin(CARD)
    stage.stream_started(START)
    for seq, failure, detections in frames:
        frame = bench.frame(seq)
        frame.header.failure = failure
        if not failure:
            frame.put_detections(detections)
        stage.process(frame)
    stage.stream_ended(EndOfStream("door", len(frames)))
    stage.close()
    return stage, bench, [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]


def test_nothing_delivered_is_an_empty_file(tmp_path) -> None:
    _, _, lines = delivered(tmp_path)
    assert lines == []


def test_a_failed_frame_is_delivered_as_failed(tmp_path) -> None:
    frames = [(0, None, Detections.empty()), (1, "out of memory", Detections.empty()), (2, None, person(50))]
    _, bench, lines = delivered(tmp_path, *frames)
    assert [line["status"] for line in lines] == ["ok", "failed", "ok"]
    assert lines[1]["reason"] == "out of memory" and lines[1]["objects"] == []
    assert lines[2]["objects"][0]["box_xyxy"] == [50, 100, 90, 200]
    page = bench.kit.meter.report(0).sources["door"]
    assert (page.delivered, page.failed) == (2, 1)
    assert [(slot.pool, slot.index) for slot in bench.returned] == [(FRAMES, 0)] * 3
