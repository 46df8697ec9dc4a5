"""Which engine is fastest for a job on this machine: measured once, then remembered. Knows no engine in particular."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

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
MARGIN = 1.05
ROUNDS = 5
ROUND_SECONDS = 0.4

_decode = msgspec.json.Decoder(dict[str, float]).decode


@dataclass(frozen=True, slots=True)
class Choice:
    """The fastest engine, ready for the job; how many images a second each did, {} where none had to be measured; and
    why those that could not be made could not."""

    engine: Engine
    images_per_second: dict[str, float]
    problems: tuple[str, ...] = ()


def choose(network: CenterNet, job: Job, tell: Callable[[str], None] = lambda doing: None) -> Choice:
    """The engine to take for `auto`; `tell` hears what takes time. Measures at the first time and after a change of
    network, job, machine or versions; then only makes the engine."""
    names = [name for name in available_engines(job.device) if name not in NOT_TRIED]
    engines: dict[str, Engine] = {}
    problems: list[str] = []

    def measure_here() -> dict[str, float]:
        for name in names:
            tell(f"trying engine {name}")
            try:
                engines[name] = create_engine(name, network, job)
            except EngineError as error:
                problems.append(str(error))
        tell(f"measuring {', '.join(engines)}")
        return measure(engines)

    speeds = _remembered(f"{_key(network, job, names)}.json", measure_here, problems.append)
    speeds = {name: speed for name, speed in speeds.items() if name in names}
    name = fastest(speeds)
    try:
        engine = engines.get(name) or create_engine(name, network, job)
    except EngineError as error:  # what was fastest once cannot be had today
        problems.append(str(error))
        engine = create_engine("eager", network, job)
    return Choice(engine, speeds, tuple(problems))


def _remembered(
    file_name: str, measure_here: Callable[[], dict[str, float]], lament: Callable[[str], None]
) -> dict[str, float]:
    """What was measured at an earlier start, or is now; `lament` hears why the next start will not know of it."""
    measured: dict[str, float] = {}

    def measure_into(path: Path) -> None:
        measured.update(measure_here())
        path.write_text(json.dumps(measured))

    try:
        return _decode(cached_file(file_name, measure_into).read_bytes())
    except msgspec.MsgspecError:
        return measured or measure_here()
    except OSError as error:
        lament(f"remembering which engine is fastest, so each start measures: the cache cannot be written ({error})")
        return measured or measure_here()


def fastest(images_per_second: dict[str, float]) -> str:
    """The name to take: plain PyTorch unless another is clearly faster."""
    best = max(images_per_second, key=images_per_second.__getitem__, default="eager")
    return best if images_per_second.get(best, 0.0) > MARGIN * images_per_second.get("eager", 0.0) else "eager"


def measure(engines: dict[str, Engine]) -> dict[str, float]:
    """Images a second of each with all its lanes at work: the median of rounds in which each has its turn, so that a
    machine that changes its pace changes it for all."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            rates[name].append(_images_per_second(engine))
    return {name: float(np.median(values)) for name, values in rates.items()}


def _images_per_second(engine: Engine) -> float:
    job = engine.job
    images_bhwc = engine.black()
    started = time.perf_counter()

    def work(_: int) -> int:
        out, runs = engine.allocate(), 0
        while not runs or time.perf_counter() - started < ROUND_SECONDS:
            engine.run(images_bhwc, out)
            runs += 1
        return runs

    with ThreadPoolExecutor(job.lanes) as lanes:
        runs = sum(lanes.map(work, range(job.lanes)))
    return runs * job.batch / (time.perf_counter() - started)


def _key(network: CenterNet, job: Job, names: list[str]) -> str:
    """A file name for all that a measurement depends on."""
    runtimes = [name for name in names if find_spec(name)]
    versions = [f"{package} {version(package)}" for package in ("torch", *runtimes)]
    facts = [network.head_specs, job, names, versions, _processor(job.device)]
    return f"engines-{network.spec.name}-{hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()}"


def _processor(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {os.cpu_count()} cores"
