"""The process that forks workers: whose children they are, what is open in them, and what they do without it."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.errors import StageError
from pipeline.run import nursery as other_end
from pipeline.run.nursery import Forked, Nursery
from tests.kit.harness import is_running, run_code, wait_until, worker_pids

PR_GET_CHILD_SUBREAPER = 37


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as it:
        yield it


def adopts() -> bool:
    """Whether orphans become our children."""
    is_on = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(is_on), 0, 0, 0)
    return is_on.value != 0


def forked(nursery: Nursery, *ids: str, descriptors: tuple[int, ...] = ()) -> Forked:
    child = nursery.fork(ids, descriptors)
    assert child
    return child


def end(child: Forked) -> int | None:
    """Its exit code, without ever having been told what to do."""
    child.stdin.close()
    wait_until(lambda: child.poll() is not None, what="its end")
    return child.poll()


def test_a_worker_is_our_child_with_a_name_and_a_group_of_its_own(nursery: Nursery) -> None:
    child = forked(nursery, "decode:the door")
    wait_until(lambda: worker_pids(os.getpid()).get("decode:the door") == child.pid, what="its name")
    wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "decode:the door\n", what="its short one")
    assert os.getpgid(child.pid) == child.pid != os.getpgrp()
    assert child.poll() is None and not adopts()  # others' orphans are none of ours
    assert end(child) == StageError.exit_code


def test_how_it_ended_is_known(nursery: Nursery) -> None:
    child = forked(nursery, "gather")
    child.kill()
    wait_until(lambda: child.poll() is not None, what="its end")
    assert child.poll() == -signal.SIGKILL and not is_running(child.pid)
    child.kill()  # nobody else who has its number by now


def test_several_that_share_a_process_are_all_named(nursery: Nursery) -> None:
    child = forked(nursery, "postprocess", "track")
    shared = {"postprocess": child.pid, "track": child.pid}
    wait_until(lambda: worker_pids(os.getpid()).items() >= shared.items(), what="their names")
    end(child)


def test_what_is_open_here_is_open_there_by_the_same_number_and_nothing_else_is(nursery: Nursery, tmp_path) -> None:
    with (tmp_path / "a").open("w") as first, (tmp_path / "b").open("w") as second, (tmp_path / "c").open("w"):
        child = forked(nursery, "gather", descriptors=(second.fileno(), first.fileno()))
        folder = Path(f"/proc/{child.pid}/fd")
        wait_until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "gather\n", what="the worker")
        seen = {int(link.name): link.readlink().name for link in folder.iterdir()}
        assert {number: name for number, name in seen.items() if name in "abc"} == {
            first.fileno(): "a",
            second.fileno(): "b",
        }
        assert set(seen) == {0, 1, 2, first.fileno(), second.fileno()}
        assert (folder / "0").readlink().name.startswith("pipe:")
    end(child)


RENUMBER = """
import os, sys
from pipeline.run.nursery import _renumber
def opened(name):
    number = os.open(name, os.O_CREAT | os.O_RDWR)
    os.write(number, name.encode())
    return number
names, offsets = ["a", "b", "c"], [int(word) for word in sys.argv[1:]]
numbers = [opened(name) for name in names]
wanted = [min(numbers) + offset for offset in offsets]
_renumber(numbers, wanted)
for name, number in zip(names, wanted):
    assert os.pread(number, 9, 0) == name.encode(), (name, number)
left = {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2}
assert len(left & set(wanted)) == 3 and len(left - set(wanted)) <= 1, left  # listdir's own
"""


@pytest.mark.parametrize("offsets", ["0 1 2", "2 1 0", "1 2 0", "1 2 3", "5 9 7"])
def test_numbers_may_be_each_others(offsets: str, tmp_path) -> None:
    done = run_code(RENUMBER, *offsets.split(), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_process_with_threads_is_not_forked() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    assert other_end._fork() == -1
    over.set()
    thread.join()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_one_that_is_lost_gives_no_more_and_keeps_nobody_waiting(blow: signal.Signals) -> None:
    with closing(Nursery()) as nursery:
        child = forked(nursery, "gather")
        nursery._socket.settimeout(0.5)
        os.kill(nursery._process.pid, blow)
        assert nursery.fork(["gather"], []) is None and nursery.fork(["gather"], []) is None
        assert not is_running(nursery._process.pid)
        assert child.poll() is None and end(child) == StageError.exit_code  # who lives, lives on


AND_GO = """
import os, socket, sys
from pipeline.run.nursery import Nursery, Order
import msgspec
nursery = Nursery()
if "without waiting" in sys.argv:
    reader, _ = os.pipe()
    for _ in range(3):
        socket.send_fds(nursery._socket, [msgspec.json.encode(Order(["gather"], [0]))], [reader])
if "in between" in sys.argv:
    nursery.fork(["gather"], [])
print(nursery._process.pid, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("when", ["at once", "without waiting", "in between"])
def test_it_goes_without_a_word_when_whoever_started_it_has_gone(when: str) -> None:
    done = run_code(AND_GO, when, capture_output=True, text=True, check=True)
    wait_until(lambda: not is_running(int(done.stdout)), what="its end")
    assert done.stderr == ""


def test_a_stage_that_cannot_be_loaded_is_its_workers_trouble() -> None:
    """Which tells of it; the nursery goes on."""
    with closing(Nursery()) as nursery:
        assert end(forked(nursery, "nothing of the kind")) == StageError.exit_code
        assert end(forked(nursery, "gather")) == StageError.exit_code


def test_nothing_that_starts_threads_is_loaded_for_others(nursery: Nursery) -> None:
    """Else each worker would be started by itself, and nobody would notice."""
    for stage in 2 * ("decode:x", "gather", "deliver", "serve", "postprocess", "track", "infer:0"):
        end(forked(nursery, stage))
    loaded = Path(f"/proc/{nursery._process.pid}/maps").read_text()
    assert "libtorch" not in loaded and "openvino" not in loaded and "onnxruntime" not in loaded
    assert "llvmlite" in loaded and "libavcodec" in loaded  # what it was told to load it has
