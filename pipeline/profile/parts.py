"""What is measured of stages alone: what was asked for, and what was found. Measures nothing."""

import msgspec

from pipeline.flow.messages import Limits, ModelCard, StreamStart
from pipeline.profile.model import NEGLIGIBLE_MS, Station
from pipeline.settings import Settings
from pipeline.stage import CHAIN


class Part(msgspec.Struct, frozen=True):
    """One stage alone.

    lanes      calls side by side
    frames     that were measured
    cpu_ms     of a frame, all threads together
    idle_ms    of a frame, in which nothing of it computed or wanted to: sleeps, disks, devices
    round_ms   CPU that a round of the network costs whatever its size
    parallel   cores that one lane keeps busy
    spread     what single calls cost beside the mean, as factors
    warm       share of `cpu_ms` that a call costs straight after another
    """

    stage: str
    lanes: int = 1
    frames: int = 0
    cpu_ms: float = 0.0
    idle_ms: float = 0.0
    round_ms: float = 0.0
    parallel: float = 1.0
    spread: tuple[float, ...] = ()
    warm: float = 1.0

    def station(self, hand_over_ms: float = 0.0, further_ms: float = 0.0) -> Station:
        """With what it costs to take a frame from the queue before and to hand it on: one alone, and each further of a
        bundle."""
        cpu_ms = self.cpu_ms + hand_over_ms
        warm = (self.cpu_ms * self.warm + further_ms) / max(cpu_ms, NEGLIGIBLE_MS)
        return Station(self.lanes, cpu_ms, self.idle_ms, self.round_ms, self.parallel, self.spread, min(1.0, warm))


class Request(msgspec.Struct, frozen=True):
    """Measure these `stages` of a run of one source, each for about `seconds`."""

    settings: Settings
    stages: tuple[str, ...] = CHAIN
    seconds: float = 2.0


class Measured(msgspec.Struct, frozen=True):
    """What was measured.

    hand_over_ms  CPU of one frame's way from one stage to the next, sender and receiver together
    further_ms    of each further frame in the same message
    still_share   of the frames: those that look as one before, and could take over what was found in it
    look_ms       CPU that it takes to see that of a frame
    free_cores    that others left us, before and after
    problem       why nothing could be measured, and the exit code of that
    """

    parts: dict[str, Part] = {}
    model: ModelCard | None = None
    limits: Limits | None = None
    stream: StreamStart | None = None
    hand_over_ms: float = 0.0
    further_ms: float = 0.0
    still_share: float = 0.0
    look_ms: float = 0.0
    free_cores: tuple[float, float] = (0.0, 0.0)
    problem: str = ""
    exit_code: int = 0
