"""The machine as this process may use it: processor, memory, open files, clock. A container's limits count as its own.
Knows Linux; elsewhere it says what it cannot tell.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.doctor.finding import Finding, Question, note, ok, problem
from pipeline.settings import usable_cores

CGROUPS = Path("/sys/fs/cgroup")
# Of a run with the shipped network, in proportional set size: of all its processes with one source, and with each more.
RUN_BYTES, SOURCE_BYTES = 800 << 20, 90 << 20
# Descriptors of the process that has the most, the supervisor: with one source, and with each more.
RUN_FILES, SOURCE_FILES = 64, 4
TIME_ERROR = 5  # of adjtimex(2): nobody keeps this clock
BF16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512", "bf16": "Arm"}


def processor(question: Question) -> Iterator[Finding]:
    cores, there = usable_cores(), os.cpu_count() or 1
    told = f"{cores} of {there} cores" if cores < there else f"{cores} cores"
    yield ok("processor", f"{told} may be used; {_on_bf16()}")
    infer, quota = question.settings.infer, cpu_quota()
    wanted = infer.cpu_workers() * infer.cpu_threads()
    if quota is not None and quota < cores:
        text = f"the container may compute for {quota:g} s in a second, and the network would on {wanted} threads"
        how = f"--set infer.workers={max(1, round(quota))} --set infer.threads=1, or raise the limit"
        yield note("processor", text, how) if quota < wanted else ok("processor", text)


def _on_bf16() -> str:
    flags = _flags()
    known = [name for flag, name in BF16.items() if flag in flags]
    if known:
        return f"it computes in bf16 by itself ({', '.join(known)})"
    return "it has no bf16 of its own" if flags else "whether it has bf16 it does not tell"


def _flags() -> set[str]:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return set(line.partition(":")[2].split())
    return set()


def memory(question: Question) -> Iterator[Finding]:
    free, limit = _free_bytes(), memory_limit()
    sources = max(1, len(question.settings.sources))
    needed = RUN_BYTES + SOURCE_BYTES * (sources - 1)
    if free is None:
        yield note("memory", "how much is free cannot be told on this system")
        return
    told = f"{_gib(free)} are free" + (f", the container's limit is {_gib(limit)}" if limit else "")
    what = f"a run of {_sources(sources)} takes about {_gib(needed)} with the shipped network"
    if needed > free:
        groups = "--set 'run.groups=[[postprocess, track, deliver]]'"
        how = f"end other programs, raise the limit, or let stages share a process: {groups}"
        yield problem("memory", f"{told}; {what}", how)
    else:
        yield ok("memory", f"{told}; {what}")


def _free_bytes() -> int | None:
    """What can be had without swapping, by the system and by the container."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)
    limit = memory_limit()
    if limit is None or free is None:
        return free
    return min(free, max(0, limit - (memory_used() or 0)))


def open_files(question: Question) -> Iterator[Finding]:
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    sources = max(1, len(question.settings.sources))
    needed = RUN_FILES + SOURCE_FILES * (sources - 1)
    told = f"{'any number' if limit == resource.RLIM_INFINITY else limit} may be open in a process"
    what = f"a run of {_sources(sources)} needs about {needed}"
    if limit == resource.RLIM_INFINITY or limit >= needed:
        yield ok("open files", f"{told}; {what}")
    else:
        refused = "" if most == resource.RLIM_INFINITY or most >= needed else f" (as root: the most here is {most})"
        yield problem("open files", f"{told}; {what}", f"ulimit -n {max(1024, needed)} in the shell before it{refused}")


def clock(question: Question) -> Iterator[Finding]:
    state = _kernel_clock()
    if state is None:
        yield note("clock", "whether it is kept right cannot be told here", "look on the host")
    elif state == TIME_ERROR:
        how = "start chrony or systemd-timesyncd on the host, if times of cameras or other machines are compared"
        yield note("clock", "the system does not say that anybody keeps it right", how)
    else:
        yield ok("clock", "it is kept right (adjtimex)")


class _Timex(ctypes.Structure):
    """The head of `struct timex`; asked with `modes` 0 nothing is changed."""

    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_char * 508))


def _kernel_clock() -> int | None:
    """What adjtimex(2) answers; None where there is none, or it may not be asked."""
    ask = getattr(ctypes.CDLL(None), "adjtimex", None) if sys.platform == "linux" else None
    state = -1 if ask is None else int(ask(ctypes.byref(_Timex())))
    return state if state >= 0 else None


def _sources(count: int) -> str:
    return f"{count} source{'s' * (count > 1)}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


# -- a container's limits


def cpu_quota(root: Path = CGROUPS) -> float | None:
    """Seconds of computing in a second that the groups of this process allow; None: any number."""
    pairs = [tuple(text.split()) for text in _read(root, "cpu", "cpu.max")]
    pairs += zip(_read(root, "cpu", "cpu.cfs_quota_us"), _read(root, "cpu", "cpu.cfs_period_us"), strict=False)
    limits = [pair for pair in pairs if len(pair) == 2 and all(each.isdecimal() for each in pair)]
    return min((int(quota) / int(period) for quota, period in limits), default=None)


def memory_limit(root: Path = CGROUPS) -> int | None:
    """Bytes that the groups of this process allow; None: any number."""
    texts = [*_read(root, "memory", "memory.max"), *_read(root, "memory", "memory.limit_in_bytes")]
    # The older kind writes a number near 2**63 for none.
    return min((int(text) for text in texts if text.isdecimal() and int(text) < 1 << 60), default=None)


def memory_used(root: Path = CGROUPS) -> int | None:
    """Bytes that count towards the limit of its own group, but for what the system takes back when it is needed."""
    texts = [*_read(root, "memory", "memory.current"), *_read(root, "memory", "memory.usage_in_bytes")]
    used = next((int(text) for text in texts if text.isdecimal()), None)
    stat = next(_read(root, "memory", "memory.stat"), "")
    kept = next((int(line.split()[1]) for line in stat.splitlines() if line.startswith("inactive_file ")), 0)
    return None if used is None else max(0, used - kept)


def _read(root: Path, controller: str, name: str) -> Iterator[str]:
    """The files `name` of this process's group and of those above it, where they can be seen, the innermost first."""
    for folder in _groups(root, controller):
        with suppress(OSError, UnicodeDecodeError):
            yield (folder / name).read_text(encoding="utf-8").strip()


def _groups(root: Path, controller: str) -> Iterator[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and controller not in kinds.split(","):
            continue
        top = root / controller if kinds else root
        inner = top / path.lstrip("/")
        # In a container its own group is at the top, whatever its path is outside.
        yield from (place for place in (inner, *inner.parents) if place == top or top in place.parents)
