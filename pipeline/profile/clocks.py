"""Clocks of this process, by the wall and by what it computed, and how many cores others leave. Knows no stage."""

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from pipeline.settings import usable_cores

SPIN_SECONDS = 0.25


class Reading(NamedTuple):
    """Seconds: by the wall, computed by this process, and waited by its threads for a core."""

    wall: float
    cpu: float
    wait: float

    @classmethod
    def before(cls) -> "Reading":
        """The clocks that take time to read come first, so that they do not count."""
        wait = _waited_for_a_core()
        return cls(time.perf_counter(), time.process_time(), wait)

    def passed(self) -> "Reading":
        """Since then."""
        wall, cpu = time.perf_counter(), time.process_time()
        return Reading(wall - self.wall, cpu - self.cpu, _waited_for_a_core() - self.wait)

    def plus(self, other: "Reading") -> "Reading":
        return Reading(*(mine + more for mine, more in zip(self, other, strict=True)))

    def less(self, other: "Reading") -> "Reading":
        return Reading(*(mine - aside for mine, aside in zip(self, other, strict=True)))


NOTHING = Reading(0.0, 0.0, 0.0)


def _waited_for_a_core() -> float:
    """By all threads of this process; 0 where the kernel does not tell."""
    total_ns = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total_ns += int(path.read_text().split()[1])
        except (OSError, IndexError, ValueError):  # a thread that has just ended
            continue
    return total_ns / 1e9


def free_cores(seconds: float = SPIN_SECONDS) -> float:
    """Cores that others leave: so many processes as there are cores spin, and what they got is counted."""
    code = (
        f"import time\nend = time.perf_counter() + {seconds:g}\nbegan = time.process_time()\n"
        "while time.perf_counter() < end: pass\nprint(time.process_time() - began)"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    spinning = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(usable_cores())]
    got = [float(process.communicate()[0] or 0.0) for process in spinning]
    return max(0.05, sum(got) / seconds)
