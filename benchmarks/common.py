"""What every benchmark says: which machine, which figures, and one line of JSON at the end.

Import it first: it puts the repository's root on the path, so that a benchmark runs from a clone, installed or not.
"""

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CENTERSTREAM_DATA", ROOT / "../shared/data"))
sys.path.insert(0, str(ROOT))

from models.devices import processor_name  # noqa: E402  from the root


def machine(*packages: str) -> str:
    """One line: processor, cores, Python, and the versions of `packages`."""
    parts = [processor_name(), f"{os.cpu_count()} cores", f"Python {platform.python_version()}"]
    for package in ("numpy", *packages):
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            parts.append(f"without {package}")
    return ", ".join(parts)


def milliseconds(call: Callable[[], object], count: int, warm_up: int = 3) -> list[float]:
    """The time of each of `count` calls, after some that do not count."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Count, least, median, 90th and 99th percentile."""
    array = np.fromiter(values, np.float64)
    least, p50, p90, p99 = np.percentile(array, [0, 50, 90, 99]).round(4).tolist()
    return {"count": len(array), "min": least, "p50": p50, "p90": p90, "p99": p99}


def frames_and_seconds(summary: str) -> tuple[int, float] | None:
    """What a run's summary on standard error says of its length; None where it says nothing."""
    found = re.search(r"^(\d+) frames in ([\d.]+) s: ", summary, re.MULTILINE)
    return (int(found[1]), float(found[2])) if found else None


def middle_and_ends(ratios: list[float], digits: int = 3) -> dict[str, float]:
    """Of runs in alternation."""
    return {name: round(of(ratios), digits) for name, of in (("median", median), ("min", min), ("max", max))}


def finish(result: dict[str, Any]) -> None:
    """The last line, for machines."""
    print(json.dumps(result), flush=True)
