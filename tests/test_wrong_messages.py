"""What should not come, came: a slot returned twice or too early costs at most its own frame."""

import dataclasses
import re

import pytest

from pipeline.frame import NOT_ITS_OWN
from pipeline.stages.postprocess import Postprocess
from pipeline.worker import Worker
from tests.harness import CLIP, json_lines, run_here

FRAMES = 60


def objects(line: dict) -> list:
    return [(o["class"], o["score"], *o["box_xyxy"]) for o in line["objects"]]


def run_to_lines(folder):
    done = run_here(
        CLIP, "--max-frames", FRAMES, "--engine", "eager", "--jsonl", folder / "o.jsonl", "--out", folder / "o.mp4"
    )
    assert done.returncode == 0 and f"{FRAMES} captured" in done.stderr, done.stderr
    return done, json_lines(folder / "o.jsonl")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    _, lines = run_to_lines(tmp_path_factory.mktemp("clean"))
    return [objects(line) for line in lines]


def test_slots_given_back_twice_change_no_frame(clean, tmp_path, monkeypatch) -> None:
    make_kit = Worker._make_kit

    def make_careless_kit(self):
        kit = make_kit(self)

        def twice(slots) -> None:
            slots = list(slots)
            kit.give_back(slots)
            kit.give_back(slots)

        return dataclasses.replace(kit, give_back=twice)

    monkeypatch.setattr(Worker, "_make_kit", make_careless_kit)
    done, lines = run_to_lines(tmp_path)
    assert [objects(line) for line in lines] == clean
    for pool in ("frames", "heatmaps"):  # the lessor does not wait for the last ones
        refused = re.search(rf"{pool}: slots given back that were not on loan, refused: (\d+)", done.stderr)
        assert refused and int(refused[1]) > FRAMES // 2, done.stderr


def test_a_slot_given_back_too_early_gives_a_failed_frame_not_anothers_objects(clean, tmp_path, monkeypatch) -> None:
    process = Postprocess.process

    def give_back_first(self, frame) -> None:
        if frame.header.seq % 2:
            self.kit.give_back(frame.header.leases)
        process(self, frame)

    monkeypatch.setattr(Postprocess, "process", give_back_first)
    done, lines = run_to_lines(tmp_path)
    failed = [line for line in lines if line["status"] == "failed"]
    assert len(lines) == FRAMES and failed and all(line["reason"] == NOT_ITS_OWN for line in failed)
    assert all(line["seq"] % 2 for line in failed)
    assert all(objects(line) == clean[line["seq"]] for line in lines if line["status"] == "ok")
    assert "frames without a result, for its pixels were given to another frame" in done.stderr
    assert " 0 in flight" in done.stderr
