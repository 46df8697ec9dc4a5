"""Which engine, in which precision, is fastest for a job on this machine, and how many images at a time pay: measured
once on real pictures, then remembered. Lower precision is taken only where it finds the same objects as fp32. Knows no
engine in particular."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, cast

import msgspec
import numpy as np
import torch

from models.agreement import LEAST_OBJECTS, Agreement, Detections, agreement, detections_of
from models.cache import cached_file
from models.centernet import CenterNet
from models.engines import available_engines, create_engine, precisions
from models.engines.engine import Engine, EngineError, Images, Job, Precision
from models.fingerprint import code_digest, processor, versions
from models.samples import sample_images

# Compiling takes half a minute at every start; whoever wants that asks for it by name.
NOT_TRIED = ("compile",)
# Another engine must be this much faster than plain PyTorch to be taken: less is within what a measurement tells.
# So must lower precision against fp32, and a batch against the next smaller one.
MARGIN = 1.05
# Those to measure where nobody says otherwise.
BATCHES = (1, 2, 4, 8)
ROUNDS = 5
ROUND_SECONDS = 0.25
# What is so many times slower than the best in its best one of the first rounds has no other; a batch must be faster
# than a smaller one.
TRIAL_ROUNDS, HOPELESS, HOPELESS_BATCH = 2, 1.5, 1.0

EXACT: Precision = "fp32"

Name = TypeVar("Name")


class Variant(NamedTuple):
    """An engine in one precision; its label, `openvino` or `openvino bf16`, is what people and files call it."""

    engine: str
    precision: Precision

    @property
    def label(self) -> str:
        return self.engine if self.is_exact else f"{self.engine} {self.precision}"

    @classmethod
    def of(cls, label: str) -> "Variant":
        engine, _, precision = label.partition(" ")
        return cls(engine, cast(Precision, precision) or EXACT)

    @property
    def is_exact(self) -> bool:
        return self.precision == EXACT


class Measured(msgspec.Struct, frozen=True):
    """Images a second: of each variant by its label, with single images where the job has them, and of the one taken by
    batch; and how far those in lower precision agree with fp32."""

    engines: dict[str, float]
    batches: dict[int, float] = {}
    agreements: dict[str, Agreement] = {}


_decode = msgspec.json.Decoder(Measured).decode


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest engine, ready for the job and for the batches that pay; how many images a second each variant did,
    and this one by batch, {} where none had to be measured; why those that could not be made could not; and a line on
    its precision, if there was one to choose."""

    engine: Engine
    images_per_second: dict[str, float]
    problems: tuple[str, ...] = ()
    by_batch: dict[int, float] = field(default_factory=dict)
    on_precision: str = ""


def choose(
    network: CenterNet,
    job: Job,
    tell: Callable[[str], None] = lambda doing: None,
    *,
    name: str = "auto",
    precision: Precision | Literal["auto"] = "auto",
    batches: tuple[int, ...] = (),
) -> Choice:
    """The engine `name` in `precision`, for `auto` the fastest; `tell` hears what takes time.

    With `batches`, those of them that pay (`worth_it`) take the place of the job's. Measures at the first time and
    after a change of network, job, machine or versions; then only makes the engine. Raises EngineError for what cannot
    be had.
    """
    variants = _variants(name, precision, job.device)
    trial = _Trial(network, replace(job, batches=(min(batches),)) if batches else job, tell)
    measured = Measured({})
    if len(variants) > 1 or batches:
        file_name = f"{_key(network, trial.job, variants, batches)}.json"
        measured = _remembered(file_name, lambda: trial.measure(variants, batches), trial.problems.append)
    speeds = {label: speed for label, speed in measured.engines.items() if Variant.of(label) in variants}
    wanted = replace(trial.job, batches=worth_it(measured.batches)) if measured.batches else trial.job
    taken = Variant.of(fastest(speeds, measured.agreements, usual=variants[0].label))
    try:
        engine = trial.engine(taken, wanted)
    except EngineError as error:  # what was fastest once cannot be had today
        if name != "auto":
            raise
        trial.problems.append(str(error))
        engine = create_engine("eager", network, wanted)
    told = _on_precision(engine, speeds, measured.agreements)
    return Choice(engine, speeds, tuple(trial.problems), measured.batches, told)


def _variants(name: str, precision: Precision | Literal["auto"], device: str) -> list[Variant]:
    """All that may be taken, plain PyTorch in its usual precision first. Raises EngineError where there is none."""
    names = [each for each in available_engines(device) if each not in NOT_TRIED] if name == "auto" else [name]
    known = [Variant(each, one) for each in names for one in precisions(each, device)]
    wanted = [variant for variant in known if precision in ("auto", variant.precision)]
    if not wanted:
        there = " or ".join(dict.fromkeys(variant.precision for variant in known))
        who = "no engine computes" if name == "auto" else f"engine {name} does not compute"
        raise EngineError(f"{precision}: {who} in it on this {device.partition(':')[0]}; here there is {there}")
    return wanted


class _Trial:
    """Engines that were made to be measured, and what went wrong with others."""

    def __init__(self, network: CenterNet, job: Job, tell: Callable[[str], None]) -> None:
        self.job = job
        self.problems: list[str] = []
        self._network = network
        self._tell = tell
        self._made: dict[tuple[Variant, tuple[int, ...]], Engine] = {}

    def engine(self, variant: Variant, job: Job) -> Engine:
        """The one that was measured, or a new one. Raises EngineError."""
        key = variant, job.batches
        if key not in self._made:
            self._made[key] = create_engine(variant.engine, self._network, replace(job, precision=variant.precision))
        return self._made[key]

    def measure(self, variants: list[Variant], batches: tuple[int, ...]) -> Measured:
        """All the variants, unless there is one alone; and the batches of the one to take."""
        images = sample_images(self._network.spec, self.job.height, self.job.width)
        speeds = self._by_variant(variants, images) if len(variants) > 1 else {}
        agreements = self._agreements(variants, speeds, images)
        taken = Variant.of(fastest(speeds, agreements, usual=variants[0].label))
        return Measured(speeds, self._by_batch(taken, batches, images), agreements)

    def _by_variant(self, variants: list[Variant], images_bhwc: Images) -> dict[str, float]:
        engines: dict[str, Engine] = {}
        for variant in variants:
            self._tell(f"trying engine {variant.label}")
            try:
                engines[variant.label] = self.engine(variant, self.job)
            except EngineError as error:
                self.problems.append(str(error))
        self._tell(f"measuring {', '.join(engines)}")
        return measure(engines, images_bhwc)

    def _agreements(self, variants: list[Variant], speeds: dict[str, float], images: Images) -> dict[str, Agreement]:
        """Of what is faster than the same engine in fp32."""
        found = {}
        for variant in variants:
            exact = variant._replace(precision=EXACT)
            if variant == exact or speeds.get(variant.label, 0.0) <= MARGIN * speeds.get(exact.label, float("inf")):
                continue
            self._tell(f"comparing {variant.label} with {EXACT}")
            both = (_detections(self.engine(each, self.job), images) for each in (exact, variant))
            found[variant.label] = agreement(*both)
        return found

    def _by_batch(self, variant: Variant, batches: tuple[int, ...], images_bhwc: Images) -> dict[int, float]:
        """Of each batch, measured in turn with the best smaller one, until one is slower than that."""
        best, *larger = sorted(batches) or [1]
        speeds: dict[int, float] = {}
        for batch in larger:
            self._tell(f"measuring {variant.label} with {batch} images at a time")
            try:
                pair = {each: self.engine(variant, replace(self.job, batches=(each,))) for each in (best, batch)}
            except EngineError as error:  # such as no memory for so many
                self.problems.append(str(error))
                break
            measured = measure(pair, images_bhwc, HOPELESS_BATCH)
            speeds.setdefault(best, measured[best])
            speeds[batch] = speeds[best] * measured[batch] / measured[best]
            if speeds[batch] < speeds[best]:
                break
            best = batch if speeds[batch] > MARGIN * speeds[best] else best
        return speeds


def worth_it(images_per_second: dict[int, float]) -> tuple[int, ...]:
    """The smallest batch, and each that gives clearly more images a second than the next smaller one that is."""
    batches = sorted(images_per_second)
    worth = batches[:1]
    for batch in batches[1:]:
        if images_per_second[batch] > MARGIN * images_per_second[worth[-1]]:
            worth.append(batch)
    return tuple(worth)


def fastest(
    images_per_second: dict[str, float], agreements: dict[str, Agreement] | None = None, usual: str = "eager"
) -> str:
    """The label to take: `usual` (plain PyTorch) unless another is clearly faster, and lower precision only where it
    finds what fp32 does and is clearly faster than all of that. Where too little was found to judge by, that of
    `usual` is as good as fp32."""
    usual_precision = Variant.of(usual).precision
    held = {
        label
        for label, judged in (agreements or {}).items()
        if judged.holds or (judged.objects < LEAST_OBJECTS and Variant.of(label).precision == usual_precision)
    }
    exact = {label: speed for label, speed in images_per_second.items() if Variant.of(label).is_exact}
    eligible = exact or images_per_second
    best = max(eligible, key=eligible.__getitem__, default=usual)
    if eligible.get(best, 0.0) <= MARGIN * eligible.get(usual, 0.0):
        best = usual
    lower = {label: speed for label, speed in images_per_second.items() if label in held}
    quick = max(lower, key=lower.__getitem__, default=best)
    return quick if lower.get(quick, 0.0) > MARGIN * images_per_second.get(best, 0.0) else best


def _on_precision(engine: Engine, speeds: dict[str, float], agreements: dict[str, Agreement]) -> str:
    """What was taken, how much faster it is and how far it agrees; or why fp32 was kept."""
    taken = Variant(engine.name, engine.precision).label
    exact = max((speed for label, speed in speeds.items() if Variant.of(label).is_exact), default=0.0)
    if taken in agreements and exact:
        times = speeds[taken] / exact
        return (
            f"{engine.precision} is {times:.2f} times as fast as {EXACT} here and finds the same: {agreements[taken]}"
        )
    refused = {label: judged for label, judged in agreements.items() if not judged.holds}
    if not refused:
        return ""
    label = max(refused, key=lambda each: speeds.get(each, 0.0))
    return f"{engine.precision} was kept: {label} is faster, but {refused[label].shortfall}"


def _remembered(file_name: str, measure_here: Callable[[], Measured], lament: Callable[[str], None]) -> Measured:
    """What was measured at an earlier start, or is now; `lament` hears why the next start will not know of it."""
    measured: list[Measured] = []

    def measure_into(path: Path) -> None:
        measured.append(measure_here())
        path.write_bytes(msgspec.json.encode(measured[0]))

    try:
        return _decode(cached_file(file_name, measure_into).read_bytes())
    except msgspec.MsgspecError:
        return measured[0] if measured else measure_here()
    except OSError as error:
        lament(f"remembering which engine is fastest, so each start measures: the cache cannot be written ({error})")
        return measured[0] if measured else measure_here()


def measure(engines: dict[Name, Engine], images_bhwc: Images, hopeless: float = HOPELESS) -> dict[Name, float]:
    """Images a second of each with all its lanes at work on these images: the median of rounds in which each has its
    turn, so that a machine that changes its pace changes it for all. After the first rounds what is `hopeless` times
    slower than the best has no turn any more, and the last one left needs none."""
    rates: dict[Name, list[float]] = {name: [] for name in engines}
    for number in range(ROUNDS):
        best = max((max(values) for values in rates.values() if values), default=0.0)
        left = [name for name in engines if number < TRIAL_ROUNDS or hopeless * max(rates[name]) >= best]
        if number >= TRIAL_ROUNDS and len(left) == 1:
            break
        for name in left:
            rates[name].append(_images_per_second(engines[name], images_bhwc))
    return {name: float(np.median(values)) for name, values in rates.items()}


def _images_per_second(engine: Engine, images_bhwc: Images) -> float:
    job, batch = engine.job, min(engine.job.batches)
    rounds = _batches(images_bhwc, batch)
    started = time.perf_counter()

    def work(lane: int) -> int:
        out, runs = engine.allocate(batch), 0
        while not runs or time.perf_counter() - started < ROUND_SECONDS:
            engine.run(rounds[(lane + runs) % len(rounds)], out)
            runs += 1
        return runs

    with ThreadPoolExecutor(job.lanes) as lanes:
        runs = sum(lanes.map(work, range(job.lanes)))
    return runs * batch / (time.perf_counter() - started)


def _batches(images_bhwc: Images, batch: int) -> list[Images]:
    """Each image once, the first ones again to fill the last batch."""
    count = -(-len(images_bhwc) // batch)
    filled = np.stack(list(islice(cycle(images_bhwc), count * batch)))
    return np.split(filled, count)


def _detections(engine: Engine, images_bhwc: Images) -> list[Detections]:
    batch = min(engine.job.batches)
    found: list[Detections] = []
    for part in _batches(images_bhwc, batch):
        out = engine.allocate(batch)
        engine.run(part, out)
        found += detections_of(out)
    return found[: len(images_bhwc)]


def _key(network: CenterNet, job: Job, variants: list[Variant], batches: tuple[int, ...]) -> str:
    """A file name for all that a measurement depends on."""
    engines = dict.fromkeys(variant.engine for variant in variants)
    machine = processor() if job.device == "cpu" else torch.cuda.get_device_name(job.device)
    facts = [network.head_specs, job, variants, batches, versions("torch", *engines), code_digest(), machine]
    return f"engines-{network.spec.name}-{hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()}"
