"""Frames are given up before the network or not at all; what was paid for is delivered, and none gets old."""

import time

from pipeline.stages.deliver import Deliver
from tests.kit.account import account
from tests.kit.harness import json_lines, run_here


def test_what_the_network_computed_is_delivered_however_slow_delivery_is(tmp_path, monkeypatch) -> None:
    process, slots = Deliver.process, set()

    def slowly(self, frame) -> None:
        slots.update(slot.index for slot in frame.header.leases)
        time.sleep(0.1)
        process(self, frame)

    monkeypatch.setattr(Deliver, "process", slowly)
    source = "lavfi:testsrc2=size=320x240:rate=30:duration=3"
    done = run_here(
        source, "--realtime", "--engine", "eager", "--input", "128x96", "--set", "infer.workers=2",
        "--jsonl", tmp_path / "r.jsonl"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page, lines = account(done.stderr), json_lines(tmp_path / "r.jsonl")
    assert page.captured == 90 and page.dropped == 90 - page.delivered > 0 == page.failed == page.in_flight
    assert [line["seq"] for line in lines] == list(range(90))
    assert {line["stage"] for line in lines if line["status"] == "dropped"} <= {"decode", "gather"}
    assert len(slots) <= 2 + 4 + 1  # so few frames are on their way that none gets old
