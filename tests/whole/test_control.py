"""Words to a run that goes on: sources come, go, wait and change, and the others do not notice."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import av
import numpy as np
import pytest

from tests.kit.control import PATTERN, running
from tests.kit.harness import command, wait_until, worker_pids
from tests.kit.places import CLIP, ROOT

pytestmark = pytest.mark.thorough

# So much later than the slowest frame in quiet times would be one that waited for somebody else: a source that does not
# answer keeps its own decoder for 5 s, and closing, launching and loading take as long as they take.
OUTLIER_MS = 1000
QUICK_DRAIN = ("--set", "run.drain_seconds=2")
# On a busy machine a live frame gives way to a newer one, and an output misses some: that would say nothing of others.
EACH_WAITS = ("--set", "queue.policy=block")


def test_sources_come_go_wait_and_change_and_another_does_not_notice() -> None:
    """Its frames are all delivered. Its slowest in the time of the changes is set beside its slowest before and after:
    a frame that had waited for a source that was opened, changed or left would be seconds late."""
    door = (PATTERN.replace("rate=10", "rate=5"), "--name", "door", "--realtime", *EACH_WAITS)
    with running(*door) as run, socket.create_server(("127.0.0.1", 0)) as silent:
        run.wait_for("door", "live")
        run.wait_until_frames("door", 20)
        began = len(run.frames("door"))
        run.say("add", PATTERN, "--name", "gate", "--realtime")
        run.say("add", f"rtsp://u:p@127.0.0.1:{silent.getsockname()[1]}/1", "--name", "mute")
        run.wait_for("gate", "live")
        run.say("set", "gate", "max_rate=2", "classes=person", "score=0.9")
        run.say("pause", "gate")
        run.wait_for("gate", "paused")
        run.say("resume", "gate")
        run.wait_for("gate", "live")
        assert run.rows()["mute"]["state"] == "opening" or "lost" in run.rows()["mute"]["state"]
        run.wait_until_frames("gate", 3)
        run.say("remove", "gate")
        run.say("remove", "mute")
        assert list(run.rows()) == ["door"]
        ended = len(run.frames("door"))
        run.wait_until_frames("door", 20)
        run.say("stop")
        code, errors = run.end()
        frames = run.frames("door")
        paused = run.signals("gate")
        dropped = {line.get("reason") for line in run.frames("gate") if line["status"] == "dropped"}
    assert code == 0, errors
    assert [line["seq"] for line in frames] == list(range(len(frames)))
    assert {line["status"] for line in frames} == {"ok"}
    latency_ms = np.array([line["latency_ms"] for line in frames])
    quiet_ms = np.concatenate([latency_ms[10:began], latency_ms[ended:]])
    assert latency_ms[began:ended].max() < quiet_ms.max() + OUTLIER_MS
    assert paused == ["paused", "live"]
    assert "above the source's max_rate" in dropped
    assert "gate: " in errors and "mute: " not in errors  # of a source without a frame there is nothing to tell


def test_what_is_refused_changes_nothing() -> None:
    with running(PATTERN, "--name", "door", "--realtime") as run:
        run.wait_for("door", "live")
        refused = {
            ("add", PATTERN, "--name", "door"): "door is there already",
            ("add", "nosuch.mp4"): "no such file",
            ("add", "gopher://h/1"): "gopher: is not a source that is read",
            ("add", run.lines): "is the source, and would be overwritten",
            ("add", PATTERN, "--every", "0"): "at least 1",
            ("remove", "gate"): "the run has no source gate; those it has: door",
            ("set", "door", "classes=persn"): "the model knows no 'persn'",
            ("set", "door", "score=2"): "at most 1.0",
            ("list", "--run", "1"): f"there is no run 1; those that listen: {run.process.pid}",
        }
        for words, said in refused.items():
            done = run.ctl(*words)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (words, done)
            assert said in done.stderr
        assert list(run.rows()) == ["door"]
        run.process.send_signal(signal.SIGSTOP)
        frozen = run.ctl("list")
        run.process.send_signal(signal.SIGCONT)
        assert frozen.returncode == 4 and "did not answer within 5 s" in frozen.stderr
        run.say("stop")
        assert run.end()[0] == 0
        gone = run.ctl("list")
        assert gone.returncode == 2 and "no run of yours listens" in gone.stderr


def test_an_output_for_one_source_takes_no_second() -> None:
    with running(PATTERN, "--name", "door", "--realtime", "--mot", "FOLDER/door.txt") as run:
        run.wait_for("door", "live")
        done = run.ctl("add", PATTERN, "--name", "gate")
        assert done.returncode == 2 and "is for one source; put {source} into its name" in done.stderr
        assert list(run.rows()) == ["door"]


def test_the_outputs_of_each_source_are_whole_once_it_has_gone_and_go_on_when_it_comes_again() -> None:
    own = ("--mot", "FOLDER/{source}.txt", "--out", "FOLDER/{source}.mkv")
    with running(PATTERN, "--name", "door", "--realtime", *own) as run:
        run.wait_for("door", "live")
        for _ in range(2):
            run.say("add", CLIP, "--name", "gate", "--max-frames", 3)
            run.wait_for("gate", "ended")
            run.say("remove", "gate")
        videos = sorted(path.name for path in run.folder.glob("gate*.mkv"))
        counted = [sum(1 for _ in read(run.folder / name)) for name in videos]
        run.say("stop")
        code, errors = run.end()
    assert (videos, counted, code) == (["gate.1.mkv", "gate.mkv"], [3, 3], 0)
    assert "gate: 6 captured = 6 delivered + 0 without result + 0 dropped + 0 in flight" in errors
    assert all(told in errors for told in ("gate.txt: 6 frames", "gate.mkv: 3 frames", "gate.1.mkv: 3 frames")), errors


def read(video: Path) -> Iterator[object]:
    with av.open(str(video)) as container:
        yield from container.decode(video=0)


def test_a_run_whose_last_source_was_removed_waits_for_others() -> None:
    with running(PATTERN, "--name", "door", "--realtime") as run:
        run.wait_for("door", "live")
        run.say("remove", "door")
        assert run.rows() == {} and run.process.poll() is None
        run.say("add", CLIP, "--name", "door", "--max-frames", 5)  # the name is free again
        code, errors = run.end()  # and with it came an end
        ends = [line["seq"] for line in run.frames("door")]
    assert code == 0, errors
    assert ends[-5:] == list(range(5)) and ends[:-5] == list(range(len(ends) - 5))
    assert f"door: {len(ends)} captured = {len(ends)} delivered" in errors


def test_a_run_that_waits_ends_by_a_signal_too() -> None:
    with running(PATTERN, "--name", "door", "--realtime") as run:
        run.wait_for("door", "live")
        run.say("remove", "door")
        run.process.send_signal(signal.SIGINT)
        assert run.end()[0] == 0


def test_a_word_loads_nothing_slow() -> None:
    line = [sys.executable, "-X", "importtime", "run_pipeline.py", "ctl", "list", "--run", "1"]
    trace = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"TMPDIR": "/dev/shm"})
    loaded = {each.rpartition("|")[2].strip() for each in trace.stderr.splitlines()}
    assert trace.returncode == 2 and "pipeline.control.words" in loaded
    assert not loaded & {"torch", "numba", "av", "cv2", "rich"}


def test_a_word_to_nobody_is_one_line() -> None:
    done = subprocess.run(
        command("ctl", "list"), capture_output=True, text=True, env=os.environ | {"TMPDIR": "/dev/shm"}
    )
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("error: no run of yours listens under /dev/shm (TMPDIR)")
        and done.stderr.count("\n") == 1
    )


# -- a file that is followed

ZONES = ", zones: {all: {polygon: [[0, 0], [1, 0], [1, 1], [0, 1]], classes: [person]}}"
CROSSED = ", zones: {all: {polygon: [[0, 0], [1, 1], [1, 0], [0, 1]]}}"


def write(path: Path, sources: dict[str, str], more: str = "") -> None:
    text = "".join(f"  {name}: {{uri: '{PATTERN}', realtime: true{rest}}}\n" for name, rest in sources.items())
    path.write_text(f"sources:\n{text or '  {}'}\n{more}")


def test_a_run_follows_its_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    write(file, {"door": "", "gate": ""})
    with running("--config", file, "--watch") as run:
        run.wait_for("door", "live")
        run.wait_for("gate", "live")
        write(file, {"door": ZONES, "gate": ", max_rate: 1", "yard": ""})
        run.wait_for("yard", "live")
        wait_until(lambda: any(line["status"] == "dropped" for line in run.frames("gate")), what="a lower rate")
        wait_until(lambda: "zones" in run.frames("door")[-1], what="zones")
        assert run.say("save", "door") == f"{file} has these zones and lines of door already"
        write(file, {"door": ZONES, "gate": ", max_rate: 1, max_frames: 5", "yard": ""})  # opened anew
        wait_until(lambda: [f["seq"] for f in run.frames("gate")].count(0) == 2, what="gate from its beginning")
        write(file, {"door": ""}, "infer: {score_threshold: 0.99}\n")
        wait_until(lambda: list(run.rows()) == ["door"], what="one source")
        write(file, {})
        wait_until(lambda: not run.rows(), what="no source")
        write(file, {"door": ""})
        run.wait_for("door", "live")
        run.say("stop")
        code, errors = run.end()
        seqs = [line["seq"] for line in run.frames("door")]
        have_zones = [line.get("zones") for line in run.frames("door") if line["status"] == "ok"]
    assert code == 0, errors
    life = seqs.index(0, 1)
    assert seqs == [*range(life), *range(len(seqs) - life)]
    assert [zones for zones, _ in groupby(have_zones)] == [None, {"all": {"inside": {}}}, None]
    assert "warning" not in errors


def test_a_followed_file_that_is_wrong_is_a_warning_and_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    write(file, {"door": ""})
    with running("--config", file, "--watch") as run:
        run.wait_for("door", "live")
        for text, said in (
            ("sources: {door: {uri: [}}", "not valid YAML"),
            (f"sources: {{gate: {{uri: '{PATTERN}', fps: 3}}}}", "sources.gate.fps: no such key"),
            ("sources: {gate: {uri: nosuch.mp4}}", "nosuch.mp4: no such file"),
            (f"sources: {{gate: {{uri: '{PATTERN}'}}}}\npostprocess: {{classes: [persn]}}", "knows no 'persn'"),
            (f"sources: {{door: {{uri: '{PATTERN}', realtime: true{CROSSED}}}}}", "sides 1–2 and 3–4 meet; give its"),
        ):
            file.write_text(text)
            warned = run.wait_for_error(said)
            assert warned.startswith("warning: ") and warned.endswith("; nothing was changed"), warned
            assert "my.yaml" in warned
        file.unlink()
        run.wait_for_error("No such file or directory; nothing was changed")
        assert list(run.rows()) == ["door"]
        write(file, {"door": ""}, "track: {new_score: 0.6}\nqueue: {policy: block}\n")
        warned = run.wait_for_error("takes effect when the run is started anew")
        assert "my.yaml: track.new_score, queue.policy changed" in warned
        run.wait_until_frames("door", 3)
        run.say("stop")
        assert run.end()[0] == 0


def test_a_run_that_follows_an_empty_file_waits_for_sources(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("infer: {score_threshold: 0.5}\n")
    with running("--config", file, "--watch") as run:
        run.wait_for_error("ready after")
        write(file, {"door": ""})
        run.wait_for("door", "live")
        run.say("stop")
        assert run.end()[0] == 0


def test_watch_goes_with_a_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    write(file, {"door": ""})
    for words in (["--watch", CLIP], ["--watch", CLIP, "--config", file]):
        with running(*words) as run:
            code, errors = run.end()
        assert code == 2 and errors.startswith("error: --watch goes with --config FILE") and errors.count("\n") == 1


# -- decoders that come again, or do not go


def test_what_was_asked_of_a_source_holds_for_the_decoder_that_takes_over() -> None:
    with running(PATTERN, PATTERN, "--name", "door", "--name", "gate", "--realtime") as run:
        run.wait_for("gate", "live")
        run.say("set", "gate", "max_rate=1")
        run.say("pause", "gate")
        # Written, not just told to the supervisor: what a decoder had not sent yet is lost with it.
        wait_until(lambda: run.signals("gate").count("paused") == 1, what="a pause")
        pid = worker_pids(run.process.pid)["decode:gate"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: worker_pids(run.process.pid).get("decode:gate", pid) != pid, what="another decoder")
        wait_until(lambda: run.signals("gate").count("paused") == 2, what="a pause that goes on")
        before = len(run.frames("gate"))
        run.say("resume", "gate")
        run.wait_until_frames("gate", 15)
        run.say("stop")
        assert run.end()[0] == 0
        after = run.frames("gate")[before:]
    assert sum(line["status"] == "dropped" for line in after) > len(after) / 2


def test_a_decoder_that_hangs_does_not_keep_its_source_from_leaving() -> None:
    with running(PATTERN, PATTERN, "--name", "door", "--name", "gate", "--realtime", *QUICK_DRAIN) as run:
        run.wait_for("gate", "live")
        os.kill(worker_pids(run.process.pid)["decode:gate"], signal.SIGSTOP)
        run.say("remove", "gate")
        assert "decode:gate" not in worker_pids(run.process.pid)
        run.say("add", PATTERN, "--name", "gate", "--realtime")
        run.wait_for("gate", "live")
        run.say("stop")
        code, errors = run.end()
    assert code == 0, errors
    accounts = [line for line in errors.splitlines() if line.startswith("gate: ") and "captured" in line]
    assert len(accounts) == 1 and accounts[0].endswith(" + 0 in flight"), accounts


def test_a_source_that_cannot_be_opened_keeps_no_other_from_starting(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(CLIP.read_bytes()[:3000])
    with running(CLIP, bad, "--max-frames", 5) as run:
        code, errors = run.end()
        assert len(run.frames(CLIP.stem)) == 5, errors
    assert code == 3 and "bad.mp4 holds no frame that decodes" in errors
