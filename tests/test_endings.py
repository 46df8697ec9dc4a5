"""However a run ends: nothing is left behind, what was written can be read, and every frame has a fate."""

import os
import random
import signal
import time

import av
import pytest

from tests.harness import CLIP, STAGES, Leftovers, finish, is_running, json_lines, stage_pids, start, wait_until

PLACE = "lavfi:testsrc2=size=640x360:rate=25"  # endless


def start_endless(folder):
    """A run that does not end by itself, once its first frames were delivered; and the workers' pids."""
    lines = folder / "o.jsonl"
    process = start(PLACE, "--out", folder / "o.mp4", "--jsonl", lines)
    wait_until(lambda: process.poll() is not None or (lines.exists() and lines.stat().st_size > 3000), what="frames")
    assert process.poll() is None, process.communicate()[1]
    return process, stage_pids(process.pid)


def assert_outputs_can_be_read(folder) -> None:
    sequence = [line["seq"] for line in json_lines(folder / "o.jsonl")]
    assert len(sequence) > 3 and sequence == list(range(len(sequence)))
    with av.open(str(folder / "o.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) > 3


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_the_run_cleanly(stage: str, tmp_path) -> None:
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    assert set(pids) == set(STAGES)
    os.kill(pids[stage], signal.SIGKILL)
    code, errors = finish(process)
    assert code == 4, errors
    assert f"stage {stage} was killed by SIGKILL" in errors and "Traceback" not in errors
    assert "in flight" in errors and " 0 in flight" in errors
    leftovers.assert_none(pids)
    assert_outputs_can_be_read(tmp_path)


def test_a_killed_supervisor_takes_its_workers_along(tmp_path) -> None:
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    process.kill()
    process.communicate()
    leftovers.assert_none(pids, seconds=15)
    assert_outputs_can_be_read(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_drains_and_ends_well(number, tmp_path) -> None:
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 130, errors
    assert " 0 dropped + 0 in flight" in errors, errors
    leftovers.assert_none(pids)
    assert_outputs_can_be_read(tmp_path)


def test_a_stop_while_every_slot_is_taken_loses_no_frame(tmp_path) -> None:
    process, pids = start_endless(tmp_path)
    os.kill(pids["infer"], signal.SIGSTOP)
    time.sleep(1.0)  # decode has filled all slots and waits for one
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    os.kill(pids["infer"], signal.SIGCONT)
    code, errors = finish(process)
    assert code == 130, errors
    assert " 0 dropped + 0 in flight" in errors, errors


def test_stopping_a_live_source_is_its_normal_end(tmp_path) -> None:
    process = start("lavfi:testsrc2=size=320x240:rate=5", "--realtime", "--jsonl", tmp_path / "o.jsonl")
    wait_until(lambda: (tmp_path / "o.jsonl").exists() and (tmp_path / "o.jsonl").stat().st_size > 500, what="frames")
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0


# One generator for all, and one moment in each tenth of the time.
draw = random.Random(20260101).uniform
MOMENTS = [draw(0.8 * tenth, 0.8 * (tenth + 1)) for tenth in range(10)]


@pytest.mark.parametrize("seconds", MOMENTS)
def test_ctrl_c_at_any_moment(seconds: float, tmp_path) -> None:
    leftovers = Leftovers()
    process = start(CLIP, "--out", tmp_path / "o.mp4", "--jsonl", tmp_path / "o.jsonl")
    time.sleep(seconds)
    pids = stage_pids(process.pid)
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code in (0, 130, -signal.SIGINT), errors  # -SIGINT: Python itself had not started yet
    assert "Traceback" not in errors
    leftovers.assert_none(pids)
    if (tmp_path / "o.jsonl").exists():
        sequence = [line["seq"] for line in json_lines(tmp_path / "o.jsonl")]
        assert sequence == list(range(len(sequence)))


def test_a_second_ctrl_c_does_not_wait(tmp_path) -> None:
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    os.kill(pids["infer"], signal.SIGSTOP)  # nothing can drain
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert is_running(process.pid)
    process.send_signal(signal.SIGINT)
    assert finish(process, seconds=10)[0] == 130
    leftovers.assert_none(pids)
