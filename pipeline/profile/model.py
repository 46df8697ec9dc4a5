"""What a run would do: a small simulation of the stages, with their service times as measured and the cores as servers.

Frames go from stage to stage as they do in a run: slots bound what is on its way, live frames before the network give
way to newer ones, what has come out of the network goes on in order. Whoever computes shares the cores evenly with all
others who do (processor sharing); who sleeps, or waits for a device, needs none. Pure: knows no clock and no process.
"""

import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.stage import CHAIN

SINGLE = CHAIN[3:]  # one worker each, after the network
NEGLIGIBLE_MS = 1e-9


@dataclass(frozen=True, slots=True)
class Station:
    """A stage as the simulation sees it.

    lanes     frames (infer: rounds) at the same time; of decode for each source
    cpu_ms    of a frame, all threads together
    idle_ms   of a frame, in which nothing is computed: a sleep, a device
    round_ms  CPU of a round, whatever its size (infer)
    parallel  cores that one lane keeps busy while it computes, where there are enough
    spread    factors by which single frames differ; drawn from
    warm      share of `cpu_ms` that a frame costs which is taken straight after another (what follows the network)
    """

    lanes: int = 1
    cpu_ms: float = 0.0
    idle_ms: float = 0.0
    round_ms: float = 0.0
    parallel: float = 1.0
    spread: tuple[float, ...] = ()
    warm: float = 1.0

    def times(self, factor: float) -> "Station":
        """All of it takes `factor` times as long."""
        return replace(
            self, cpu_ms=self.cpu_ms * factor, idle_ms=self.idle_ms * factor, round_ms=self.round_ms * factor
        )

    def as_run(self, cpu_ms: float, bundle: int) -> "Station":
        """With the cost that a run has shown in the mean of so many frames, of which all but the first are warm."""
        return replace(self, cpu_ms=cpu_ms * bundle / (1 + (bundle - 1) * self.warm))

    def capacity(self, cores: float, batch: int = 1) -> float:
        """Frames a second that it could do alone."""
        cpu_ms = self.cpu_ms + self.round_ms / batch
        service_ms = cpu_ms / self.parallel + self.idle_ms
        by_lanes = self.lanes / max(service_ms, NEGLIGIBLE_MS)
        return 1e3 * min(by_lanes, cores / max(cpu_ms, NEGLIGIBLE_MS))


@dataclass(frozen=True, slots=True)
class Model:
    """A run: its stations by stage, the cores, and how many frames may be where (as `pipeline.flow.messages.Limits`).

    others    threads of other programs that want a core all the time, and get their even share
    slowness  how many times as long as measured alone everything takes, as a run has shown
    spare     of `ahead` and `of_source`, where there are no cameras
    bundle    frames of recordings that leave the network together (`pipeline.flow.lines.Bundle`)
    """

    stations: dict[str, Station]
    cores: float
    ahead: int
    of_source: int
    waiting: int = 1
    batch: int = 1
    others: float = 0.0
    slowness: float = 1.0
    spare: int = 0
    bundle: int = 1

    def with_station(self, stage: str, station: Station) -> "Model":
        return replace(self, stations=self.stations | {stage: station})

    def slower(self, factor: float) -> "Model":
        """All that takes time takes `factor` times as long."""
        slow = {stage: station.times(factor) for stage, station in self.stations.items()}
        return replace(self, stations=slow, slowness=self.slowness * factor)

    @property
    def cpu_ms(self) -> float:
        """CPU of a frame in all stages, with full rounds."""
        return sum(s.cpu_ms + s.round_ms / self.batch for s in self.stations.values())


def others_from(free: float, cores: int) -> float:
    """How many threads of others there are where as many spinning processes as there are cores got `free` of them."""
    return max(0.0, cores * (cores / max(free, NEGLIGIBLE_MS) - 1))


@dataclass(slots=True)
class Outcome:
    """What came of it, times in seconds. `ages` from capture to delivery; `ends` of delivery."""

    captured: int = 0
    dropped: int = 0
    ages: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def throughput(self) -> float:
        """Frames a second, without the tenth at the beginning in which the pipeline fills."""
        first, last = len(self.ends) // 10, len(self.ends) - 1
        return (last - first) / (self.ends[last] - self.ends[first]) if last > first else 0.0

    def age_percentile(self, percent: float) -> float:
        return percentile(self.ages[len(self.ages) // 10 :], percent)

    def dropped_share(self) -> float:
        return self.dropped / max(1, self.captured)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))] if ordered else 0.0


def throughput(model: Model, frames: int = 400) -> float:
    """Frames a second of a recording, which waits wherever there is no room."""
    return simulate(model, recordings=[frames]).throughput()


def live(model: Model, cameras: int, rate: float, seconds: float = 30.0, seed: int = 0) -> Outcome:
    """So many cameras of `rate` frames a second each, that began at random moments."""
    draw = random.Random(seed)
    count = max(2, round(rate * seconds))
    phases = [draw.random() / rate for _ in range(cameras)]
    return simulate(model, cameras=[[phase + k / rate for k in range(count)] for phase in phases], seed=seed)


def simulate(
    model: Model, recordings: Sequence[int] = (), cameras: Sequence[Sequence[float]] = (), seed: int = 0
) -> Outcome:
    """`recordings` are numbers of frames, each taken as soon as there is a slot; `cameras` are moments in seconds."""
    return _Run(model, recordings, cameras, seed).run()


@dataclass(slots=True, eq=False)
class _Frame:
    source: int
    captured: float


@dataclass(slots=True, eq=False)
class _Job:
    """What a lane works on: CPU first, then the time in which it needs none."""

    stage: str
    frames: list[_Frame]
    cpu: float  # seconds that are left
    idle: float
    parallel: float


class _Run:
    def __init__(self, model: Model, recordings: Sequence[int], cameras: Sequence[Sequence[float]], seed: int) -> None:
        if cameras:
            model = replace(model, ahead=model.ahead - model.spare, of_source=model.of_source - model.spare)
        self._model, self._draw = model, random.Random(seed)
        self._outcome = Outcome()
        self._now = 0.0
        self._computing: list[_Job] = []
        self._sleeping: list[tuple[float, int, _Job]] = []
        self._count = 0
        self._left = list(recordings)
        self._is_live = [False] * len(recordings) + [True] * len(cameras)
        sources = len(self._is_live)
        arrivals = [(at, len(recordings) + n) for n, times in enumerate(cameras) for at in times]
        self._arrivals = deque(sorted(arrivals))
        self._on_way = [0] * sources
        self._to_decode: list[deque[_Frame]] = [deque() for _ in range(sources)]
        self._decoding = [0] * sources
        self._waiting: list[deque[_Frame]] = [deque() for _ in range(sources)]
        self._turns: deque[int] = deque()
        self._gathering: deque[_Frame] = deque()
        self._queues: dict[str, deque[_Frame]] = {stage: deque() for stage in SINGLE}
        self._in_order: list[deque[_Frame]] = [deque() for _ in range(sources)]
        self._ready: set[int] = set()
        self._bundle: list[_Frame] = []
        self._ended: dict[str, float] = {}
        self._busy = dict.fromkeys(CHAIN[1:], 0)
        self._ahead = 0

    def run(self) -> Outcome:
        while True:
            self._begin_all()
            share = self._share()
            next_cpu = min((job.cpu / (job.parallel * share) for job in self._computing), default=float("inf"))
            until = self._now + next_cpu
            if self._sleeping:
                until = min(until, self._sleeping[0][0])
            if self._arrivals:
                until = min(until, self._arrivals[0][0])
            if until == float("inf"):
                return self._outcome
            self._advance(max(0.0, until - self._now), share)
            self._now = max(self._now, until)
            self._take_arrivals()
            self._end_all()

    def _share(self) -> float:
        wanted = sum(job.parallel for job in self._computing)
        return min(1.0, self._model.cores / (wanted + self._model.others)) if wanted else 1.0

    def _advance(self, seconds: float, share: float) -> None:
        for job in self._computing:
            job.cpu -= seconds * job.parallel * share

    # -- what begins

    def _begin_all(self) -> None:
        for source, is_live in enumerate(self._is_live):
            while not is_live and self._left[source] and self._on_way[source] < self._model.of_source:
                self._left[source] -= 1
                self._capture(source, self._now)
            while self._to_decode[source] and self._decoding[source] < self._model.stations["decode"].lanes:
                self._decoding[source] += 1
                self._start("decode", [self._to_decode[source].popleft()])
        while self._gathering and self._busy["gather"] < self._lanes("gather"):
            self._busy["gather"] += 1
            self._start("gather", [self._gathering.popleft()])
        while self._turns and self._busy["infer"] < self._lanes("infer") and self._ahead < self._model.ahead:
            self._busy["infer"] += 1
            self._start("infer", self._round())
        if self._busy["infer"] < self._lanes("infer"):
            self._send_bundle()
        for stage, queue in self._queues.items():
            while queue and self._busy[stage] < self._lanes(stage):
                self._busy[stage] += 1
                self._start(stage, [queue.popleft()])

    def _lanes(self, stage: str) -> int:
        return self._model.stations[stage].lanes

    def _capture(self, source: int, at: float) -> None:
        self._outcome.captured += 1
        self._on_way[source] += 1
        self._to_decode[source].append(_Frame(source, at))

    def _round(self) -> list[_Frame]:
        """The next of each source in turn."""
        frames: list[_Frame] = []
        most = min(self._model.batch, self._model.ahead - self._ahead)
        while self._turns and len(frames) < max(1, most):
            source = self._turns.popleft()
            frame = self._waiting[source].popleft()
            self._in_order[source].append(frame)
            frames.append(frame)
            if self._waiting[source]:
                self._turns.append(source)
        self._ahead += len(frames)
        return frames

    def _start(self, stage: str, frames: list[_Frame]) -> None:
        station = self._model.stations[stage]
        factor = self._draw.choice(station.spread) if station.spread else 1.0
        if stage in SINGLE and self._ended.get(stage) == self._now:
            factor *= station.warm
        cpu_ms = (station.round_ms + station.cpu_ms * len(frames)) * factor
        job = _Job(stage, frames, cpu_ms / 1e3, station.idle_ms * factor * len(frames) / 1e3, station.parallel)
        self._computing.append(job)

    # -- what ends

    def _take_arrivals(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self._now:
            at, source = self._arrivals.popleft()
            if self._on_way[source] >= self._model.of_source:
                self._outcome.captured += 1
                self._outcome.dropped += 1
            else:
                self._capture(source, at)

    def _end_all(self) -> None:
        computed = [job for job in self._computing if job.cpu <= 1e-12]
        if computed:
            self._computing = [job for job in self._computing if job.cpu > 1e-12]
        for job in computed:
            if job.idle > 0:
                self._count += 1
                heapq.heappush(self._sleeping, (self._now + job.idle, self._count, job))
            else:
                self._end(job)
        while self._sleeping and self._sleeping[0][0] <= self._now:
            self._end(heapq.heappop(self._sleeping)[2])

    def _end(self, job: _Job) -> None:
        if job.stage == "decode":
            self._decoding[job.frames[0].source] -= 1
            self._gathering.append(job.frames[0])
            return
        self._busy[job.stage] -= 1
        self._ended[job.stage] = self._now
        for frame in job.frames:
            self._go_on(job.stage, frame)

    def _send_bundle(self) -> None:
        self._queues["postprocess"] += self._bundle
        self._bundle = []

    def _go_on(self, stage: str, frame: _Frame) -> None:
        match stage:
            case "gather":
                self._put(frame)
            case "infer":
                self._bundle.append(frame)
                if self._is_live[frame.source] or len(self._bundle) >= self._model.bundle:
                    self._send_bundle()
            case "postprocess":
                self._ready.add(id(frame))
                line = self._in_order[frame.source]
                while line and id(line[0]) in self._ready:
                    self._ready.remove(id(line[0]))
                    self._queues["track"].append(line.popleft())
            case "track":
                self._queues["deliver"].append(frame)
            case "deliver":
                self._ahead -= 1
                self._on_way[frame.source] -= 1
                self._outcome.ages.append(self._now - frame.captured)
                self._outcome.ends.append(self._now)

    def _put(self, frame: _Frame) -> None:
        """Before the network; the oldest of a camera goes for a newer one."""
        waiting = self._waiting[frame.source]
        if self._is_live[frame.source] and len(waiting) >= self._model.waiting:
            waiting.popleft()
            self._on_way[frame.source] -= 1
            self._outcome.dropped += 1
        elif not waiting:
            self._turns.append(frame.source)
        waiting.append(frame)


# -- questions


def bottleneck(model: Model) -> dict[str, float]:
    """By stage, how much faster the run would be if this stage took half its time; the most first, then what has the
    least capacity. The first is the bottleneck."""
    base = max(throughput(model), NEGLIGIBLE_MS)
    gains = {
        stage: throughput(model.with_station(stage, s.times(0.5))) / base - 1 for stage, s in model.stations.items()
    }
    by_capacity = {stage: s.capacity(model.cores, model.batch) for stage, s in model.stations.items()}
    return dict(sorted(gains.items(), key=lambda item: (-round(item[1], 2), by_capacity[item[0]])))


# So many frames of cameras are simulated, within these times.
LIVE_FRAMES, SHORTEST_LIVE_SECONDS, LONGEST_LIVE_SECONDS = 3000, 5.0, 30.0
# Next to none.
FEW_DROPPED = 0.01


@dataclass(frozen=True, slots=True)
class Goal:
    """Cameras are carried while the 95th percentile of age is below `max_age_ms` and at most `dropped` are dropped."""

    rate: float
    max_age_ms: float
    dropped: float = FEW_DROPPED

    def is_kept(self, outcome: Outcome) -> bool:
        return outcome.age_percentile(95) * 1e3 < self.max_age_ms and outcome.dropped_share() <= self.dropped


def most_cameras(model: Model, goal: Goal, most: int = 128) -> int:
    """How many are carried, 0 for not even one; by doubling and halving, for more cameras are never easier."""

    def are_carried(cameras: int) -> bool:
        seconds = max(SHORTEST_LIVE_SECONDS, LIVE_FRAMES / (cameras * goal.rate))
        return goal.is_kept(live(model, cameras, goal.rate, min(LONGEST_LIVE_SECONDS, seconds)))

    good, bad = 0, 1
    while bad <= most and are_carried(bad):
        good, bad = bad, bad * 2
    bad = min(bad, most + 1)
    while bad - good > 1:
        middle = (good + bad) // 2
        if are_carried(middle):
            good = middle
        else:
            bad = middle
    return good


def cameras_between(model: Model, goal: Goal, doubt: float, most: int = 128) -> tuple[int, int, int]:
    """How many, and the least and the most if all takes longer, or less long, by the share `doubt`."""
    low, likely, high = (most_cameras(model.slower(factor), goal, most) for factor in (1 + doubt, 1.0, 1 / (1 + doubt)))
    return min(low, likely), likely, max(high, likely)
