"""`infer.still` in whole runs: a scene that stands still is computed once in a while, and nothing else changes: every
frame has one fate, in order, with objects that were found in a frame that was computed."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.kit.account import assert_books_agree
from tests.kit.harness import HANG_SECONDS, finish, json_lines, run, run_here, start, wait_until, worker_pids
from tests.kit.media import count_pictures
from tests.kit.still import write_still_clip

FRAMES, STANDING, WALKING, MOST = 60, 20, 5, 8
SMALL = ("--engine", "eager", "--input", "256x192", "--name", "still")


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("still") / "still.mp4"
    return write_still_clip(path, FRAMES, standing=STANDING, walking=WALKING)


def assert_taken_over_soundly(lines: list[dict], most: int) -> list[int]:
    """The seqs of the frames that took over: each from one that was computed and has a result, a few in a row."""
    lines = [line for line in lines if line["kind"] == "frame"]
    by_seq = {line["seq"]: line for line in lines}
    took, of_frame = [], {}
    for line in sorted(lines, key=lambda line: line["seq"]):
        if "from" not in line:
            continue
        computed = by_seq[line["from"]]
        assert line["status"] == computed["status"] == "ok" and "from" not in computed
        assert line["from"] < line["seq"] and line["from"] >= max(of_frame, default=0)
        assert [found(line)] == [found(computed)]
        took.append(line["seq"])
        of_frame[line["from"]] = of_frame.get(line["from"], 0) + 1
    assert max(of_frame.values(), default=0) <= most
    return took


def assert_passed_by(trace: Path, lines: list[dict]) -> None:
    """What took over went past the network and the search for peaks; all else came to each stage."""
    ways = {line["seq"]: [stage for stage, _, _ in line["hops"]] for line in json_lines(trace)}
    for line in lines:
        past = () if "from" in line else ("infer", "postprocess")
        assert ways[line["seq"]] == ["decode", "gather", *past, "track", "deliver"]


def found(line: dict) -> list[dict]:
    """The objects but for their tracks."""
    return [{key: value for key, value in each.items() if key != "track_id"} for each in line["objects"]]


def told(errors: str) -> tuple[int, int, int, int]:
    """What the summary says: taken over, audited, objects missed, objects."""
    took = re.search(r"^  (\d+) delivered took over", errors, re.MULTILINE)
    audits = re.search(r"^  (\d+) more could have, .*: (\d+) of (\d+) objects missed", errors, re.MULTILINE)
    return int(took[1]) if took else 0, *(map(int, audits.groups()) if audits else (0, 0, 0))  # type: ignore[return-value]


def test_a_scene_that_stands_still_is_computed_once_in_a_while(clip, tmp_path) -> None:
    options = ("--set", f"infer.still={MOST}", "--set", "infer.still_audit=6", "--out", tmp_path / "o.mp4")
    options = (*options, "--set", f"deliver.also=[trace:{tmp_path}/trace.jsonl]")
    done = run(clip, *SMALL, *options, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    lines = json_lines(tmp_path / "o.jsonl")
    assert_passed_by(tmp_path / "trace.jsonl", lines)
    assert assert_books_agree(tmp_path / "o.jsonl", done.stderr, ("still",)) == {"still": 0}
    assert [line["seq"] for line in lines] == list(range(FRAMES)) and {line["status"] for line in lines} == {"ok"}
    took = assert_taken_over_soundly(lines, MOST)
    # While people walk each frame is computed.
    assert not [seq for seq in took if seq % (STANDING + WALKING) >= STANDING]
    assert len(took) > 20 and any(lines[seq]["objects"] for seq in took)
    taken_over, audits, missed, objects = told(done.stderr)
    assert taken_over == len(took) and audits == (taken_over + audits) // 6 and 0 <= missed <= objects > 0
    assert count_pictures(tmp_path / "o.mp4") == FRAMES  # each has its own


def test_where_nobody_asked_each_frame_is_computed(clip, tmp_path) -> None:
    done = run_here(clip, *SMALL, "--max-frames", 12, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert not any("from" in line for line in json_lines(tmp_path / "o.jsonl")) and told(done.stderr) == (0, 0, 0, 0)


def test_in_threads_too_and_what_was_found_has_tracks(clip, tmp_path) -> None:
    options = ("--set", f"infer.still={MOST}", "--set", "infer.still_audit=null", "--max-frames", STANDING)
    done = run_here(clip, *SMALL, *options, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    lines = json_lines(tmp_path / "o.jsonl")
    took = assert_taken_over_soundly(lines, MOST)
    assert told(done.stderr) == (len(took), 0, 0, 0) and took
    tracks = {seq: {each["track_id"] for each in lines[seq]["objects"]} - {None} for seq in took}
    assert tracks[took[-1]] and tracks[took[-1]] <= tracks[took[-2]]


@pytest.mark.thorough
def test_workers_that_are_lost_leave_no_frame_that_took_over_from_nothing(tmp_path) -> None:
    """What referred to a lost frame has no result; the next one is computed."""
    path = tmp_path / "o.jsonl"
    process = start(
        "lavfi:smptebars=size=160x120:rate=25", "--realtime", *SMALL[:2], "--input", "128x96", "--name", "still",
        "--set", "infer.still=20", "--set", "infer.workers=1", "--jsonl", path,
    )  # fmt: skip

    def count() -> int:
        return path.read_text().count('"from":') if path.exists() else 0

    def await_more(after: str) -> None:
        most = count() + 40
        wait_until(lambda: process.poll() is not None or count() > most, HANG_SECONDS, f"frames taken over {after}")

    await_more("at the start")
    for worker in ("infer:0", "track", "gather"):
        os.kill(worker_pids(process.pid)[worker], signal.SIGKILL)
        await_more(f"after {worker} was lost")
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code == 0 and "Traceback" not in errors, errors
    assert_books_agree(path, errors, ("still",))
    lines = json_lines(path)
    took = assert_taken_over_soundly(lines, 20)
    assert told(errors)[0] == len(took) > 150
    for line in lines:
        if line.get("status") == "failed":
            (referred,) = re.findall(r"it looked as frame (\d+), which has no result", line["reason"])
            assert int(referred) < line["seq"]
