"""What the sinks write can be read back: by PyAV, as JSON lines, as MOTChallenge text; also after a kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import msgspec
import numpy as np
import pytest

from pipeline.errors import OutputError, UsageError
from pipeline.flow.events import Event, LineCount, ZoneCount
from pipeline.flow.fates import NEWER
from pipeline.flow.messages import Outage, SignalChange
from pipeline.flow.results import FrameResult
from pipeline.run.start import WORKER_ENVIRONMENT
from pipeline.sinks import Sink
from pipeline.sinks.jsonl import JsonLine, JsonLinesSink, JsonSignal
from pipeline.sinks.mot import MotSink
from pipeline.sinks.video import VideoSink
from pipeline.sinks.window import WindowSink
from tests.kit.harness import run_code
from tests.kit.media import COLOURS_BGR, assert_shows, picture, readable_frames
from tests.kit.places import ROOT
from tests.kit.results import Row, result

CONFIRMED: Row = ((10.123, 20.0, 50.5, 99.999), 0.87654, 0, 3)
TENTATIVE: Row = ((1.0, 2.0, 3.0, 4.0), 0.5, 1, 0)
LOW_BUT_TRACKED: Row = ((5.0, 6.0, 8.0, 10.0), 0.2, 0, 4)
LOW: Row = ((5.0, 6.0, 8.0, 10.0), 0.1, 0, 0)


# --- JSON lines ------------------------------------------------------------------------------------------------------


def json_lines(path: Path, *frames: FrameResult) -> list[dict]:
    sink = JsonLinesSink(str(path))
    for frame in frames:
        sink.write(frame, None)
    sink.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("rows", "objects"),
    [
        ([], []),
        ([LOW], []),
        ([LOW_BUT_TRACKED], []),
        ([TENTATIVE], [{"track_id": None, "class_id": 1, "class": "dog", "score": 0.5, "box_xyxy": [1, 2, 3, 4]}]),
        (
            [CONFIRMED, LOW],
            [{"track_id": 3, "class_id": 0, "class": "person", "score": 0.8765, "box_xyxy": [10.12, 20, 50.5, 100]}],
        ),
    ],
    ids=["empty", "low", "low but tracked", "tentative", "confirmed"],
)
def test_json_objects_are_the_detections_from_the_threshold_on(tmp_path: Path, rows: list[Row], objects: list) -> None:
    (line,) = json_lines(tmp_path / "out.jsonl", result(rows))
    assert line["objects"] == objects


def test_a_json_line_has_the_documented_keys_in_order(tmp_path: Path) -> None:
    frames = [
        result([CONFIRMED]),
        result(seq=1, failure="no answer\nin 5 s"),
        result(seq=2, dropped=NEWER),
        result([CONFIRMED], seq=3, predicted=True),
        result([CONFIRMED], seq=4, taken_from=0),
    ]
    ok, failed, dropped, predicted, still = json_lines(tmp_path / "out.jsonl", *frames)
    keys = [
        "schema",
        "kind",
        "source",
        "seq",
        "pts_seconds",
        "captured_unix",
        "clock",
        "width",
        "height",
        "status",
        "latency_ms",
        "objects",
    ]
    assert list(ok) == keys
    assert list(ok["objects"][0]) == ["track_id", "class_id", "class", "score", "box_xyxy"]
    assert list(failed) == [*keys[:10], "reason", *keys[10:]]
    assert (failed["status"], failed["reason"], failed["objects"]) == ("failed", "no answer\nin 5 s", [])
    assert list(dropped) == [*keys[:10], "stage", "reason", *keys[10:]]
    assert (dropped["status"], dropped["stage"], dropped["reason"], dropped["objects"]) == (
        "dropped",
        NEWER.stage,
        NEWER.reason,
        [],
    )
    assert list(predicted) == [*keys[:10], "predicted", *keys[10:]]
    assert list(still) == [*keys[:10], "from", *keys[10:]] and (still["status"], still["from"]) == ("ok", 0)
    assert list(predicted["objects"][0].items())[-1] == ("predicted", True)
    assert (predicted["status"], predicted["predicted"], len(predicted["objects"])) == ("ok", True, 1)
    assert (ok["schema"], ok["kind"], ok["captured_unix"], ok["latency_ms"]) == (2, "frame", 1767225600.123457, 41.235)


def test_a_json_line_has_counts_and_events_where_there_are_zones_or_lines(tmp_path: Path) -> None:
    zones, lines = {"yard": ZoneCount({"dog": 1, "person": 2})}, {"gate": LineCount({"person": 3}, {})}
    left = Event(
        event="left", source="door", seq=2, pts_seconds=1.5, at_unix=9.25, zone="yard", track_id=3, class_name="dog",
        dwell_seconds=0.5, lost=True,
    )  # fmt: skip
    frames = [
        result([], seq=0),
        result([], seq=1, zones=zones),
        result([], seq=2, lines=lines, events=(left,)),
        result([], seq=3, events=(left,)),  # of a zone that is no more
    ]
    none, of_zones, of_lines, last = json_lines(tmp_path / "out.jsonl", *frames)
    assert list(none)[-1] == "objects"
    assert list(of_zones)[-3:] == ["objects", "zones", "events"] and of_zones["events"] == []
    assert of_zones["zones"] == {"yard": {"inside": {"dog": 1, "person": 2}}}
    assert list(of_lines)[-3:] == ["objects", "lines", "events"]
    assert of_lines["lines"] == {"gate": {"forward": {"person": 3}, "backward": {}}}
    assert of_lines["events"] == last["events"] == [
        {
            "event": "left", "source": "door", "seq": 2, "pts_seconds": 1.5, "at_unix": 9.25, "zone": "yard",
            "track_id": 3, "class": "dog", "dwell_seconds": 0.5, "lost": True,
        }
    ]  # fmt: skip


def test_a_change_of_signal_is_a_line_of_its_own(tmp_path: Path) -> None:
    sink = JsonLinesSink(str(tmp_path / "out.jsonl"))
    outage = Outage("lost", "no data for 5 s", 1.0, 3.0, 4)
    sink.record(SignalChange("door", 0, 7, "lost", "no data for 5 s", 1.23456, None))
    sink.record(SignalChange("door", 0, 7, "live", "", 3.0, outage))
    sink.close()
    lost, live = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert list(lost) == ["schema", "kind", "source", "seq", "state", "cause", "at_unix", "outage"]
    assert (lost["kind"], lost["seq"], lost["state"], lost["at_unix"], lost["outage"]) == (
        "signal", 7, "lost", 1.235, None
    )  # fmt: skip
    assert live["outage"] == {
        "state": "lost", "cause": "no data for 5 s", "start_unix": 1.0, "end_unix": 3.0, "attempts": 4
    }  # fmt: skip


def test_the_example_in_the_documentation_is_what_is_written() -> None:
    text = (ROOT / "docs" / "json-lines.md").read_text()
    examples = [line for line in text.splitlines() if line.startswith('{"schema"')]
    kinds = [JsonSignal if '"kind":"signal"' in example else JsonLine for example in examples]
    assert kinds == [JsonLine, JsonLine, JsonLine, JsonSignal, JsonSignal, JsonLine]
    for example, kind in zip(examples, kinds, strict=True):
        assert msgspec.json.encode(msgspec.json.decode(example, type=kind)).decode() == example
    kinds_of_line = (JsonLine, JsonSignal, Outage, Event, ZoneCount, LineCount)
    for key in (name for kind in kinds_of_line for name in kind.__struct_encode_fields__):
        assert f"`{key}`" in text


def test_a_box_that_is_no_number_is_still_json(tmp_path: Path) -> None:
    (line,) = json_lines(tmp_path / "out.jsonl", result([((float("nan"), 0, 1, 1), 0.5, 0, 1)]))
    assert line["objects"][0]["box_xyxy"] == [None, 0, 1, 1]


# --- MOTChallenge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], ""),
        ([TENTATIVE, LOW], ""),
        ([LOW_BUT_TRACKED], "8,4,5.00,6.00,3.00,4.00,0.2000,-1,-1,-1\n"),
        (
            [CONFIRMED, LOW_BUT_TRACKED],
            "8,3,10.12,20.00,40.38,80.00,0.8765,-1,-1,-1\n8,4,5.00,6.00,3.00,4.00,0.2000,-1,-1,-1\n",
        ),
    ],
    ids=["empty", "no track", "low but tracked", "two tracks"],
)
def test_mot_has_a_line_for_each_confirmed_track(tmp_path: Path, rows: list[Row], text: str) -> None:
    sink = MotSink(str(tmp_path / "out.txt"))
    sink.write(result(rows, seq=7), None)
    sink.close()
    assert (tmp_path / "out.txt").read_text() == text


# --- text outputs that cannot be written -----------------------------------------------------------------------------


@pytest.mark.parametrize("sink_type", [JsonLinesSink, MotSink])
def test_a_full_disk_is_one_clear_line(sink_type: type) -> None:
    sink: Sink = sink_type("/dev/full")
    with pytest.raises(OutputError, match=r"^cannot write /dev/full: No space left on device$"):
        sink.write(result([CONFIRMED]), None)
    sink.close()
    sink.close()


@pytest.mark.parametrize("sink_type", [JsonLinesSink, MotSink, VideoSink])
def test_a_missing_folder_is_found_before_anything_runs(sink_type: type, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*(No such file|does not exist)"):
        sink_type(str(tmp_path / "missing" / "out.mp4"))


@pytest.mark.parametrize("sink_type", [JsonLinesSink, VideoSink])
def test_a_folder_in_the_files_place_is_found_before_anything_runs(sink_type: type, tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    with pytest.raises(OutputError, match=r"(?i)is a (folder|directory)"):
        sink_type(str(tmp_path / "out.mp4"))


def run_python(code: str, *arguments: str, **options) -> subprocess.CompletedProcess:  # type: ignore[no-untyped-def]
    """`code` in a process of its own, with all that this file has."""
    return run_code("from tests.pipeline.test_sinks import *\n" + code, *arguments, **options)


def test_json_lines_on_standard_output_are_there_after_a_kill() -> None:
    code = """
sink = JsonLinesSink("-")
for seq in range(3):
    sink.write(result(seq=seq), None)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = run_python(code, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [0, 1, 2]


def test_the_reader_of_a_pipe_going_away_is_one_clear_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run_python('JsonLinesSink("-").write(result(), None)', stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr.splitlines()[-1].endswith("OutputError: cannot write standard output: its reader has gone")


# --- video -----------------------------------------------------------------------------------------------------------

# A frame late, a gap of half a second and steps that vary; they do not start at 0.
TIMES_SECONDS = [100 + 0.04 * n + 0.5 * (n > 20) + 0.007 * (n % 3) for n in range(60)]


def record(
    path: Path,
    pictures: list[np.ndarray],
    times_seconds: list[float],
    rate: float | None = 25,
    segment_seconds: float | None = None,
) -> None:
    sink = VideoSink(str(path), rate, segment_seconds)
    for seq, (image, seconds) in enumerate(zip(pictures, times_seconds, strict=True)):
        sink.write(result(seq=seq, seconds=seconds), image)
    sink.close()
    sink.close()


def read(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(float(frame.time), frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".MP4"])
def test_every_frame_comes_back_at_its_time_in_its_colour(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    record(path, [picture(n) for n in range(60)], TIMES_SECONDS)
    frames = read(path)
    assert [seconds for seconds, _ in frames] == pytest.approx([t - 100 for t in TIMES_SECONDS], abs=0.0006)
    for number, (_, image) in enumerate(frames):
        assert image.shape == (48, 64, 3)
        assert_shows(image, number)


@pytest.mark.parametrize(
    ("times_seconds", "segments"),
    [
        ([], []),
        ([7.0], [[0.0]]),
        ([5.0, 6.0, 7.0, 8.0], [[0.0, 1.0, 2.0], [0.0]]),
        ([5.0, 6.0, 5.0, 6.0, 7.0], [[0.0, 1.0, 1.1, 2.1], [0.0]]),  # the source started anew
        ([5.0, 6.0, 90_000.0, 90_001.0], [[0.0, 1.0, 89_995.0], [0.0]]),
        ([1.0 * n for n in range(8)], [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [0.0, 1.0]]),
    ],
    ids=["empty", "one", "two files", "time goes back", "time leaps", "three files"],
)
def test_a_recording_in_segments_loses_no_picture(tmp_path: Path, times_seconds: list, segments: list) -> None:
    record(tmp_path / "out.mkv", [picture(n) for n in range(len(times_seconds))], times_seconds, 10, 2.0)
    paths = [tmp_path / "out.mkv", *(tmp_path / f"out.{n}.mkv" for n in range(1, 9))]
    found = [read(path) for path in paths if path.exists()]
    assert [[round(seconds, 2) for seconds, _ in file] for file in found] == segments
    for number, (_, image) in enumerate(frame for file in found for frame in file):
        assert_shows(image, number)


SEGMENTS_SIDE_BY_SIDE = """
import re, sys, threading
images = [np.random.default_rng(i).integers(0, 255, (240, 320, 3), np.uint8) for i in range(4)]
together = threading.Barrier(9)

def record(number):
    sink = VideoSink(f"{sys.argv[1]}/{number}.mkv", 5, 2.0)
    for seq in range(11 * 17):
        if seq % 11 == 0:  # the file of each is full, and the next picture begins another
            together.wait()
            together.wait()
        sink.write(result(seq=seq, seconds=seq / 5), images[seq % 4])

threads = [threading.Thread(target=record, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for segment in range(17):
    together.wait()
    print(re.search(r"RssAnon:\\s+([0-9]+)", open("/proc/self/status").read())[1])
    together.wait()
for thread in threads:
    thread.join()
"""


def test_files_made_anew_side_by_side_take_no_more_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WORKER_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    told = run_python(SEGMENTS_SIDE_BY_SIDE, str(tmp_path), capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    memory_mb = [int(kibibytes) / 1024 for kibibytes in told.stdout.split()]
    assert len(list(tmp_path.iterdir())) > 8 * 15 and memory_mb[16] < memory_mb[1] + 6  # 15 where it is kept


def test_a_segment_has_the_size_of_its_own_pictures_and_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "out.1.mp4").write_bytes(b"an earlier recording's")
    pictures = [picture(0), picture(1, 24, 32), picture(2, 24, 32), picture(3, 24, 32)]
    record(tmp_path / "out.mp4", pictures, [0.0, 1.0, 2.0, 3.0], 10, 2.0)
    assert [image.shape[:2] for _, image in read(tmp_path / "out.mp4")] == [(48, 64)] * 3
    assert [image.shape[:2] for _, image in read(tmp_path / "out.2.mp4")] == [(24, 32)]
    assert (tmp_path / "out.1.mp4").read_bytes() == b"an earlier recording's"


@pytest.mark.parametrize("step_seconds", [0.02, 0.1, 0.7, 3.0])
def test_a_key_frame_comes_about_every_second_at_any_rate(tmp_path: Path, step_seconds: float) -> None:
    """A picture that stands still, so that the encoder sees no reason of its own for a key frame."""
    path = tmp_path / "out.mp4"
    times_seconds = [step_seconds * n for n in range(round(4 / step_seconds) + 2)]
    record(path, [picture(0)] * len(times_seconds), times_seconds, rate=None)
    with av.open(str(path)) as container:
        keys = [frame.time for frame in container.decode(video=0) if frame.key_frame]
    assert len(keys) >= 2
    assert min(np.diff(keys)) > 0.99
    assert max(np.diff(keys)) < max(1, step_seconds) + step_seconds + 0.01


def test_after_a_clean_close_it_is_an_ordinary_mp4(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    record(path, [picture(n) for n in range(60)], TIMES_SECONDS)
    boxes, data, at = [], path.read_bytes(), 0
    while at < len(data):
        boxes.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    assert b"moof" not in boxes
    assert boxes.count(b"moov") == 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (2, 64), (49, 64)])
def test_odd_sizes_are_made_even_by_repeating_the_edge(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "out.mp4"
    record(path, [picture(0, height, width)] * 3, [0.0, 0.1, 0.2])
    frames = read(path)
    assert len(frames) == 3
    image = frames[-1][1]
    assert image.shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(image.astype(int) - COLOURS_BGR[0]).max() <= 8, "no black line where it was padded"


def test_another_size_later_on_is_scaled_between_bars(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    record(path, [picture(3), picture(3, 200, 100)], [0.0, 0.1])
    image = read(path)[1][1]
    assert image.shape == (48, 64, 3)
    assert image[24, 32].min() > 180
    assert image[24, 8].max() < 40
    assert image[24, 56].max() < 40


def test_times_that_stand_still_or_go_back_go_on_one_frame_later(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    record(path, [picture(n) for n in range(6)], [5.0, 5.0, 5.1, 0.0, 0.1, 0.10001], rate=10)
    assert [seconds for seconds, _ in read(path)] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.401], abs=0.0006)


@pytest.mark.parametrize(("suffix", "hours"), [(".mp4", 6), (".mov", 6), (".mkv", 30)])
def test_times_after_a_gap_of_a_day_are_all_there(tmp_path: Path, suffix: str, hours: int) -> None:
    path = tmp_path / f"out{suffix}"
    record(path, [picture(n) for n in range(4)], [0.0, 0.1, 0.1 + 30 * 3600, 0.2 + 30 * 3600], rate=10)
    after = 0.1 + hours * 3600
    assert [seconds for seconds, _ in read(path)] == pytest.approx([0.0, 0.1, after, after + 0.1], abs=0.0006)


def test_frames_without_a_picture_are_left_out_and_failed_ones_are_not(tmp_path: Path) -> None:
    sink = VideoSink(str(tmp_path / "out.mp4"))
    sink.write(result(), picture(0))
    sink.write(result(seq=1, seconds=0.1), None)
    sink.write(result(seq=2, seconds=0.2, failure="no answer"), picture(2))
    sink.close()
    assert [seconds for seconds, _ in read(tmp_path / "out.mp4")] == pytest.approx([0.0, 0.2])


def test_without_any_picture_there_is_no_file(tmp_path: Path) -> None:
    VideoSink(str(tmp_path / "out.mp4")).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("written", [5, 40])
def test_a_killed_recording_is_readable_up_to_the_last_frames(tmp_path: Path, suffix: str, written: int) -> None:
    path = tmp_path / f"out{suffix}"
    code = """
sink = VideoSink(sys.argv[1], 25)
for n in range(int(sys.argv[2])):
    sink.write(result(seq=n, seconds=TIMES_SECONDS[n]), picture(n))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(code, str(path), str(written)).returncode == -signal.SIGKILL
    frames = read(path)
    assert len(frames) >= written - 2
    assert [s for s, _ in frames] == pytest.approx([t - 100 for t in TIMES_SECONDS[: len(frames)]], abs=0.0006)
    for number, (_, image) in enumerate(frames):
        assert_shows(image, number)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_a_recording_killed_after_its_first_frame_can_be_opened(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    code = "VideoSink(sys.argv[1]).write(result(), picture(0)); os.kill(os.getpid(), signal.SIGKILL)"
    assert run_python(code, str(path)).returncode == -signal.SIGKILL
    with av.open(str(path)) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)


@pytest.mark.parametrize("name", ["out.avi", "out", "out.webm", "-"])
def test_a_container_that_is_not_written_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in one of \.mp4"):
        VideoSink(str(tmp_path / name))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_video_on_a_full_disk_is_one_clear_line_and_closes(tiny_disk: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = tiny_disk / f"out{suffix}"
    sink = VideoSink(str(path))
    with pytest.raises(OutputError, match=r"^cannot write video to .*: No space left on device$"):
        for n in range(40):
            sink.write(result(seq=n, seconds=n / 25), rng.integers(0, 255, (96, 128, 3), np.uint8))
    with pytest.raises(OutputError, match="No space left on device"):
        sink.close()
    sink.close()
    assert readable_frames(path) >= 3, "what fitted can be read"


def test_json_lines_on_a_full_disk_leave_whole_lines_before_the_last(tiny_disk: Path) -> None:
    sink = JsonLinesSink(str(tiny_disk / "out.jsonl"))
    with pytest.raises(OutputError, match="No space left on device"):
        for seq in range(10_000):
            sink.write(result([CONFIRMED], seq=seq), None)
    sink.close()
    lines = (tiny_disk / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines[:-1]] == list(range(len(lines) - 1))


# --- window ----------------------------------------------------------------------------------------------------------


def test_no_window_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="neither DISPLAY nor WAYLAND_DISPLAY"):
        WindowSink()


def test_no_window_with_an_opencv_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    if "opencv-python-headless" not in _installed():
        pytest.skip("needs the headless OpenCV")
    monkeypatch.setenv("DISPLAY", ":99")
    with pytest.raises(UsageError, match="without windows; run `pip uninstall opencv-python-headless"):
        WindowSink()


def _installed() -> set[str]:
    from importlib.metadata import distributions

    return {distribution.metadata["Name"] for distribution in distributions()}


def test_opencv_is_imported_before_pyav_so_that_a_window_can_open() -> None:
    code = "order = list(sys.modules); print(order.index('cv2') < order.index('av'))"
    command = [sys.executable, "-c", f"import pipeline.sinks.video, sys; {code}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
