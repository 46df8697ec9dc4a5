"""However a command is started, and whatever becomes of its standard streams, it works and ends as documented."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import folders
from tests.kit.harness import HANG_SECONDS, QUICK, command, finish, json_lines, stage_pids, wait_until
from tests.kit.places import CLIP, ROOT
from tests.whole.test_imports import modules

pytestmark = pytest.mark.thorough

FULL = Path("/dev/full")
VALIDATE = (CLIP, "--validate")
SHORT = (CLIP, "--max-frames", 3, *QUICK)
SETPRIV_MISSING = "root may write anywhere, and there is no setpriv to take that away"


def closed(*descriptors: int) -> list[str]:
    """Before a command: starts it without these of its standard descriptors."""
    return ["sh", "-c", f'exec "$@" {" ".join(f"{number}>&-" for number in descriptors)}', "sh"]


@pytest.mark.parametrize("module", [path for _, path in modules()], ids=[name for name, _ in modules()])
def test_every_command_starts_and_ends_alike(module: Path) -> None:
    _, runs, commands = module.read_text().partition('\nif __name__ == "__main__":\n    ')
    assert not runs or commands.endswith(("startup.run(main)\n", "startup.run(main, at_once=True)\n")), (
        "end it by startup.run(main)"
    )


# -- where nothing can be written


@pytest.fixture
def sealed(tmp_path: Path):
    """A checkout that cannot be written, and no command may write because it is root's."""
    tree = tmp_path / "tree"
    for name in ("configs", "pipeline", "models"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_pipeline.py", tree)
    for path in (tree, *tree.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield tree
    for path in (tree, *tree.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def without_privileges() -> list[str]:
    if os.getuid():
        return []
    if not shutil.which("setpriv"):
        pytest.skip(SETPRIV_MISSING)
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


@pytest.mark.thorough
def test_a_read_only_checkout_without_a_home_runs_and_measures(sealed, tmp_path) -> None:
    for name in ("out", "tmp"):
        (tmp_path / name).mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(sealed / "nobody"), "TMPDIR": str(tmp_path / "tmp")}
    line = [sys.executable, str(sealed / "run_pipeline.py"), str(CLIP), "--max-frames", "3", "--input", "64x64"]
    done = subprocess.run(
        [*without_privileges(), *line, "--jsonl", "o.jsonl"],
        cwd=tmp_path / "out",
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "engines measured here" in done.stderr and "left out" not in done.stderr
    assert len(json_lines(tmp_path / "out" / "o.jsonl")) == 3
    (cache,) = (tmp_path / "tmp").iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700 and list((cache / "numba").rglob("*.nbi"))


def test_a_user_whom_nobody_knows_has_no_home(monkeypatch) -> None:
    import pwd

    def unknown(uid: int):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "CENTERSTREAM_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert folders.home() is None
    assert folders.cache_dir().name == f".centerstream-{os.getuid()}"


def test_compiled_kernels_lie_where_the_user_wants_them() -> None:
    code = "import os, configs; print(os.environ['NUMBA_CACHE_DIR'])"
    places = {"CENTERSTREAM_CACHE": "/tmp/ours"}, {"CENTERSTREAM_CACHE": "/tmp/ours", "NUMBA_CACHE_DIR": "/tmp/theirs"}
    found = [subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=place, capture_output=True) for place in places]
    assert [done.stdout.decode().strip() for done in found] == ["/tmp/ours/numba", "/tmp/theirs"]


@pytest.mark.parametrize(
    ("given", "is_compiled", "kept_in"),
    [
        ({}, False, "tree"),  # beside the sources, as ever
        ({"PYTHONDONTWRITEBYTECODE": "1"}, False, "cache/python"),
        ({"PYTHONDONTWRITEBYTECODE": "1"}, True, None),  # make setup has done it
        ({"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "theirs"}, True, "theirs"),
    ],
    ids=str,
)
def test_what_python_compiles_is_kept_for_the_next_start(given, is_compiled, kept_in, tmp_path) -> None:
    """Also by the processes that one of ours starts: `python -c` here."""
    tree = tmp_path / "tree"
    for folder in ("configs", "pipeline"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    if is_compiled:
        subprocess.run([sys.executable, "-m", "compileall", "-q", tree / "configs"], env={}, check=True)
    code = "import configs, subprocess, sys; subprocess.run([sys.executable, '-c', 'import pipeline.geometry'])"
    places = {"CENTERSTREAM_CACHE": str(tmp_path / "cache")} | given
    if "PYTHONPYCACHEPREFIX" in given:
        places["PYTHONPYCACHEPREFIX"] = str(tmp_path / given["PYTHONPYCACHEPREFIX"])
    subprocess.run([sys.executable, "-c", code], cwd=tree, env=places, check=True)
    kept = [path.relative_to(tmp_path) for path in tmp_path.rglob("geometry*.pyc")]
    assert len(kept) == (kept_in is not None) and all(str(path).startswith(f"{kept_in}/") for path in kept)


# -- closed descriptors


@pytest.mark.parametrize("numbers", [(1,), (0, 1, 2)], ids=str)
def test_closed_descriptors_are_never_those_of_something_else(numbers, tmp_path) -> None:
    lines = tmp_path / "o.jsonl"
    process = subprocess.Popen(
        [*closed(*numbers), *command("lavfi:testsrc2=size=64x64:rate=25", *QUICK, "--jsonl", lines)]
    )
    wait_until(lambda: process.poll() is not None or (lines.exists() and lines.stat().st_size), what="frames")
    workers = stage_pids(process.pid).values()
    # A worker's standard input is a pipe of the supervisor's.
    places = [(process.pid, number) for number in numbers] + [(pid, n) for pid in workers for n in numbers if n]
    opened = {Path(f"/proc/{pid}/fd/{number}").resolve() for pid, number in places}
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert opened == {Path(os.devnull)} and workers
    assert process.returncode in (0, 130)


def test_it_is_known_that_there_is_no_standard_output() -> None:
    code = "import sys; from configs import startup; sys.exit(7 if startup.standard_output_is_closed() else 0)"
    line = [sys.executable, "-c", code]
    assert subprocess.run(line, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    assert subprocess.run([*closed(1), *line], cwd=ROOT).returncode == 7
    assert subprocess.run([*closed(0, 2), *line], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0


def test_printing_without_standard_streams_is_no_failure() -> None:
    assert subprocess.run([*closed(0, 1, 2), *command(*VALIDATE)]).returncode == 0
    assert subprocess.run([*closed(0, 1, 2), *command("no-such.mp4", "--validate")]).returncode == 3


# -- standard error and output that cannot be written

needs_full = pytest.mark.skipif(not FULL.exists(), reason=f"no {FULL} here")


@needs_full
@pytest.mark.parametrize(
    ("arguments", "code"),
    [(VALIDATE, 0), (SHORT, 0), (("no-such.mp4",), 3), ((CLIP, "--set", "infer.no=1"), 2), (("--no-such",), 2)],
    ids=["validate", "a run", "no source", "no key", "no option"],
)
def test_what_cannot_be_told_does_not_change_the_outcome(arguments, code) -> None:
    with FULL.open("w") as full:
        assert subprocess.run(command(*arguments), stdout=subprocess.DEVNULL, stderr=full).returncode == code


def test_whoever_reads_the_messages_may_go(tmp_path) -> None:
    lines = tmp_path / "o.jsonl"
    process = subprocess.Popen(command(*SHORT, "--jsonl", lines), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and process.stderr.readline()
    process.stderr.close()
    assert process.wait(120) == 0
    assert len(json_lines(lines)) == 3


MINI = ROOT / "tests" / "data" / "bccd_mini"
ZOO = [sys.executable, "-m", "models.zoo", "--json"]
CHECK = [sys.executable, "-m", "train.check", "--json", str(MINI / "train.json"), "--images", str(MINI / "images")]


@pytest.mark.parametrize("line", [command(*VALIDATE), command("--help"), ZOO], ids=["validate", "help", "zoo"])
def test_a_reader_of_the_results_may_go(line) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    done = subprocess.run(line, cwd=ROOT, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0 and done.stderr == ""


@needs_full
@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["at the end", "at once"])
@pytest.mark.parametrize("line", [command(*VALIDATE), command("--help"), CHECK], ids=["validate", "help", "check"])
def test_results_that_cannot_be_written_are_an_error_of_one_line(line, unbuffered, tmp_path) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered, "PYTHONPATH": str(ROOT)}
    with FULL.open("w") as full:
        done = subprocess.run(line, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (4, "error: cannot write standard output: No space left on device\n")


# -- signals in the first moments

MOMENTS = [0.3 * number / 40 for number in range(40)]


def start_and_signal(number: int, seconds: float, *before: str) -> tuple[int, str]:
    process = subprocess.Popen(
        [*before, *command(*VALIDATE)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    time.sleep(seconds)
    process.send_signal(number)
    return finish(process)


def is_pythons_own(errors: str) -> bool:
    """Whether Python was interrupted before the program's first line: while it imports what it needs for itself."""
    ours = [line for line in errors.splitlines() if "run_pipeline.py" in line]
    return all(re.search("line [01], in <module>", line) for line in ours)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_in_the_first_moments_is_a_quiet_end(number) -> None:
    ends = [start_and_signal(number, seconds) for seconds in (MOMENTS if number == signal.SIGINT else MOMENTS[::8])]
    for code, errors in ends:
        if errors:
            assert number == signal.SIGINT and is_pythons_own(errors), errors
        else:
            assert code in (0, 130, -number)  # -number: Python itself had not started yet
    assert any(code == 130 for code, _ in ends)


def test_nohup_is_heeded_from_the_start() -> None:
    ignoring = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    assert [start_and_signal(signal.SIGHUP, seconds, *ignoring) for seconds in MOMENTS[8::8]] == [(0, "")] * 4


def test_ctrl_c_at_any_time_is_a_quiet_end_of_other_commands(tmp_path) -> None:
    # More pictures than it can look at before the signal comes.
    image = ROOT / "tests" / "data" / "bccd_mini" / "images" / "BloodImage_00004.jpg"
    images = [tmp_path / f"{number}.jpg" for number in range(1000)]
    for path in images:
        path.symlink_to(image)
    line = [sys.executable, "-m", "models.detect", *map(str, images), "--out", str(tmp_path / "found")]
    process = subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0
    )
    wait_until(lambda: process.poll() is not None or (tmp_path / "found").exists(), 150, "the network")
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "")
