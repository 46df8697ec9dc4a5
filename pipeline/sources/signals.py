"""What a source says of itself beside its frames: the state of its picture, outages, and what was counted.

Knows no container and no clock: moments come as seconds.
"""

import time
from dataclasses import dataclass, field
from typing import Literal

State = Literal["live", "lost", "frozen", "grey"]


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which a source was not live.

    state       what it was instead
    cause       why, as it was said last; one line without credentials
    start_unix  seconds since 1970 at the last moment when all was well
    end_unix    when it was over
    attempts    how often a lost source was opened anew, the attempt that succeeded among them
    """

    state: State
    cause: str
    start_unix: float
    end_unix: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Signal:
    """The source is in another state from the next frame on, or is lost for another cause than before.

    state    live    frames come, and their picture lives
             lost    no frames come; it is being opened anew
             frozen  frames come, but their picture has long been the same
             grey    frames come, but there is nothing to be seen in them
    cause    why, one line without credentials; empty where it is live
    at_unix  seconds since 1970 at the moment since when it is so, which may be a while ago
    outage   what has ended with it
    """

    state: State
    cause: str
    at_unix: float
    outage: Outage | None = None


class Condition:
    """The state a source is in: makes a `Signal` of each change."""

    def __init__(self) -> None:
        self._now = Signal("live", "", 0.0)
        self._attempts = 0

    @property
    def state(self) -> State:
        return self._now.state

    def attempt(self) -> None:
        """A lost source is being opened anew."""
        self._attempts += 1

    def become(self, state: State, cause: str, since_unix: float) -> Signal | None:
        """The signal, unless nothing has changed. An outage whose cause has changed goes on; it ends where what
        follows begins."""
        before = self._now
        if (state, cause) == (before.state, before.cause):
            return None
        if state == before.state:
            self._now = Signal(state, cause, before.at_unix)
            return self._now
        outage = None
        if before.state != "live":
            end_unix = max(before.at_unix, since_unix)  # what was seen late may have begun before
            outage = Outage(before.state, before.cause, before.at_unix, end_unix, self._attempts)
        self._attempts = 0
        self._now = Signal(state, cause, since_unix)
        return Signal(state, cause, since_unix, outage)


@dataclass(slots=True)
class Health:
    """What was counted of a source since it was opened first; may be read at any time.

    reconnects         how often frames came again after a loss
    damaged_frames     frames that were given although they, or their packets, were damaged
    undecoded_packets  packets that gave no frame: damaged, or of a live source before its first key frame
    repaired_times     time stamps that jumped, repeated, ran backwards or were missing
    """

    reconnects: int = 0
    damaged_frames: int = 0
    undecoded_packets: int = 0
    repaired_times: int = 0
    _lost_seconds: float = field(default=0.0, repr=False)
    _lost_since: float | None = field(default=None, repr=False)

    @property
    def seconds_lost(self) -> float:
        """From the last frame before each loss to the first after it, one that goes on among them."""
        running = 0.0 if self._lost_since is None else time.monotonic() - self._lost_since
        return self._lost_seconds + running

    def figures(self) -> dict[str, float]:
        names = ("reconnects", "damaged_frames", "undecoded_packets", "repaired_times", "seconds_lost")
        return {name: getattr(self, name) for name in names}

    def lose(self, since_seconds: float) -> None:
        """Lost since a moment of the monotonic clock, unless it was lost already."""
        if self._lost_since is None:
            self._lost_since = since_seconds

    def come_back(self, at_seconds: float) -> None:
        if self._lost_since is not None:
            self._lost_seconds += max(0.0, at_seconds - self._lost_since)
            self._lost_since = None
