"""One profile from the first measurement to the last proof: each step fills in more of the record, and can be followed.

Knows what is measured and predicted in which order, and nothing of how it is shown.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from configs.uri import shown_text
from models.devices import processor_name
from pipeline.errors import OutputError, StageError
from pipeline.flow.lines import BUNDLE
from pipeline.flow.metrics import quantiles_of
from pipeline.profile import clocks, frames, levers, model, record, runs
from pipeline.profile.alone import Apart
from pipeline.profile.levers import Facts, Row
from pipeline.profile.model import Goal, Model
from pipeline.profile.parts import Measured, Request
from pipeline.profile.record import CameraRun, Cameras, Figure, Profile
from pipeline.settings import LARGEST_BATCH, MOST_SOURCES, Settings, usable_cores
from pipeline.sinks.trace import TraceLine
from pipeline.source_address import parse_address
from pipeline.sources import open_source

# A measurement tells no more than that.
LEAST_DOUBT = 0.05
# Cameras begin at the same time, and what is behind then catches up first.
CAMERA_WARM_SHARE = 0.25
MOST_CAMERA_RUNS = 3
LEAST_DECODER_BYTES = 64 << 20
SHORTEST_SECONDS, LONGEST_PART_SECONDS = 0.3, 3.0


@dataclasses.dataclass
class Session:
    """`settings` have one source. `folder` is for what is written on the way; `tell` hears what goes on, `show` shows
    a run. `profile` is there once the parts are measured, `lines` once the run was."""

    settings: Settings
    seconds: float
    goal_ms: float
    folder: Path
    apart: Apart
    tell: Callable[[str], None]
    show: runs.Show
    profile: Profile | None = None
    lines: list[TraceLine] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        (self._source_id, self._source) = next(iter(self.settings.sources.items()))
        self._settings = runs.beside(self.settings, self.folder)
        self._part_seconds = min(LONGEST_PART_SECONDS, max(SHORTEST_SECONDS, self.seconds / 10))

    @property
    def _record(self) -> Profile:
        assert self.profile is not None
        return self.profile

    # -- the parts, and what they promise

    def measure_parts(self) -> None:
        """Each stage alone. Raises SourceError where the source does not open."""
        with open_source(self._source, self._source_id) as source:
            self._info = source.info
        self.tell("measuring each stage alone")
        unpaced = replace(self._settings, sources={self._source_id: replace(self._source, realtime=False)})
        self._measured = self.apart.measure(Request(unpaced, seconds=self._part_seconds))
        self._free_cores = list(self._measured.free_cores)
        cores = usable_cores()
        others = model.others_from(sum(self._free_cores) / len(self._free_cores), cores)
        self._model = dataclasses.replace(model_of(self._measured, self._settings, cores), others=others)
        self._is_paced = self._source.realtime or self._info.is_live
        predicted = self._figure(self._model)
        self.profile = self._first_record(predicted)
        self._name_bottleneck()

    @property
    def _doubt(self) -> float:
        """Share by which a prediction may be off: by so much changed what others left of the machine, and half of what
        they take may come back, or as much be taken."""
        least, most = min(self._free_cores), max(self._free_cores)
        taken = 1 - sum(self._free_cores) / len(self._free_cores) / usable_cores()
        return max(LEAST_DOUBT, (most - least) / (most + least), taken / 2)

    def _figure(self, what: Model) -> Figure:
        rates = [model.throughput(what.slower(factor)) for factor in (1.0, 1 + self._doubt, 1 / (1 + self._doubt))]
        rate = self._info.frames_per_second
        if self._is_paced and rate:
            rates = [min(rate, each) for each in rates]
        return Figure(*rates)

    def _first_record(self, predicted: Figure) -> Profile:
        card, info = self._measured.model, self._info
        assert card
        return Profile(
            made_unix=time.time(),
            seconds=self.seconds,
            machine=record.Machine(processor_name(), usable_cores(), self._free_cores),
            stream=record.Stream(
                self._source.uri.shown, info.width, info.height, info.frames_per_second, self._is_paced
            ),
            settings=_without_places(self.settings),
            model=card,
            hand_over_ms=self._measured.hand_over_ms,
            stages={},
            bottleneck="",
            bottleneck_why="",
            throughput=predicted,
        )

    def _name_bottleneck(self) -> None:
        gains, what = model.bottleneck(self._model), self._model
        for stage, part in self._measured.parts.items():
            capacity = what.stations[stage].capacity(usable_cores(), what.batch)
            each = self._record.stages.setdefault(stage, record.StageRecord(part, capacity, gains[stage]))
            each.capacity, each.gain = capacity, gains[stage]
        self._record.bottleneck = next(iter(gains))
        self._record.bottleneck_why = _why(what, self._record.bottleneck)

    # -- the run as it is

    def measure_run(self) -> None:
        wanted = self.seconds * self._record.throughput.high * 1.5 + 10
        if self._source.realtime and self._info.frames_per_second:
            wanted = self.seconds * self._info.frames_per_second + 10
        source, played = runs.lasting(self._source, self._info.frame_count, wanted, self.folder)
        self.tell(f"measuring the run as it is, for {self.seconds:g} s")
        ran = runs.run(replace(self._settings, sources={self._source_id: source}), self.folder, self.seconds, self.show)
        self.lines = ran.lines
        self._free_cores.append(clocks.free_cores())
        self._record.stream.played = played
        self._decoder_bytes = max(
            (ran.state.reports[w].peak_memory_bytes or 0 for w in ran.cpu_seconds if w.startswith("decode:")), default=0
        )
        self._note_run(ran)
        if not self._is_paced and ran.throughput:
            self._fit(ran)
        self._name_bottleneck()

    def _fit(self, ran: runs.Ran) -> None:
        """From here on the model does what the run did, on the cores that it got."""
        if self._record.run and self._record.run.for_its_cores:
            self._model = dataclasses.replace(self._model, cores=ran.cores, others=0.0)
        for stage in model.SINGLE:
            if cpu_ms := _cpu_ms(ran, stage):
                self._model = self._model.with_station(stage, self._model.stations[stage].as_run(cpu_ms, BUNDLE))
        self._model = self._model.slower(model.throughput(self._model) / ran.throughput)

    def _note_run(self, ran: runs.Ran) -> None:
        profile = self._record
        times = frames.stage_times(ran.lines)
        for stage, each in profile.stages.items():
            each.run = times[stage]
            each.run_cpu_ms = _cpu_ms(ran, stage)
        profile.throughput.measured = ran.throughput
        latencies = [line.latency_ms for line in frames.delivered(ran.lines)]
        cores = ran.cores if ran.cpu_seconds else None
        profile.run = record.RunRecord(
            seconds=ran.seconds,
            frames=len(ran.lines),
            throughput=ran.throughput,
            dropped_share=frames.dropped_share(ran.lines),
            latency=quantiles_of(latencies),
            cores=cores,
            for_its_cores=self._for_cores(cores) if cores else None,
            cpu_seconds=ran.cpu_seconds,
            breakdown=frames.breakdown(ran.lines),
            depths=frames.depths(ran.lines),
        )
        if min(self._free_cores) < 0.9 * usable_cores():
            least, most = min(self._free_cores), max(self._free_cores)
            profile.notes.append(
                f"others used this machine: {least:.2f} to {most:.2f} of its {usable_cores()} cores were free, "
                "and the figures are for those"
            )

    def _for_cores(self, cores: float) -> float | None:
        """What the parts promise for the cores that the run kept busy; only where more cores would have helped."""
        there, with_more = (
            model.throughput(dataclasses.replace(self._model, cores=each, others=0.0)) for each in (cores, 2 * cores)
        )
        return there if with_more > 1.1 * there else None

    # -- what would move it

    def weigh_levers(self, which: tuple[levers.Lever, ...] = levers.LEVERS) -> None:
        self.tell("trying what could make it faster")
        unpaced = replace(self._settings, sources={self._source_id: replace(self._source, realtime=False)})
        facts = Facts(unpaced, self._measured, self._model)
        self._record.levers = levers.weigh(facts, self.apart.measure, self._part_seconds, which)

    def apply(self, file: Path, given: Settings) -> bool:
        """Write the settings that were given with the best change to `file` and run with it; whether there is one that
        is worth it."""
        row = levers.best(self._record.levers)
        if row is None:
            return False
        better = levers.changed(self._settings, row.values)
        try:
            file.write_text(as_yaml(given, row))
        except OSError as error:
            raise OutputError(f"--apply: cannot write {shown_text(str(file))}: {error.strerror}") from None
        self.tell(f"proving {row.change}")
        wanted = self.seconds * row.throughput * 1.5 + 10
        source, _ = runs.lasting(self._source, self._info.frame_count, wanted, self.folder)
        own = levers.changed(replace(better, sources={self._source_id: source}), _of_sources(row))
        ran = runs.run(own, self.folder, self.seconds, self.show)
        doubt = self._doubt
        figure = Figure(row.throughput, row.throughput / (1 + doubt), row.throughput * (1 + doubt), ran.throughput)
        self._record.applied = record.Applied(row.change, shown_text(str(file)), figure)
        before = self._record.throughput.measured
        if before and ran.throughput < before:
            told = f"{ran.throughput:.1f} frames/s, and {before:.1f} as it was"
            self._record.notes.append(f"the proof of {row.change} was not faster ({told}): keep what you have")
        return True

    # -- how many cameras

    def predict_cameras(self, elsewhere: tuple[int, ...] = ()) -> None:
        rate = self._rate()
        goal = Goal(rate, self.goal_ms)
        counts = model.cameras_between(self._model, goal, self._doubt, self._most_cameras)
        self._record.cameras = Cameras(rate, self.goal_ms, *counts)
        for cores in elsewhere:
            there = model.cameras_between(on_cores(self._model, self._settings, cores), goal, self._doubt)
            self._record.cameras.elsewhere[str(cores)] = list(there)

    @property
    def _most_cameras(self) -> int:
        """So many can be at all, and have memory."""
        return min(MOST_SOURCES, int(min(1e9, _free_memory_bytes() / max(self._decoder_bytes, LEAST_DECODER_BYTES))))

    def _rate(self) -> float:
        """At which a camera like this one sends what is looked at."""
        rate = self._info.frames_per_second or 25.0
        return min(rate, self._source.max_rate or rate)

    def prove_cameras(self) -> None:
        """Run as many as are promised, then one more or one fewer, until it is known how many it can be."""
        cameras = self._record.cameras
        assert cameras
        if parse_address(self._source.uri).may_block:
            cameras.not_tried = "a camera is not opened several times over; profile a recording of it"
            return
        count = max(1, cameras.likely)
        while len(cameras.runs) < MOST_CAMERA_RUNS and count >= 1:
            one = self._run_cameras(count)
            cameras.runs.append(one)
            tried = {each.cameras: each.keeps_up for each in cameras.runs}
            cameras.proven = max((n for n, keeps_up in tried.items() if keeps_up), default=0)
            count += 1 if one.keeps_up else -1
            if count in tried:
                break

    def _run_cameras(self, count: int) -> CameraRun:
        self.tell(f"running {count} camera{'s' * (count != 1)}")
        wanted = (self.seconds + 5) * (self._info.frames_per_second or 25.0)
        source, _ = runs.lasting(replace(self._source, max_frames=None), self._info.frame_count, wanted, self.folder)
        settings = runs.as_cameras(self._settings, source, count)
        ran = runs.run(settings, self.folder, self.seconds, self.show, CAMERA_WARM_SHARE)
        ages_ms = [line.latency_ms for line in frames.delivered(ran.lines)]
        p95_ms, dropped = quantiles_of(ages_ms).p95_ms, frames.dropped_share(ran.lines)
        keeps_up = bool(ages_ms) and p95_ms < self.goal_ms and dropped <= model.FEW_DROPPED
        return CameraRun(count, p95_ms, dropped, keeps_up)


def model_of(measured: Measured, settings: Settings, cores: float) -> Model:
    """The run that these parts make. Raises StageError where some are missing."""
    if measured.limits is None:
        raise StageError("a stage was not measured")
    on_their_way = measured.hand_over_ms, measured.further_ms
    stations = {stage: part.station(*on_their_way) for stage, part in measured.parts.items()}
    infer = stations["infer"]
    stations["infer"] = dataclasses.replace(infer, lanes=infer.lanes * settings.infer.processes)
    every = next(iter(settings.sources.values())).every
    for stage in ("infer", "postprocess"):  # of all frames so many are looked at
        stations[stage] = stations[stage].times(1 / every)
    limits = measured.limits
    batch = min(limits.round, LARGEST_BATCH)
    return Model(
        stations, cores, limits.ahead, limits.of_source, limits.waiting, batch, spare=limits.spare, bundle=BUNDLE
    )


def on_cores(here: Model, settings: Settings, cores: int) -> Model:
    """An estimate for a machine of `cores` such cores: as many lanes as it would have there."""
    infer = here.stations["infer"]
    lanes = settings.infer.workers or min(cores, 8)
    more = lanes * settings.infer.processes
    grown = max(0, more - infer.lanes) * here.batch
    moved = here.with_station("infer", dataclasses.replace(infer, lanes=more))
    return dataclasses.replace(
        moved, others=0.0, cores=float(cores), ahead=here.ahead + grown, of_source=here.of_source + grown
    )


def as_yaml(settings: Settings, row: Row) -> str:
    """The settings with the change, without sources, for `--config`."""
    better = levers.changed(settings, row.values)
    usual = msgspec.to_builtins(Settings())
    told = msgspec.to_builtins(replace(better, sources={}))
    parts = {part: {k: v for k, v in values.items() if v != usual[part][k]} for part, values in told.items() if values}
    lines = [f"# {row.change}: {100 * row.gain:+.0f} % by {row.how}. Run it with: SOURCE --config THIS_FILE"]
    lines += [
        f"# and of each source: {key.removeprefix('sources.')}: {value}" for key, value in _of_sources(row).items()
    ]
    text = msgspec.yaml.encode({part: values for part, values in parts.items() if values}).decode()
    return "\n".join([*lines, text])


def _of_sources(row: Row) -> dict[str, object]:
    return {key: value for key, value in row.values.items() if key.startswith("sources.")}


def _why(what: Model, stage: str) -> str:
    station = what.stations[stage]
    by_cores = 1e3 * what.cores / max(what.cpu_ms, model.NEGLIGIBLE_MS)
    share = (station.cpu_ms + station.round_ms / what.batch) / max(what.cpu_ms, model.NEGLIGIBLE_MS)
    if station.idle_ms > station.cpu_ms + station.round_ms:
        return f"it waits {station.idle_ms:.1f} ms a frame for something that is no core"
    if station.capacity(1e9, what.batch) < 0.9 * by_cores:
        return f"its {station.lanes} lane{'s' * (station.lanes != 1)} cannot do more, while cores are free"
    return f"the cores are all at work, {100 * share:.0f} % of it in this stage"


def _cpu_ms(ran: runs.Ran, stage: str) -> float | None:
    own = [seconds for worker, seconds in ran.cpu_seconds.items() if worker.partition(":")[0] == stage]
    frames_done = sum(page.delivered + page.failed for page in ran.state.ledger().values())
    return 1e3 * sum(own) / frames_done if own and frames_done else None


def _without_places(settings: Settings) -> dict[str, object]:
    """What may be told of the settings: no source, no path."""
    told = msgspec.to_builtins(replace(settings, sources={}))
    told["infer"]["weights"] = None if settings.infer.weights is None else shown_text(settings.infer.weights)
    return {part: told[part] for part in ("infer", "postprocess", "track", "queue", "run")}


def _free_memory_bytes() -> float:
    """Without pushing anybody else's out; no bound where the kernel does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), float("inf"))
