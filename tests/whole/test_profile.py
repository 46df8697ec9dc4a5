"""`run_pipeline.py profile`: it names what was slowed on purpose, writes what can be read, and ends in one line."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import yaml
from msgspec.structs import replace

from configs.uri import Uri
from pipeline.control.runstate import RunState
from pipeline.profile import bench, clocks, runs
from pipeline.profile.alone import Apart
from pipeline.profile.parts import Request
from pipeline.profile.record import Profile
from pipeline.profile.runs import Interrupted
from pipeline.profile.session import Session
from pipeline.settings import DeliverSettings, InferSettings, RunSettings, ServeSettings, Settings, SourceSettings
from pipeline.stage import CHAIN
from pipeline.stages.decode import Decode
from pipeline.stages.deliver import Deliver
from pipeline.stages.gather import Gather
from pipeline.stages.infer import Infer
from pipeline.stages.postprocess import Postprocess
from pipeline.stages.track import Track
from tests.kit import media
from tests.kit.harness import QUICK, Leftovers, finish, run, start, wait_until
from tests.kit.places import CLIP
from tests.kit.still import write_still_clip

# Where each stage does its work for a frame.
WORK = {
    "decode": (Decode, "_fill"),
    "gather": (Gather, "_take_frame"),
    "infer": (Infer, "process_round"),
    "postprocess": (Postprocess, "process"),
    "track": (Track, "process"),
    "deliver": (Deliver, "process"),
}
SLOW_SECONDS = 0.15


def sleep() -> None:
    time.sleep(SLOW_SECONDS)


def spin() -> None:
    began = time.thread_time()
    while time.thread_time() - began < SLOW_SECONDS:
        pass


def slow_down(stage: str, how: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    kind, name = WORK[stage]
    method = getattr(kind, name)

    def slowly(*arguments, **named):
        how()
        return method(*arguments, **named)

    monkeypatch.setattr(kind, name, slowly)


class Silent:
    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, state: object) -> None:
        pass


def session(source: Path | str, folder: Path, apart: Apart, seconds: float = 2.0) -> Session:
    """With its stages in this process, where they can be slowed down."""
    settings = Settings(
        sources={"clip": SourceSettings(uri=str(source))},
        infer=InferSettings(engine="eager", input_size="64x64", workers=1, threads=1),
        run=RunSettings(placement="threads"),
    )
    return Session(settings, seconds, 500.0, folder, apart, lambda text: None, Silent)


def other_video(folder: Path) -> Path:
    """Of another size, rate and codec."""
    return media.write_video(folder / "other.avi", media.noise(30, 320, 240), "mpeg4", time_base=media.Fraction(1, 24))


@pytest.fixture
def idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others leave of this machine is not what is looked at: with next to nothing left, whatever computes most is
    what holds a run up."""
    monkeypatch.setattr(clocks, "free_cores", lambda: 2.0)


IN_SHORT = ("track",)  # of all these, what `make test` looks at


@pytest.mark.parametrize(
    "stage", [stage if stage in IN_SHORT else pytest.param(stage, marks=pytest.mark.thorough) for stage in CHAIN]
)
def test_a_stage_that_sleeps_is_the_bottleneck(stage: str, tmp_path, monkeypatch, idle_machine) -> None:
    profile = slowed(stage, sleep, CLIP, tmp_path, monkeypatch)
    assert "no core" in profile.bottleneck_why


@pytest.mark.thorough
@pytest.mark.parametrize("stage", CHAIN)
def test_so_is_one_that_computes_on_a_video_of_another_size_rate_and_codec(
    stage: str, tmp_path, monkeypatch, idle_machine
) -> None:
    slowed(stage, spin, other_video(tmp_path), tmp_path, monkeypatch)


def slowed(stage: str, how: Callable[[], None], video: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """The profile of a run in which `stage` was slowed down, which names it before and after the run."""
    slow_down(stage, how, monkeypatch)
    with Apart() as apart:
        profiled = session(video, folder, apart)
        profiled.measure_parts()
        assert profiled.profile and profiled.profile.bottleneck == stage
        profiled.measure_run()
    assert profiled.profile.bottleneck == stage
    assert profiled.profile.run and profiled.lines
    return profiled.profile


@pytest.mark.parametrize(("standing", "least", "most"), [(90, 0.8, 1.0), (0, 0.0, 0.3)])
def test_frames_that_stand_still_are_counted(standing: int, least: float, most: float, tmp_path) -> None:
    """What the network sees is 64 pixels wide here: steps of people far away are less than noise."""
    clip = write_still_clip(tmp_path / "still.mp4", 60, standing=standing)
    settings = session(clip, tmp_path, Apart()).settings
    measured = bench.measure(Request(settings, ("decode", "gather"), 0.5))
    assert least <= measured.still_share <= most and 0 < measured.look_ms < 5


def test_a_camera_is_opened_once(play_server, tmp_path, idle_machine) -> None:
    """Its frames are waited for, which is not the decoder's doing; how many there could be is predicted alone."""
    with Apart() as apart:
        profiled = session(play_server(loop=True).url, tmp_path, apart, seconds=3.0)
        profiled.measure_parts()
        profiled.measure_run()
        profiled.predict_cameras()
        profiled.prove_cameras()
    profile = profiled.profile
    assert profile and profile.stream.is_live and profile.stages["decode"].alone.idle_ms == 0
    assert profile.run and profile.run.frames and profile.cameras
    assert profile.cameras.not_tried and not profile.cameras.runs


@pytest.mark.thorough
def test_a_whole_profile(tmp_path) -> None:
    leftovers, folder = Leftovers(), tmp_path / "profile"
    options = ("--set", f"deliver.video={tmp_path}/mine.mp4", "--out", folder, "--apply", "--cores", 16)
    done = run("profile", CLIP, "--seconds", 2, *QUICK, *options)
    leftovers.assert_none()
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "mine.mp4").exists()  # the user's own are left alone
    profile = msgspec.json.decode((folder / "report.json").read_bytes(), type=Profile)
    assert profile.is_complete and set(profile.stages) == set(CHAIN)
    assert (
        profile.run
        and profile.run.frames
        and set(profile.run.cpu_seconds)
        == {*("decode:pets09_excerpt", "gather", "infer:0", "postprocess", "track", "deliver")}
    )
    assert {"engine", "batch", "no video"} <= {row.lever for row in profile.levers}
    assert profile.cameras and profile.cameras.runs and list(profile.cameras.elsewhere) == ["16"]
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "b" for event in events) == len({event["id"] for event in events if event["ph"] == "b"})
    assert "bottleneck: " in done.stderr and "predicted" in done.stderr and "proven" in done.stderr
    names = {"report.html", "report.json", "trace.json"}
    if profile.applied:
        names.add("best.yaml")
        assert yaml.safe_load((folder / "best.yaml").read_text())["infer"]
    assert {path.name for path in folder.iterdir()} == names


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "profile takes one source"),
        (["a.mp4", "b.mp4"], 2, "profile takes one source"),
        (["missing.mp4"], 3, "no such file"),
        (["rtsp://me:secret@127.0.0.1:9/1"], 3, "rtsp://***@127.0.0.1:9"),
        ([CLIP, "--seconds", "0"], 2, "--seconds: got 0"),
        ([CLIP, "--seconds", "nan"], 2, "--seconds: got nan"),
        ([CLIP, "--max-age-ms", "-1"], 2, "--max-age-ms: got -1"),
        ([CLIP, "--cores", "0"], 2, "--cores: got 0"),
        ([CLIP, "--apply", "best.mp4"], 2, "ends in .yaml"),
        ([CLIP, "--out", "/dev/null/profile"], 4, "--out: cannot make"),
        ([CLIP, "--classes", "unicorn"], 2, "knows no 'unicorn'"),
    ],
    ids=lambda value: str(value[-1:]) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told_in_one_line(arguments, code: int, words: str, tmp_path) -> None:
    out = [] if "--out" in arguments else ["--out", tmp_path / "profile"]
    done = run("profile", *arguments, *out)
    assert done.returncode == code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line and "secret" not in done.stderr and "Traceback" not in done.stderr


def test_a_file_that_is_no_video_is_told_in_one_line(tmp_path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    done = run("profile", text, "--out", tmp_path / "profile")
    assert done.returncode == 3 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr


@pytest.mark.thorough
def test_a_password_stays_out_of_all_that_is_told_and_written(play_server, tmp_path) -> None:
    folder = tmp_path / "profile"
    url = play_server(loop=True, user="cam", password="s3cret").url.replace("://", "://cam:s3cret@")
    done = run("profile", url, "--seconds", 1, *QUICK, "--out", folder, "--apply", "--verbose")
    assert done.returncode == 0, done.stderr
    written = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"report.html", "report.json", "trace.json"} <= written.keys()
    assert "s3cret" not in done.stdout + done.stderr
    assert not [name for name, content in written.items() if b"s3cret" in content]


def test_the_address_of_the_users_own_page_is_left_alone(tmp_path) -> None:
    """That may be taken by the run that is to be made faster; so may one where it publishes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(
            sources={"clip": SourceSettings(uri=str(CLIP))},
            infer=InferSettings(engine="eager", input_size="64x64", workers=1, threads=1),
            deliver=DeliverSettings(also=(Uri(f"tcp://{at}"),)),
            serve=ServeSettings(at=at),
        )
        ran = runs.run(runs.beside(settings, tmp_path), tmp_path, 60.0, Silent)
    assert (
        ran.lines
        and not ran.state.warnings
        and set(ran.cpu_seconds) == {*("decode:clip", "gather", "infer:0", "postprocess", "track", "deliver")}
    )


def test_a_stop_while_the_last_frames_are_on_their_way_is_a_stop(tmp_path) -> None:
    class Impatient(Silent):
        """Presses Ctrl-C once, as soon as the run takes no more frames."""

        pressed = False

        def update(self, state: RunState) -> None:
            if state.is_stopping and not self.pressed:
                self.pressed = True
                os.kill(os.getpid(), signal.SIGINT)

    endless = SourceSettings(uri="lavfi:testsrc2=size=64x64:rate=25")
    with Apart() as apart:
        settings = session(CLIP, tmp_path, apart).settings
    with pytest.raises(Interrupted):
        runs.run(replace(settings, sources={"endless": endless}), tmp_path, 1.0, Impatient)


def test_a_stop_leaves_what_was_measured(tmp_path) -> None:
    leftovers, folder = Leftovers(), tmp_path / "profile"
    process = start("profile", CLIP, "--seconds", 120, *QUICK, "--out", folder)
    wait_until((folder / "trace.json").exists, 300, "the first report")
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    code, told = finish(process, 120)
    leftovers.assert_none(seconds=5)
    assert code == 130 and told.splitlines()[-1].startswith("stopped on request; what was measured is in"), told
    profile = msgspec.json.decode((folder / "report.json").read_bytes(), type=Profile)
    assert not profile.is_complete and profile.bottleneck in CHAIN
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.json", "trace.json"}
