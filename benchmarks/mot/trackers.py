"""What the harness asks of a tracker, and where each is found by its name. Knows none of them.

A name is PACKAGE-ALGORITHM for a peer (`peers.py`), `ours` for `pipeline.tracker` (`ours.py`), or `ours:WORD` for ours
with other settings. Each module is imported only where it is asked for: peers run in an environment of their own.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.mot.sequences import Frame

OURS = "ours"


class Tracks(NamedTuple):
    """What a tracker tells of a frame: the ids, no two alike, and the box of each."""

    ids: NDArray[np.int64]  # (M,)
    boxes_xyxy: NDArray[np.float64]  # (M, 4)


class Thresholds(NamedTuple):
    """The same for all, as far as they have them."""

    low: float  # no tracker is given a detection below
    high: float  # what is found from here on is matched first; where there is no second match, it is all there is
    new: float  # a track starts from here on


class Tracker(NamedTuple):
    """`update` is what is timed: a frame as the tracker wants it in, what it gives out."""

    update: Callable[[Any], Any]
    given: Callable[[Frame], Any]  # a frame as it wants it
    told: Callable[[Any], Tracks]  # what it gave
    least_score: float  # of the detections it is given


Make = Callable[[float], Tracker]  # of the frames per second


def make_of(name: str, thresholds: Thresholds, assignments: tuple[str, ...] = ()) -> Make:
    """Raises ImportError where its package is missing, and ValueError for settings or a name that it does not know."""
    if name.partition(":")[0] == OURS:
        return import_module("benchmarks.mot.ours").make_with(thresholds, assignments)
    peers = import_module("benchmarks.mot.peers").PEERS
    if name not in peers:
        raise ValueError(f"no tracker {name}; there are: {OURS}, {', '.join(peers)}")
    return peers[name](thresholds)
