"""The first run: the command without arguments, and `doctor` as it is typed. What each check finds others tell."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess

import pytest

from pipeline.command.doctor import exit_code, parse
from pipeline.doctor.finding import note, ok, problem
from tests.kit.harness import HANG_SECONDS, children, command, finish, is_running, run, run_here, start, wait_until
from tests.kit.places import CLIP, ROOT
from tests.kit.servers import StartServer
from tests.whole.test_startup import without_privileges

USER, PASSWORD = "uQ7zuser", "pQ7zpass"


# ---------------------------------------------------------------------------------------------------- without arguments


def test_without_arguments_it_says_what_it_is_and_that_nothing_has_run() -> None:
    done = run()
    assert done.returncode == 2 and done.stdout == ""
    for word in ("objects", "--help", "doctor", "docs/operating.md", "rtsp://"):
        assert word in done.stderr
    assert len(done.stderr.splitlines()) < 20 and not done.stderr.startswith("error")


def examples(cwd) -> list[list[str]]:
    """The lines that can be typed, as they stand there, seen from a folder."""
    told = subprocess.run(command(), cwd=cwd, capture_output=True, text=True, timeout=HANG_SECONDS).stderr
    lines = [line.strip() for line in told.splitlines() if line.startswith("    ") and "run_pipeline.py" in line]
    return [shlex.split(line) for line in lines if "--help" not in line]


def test_its_examples_are_command_lines_from_wherever_they_are_typed(tmp_path) -> None:
    here, there = examples(ROOT), examples(tmp_path)
    assert [words[0] for words in here] == ["./run_pipeline.py"] * 3
    for cwd, words in ((ROOT, here[0]), (tmp_path, there[0]), (tmp_path, there[1])):
        done = subprocess.run([*words, "--validate"], cwd=cwd, capture_output=True, text=True, timeout=HANG_SECONDS)
        assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_its_examples_run_as_typed(tmp_path) -> None:
    for words in examples(tmp_path):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS)
        assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"overlay.mp4", "objects.jsonl"}


# ------------------------------------------------------------------------------------------------------------- doctor


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seconds", "0"], "--seconds: got 0"),
        (["--seconds", "x"], "allowed is a number"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["--set", "infer.threads=x"], "infer.threads: got 'x'"),
        (["--sets"], "there is no option --sets"),
        (["a", "b", "--name", "x", "--name", "y", "--name", "z"], "got 3 names for 2 sources"),
    ],
)
def test_a_wrong_command_line_is_one_line(words: list[str], said: str) -> None:
    done = run("doctor", *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and said in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("machine", "sources", "code"),
    [
        ([], [], 0),
        ([ok("Python", "3"), note("GPU", "none")], [ok("gate", "here")], 0),
        ([ok("Python", "3"), problem("port", "taken")], [note("gate", "late")], 4),
        ([ok("Python", "3")], [ok("port", "here"), problem("port: times", "late")], 3),
        ([problem("port", "taken")], [problem("gate", "refuses")], 3),
    ],
)
def test_exit_codes(machine: list, sources: list, code: int) -> None:
    assert exit_code(machine, sources) == code


def test_a_machine_and_a_camera_that_are_well(play_server: StartServer) -> None:
    camera = play_server(loop=True, user=USER, password=PASSWORD).url_for(USER, PASSWORD)
    done = run("doctor", camera, CLIP, "--name", "gate", "--json", "--seconds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    findings = json.loads(done.stdout)
    assert all(found.keys() == {"subject", "level", "text", "advice"} for found in findings)
    assert {found["level"] for found in findings} <= {"ok", "note"}
    subjects = {found["subject"] for found in findings}
    assert {"Python", "packages", "OpenCV", "decoders", "encoders", "weights", "engines", "GPU"} <= subjects
    assert {"processor", "memory", "open files", "clock", "shared memory", "temporary folder", "cache"} <= subjects
    assert {"gate", "gate: key frames", "gate: rate", "gate: times", "gate: clock", "pets09_excerpt"} <= subjects
    assert done.stderr == "" and PASSWORD not in done.stdout and USER not in done.stdout


def test_what_is_broken_is_told_line_by_line_with_what_to_do(tmp_path) -> None:
    """A port that is taken, a cache that may not be written, a camera that is not there, a file that is no video."""
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o500)
    (tmp_path / "no.mp4").write_text("no video")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        (tmp_path / "my.yaml").write_text(
            f"sources: {{gate: {{uri: 'rtsp://{USER}:{PASSWORD}@127.0.0.1:1/x'}}, yard: {{uri: {tmp_path}/no.mp4}}}}\n"
            f"serve: {{at: '{at}'}}\ndeliver: {{jsonl: {tmp_path}/nowhere/a.jsonl}}\n"
        )
        done = subprocess.run(
            [*without_privileges(), *command("doctor", "--config", tmp_path / "my.yaml", "--seconds", "1")],
            env=os.environ | {"CENTERSTREAM_CACHE": str(cache)},
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
    assert done.returncode == 3 and "Traceback" not in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr and USER not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(re.match(r"(ok     |note   |problem)  \S", line) for line in lines[:-1])
    for level, subject, said in (
        ("problem", "port", "in use"),
        ("note", "cache", f"for {cache} cannot be written"),
        ("problem", "configuration", "nowhere/a.jsonl does not exist"),
        ("problem", "gate", "refuses the connection"),
        ("problem", "yard", "is not a video"),
    ):
        (line,) = (line for line in lines if line.split()[:2] == [level, subject])
        assert said in line and ";" in line, line
    assert "4 that are problems" in lines[-1]


def test_a_stop_ends_it_and_all_that_it_has_started(play_server: StartServer) -> None:
    doctor = start("doctor", "--config", ROOT / "configs" / "default.yaml")
    wait_until(lambda: children(doctor.pid), what="a check")
    begun = children(doctor.pid)
    doctor.send_signal(signal.SIGINT)
    code, errors = finish(doctor)
    assert code == 130 and "Traceback" not in errors
    wait_until(lambda: not any(map(is_running, begun)), 10, "the end of the checks")


def test_an_argument_that_is_no_source_is_told_by_who_reads_it() -> None:
    assert run_here("doctr").returncode == 3


def test_it_takes_the_command_line_of_a_run() -> None:
    options = ("--watch", "--validate", "--serve", "--jsonl", "-", "--score", "0.5", "--placement", "processes")
    assert parse([str(CLIP), *options]).settings.serve.at == "127.0.0.1:8080"
