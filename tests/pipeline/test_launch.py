"""The environment that workers run in, and one that dies at once."""

import ctypes
import os
import subprocess
import sys

import pytest
from msgspec import Struct

from pipeline.run import launch
from pipeline.run.launch import WorkerProcess
from pipeline.run.start import NO_THREAD_CACHE, WORKER_ENVIRONMENT

# Forty threads that stay take and free seven blocks of every small size; what glibc then counts as in use.
BUSY_THREADS = """
import ctypes, threading
class Counts(ctypes.Structure):  # mallinfo2(3)
    _fields_ = [(name, ctypes.c_size_t) for name in "arena a b c d e f in_use free top".split()]
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = Counts
done, over = threading.Barrier(41), threading.Event()
def work():
    done.wait()
    for block in [libc.malloc(size) for size in range(24, 1033, 16) for _ in range(7)]:
        ctypes.memset(block, 1, 8)
        libc.free(block)
    done.wait()
    over.wait()
threads = [threading.Thread(target=work) for _ in range(40)]
for thread in threads:
    thread.start()
before = libc.mallinfo2().in_use
done.wait()
done.wait()
print(libc.mallinfo2().in_use - before)
over.set()
"""
ENVIRONMENT = "from pipeline.run.start import WORKER_ENVIRONMENT as it; print(it['GLIBC_TUNABLES'])"


def python(code: str, environment: dict[str, str]) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="another malloc, or one that does not tell")
def test_threads_keep_nothing_of_what_they_freed() -> None:
    """Where they do it is 9.6 MB."""
    assert int(python(BUSY_THREADS, os.environ | WORKER_ENVIRONMENT)) < 1_000_000


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, NO_THREAD_CACHE),
        ("", NO_THREAD_CACHE),
        ("glibc.malloc.hugetlb=1", f"glibc.malloc.hugetlb=1:{NO_THREAD_CACHE}"),
        (f"{NO_THREAD_CACHE}:glibc.malloc.hugetlb=1", f"glibc.malloc.hugetlb=1:{NO_THREAD_CACHE}"),
    ],
)
def test_a_users_own_tunables_stay(given: str | None, told: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    assert python(ENVIRONMENT, environment | ({} if given is None else {"GLIBC_TUNABLES": given})) == told


class Plan(Struct):
    id: str = "track"


class Spec(Struct):
    plan: Plan


def ended(code: str, monkeypatch: pytest.MonkeyPatch) -> WorkerProcess:
    """One whose process is over, with what `code` ends with."""
    dead = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    dead.wait()
    monkeypatch.setattr(launch, "start_module", lambda *words, **options: dead)
    worker = WorkerProcess([Spec(Plan())], [])  # type: ignore[list-item]
    assert worker.join(60.0)
    return worker


def test_one_that_died_before_it_was_told_what_to_do_is_a_death_like_any_other(monkeypatch) -> None:
    assert ended("raise SystemExit(1)", monkeypatch).death() == "exited with code 1"


def test_one_that_ended_in_peace_has_time_for_its_last_words_to_be_heard(monkeypatch) -> None:
    worker = ended("", monkeypatch)
    moments = iter([10.0, 10.0 + launch.LAST_WORDS_SECONDS - 0.1, 10.0 + launch.LAST_WORDS_SECONDS])
    monkeypatch.setattr(launch.time, "monotonic", lambda: next(moments))
    assert [worker.death() for _ in range(3)] == [None, None, "exited with code 0"]
