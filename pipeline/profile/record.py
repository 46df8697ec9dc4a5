"""What a profile comes to: the shape of `report.json`, which docs/profile.md explains. Versioned; knows nothing of how
any of it was measured, and holds no address."""

from typing import Any

import msgspec

from pipeline.flow.messages import ModelCard, Quantiles
from pipeline.profile.frames import Depths, Slice, StageTimes
from pipeline.profile.levers import Row
from pipeline.profile.parts import Part

SCHEMA = 1  # goes up when a key changes its meaning or goes away; new keys may come without


class Machine(msgspec.Struct):
    """`free_cores` that others left, each time it was looked at."""

    processor: str
    cores: int
    free_cores: list[float]


class Stream(msgspec.Struct):
    """What the source gives; `source` as an error would show it; `played` so often, where a file was too short."""

    source: str
    width: int
    height: int
    frames_per_second: float | None
    is_live: bool
    played: int = 1


class StageRecord(msgspec.Struct):
    """alone, capacity   measured by itself; frames a second that it could do with the cores to itself
    run, run_cpu_ms      its times in the run, and the CPU of its process a frame (null where stages share one)
    gain                 by how much the run would be faster if this stage took half as long"""

    alone: Part
    capacity: float
    gain: float
    run: StageTimes | None = None
    run_cpu_ms: float | None = None


class Figure(msgspec.Struct):
    """A prediction and its proof, in frames a second."""

    predicted: float
    low: float
    high: float
    measured: float | None = None

    @property
    def error(self) -> float | None:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1 if self.measured else None


class RunRecord(msgspec.Struct):
    """The run as it was. `cpu_seconds` by worker; `for_its_cores` is what is predicted for the cores that it got."""

    seconds: float
    frames: int
    throughput: float
    dropped_share: float
    latency: Quantiles
    cores: float | None
    for_its_cores: float | None
    cpu_seconds: dict[str, float]
    breakdown: list[Slice]
    depths: Depths


class Applied(msgspec.Struct):
    """The best change, the file that it was written to, and its proof."""

    change: str
    file: str
    throughput: Figure


class CameraRun(msgspec.Struct):
    """So many cameras at once; `keeps_up`: the age goal was kept with next to no drops."""

    cameras: int
    age_p95_ms: float
    dropped_share: float
    keeps_up: bool


class Cameras(msgspec.Struct):
    """How many like this one at `rate` frames a second with 95 % of ages below `max_age_ms`.

    low, likely, high  predicted; `elsewhere` the same for machines with other numbers of cores, an estimate
    runs, proven       what was tried; the most that kept up, null where none was tried (`not_tried` says why)
    """

    rate: float
    max_age_ms: float
    low: int
    likely: int
    high: int
    elsewhere: dict[str, list[int]] = {}
    runs: list[CameraRun] = []
    proven: int | None = None
    not_tried: str = ""


class Profile(msgspec.Struct, kw_only=True):
    """A whole profile, or what there is of one that was stopped (`is_complete` false)."""

    schema: int = SCHEMA
    made_unix: float
    is_complete: bool = False
    seconds: float
    machine: Machine
    stream: Stream
    settings: dict[str, Any]
    model: ModelCard
    hand_over_ms: float
    stages: dict[str, StageRecord]
    bottleneck: str
    bottleneck_why: str
    throughput: Figure
    run: RunRecord | None = None
    levers: list[Row] = []
    applied: Applied | None = None
    cameras: Cameras | None = None
    notes: list[str] = []
