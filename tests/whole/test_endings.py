"""However a run ends: nothing is left behind, what was written can be read, and every frame has a fate."""

import fcntl
import os
import random
import select
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from pipeline.stages.infer import Infer
from pipeline.stages.track import Track
from tests.kit.account import Account, account, accounts, frames_of, missed
from tests.kit.harness import (
    QUICK,
    STAGES,
    Leftovers,
    command,
    finish,
    is_running,
    json_lines,
    nursery_pids,
    run_here,
    stage_pids,
    start,
    wait_until,
    worker_pids,
)
from tests.kit.media import count_pictures
from tests.kit.places import CLIP

PLACE = "lavfi:testsrc2=size=640x360:rate=25"  # endless


def start_endless(folder, *options, begin=start):
    """A run that does not end by itself, once its first frames were delivered; and the workers' pids."""
    process = begin(PLACE, *QUICK, "--out", folder / "o.mp4", "--jsonl", folder / "o.jsonl", *options)
    wait_for_frames(process, folder)
    return process, stage_pids(process.pid)


def wait_for_frames(process, folder) -> None:
    """Until some more frames were delivered."""
    lines = folder / "o.jsonl"
    enough = 3000 + (lines.stat().st_size if lines.exists() else 0)
    wait_until(lambda: process.poll() is not None or (lines.exists() and lines.stat().st_size > enough), what="frames")
    assert process.poll() is None, process.communicate()[1]


def assert_outputs_can_be_read(folder) -> None:
    sequence = [line["seq"] for line in json_lines(folder / "o.jsonl")]
    assert len(sequence) > 3 and sequence == list(range(len(sequence)))
    assert count_pictures(folder / "o.mp4") > 3


@pytest.mark.parametrize("stage", [pytest.param("infer", marks=pytest.mark.thorough), "deliver"])
def test_a_stage_that_is_killed_during_a_stop_ends_the_run_cleanly(stage: str, tmp_path) -> None:
    """Nobody is started anew on the way to the end."""
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    os.kill(pids["postprocess"], signal.SIGSTOP)  # the stop cannot come to its end by itself
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: "decode" not in stage_pids(process.pid), what="the end of the source")
    os.kill(pids[stage], signal.SIGKILL)
    os.kill(pids["postprocess"], signal.SIGCONT)
    code, errors = finish(process)
    assert code == 4, errors
    assert f"stage {worker_of(stage)} was killed by SIGKILL" in errors and "Traceback" not in errors
    assert account(errors).in_flight == 0 and errors.count("error:") == 1
    leftovers.assert_none(pids)
    assert_outputs_can_be_read(tmp_path)


def worker_of(stage: str) -> str:
    return "infer:0" if stage == "infer" else stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_is_killed_before_the_start_ends_the_run_cleanly(stage: str, tmp_path) -> None:
    leftovers = Leftovers()
    process = start(PLACE, "--name", "place", *QUICK, "--jsonl", tmp_path / "o.jsonl")
    wait_until(lambda: "infer" in stage_pids(process.pid), what="a worker")
    if stage != "infer":  # which all wait for
        os.kill(stage_pids(process.pid)["infer"], signal.SIGSTOP)
        wait_until(lambda: set(stage_pids(process.pid)) == set(STAGES), what="workers")
    pids = stage_pids(process.pid)
    os.kill(pids[stage], signal.SIGKILL)
    code, errors = finish(process)
    worker = "decode:place" if stage == "decode" else worker_of(stage)
    assert code == 4 and f"error: stage {worker} was killed by SIGKILL" in errors, errors
    assert errors.count("error:") == 1 and "Traceback" not in errors
    leftovers.assert_none(pids)
    assert not (tmp_path / "o.jsonl").exists()


def test_a_killed_supervisor_takes_its_workers_along(tmp_path) -> None:
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    pids |= nursery_pids(process.pid)
    process.kill()
    process.communicate()
    leftovers.assert_none(pids, seconds=15)
    assert_outputs_can_be_read(tmp_path)


def test_a_stage_that_raises_leaves_no_frame_without_a_fate(tmp_path, monkeypatch) -> None:
    process, process_round = Track.process, Infer.process_round

    def slowly(self, frames) -> None:
        time.sleep(0.02)  # so that the next round is at hand, and frames go on in bundles
        process_round(self, frames)

    def fail_at_ten(self, frame) -> None:
        if frame.header.seq == 10:
            raise KeyError("broken on purpose")
        process(self, frame)

    monkeypatch.setattr(Track, "process", fail_at_ten)
    monkeypatch.setattr(Infer, "process_round", slowly)
    done = run_here(CLIP, *QUICK, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 4 and "error: stage track failed: KeyError" in done.stderr, done.stderr
    assert "dropped at run: lost when stage track failed" in done.stderr and " 0 in flight" in done.stderr
    delivered = [line["seq"] for line in json_lines(tmp_path / "o.jsonl") if line["status"] != "dropped"]
    assert delivered == list(range(10))  # also those that came in one message with the tenth


def test_a_stop_that_waits_for_a_frozen_stage_in_vain_names_it(tmp_path) -> None:
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    os.kill(pids["postprocess"], signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 4, errors
    assert "error: stage postprocess did not answer the stop" in errors and errors.count("error:") == 1
    assert "not delivered within 5 s of the stop" in errors and " 0 in flight" in errors
    leftovers.assert_none(pids)


@pytest.mark.thorough
def test_a_stop_that_waits_for_a_slow_stage_in_vain_blames_nobody(tmp_path) -> None:
    process, pids = start_endless(tmp_path, "--set", "run.drain_seconds=0.2")
    os.kill(pids["postprocess"], signal.SIGSTOP)  # too short for a silence
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 130 and "error:" not in errors, errors
    assert "not delivered within 0.2 s of the stop" in errors and " 0 in flight" in errors


@pytest.mark.thorough
def test_a_stop_that_waits_in_vain_for_a_stage_that_loads_once_more_blames_nobody(tmp_path) -> None:
    process, pids = start_endless(tmp_path)
    os.kill(pids["postprocess"], signal.SIGKILL)
    wait_until(lambda: worker_pids(process.pid).get("postprocess", pids["postprocess"]) != pids["postprocess"])
    os.kill(worker_pids(process.pid)["postprocess"], signal.SIGSTOP)  # as one that takes its time
    process.send_signal(signal.SIGTERM)
    _, errors = finish(process)  # what was lost with the first one may be an error of its own
    assert "did not answer the stop" not in errors, errors
    assert "not delivered within 5 s of the stop" in errors and " 0 in flight" in errors


@pytest.mark.thorough
def test_a_run_that_was_stopped_as_a_whole_goes_on_as_a_whole(tmp_path) -> None:
    process, pids = start_endless(tmp_path, "--set", "run.silent_seconds=3")
    everyone = [process.pid, *pids.values()]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(4.0)  # longer than any stage may be silent
    for pid in everyone:
        os.kill(pid, signal.SIGCONT)
    wait_for_frames(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    code, errors = finish(process)
    assert code == 130 and "error:" not in errors, errors


STOPS = [signal.SIGINT, *(pytest.param(each, marks=pytest.mark.thorough) for each in (signal.SIGTERM, signal.SIGHUP))]


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_drains_and_ends_well(number, tmp_path) -> None:
    leftovers = Leftovers()
    process, pids = start_endless(tmp_path)
    process.send_signal(number)
    code, errors = finish(process)
    assert code == 130, errors
    assert " 0 dropped + 0 in flight" in errors, errors
    leftovers.assert_none(pids)
    assert_outputs_can_be_read(tmp_path)


@pytest.mark.thorough
def test_two_hangups_are_one_stop(tmp_path) -> None:
    process, pids = start_endless(tmp_path)
    os.kill(pids["infer"], signal.SIGSTOP)
    for _ in range(2):  # the kernel's and the shell's
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
    assert is_running(process.pid)
    os.kill(pids["infer"], signal.SIGCONT)
    code, errors = finish(process)
    assert code == 130 and " 0 dropped + 0 in flight" in errors, errors


@pytest.mark.thorough
def test_under_nohup_a_run_outlives_its_terminal(tmp_path) -> None:
    process, _ = start_endless(tmp_path, begin=lambda *words: start(*words, before=["nohup"]))
    process.send_signal(signal.SIGHUP)
    wait_for_frames(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 130


@contextmanager
def being_read(terminal: int) -> Iterator[None]:
    """A terminal that nobody reads holds up who writes there, after 4 kB: a slow start comes so far."""
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            if select.select([terminal], [], [], 0.1)[0]:
                os.read(terminal, 4096)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()


def in_terminal(theirs: int, *words) -> subprocess.Popen[bytes]:
    """A run whose terminal it is."""

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    return subprocess.Popen(command(*words), **streams, start_new_session=True, preexec_fn=take_terminal)


def test_a_terminal_that_stands_still_holds_up_nobody(tmp_path) -> None:
    """As after Ctrl-S: a worker that dies meanwhile is started anew; only the summary waits to be read."""
    leftovers = Leftovers()
    ours, theirs = os.openpty()
    process, pids = start_endless(tmp_path, begin=partial(in_terminal, theirs))
    for _ in range(3):  # more than a terminal holds was written by then
        wait_for_frames(process, tmp_path)
    os.kill(pids["track"], signal.SIGKILL)
    wait_until(lambda: stage_pids(process.pid).get("track", pids["track"]) != pids["track"], what="track again")
    wait_for_frames(process, tmp_path)
    process.send_signal(signal.SIGINT)
    with being_read(ours):
        assert process.wait(60) in (4, 130)  # 4 where a frame was lost with the worker
    os.close(theirs)
    os.close(ours)
    leftovers.assert_none(pids)
    assert_outputs_can_be_read(tmp_path)


def test_a_closed_terminal_is_a_stop(tmp_path) -> None:
    leftovers = Leftovers()
    ours, theirs = os.openpty()
    with being_read(ours):
        process, pids = start_endless(tmp_path, begin=partial(in_terminal, theirs))
    os.close(theirs)
    os.close(ours)
    assert process.wait(60) == 130
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
    process = start("lavfi:testsrc2=size=320x240:rate=5", *QUICK, "--realtime", "--jsonl", tmp_path / "o.jsonl")
    wait_until(lambda: (tmp_path / "o.jsonl").exists() and (tmp_path / "o.jsonl").stat().st_size > 500, what="frames")
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0


@pytest.fixture(scope="module")
def life_seconds(tmp_path_factory) -> float:
    """How long the run below takes where nobody stops it."""
    began = time.monotonic()
    process = begin_two(tmp_path_factory.mktemp("life"))
    assert finish(process, seconds=120)[0] == 0
    return time.monotonic() - began


def begin_two(folder) -> subprocess.Popen[str]:
    """A recording, and a live source that ends by itself."""
    live = "lavfi:testsrc2=size=160x120:rate=20:duration=3"
    return start(
        CLIP, live, "--name", "clip", "--name", "live", "--set", "sources.live.realtime=true", *QUICK,
        "--out", folder / "{source}.mkv", "--jsonl", folder / "o.jsonl",
    )  # fmt: skip


# One generator for all, and as many moments in each third of the run's life; the first few are enough for every day.
draw = random.Random(20260101).uniform
MOMENTS = [draw(place / 3, (place + 1) / 3) for _ in range(10) for place in range(3)]
SOME = [pytest.param(moment, marks=[] if number < 3 else pytest.mark.thorough) for number, moment in enumerate(MOMENTS)]


@pytest.mark.parametrize("moment", SOME)
def test_ctrl_c_at_any_moment(moment: float, life_seconds, tmp_path) -> None:
    leftovers = Leftovers()
    process = begin_two(tmp_path)
    time.sleep(moment * life_seconds)
    pids, nursery = worker_pids(process.pid), nursery_pids(process.pid)
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code in (0, 130, -signal.SIGINT), errors  # -SIGINT: Python itself had not started yet
    assert "Traceback" not in errors and "error:" not in errors, errors
    leftovers.assert_none(pids)
    leftovers.assert_none(nursery, seconds=10)  # it may be at its imports
    told = accounts(errors)
    for source in told:
        seqs = [line["seq"] for line in frames_of(tmp_path / "o.jsonl", source)]
        assert seqs == list(range(told[source].captured)) and told[source].in_flight == 0, errors
    assert told.get("clip", Account(0, 0, 0, 0, 0)).dropped == 0
    for path in tmp_path.glob("*.mkv"):
        assert count_pictures(path) == told[path.stem].delivered - missed(errors, path.stem)


@pytest.mark.thorough
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
