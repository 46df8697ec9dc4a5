"""Compiled loops over plain arrays: NumPy and Numba, nothing else. Knows no message, no setting, no stage.

peaks   the best cells of a heat map
boxes   heads to boxes in source pixels
tracks  a frame of a tracker: where boxes will be, who overlaps whom, who belongs to whom, who stays
tiles   how much a picture has changed
nothing the smallest

Every loop releases the GIL, and is compiled once and kept on disk. Numba renews what it kept when the file of the
outermost function changes, and no other: so a compiled function calls only those of its own file.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from configs.folders import forget

# Another process may forget what this one has just made.
_TRIES = 3
# Where stages share a process, Numba must not compile for two of them at the same time.
_compiling = threading.Lock()


def compiled(warm_up: Callable[[], None]) -> None:
    """Calls `warm_up`, which compiles kernels or loads what was compiled before. What a power loss has damaged in the
    cache is forgotten, and made anew: Numba raises whatever reading it comes to."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with _compiling, _without_linear_algebra():
                warm_up()
            return
        except Exception:
            if not tries_left or not forget(os.environ.get("NUMBA_CACHE_DIR", "")):
                raise


def preload() -> None:
    """What Numba does once in a process."""
    from pipeline.kernels.nothing import nothing

    compiled(nothing)


@contextmanager
def _without_linear_algebra() -> Iterator[None]:
    """Where SciPy is installed, Numba imports its linear algebra, in twice the time of all kernels; none uses it."""
    if "scipy.linalg" in sys.modules:
        yield
        return
    sys.modules["scipy.linalg"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["scipy.linalg"]
