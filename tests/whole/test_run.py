"""The command from end to end, on real video: what it writes, what it says, how it ends."""

import json

import av
import pytest

from tests.kit.account import account
from tests.kit.harness import Leftovers, json_lines, run, run_here
from tests.kit.places import CLIP

FRAMES = 40


def objects(lines: list[dict]) -> list:
    return [[(o["class"], o["score"], *o["box_xyxy"]) for o in line["objects"]] for line in lines]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """One run with every output; the tests below look at it from different sides."""
    folder = tmp_path_factory.mktemp("run")
    leftovers = Leftovers()
    done = run(
        CLIP,
        "--max-frames",
        FRAMES,
        "--out",
        folder / "o.mp4",
        "--jsonl",
        folder / "o.jsonl",
        "--mot",
        folder / "o.txt",
    )
    leftovers.assert_none()
    assert done.returncode == 0, done.stderr
    return folder, done


def test_json_lines_hold_every_frame_in_order(outputs) -> None:
    folder, _ = outputs
    lines = json_lines(folder / "o.jsonl")
    assert [line["seq"] for line in lines] == list(range(FRAMES))
    assert {line["status"] for line in lines} == {"ok"}
    assert all(line["width"] == 768 and line["height"] == 576 and line["source"] == CLIP.stem for line in lines)
    assert lines[10]["pts_seconds"] == pytest.approx(1.0)


def test_people_are_found_and_tracked(outputs) -> None:
    folder, _ = outputs
    last = json_lines(folder / "o.jsonl")[-1]["objects"]
    people = [o for o in last if o["class"] == "person"]
    assert len(people) >= 3
    assert sum(o["track_id"] is not None for o in people) >= 3
    for person in people:
        left, top, right, bottom = person["box_xyxy"]
        assert 0 <= left < right <= 768 and 0 <= top < bottom <= 576


def test_the_overlay_video_plays_like_the_source(outputs) -> None:
    folder, _ = outputs
    with av.open(str(folder / "o.mp4")) as video:
        stream = video.streams.video[0]
        times = [frame.time for frame in video.decode(stream)]
        assert (stream.width, stream.height, stream.codec_context.name) == (768, 576, "h264")
    assert len(times) == FRAMES
    assert times[-1] - times[0] == pytest.approx((FRAMES - 1) / 10, abs=0.01)


def test_mot_lines_are_confirmed_tracks(outputs) -> None:
    folder, _ = outputs
    rows = [line.split(",") for line in (folder / "o.txt").read_text().splitlines()]
    assert rows and all(len(row) == 10 and int(row[1]) >= 1 and 1 <= int(row[0]) <= FRAMES for row in rows)


def test_the_summary_accounts_for_every_frame(outputs) -> None:
    _, done = outputs
    assert f"{FRAMES} captured = {FRAMES} delivered + 0 without result + 0 dropped + 0 in flight" in done.stderr
    assert "latency from capture to delivery" in done.stderr
    assert done.stdout == ""


def test_threads_give_the_same_objects_as_processes(outputs, tmp_path) -> None:
    folder, _ = outputs
    done = run(CLIP, "--max-frames", FRAMES, "--placement", "threads", "--jsonl", tmp_path / "t.jsonl")
    assert done.returncode == 0, done.stderr
    assert objects(json_lines(tmp_path / "t.jsonl")) == objects(json_lines(folder / "o.jsonl"))


def test_json_lines_on_standard_output_are_all_there_is(outputs) -> None:
    done = run(CLIP, "--max-frames", 3, "--jsonl", "-")
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [0, 1, 2]


def test_only_the_classes_asked_for(outputs, tmp_path) -> None:
    # One engine: each other set of classes is another network, and all engines would be measured for it.
    options = ("--max-frames", 5, "--classes", "car, bicycle", "--score", "0.01", "--engine", "onnxruntime")
    done = run_here(CLIP, *options, "--jsonl", tmp_path / "c.jsonl")
    assert done.returncode == 0, done.stderr
    found = {o["class"] for line in json_lines(tmp_path / "c.jsonl") for o in line["objects"]}
    assert found and found <= {"car", "bicycle"}


def test_realtime_drops_what_it_cannot_do_and_says_so(tmp_path) -> None:
    """A machine too slow on purpose: 240 frames a second of 640x360 pattern at real-time pace."""
    done = run("lavfi:testsrc2=size=640x360:rate=240:duration=3", "--realtime", "--jsonl", tmp_path / "r.jsonl")
    assert done.returncode == 0, done.stderr
    page, lines = account(done.stderr), json_lines(tmp_path / "r.jsonl")
    assert [line["seq"] for line in lines] == list(range(720))
    assert page.captured == 720 and page.in_flight == 0 and page.delivered + page.dropped == 720
    assert sum(line["status"] == "ok" for line in lines) == page.delivered > 0
    assert any("newer frame took its place" in line.get("reason", "") for line in lines)
    assert "newer frame took its place" in done.stderr


def test_settings_come_from_a_file_and_the_command_line_goes_on_top(tmp_path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"sources:\n  gate:\n    uri: {CLIP}\n    max_frames: 5\ninfer:\n  score_threshold: 0.9\n")
    done = run("--config", config, "--set", "sources.gate.max_frames=2", "--jsonl", "-")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["source"], line["seq"]) for line in lines] == [("gate", 0), ("gate", 1)], done.stderr


WRONG_USE = {
    "no source": ([], "give a source"),
    "an unknown key": ([CLIP, "--set", "infer.scor=1"], "score_threshold"),
    "a value out of range": ([CLIP, "--score", "1.5"], "infer.score_threshold: got 1.5, allowed is"),
    "not a number": ([CLIP, "--score", "high"], "--score"),
    "not key=value": ([CLIP, "--set", "infer"], "key=value"),
    "no such config": ([CLIP, "--config", "nowhere.yaml"], "nowhere.yaml"),
    "an unknown class": ([CLIP, "--classes", "persn"], "'persn'"),
    "an unknown model": ([CLIP, "--model", "yolo"], "mobilenetv3"),
    "no such weights": ([CLIP, "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    "weights that are not": ([CLIP, "--weights", CLIP], "pets09_excerpt.mp4"),
    "a device that is not there": ([CLIP, "--device", "cuda:99"], "cuda:99"),
    "a video format unknown": ([CLIP, "--out", "x.gif"], ".mp4"),
    "a folder that is not there": ([CLIP, "--out", "nowhere/x.mp4"], "nowhere"),
    "a window without a screen": ([CLIP, "--show"], "DISPLAY"),
}


@pytest.mark.parametrize(("arguments", "named"), WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use_is_one_line_and_exit_2(arguments, named, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert_wrong_use(run_here(*arguments), named)


@pytest.mark.parametrize("name", ["not key=value", "a device that is not there"])
def test_wrong_use_is_the_same_seen_by_the_command_or_in_a_stages_process(name) -> None:
    arguments, named = WRONG_USE[name]
    assert_wrong_use(run(*arguments), named)


def assert_wrong_use(done, named: str) -> None:
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert done.returncode == 2, done.stderr
    assert len(errors) == 1 and named in errors[0], done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_file_is_exit_3() -> None:
    done = run_here("nowhere.mp4")
    assert done.returncode == 3 and "nowhere.mp4" in done.stderr and "Traceback" not in done.stderr


def test_a_truncated_video_delivers_what_decodes_and_says_so(tmp_path) -> None:
    whole = CLIP.read_bytes()
    with av.open(str(CLIP)) as source, av.open(str(tmp_path / "cut.ts"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    whole = (tmp_path / "cut.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(whole[: len(whole) // 6])
    done = run_here(tmp_path / "cut.ts", "--jsonl", tmp_path / "c.jsonl")
    assert len(json_lines(tmp_path / "c.jsonl")) > 10
    assert "0 in flight" in done.stderr


def test_validate_runs_nothing() -> None:
    done = run(CLIP, "--validate")
    assert done.returncode == 0 and "768x576, 10 frames/s" in done.stdout


def test_a_full_disk_ends_that_output_only(tmp_path) -> None:
    done = run(CLIP, "--max-frames", 10, "--jsonl", "/dev/full", "--mot", tmp_path / "m.txt")
    assert done.returncode == 4, done.stderr
    assert "/dev/full" in done.stderr and "Traceback" not in done.stderr
    assert "10 captured = 10 delivered" in done.stderr
    assert (tmp_path / "m.txt").read_text()


def test_a_password_appears_nowhere() -> None:
    done = run("rtsp://cam:s3cret@127.0.0.1:1/x", "--set", "infer.score_threshold=0.5")
    assert done.returncode == 3
    assert "s3cret" not in done.stderr + done.stdout


def test_a_log_is_one_json_object_a_line_and_says_what_the_summary_says(tmp_path) -> None:
    options = ("--max-frames", 5, "--set", "infer.engine=eager", "--input", "128x128", "--log", "json")
    done = run_here(CLIP, *options, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"at_unix", "level", "event", "text"} <= line.keys() for line in lines)
    events = [line["event"] for line in lines]
    assert events.index("source") < events.index("ready") or "doing" in events
    assert events.count("ready") == events.count("summary") == 1 and "error" not in events
    summary = lines[events.index("summary")]
    page = summary["sources"][CLIP.stem]
    assert (page["captured"], page["delivered"], page["in_flight"]) == (5, 5, 0)
    assert summary["latency"]["count"] == 5


def test_an_error_in_a_log_is_a_line_too() -> None:
    done = run_here("no/such/file.mp4", "--log", "json")
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 3 and line["level"] == "error" and "no/such/file.mp4" in line["text"]
