"""Runs the real command, and looks at what it leaves behind."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from tests.kit.places import ROOT

HANG_SECONDS = 540.0  # no bound of a figure: a machine that does other things as well may take many times as long

# The engine of runs that are processes: an exported network starts without torch, which is half of what a start costs.
QUICK_ENGINE = "onnxruntime" if find_spec("onnxruntime") else "eager"
# Little work, so that what is looked at is who waits for whom.
QUICK = ("--engine", QUICK_ENGINE, "--input", "128x96")
# Nobody is followed, for where a track is depends on the frames before, of which a run may have lost some.
AS_FOUND = ("--set", "track.high_score=1")

STAGES = ("decode", "gather", "infer", "postprocess", "track", "deliver")


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "run_pipeline.py"), *map(str, arguments)]


def run(
    *arguments: object, timeout: float = HANG_SECONDS, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The command to its end, with its output as text; `before` it, another that runs it."""
    return subprocess.run([*before, *command(*arguments)], capture_output=True, text=True, timeout=timeout)


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same with its stages as threads of this process, which has long imported what five processes would import.

    It hears what Python writes, not what a library writes past it: what must appear nowhere is for `run`.
    """
    out, errors = io.StringIO(), io.StringIO()
    line = [*map(str, arguments), "--placement", "threads"]
    with _left_as_it_was(), mock.patch.object(sys, "argv", ["run_pipeline.py", *line]):
        from run_pipeline import main

        with redirect_stdout(out), redirect_stderr(errors):
            try:
                code = main()
            except SystemExit as ending:  # argparse's
                code = int(ending.code or 0)
    return subprocess.CompletedProcess(line, code, out.getvalue(), errors.getvalue())


@contextmanager
def _left_as_it_was() -> Iterator[None]:
    """What a command may change in its process, and a test session wants as it was."""
    import torch

    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def start(*arguments: object, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The command in a process group of its own, so that a signal to it reaches nothing of ours; `before` it, another
    that runs it. A test that fails leaves it running: `end_since` ends it."""
    process = subprocess.Popen(
        [*before, *command(*arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    _started.append(process)
    return process


_started: list[subprocess.Popen[str]] = []


@contextmanager
def end_since() -> Iterator[None]:
    """What was started in here ends with it, and its workers with it."""
    before = len(_started)
    try:
        yield
    finally:
        for process in _started[before:]:
            process.kill()  # nothing where it is over


def run_code(code: str, *arguments: str, **options) -> subprocess.CompletedProcess:  # type: ignore[no-untyped-def]
    """Python in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, timeout=60, **options)


def json_lines(path: Path, is_growing: bool = False) -> list[dict]:
    """Of all its lines; of a file that is being written on, of those that are whole."""
    text = path.read_text()
    return [json.loads(line) for line in (text[: text.rfind("\n") + 1] if is_growing else text).splitlines()]


def worker_pids(parent_pid: int) -> dict[str, int]:
    """Worker → pid of those that the command started: "track", "infer:0", "decode:street"; several may share one."""
    pids = {}
    for pid in children(parent_pid):
        _, _, ids = " ".join(_cmdline(pid)).partition("pipeline.run.worker ")
        pids |= dict.fromkeys([ids] if ids.startswith("decode:") else ids.split(), pid)  # its name may have spaces
    return pids


def nursery_pids(parent_pid: int) -> dict[str, int]:
    """The process that forks them, if there is one: "nursery" → pid."""
    pids = [pid for pid in children(parent_pid) if _cmdline(pid)[-1:] == ["pipeline.run.nursery"]]
    return dict(zip(["nursery"], pids, strict=False))


def stage_pids(parent_pid: int) -> dict[str, int]:
    """Stage → pid, of a run that has one worker for each."""
    return {worker.partition(":")[0]: pid for worker, pid in worker_pids(parent_pid).items()}


def children(parent_pid: int) -> list[int]:
    """Whichever of its threads started them."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{parent_pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                found += map(int, (thread / "children").read_text().split())
    return found


def _cmdline(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().strip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def free_port() -> int:
    """Of this machine, at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def wait_until(condition, seconds: float = 240, what: str = "the condition") -> None:
    """Poll until `condition()` holds; the bound is only there so that a failure ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds} s"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Leftovers:
    """What a run of ours may leave behind: shared memory, socket folders, processes. Take it before, check after."""

    def __init__(self) -> None:
        self._before = self._files()

    @staticmethod
    def _files() -> set[Path]:
        # "sem.mp-…" is a lock of multiprocessing, which no stage has: a training beside us loads its images so.
        shared = {path for path in Path("/dev/shm").glob("*") if not path.name.startswith("sem.mp-")}
        return shared | set(Path(tempfile.gettempdir()).glob("centerstream-*"))

    def assert_none(self, pids: dict[str, int] | None = None, seconds: float = 0) -> None:
        """No new file, and none of `pids` alive; after an orphaned end they have `seconds` to go."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (self._new_files() or self._alive(pids)):
            time.sleep(0.05)
        if any(path.is_relative_to("/dev/shm") for path in self._new_files()):
            time.sleep(0.5)  # what other tests have there they have for a moment
        assert not self._new_files(), f"left behind: {sorted(map(str, self._new_files()))}"
        assert not self._alive(pids), f"left behind: {self._alive(pids)}"

    def _new_files(self) -> set[Path]:
        return self._files() - self._before

    @staticmethod
    def _alive(pids: dict[str, int] | None) -> list[str]:
        return [stage for stage, pid in (pids or {}).items() if is_running(pid)]


def finish(process: subprocess.Popen[str], seconds: float = 60) -> tuple[int, str]:
    """Exit code and standard error of a started command; ends it when it hangs, and fails."""
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        raise AssertionError(f"still running after {seconds} s: {process.communicate()[1][-2000:]}") from None
    return process.returncode, errors
