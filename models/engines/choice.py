"""Which engine is fastest for a job on this machine, and how many images at a time pay: measured once, then remembered.
Knows no engine in particular."""

import hashlib
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch

from models.cache import cached_file
from models.centernet import CenterNet
from models.engines import available_engines, create_engine
from models.engines.engine import Engine, EngineError, Job

# Compiling takes half a minute at every start; whoever wants that asks for it by name.
NOT_TRIED = ("compile",)
# Another engine must be this much faster than plain PyTorch to be taken: less is within what a measurement tells.
# So must a batch against the next smaller one.
MARGIN = 1.05
# Those to measure where nobody says otherwise.
BATCHES = (1, 2, 4, 8)
ROUNDS = 5
ROUND_SECONDS = 0.4

Name = TypeVar("Name")


class Measured(msgspec.Struct, frozen=True):
    """Images a second: of each engine, with single images where the job has them, and of the fastest by batch."""

    engines: dict[str, float]
    batches: dict[int, float] = {}


_decode = msgspec.json.Decoder(Measured).decode


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest engine, ready for the job and for the batches that pay; how many images a second each engine did, and
    this one by batch, {} where none had to be measured; and why those that could not be made could not."""

    engine: Engine
    images_per_second: dict[str, float]
    problems: tuple[str, ...] = ()
    by_batch: dict[int, float] = field(default_factory=dict)


def choose(
    network: CenterNet,
    job: Job,
    tell: Callable[[str], None] = lambda doing: None,
    *,
    name: str = "auto",
    batches: tuple[int, ...] = (),
) -> Choice:
    """The engine `name`, for `auto` the fastest; `tell` hears what takes time.

    With `batches`, those of them that pay (`worth_it`) take the place of the job's. Measures at the first time and
    after a change of network, job, machine or versions; then only makes the engine. Raises EngineError for a `name`
    that cannot be had.
    """
    names = [each for each in available_engines(job.device) if each not in NOT_TRIED] if name == "auto" else [name]
    trial = _Trial(network, replace(job, batches=(min(batches),)) if batches else job, tell)
    measured = Measured({})
    if name == "auto" or batches:
        file_name = f"{_key(network, trial.job, name, names, batches)}.json"
        measured = _remembered(file_name, lambda: trial.measure(names, batches, name), trial.problems.append)
    speeds = {each: speed for each, speed in measured.engines.items() if each in names}
    wanted = replace(trial.job, batches=worth_it(measured.batches)) if measured.batches else trial.job
    taken = fastest(speeds) if name == "auto" else name
    try:
        engine = trial.engine(taken, wanted)
    except EngineError as error:  # what was fastest once cannot be had today
        if name != "auto":
            raise
        trial.problems.append(str(error))
        engine = create_engine("eager", network, wanted)
    return Choice(engine, speeds, tuple(trial.problems), measured.batches)


class _Trial:
    """Engines that were made to be measured, and what went wrong with others."""

    def __init__(self, network: CenterNet, job: Job, tell: Callable[[str], None]) -> None:
        self.job = job
        self.problems: list[str] = []
        self._network = network
        self._tell = tell
        self._made: dict[tuple[str, tuple[int, ...]], Engine] = {}

    def engine(self, name: str, job: Job) -> Engine:
        """The one that was measured, or a new one. Raises EngineError."""
        key = name, job.batches
        return self._made.get(key) or self._made.setdefault(key, create_engine(name, self._network, job))

    def measure(self, names: list[str], batches: tuple[int, ...], name: str) -> Measured:
        """Of `name` the batches alone; of "auto" all the engines, and the batches of the fastest."""
        speeds = self._by_engine(names) if name == "auto" else {}
        return Measured(speeds, self._by_batch(fastest(speeds) if name == "auto" else name, batches))

    def _by_engine(self, names: list[str]) -> dict[str, float]:
        engines: dict[str, Engine] = {}
        for name in names:
            self._tell(f"trying engine {name}")
            try:
                engines[name] = self.engine(name, self.job)
            except EngineError as error:
                self.problems.append(str(error))
        self._tell(f"measuring {', '.join(engines)}")
        return measure(engines)

    def _by_batch(self, name: str, batches: tuple[int, ...]) -> dict[int, float]:
        """Of each batch, measured in turn with the best smaller one, until one is slower than that."""
        best, *larger = sorted(batches) or [1]
        speeds: dict[int, float] = {}
        for batch in larger:
            self._tell(f"measuring {name} with {batch} images at a time")
            try:
                pair = {each: self.engine(name, replace(self.job, batches=(each,))) for each in (best, batch)}
            except EngineError as error:  # such as no memory for so many
                self.problems.append(str(error))
                break
            measured = measure(pair)
            speeds.setdefault(best, measured[best])
            speeds[batch] = speeds[best] * measured[batch] / measured[best]
            if speeds[batch] < speeds[best] / MARGIN:
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


def fastest(images_per_second: dict[str, float]) -> str:
    """The name to take: plain PyTorch unless another is clearly faster."""
    best = max(images_per_second, key=images_per_second.__getitem__, default="eager")
    return best if images_per_second.get(best, 0.0) > MARGIN * images_per_second.get("eager", 0.0) else "eager"


def measure(engines: dict[Name, Engine]) -> dict[Name, float]:
    """Images a second of each with all its lanes at work: the median of rounds in which each has its turn, so that a
    machine that changes its pace changes it for all."""
    rates: dict[Name, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            rates[name].append(_images_per_second(engine))
    return {name: float(np.median(values)) for name, values in rates.items()}


def _images_per_second(engine: Engine) -> float:
    job, batch = engine.job, min(engine.job.batches)
    images_bhwc = engine.black(batch)
    started = time.perf_counter()

    def work(_: int) -> int:
        out, runs = engine.allocate(batch), 0
        while not runs or time.perf_counter() - started < ROUND_SECONDS:
            engine.run(images_bhwc, out)
            runs += 1
        return runs

    with ThreadPoolExecutor(job.lanes) as lanes:
        runs = sum(lanes.map(work, range(job.lanes)))
    return runs * batch / (time.perf_counter() - started)


def _key(network: CenterNet, job: Job, name: str, names: list[str], batches: tuple[int, ...]) -> str:
    """A file name for all that a measurement depends on."""
    runtimes = [name for name in names if find_spec(name)]
    versions = [f"{package} {version(package)}" for package in ("torch", *runtimes)]
    facts = [network.head_specs, job, name, names, batches, versions, _processor(job.device)]
    return f"engines-{network.spec.name}-{hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()}"


def _processor(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()} cores"
