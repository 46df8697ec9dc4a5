"""What becomes of outputs: nothing that is there is lost to a run that comes to nothing, delivered means that an output
took it, and a run that nobody can see the results of ends."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kit.harness import command, finish, json_lines, run, run_here, start, wait_until
from tests.kit.media import count_pictures
from tests.kit.places import CLIP, ROOT

ENDLESS = "lavfi:testsrc2=size=320x240:rate=10"
SHIPPED = ROOT / "models" / "weights" / "mobilenetv3_coco.safetensors"
YESTERDAY = "yesterday's results\n"


@pytest.fixture
def results(tmp_path: Path) -> dict[str, Path]:
    """One old file for each output, by its option."""
    paths = {"--jsonl": tmp_path / "o.jsonl", "--mot": tmp_path / "o.txt", "--out": tmp_path / "o.mp4"}
    for path in paths.values():
        path.write_text(YESTERDAY)
    return paths


def options(paths: dict[str, Path]) -> list[object]:
    return [word for pair in paths.items() for word in pair]


COMES_TO_NOTHING = {
    "no such source": (["nowhere.mp4"], 3),
    "a source that is no video": ([Path(__file__)], 3),
    "a camera that is off": (["rtsp://127.0.0.1:1/x"], 3),
    "wrong weights": ([CLIP, "--weights", CLIP], 2),
    "an unknown class": ([CLIP, "--classes", "persn"], 2),
    "a wrong option": ([CLIP, "--score", "7"], 2),
    "another output in a folder that is not there": ([CLIP, "--set", "deliver.mot=nowhere/x"], 2),
}


@pytest.mark.parametrize(("arguments", "code"), COMES_TO_NOTHING.values(), ids=COMES_TO_NOTHING)
def test_a_run_that_comes_to_nothing_leaves_earlier_results_alone(arguments, code, results) -> None:
    done = run_here(*options(results), *arguments, "--engine", "eager")
    assert done.returncode == code, done.stderr
    assert [path.read_text() for path in results.values()] == [YESTERDAY] * 3


def test_a_source_or_configuration_is_never_overwritten(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip, link, config, weights = (tmp_path / name for name in ("c.mp4", "link.mp4", "c.yaml", "w.safetensors"))
    clip.write_bytes(CLIP.read_bytes())
    link.symlink_to(clip)
    config.write_text("infer: {score_threshold: 0.5}\n")
    Path("list.ffconcat").write_text("ffconcat version 1.0\nfile 'c.mp4'\n")
    Path("list.m3u8").write_text("#EXTM3U\n#EXTINF:13,\nc.mp4\n#EXT-X-ENDLIST\n")
    weights.write_bytes(SHIPPED.read_bytes())
    for arguments in (
        [clip, "--out", clip],
        [clip, "--out", link],
        [link, "--jsonl", clip],
        [clip, "--config", config, "--mot", config],
        ["lavfi:testsrc2", "--weights", weights, "--jsonl", weights],
        [tmp_path, "--jsonl", tmp_path / "still.png"],
        ["lavfi:movie=c.mp4", "--jsonl", clip],
        ["list.ffconcat", "--jsonl", clip],
        ["list.m3u8", "--jsonl", "c.mp4"],
    ):
        (tmp_path / "still.png").write_bytes(b"a picture")
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        done = run_here(*arguments)
        assert done.returncode == 2 and "give another file" in done.stderr, (arguments, done.stderr)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_outputs_on_one_file_are_refused(tmp_path) -> None:
    done = run_here(CLIP, "--jsonl", tmp_path / "F", "--mot", tmp_path / "F")
    assert done.returncode == 2 and "give another file" in done.stderr


def test_an_old_result_is_replaced_once_there_are_frames(results) -> None:
    done = run_here(CLIP, "--max-frames", 3, *options(results))
    assert done.returncode == 0, done.stderr
    assert [line["seq"] for line in json_lines(results["--jsonl"])] == [0, 1, 2]
    assert YESTERDAY not in results["--mot"].read_text()
    for path in (results["--jsonl"], results["--out"]):
        assert f"wrote {path}: 3 frames" in done.stderr


def test_standard_output_that_is_closed_is_an_error_and_nothing_gets_its_descriptor() -> None:
    """The pool of frames got descriptor 1, and the lines went into it."""
    for line in (["--jsonl", "-"], ["--mot", "-"]):
        words = command(CLIP, "--max-frames", "3", *line)
        done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True)
        assert done.returncode == 4, done.stderr
        assert "standard output is closed" in done.stderr and "Traceback" not in done.stderr


def test_frames_that_no_output_took_are_not_delivered() -> None:
    done = run(CLIP, "--max-frames", 30, "--jsonl", "/dev/full")
    assert done.returncode == 4
    assert " 0 delivered" in done.stderr and " 0 in flight" in done.stderr, done.stderr
    assert "dropped at deliver: no output took it" in done.stderr
    assert "wrote" not in done.stderr and "no output is left, the run ends" in done.stderr


def test_a_live_run_ends_when_the_last_reader_has_gone() -> None:
    """As with `| head -1`."""
    process = subprocess.Popen(
        command(ENDLESS, "--realtime", "--jsonl", "-"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    code, errors = finish(process)
    assert code == 4 and "its reader has gone" in errors and " 0 in flight" in errors, errors
    assert "stopped on request" not in errors


def test_a_run_goes_on_while_another_output_is_left(tmp_path) -> None:
    lines = tmp_path / "o.jsonl"
    done = run_here(CLIP, "--max-frames", 10, "--mot", "/dev/full", "--jsonl", lines)
    assert done.returncode == 4 and "the other outputs go on" in done.stderr
    assert len(json_lines(lines)) == 10 and " 10 delivered" in done.stderr


def test_where_no_frame_came_through_there_are_no_figures(tmp_path) -> None:
    done = run_here("rtsp://127.0.0.1:1/x", "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 3
    assert "frames/s" not in done.stderr and "ms a frame" not in done.stderr and " 0.0" not in done.stderr
    assert not (tmp_path / "o.jsonl").exists()


def test_the_first_line_waits_for_a_rate_to_tell(tmp_path) -> None:
    """A frame a second: after one second there is one frame, and no rate yet."""
    done = run("lavfi:testsrc2=size=320x240:rate=1", "--realtime", "--max-frames", 5, "--jsonl", tmp_path / "o.jsonl")
    lines = [line for line in done.stderr.splitlines() if "frames/s  latency" in line]
    assert lines and not [line for line in lines if " 0.0 frames/s" in line], done.stderr


def test_a_file_that_was_deleted_meanwhile_was_not_written(tmp_path) -> None:
    lines = tmp_path / "o.jsonl"
    process = start(ENDLESS, "--jsonl", lines)
    wait_until(lambda: lines.exists() and lines.stat().st_size > 500, what="frames")
    lines.unlink()
    os.kill(process.pid, signal.SIGINT)
    _, errors = finish(process)
    assert "it is not there any more" in errors and "wrote" not in errors, errors


def test_a_name_with_a_colon_is_a_name(tmp_path, monkeypatch) -> None:
    """FFmpeg takes what is before a colon for a protocol: `file:clip.mp4` was the source itself."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(CLIP.read_bytes())
    for name in ("file:clip.mp4", "12:30.mp4"):
        done = run_here("clip.mp4", "--max-frames", 3, "--out", name)
        assert done.returncode == 0 and f"{name}: 3 frames" in done.stderr, done.stderr
        assert (tmp_path / name).stat().st_size > 1000
    assert (tmp_path / "clip.mp4").read_bytes() == CLIP.read_bytes()


@pytest.mark.parametrize("path", ["/dev/fd/12", "/proc/self/fd/3", "/dev/stdin"])
def test_a_descriptor_is_no_place_for_results(path) -> None:
    """In the process that writes, the same number may be the memory of all frames."""
    done = run_here(CLIP, "--jsonl", path)
    assert done.returncode == 2 and "is a descriptor" in done.stderr, done.stderr


@pytest.mark.parametrize("path", [pytest.param("/dev/stdout", marks=pytest.mark.thorough), "/proc/self/fd/1"])
def test_standard_output_by_another_name_is_standard_output(path) -> None:
    done = run(CLIP, "--max-frames", 2, "--jsonl", path)
    assert done.returncode == 0 and done.stdout.count("\n") == 2, done.stderr
    both = run(CLIP, "--jsonl", path, "--mot", "-")
    assert both.returncode == 2 and "give another file" in both.stderr
    words = command(CLIP, "--max-frames", "3", "--jsonl", path)
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True)
    assert closed.returncode == 4 and "standard output is closed" in closed.stderr


def test_a_first_frame_that_is_too_large_leaves_earlier_results_alone(results) -> None:
    done = run_here("lavfi:color=size=16000x16000:rate=1", "--max-frames", 1, *options(results))
    assert done.returncode == 3 and "million" in done.stderr, done.stderr
    assert [path.read_text() for path in results.values()] == [YESTERDAY] * 3


def test_a_pipe_that_nobody_reads_is_told_of(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run_here(CLIP, "--max-frames", 4, "--jsonl", tmp_path / "pipe")
    assert done.returncode == 4 and "nobody reads" in done.stderr, done.stderr


@pytest.mark.thorough
def test_a_reader_of_tracks_that_has_gone_is_noticed_while_there_are_none() -> None:
    reading, writing = os.pipe()
    line = command("lavfi:color=size=320x240:rate=10", "--realtime", "--mot", "-")
    process = subprocess.Popen(line, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    os.close(reading)
    code, errors = finish(process)
    assert code == 4 and "its reader has gone" in errors, errors


def test_a_file_that_was_replaced_meanwhile_is_not_the_one_written(tmp_path) -> None:
    """As when logs are rotated."""
    lines = tmp_path / "o.jsonl"
    process = start(ENDLESS, "--jsonl", lines)
    wait_until(lambda: lines.exists() and lines.stat().st_size > 500, what="frames")
    lines.rename(tmp_path / "o.old")
    lines.touch()
    process.send_signal(signal.SIGINT)
    _, errors = finish(process)
    assert "it is not there any more" in errors and "wrote" not in errors, errors


def test_empty_values_are_refused(tmp_path) -> None:
    for arguments in (["--jsonl", ""], ["--mot", ""], ["--out", ""], ["--classes", ","]):
        done = run_here(CLIP, *arguments)
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr


def test_a_picture_is_read_once_however_many_ways_a_pattern_finds_it(tmp_path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    image = ROOT / "tests" / "data" / "bccd_mini" / "images" / "BloodImage_00004.jpg"
    (folder / "1.jpg").write_bytes(image.read_bytes())
    done = run_here(f"{tmp_path}/**/**/*.jpg", "--jsonl", tmp_path / "o.jsonl")
    assert len(json_lines(tmp_path / "o.jsonl")) == 1, done.stderr


def test_a_cameras_video_goes_on_in_the_next_file_and_the_summary_counts_them(tmp_path) -> None:
    done = run_here(
        "lavfi:testsrc2=size=64x48:rate=10:duration=4", "--realtime", "--engine", "eager", "--input", "64x64",
        "--set", "deliver.segment_minutes=0.025", "--out", tmp_path / "o.mkv", "--jsonl", tmp_path / "o.jsonl",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = list(tmp_path.glob("o*.mkv"))
    assert {"o.mkv", "o.1.mkv"} <= {path.name for path in files}
    pictures = sum(map(count_pictures, files))
    ok = sum(line["status"] == "ok" for line in json_lines(tmp_path / "o.jsonl"))
    assert f"o.mkv and {len(files) - 1} more: {pictures} frames" in done.stderr and 0 < pictures <= ok
