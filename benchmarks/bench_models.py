"""Every network on every engine of this machine: frames a second, latency, how near to the processor's ceiling.

    python benchmarks/bench_models.py [--models dla_34,hourglass] [--engines eager,openvino] [--out models.json]
    python benchmarks/bench_models.py --calibration-check [--models mobilenetv3]    # is `auto` as fast as eager?
    python benchmarks/bench_models.py --profile dla_34                              # where its time goes

`network` is from uint8 frames in host memory to raw heads in host memory; `decoded` is up to the 100 best peaks of all
classes, without a threshold, as the frames a second of the paper (arXiv 1904.07850, table 1) are counted: on a CPU the
pipeline's peak search comes behind, on CUDA the peaks are searched there and candidates are all that comes out.

Every engine is there in each precision it has (`openvino`, `openvino bf16`).

First one lane with all cores at each batch, then as many lanes as the pipeline takes. Engines have their turn in
rounds, so that a machine that changes its pace changes it for all; ratios are medians of the rounds' own. With them run
two ceilings in the same precision on the same threads: one large matrix product and one dense convolution. Two, since
the libraries behind them differ: on some processors torch.mm stays far below what convolutions reach.

Frames are noise. Networks without weights are drawn at random, and made to behave like trained ones: norms take their
statistics from noise, or a deep network would leave the range of half floats, and deformable convolutions get offsets
of about a pixel, or their gather would find everything side by side. What is exported goes to a temporary folder, or
to $CENTERSTREAM_CACHE.
"""

import argparse
import gc
import json
import math
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import finish, machine, percentiles
from numpy.typing import NDArray
from torch import nn

from models import SPECS, create_model, list_models, load_model
from models.centernet import CenterNet
from models.dcn import DeformConv
from models.engines import ENGINES, Engine, EngineError, Job, available_engines, create_engine, precisions
from models.engines.choice import MARGIN, NOT_TRIED, choose
from models.files import whole_file
from models.zoo import ZOO, count
from pipeline.settings import InferSettings

MODELS = ("mobilenetv3", "resdcn_18", "resdcn_101", "res_18", "dla_34", "hourglass")
BATCHES = {"cpu": (1, 4), "cuda": (1, 8, 16, 32, 64)}
CUDA_LANES = 2  # as the pipeline: one batch computes while the other is copied
TOP_K = 100

TURN_SECONDS = 0.4
LEAST_ROUNDS, LEAST_CALLS = 3, 5
MOST_TIMES_BUDGET = 3  # a batch whose fewest calls take longer than so many times their budget is left out

LEAST_SHARE = 0.001  # of the time, below which a kind of layer is not listed

MATRIX, CONVOLUTION = "torch.mm", "conv 3x3"
CEILINGS = (MATRIX, CONVOLUTION)
CHANNELS = 256  # of the convolution, before and after

# Seconds of the network, and with the decoding behind it.
NETWORK, DECODED = 0, 1
Sample = tuple[float, float]
Call = Callable[[], Sample]
Rounds = list[list[list[Sample]]]  # by round, lane and call
Decode = Callable[[dict[str, NDArray[np.float32]]], None]


def make_network(name: str) -> tuple[CenterNet, str]:
    """The network, and where its weights are from."""
    if SPECS[name].weights_file:
        return load_model(name), "its own weights"
    torch.manual_seed(0)
    network = create_model(name)
    for layer in network.modules():
        if isinstance(layer, DeformConv):
            nn.init.normal_(layer.conv_offset_mask.weight, std=layer.weight[0].numel() ** -0.5)
    settle_norms(network)
    return network, "random weights"


def settle_norms(network: CenterNet) -> None:
    """Batch norms take the statistics of one image of noise for their own, whatever the one before made of it."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(1, 3, network.spec.input_height, network.spec.input_width))
    network.eval()


def decoding(network: CenterNet, job: Job) -> Decode | None:
    """The pipeline's peak search over the heads of a batch, where the engine does not search itself."""
    if job.top_k:
        return None
    from pipeline.kernels import boxes

    boxes.warm_up()
    spec = network.spec
    class_ids, same = np.arange(len(spec.class_names), dtype=np.int32), (1.0, 1.0, 0.0, 0.0)

    def decode(heads: dict[str, NDArray[np.float32]]) -> None:
        offsets = heads.get("reg", [None] * job.batches[0])
        for heatmap_chw, size_chw, offset_chw in zip(heads["hm"], heads["wh"], offsets, strict=True):
            boxes.decode_heads(
                heatmap_chw, size_chw, offset_chw, class_ids, 0.0, TOP_K, spec.stride, same, job.width, job.height
            )

    return decode


def lane_of(engine: Engine, decode: Decode | None) -> Call:
    """One lane of an engine, with frames and arrays of its own."""
    (batch,) = engine.job.batches
    images_bhwc = np.random.default_rng(0).integers(0, 256, engine.black(batch).shape, np.uint8)
    out = engine.allocate(batch)

    def call() -> Sample:
        start = time.perf_counter()
        engine.run(images_bhwc, out)
        network = time.perf_counter() - start
        if decode:
            decode(out)
        return network, time.perf_counter() - start

    return call


def lane_of_ceiling(name: str, device: torch.device) -> Call:
    run = ceiling(name, device)[1]

    def call() -> Sample:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start,) * 2

    return call


def ceiling(name: str, device: torch.device) -> tuple[float, Callable[[], object]]:
    """GFLOP of a call, and what is called, with tensors of its own."""
    on_cuda = device.type == "cuda"
    tensor = partial(torch.randn, device=device, dtype=torch.float16 if on_cuda else torch.float32)
    if name == MATRIX:
        side = 8192 if on_cuda else 2048
        a, b, product = tensor(side, side), tensor(side, side), tensor(side, side)
        return 2e-9 * side**3, lambda: torch.mm(a, b, out=product)
    batch, side = (32, 128) if on_cuda else (1, 64)
    x = tensor(batch, CHANNELS, side, side).to(memory_format=torch.channels_last)
    weight = tensor(CHANNELS, CHANNELS, 3, 3).to(memory_format=torch.channels_last)
    return 2e-9 * batch * side**2 * 9 * CHANNELS**2, lambda: torch.conv2d(x, weight, padding=1)


def interleave(lanes_by_name: dict[str, list[Call]], seconds: float) -> dict[str, Rounds]:
    """Turns of all, round by round, for `seconds` each."""
    rounds: dict[str, Rounds] = {name: [] for name in lanes_by_name}
    lanes = len(next(iter(lanes_by_name.values())))
    least = max(LEAST_ROUNDS, math.ceil(LEAST_CALLS / lanes))
    started, done = time.perf_counter(), 0
    # A thread takes over how many threads torch may use only when torch is first asked there, which `mm` does not.
    with ThreadPoolExecutor(lanes, initializer=torch.get_num_threads) as pool:
        while done < least or time.perf_counter() - started < seconds * len(lanes_by_name):
            for name, calls in lanes_by_name.items():
                rounds[name].append(list(pool.map(turn, calls)))
            done += 1
    return rounds


def turn(call: Call) -> list[Sample]:
    """One lane's turn. Its first call finds the caches full of another's, and counts only where it is the only one."""
    samples: list[Sample] = []
    started = time.perf_counter()
    while not samples or time.perf_counter() - started < TURN_SECONDS:
        samples.append(call())
    return samples[1:] or samples


def calls_per_second(rounds: Rounds, what: int = NETWORK) -> NDArray[np.float64]:
    """Of each round, all lanes together."""
    return np.array([sum(1 / np.mean([sample[what] for sample in lane]) for lane in lanes) for lanes in rounds])


def spread_ms(rounds: Rounds, what: int) -> dict[str, float]:
    """Of single calls, in milliseconds."""
    times = [1e3 * sample[what] for lanes in rounds for lane in lanes for sample in lane]
    return percentiles(times) | {"p95": round(float(np.percentile(times, 95)), 4)}


@dataclass(slots=True)
class Subject:
    """What is measured: a network, the device, and how much it computes for an image of that size."""

    network: CenterNet
    weights: str
    device: torch.device
    width: int
    height: int
    parameters: int
    gflop: float

    @classmethod
    def named(cls, name: str, given: argparse.Namespace) -> "Subject":
        tell(f"{name}: making the network")
        network, weights = make_network(name)
        spec = network.spec
        width, height = given.size or (spec.input_width, spec.input_height)
        parameters, flop = count(name)
        # Every layer is a convolution: what is computed grows with the area.
        gflop = flop / 1e9 * (width * height) / (spec.input_width * spec.input_height)
        return cls(network, weights, given.device, width, height, parameters, gflop)

    def job(self, batch: int, lanes: int, threads: int) -> Job:
        wanted = Job(str(self.device), (batch,), self.height, self.width, lanes, threads)
        if self.device.type == "cpu":
            return wanted
        return replace(wanted, top_k=TOP_K)

    def pipeline_job(self, batch: int = 1) -> Job:
        """As the pipeline would have it with its default settings."""
        settings = InferSettings()
        lanes = CUDA_LANES if self.device.type == "cuda" else settings.cpu_workers()
        return self.job(batch, lanes, settings.cpu_threads())


def measure(subject: Subject, job: Job, given: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each ceiling and each engine, and why engines that are not among them are not."""
    torch.set_num_threads(job.threads)
    engines, seconds_to_make, problems = make_engines(subject, job, given.engines)
    if not engines:
        return [], problems
    decode = decoding(subject.network, job)
    lanes_by_name = {
        **{name: [lane_of_ceiling(name, subject.device) for _ in range(job.lanes)] for name in CEILINGS},
        **{name: [lane_of(engine, decode) for _ in range(job.lanes)] for name, engine in engines.items()},
    }
    tell(f"{subject.network.spec.name}: measuring {', '.join(engines)} ({described(job)})")
    rounds = interleave(lanes_by_name, given.seconds_per_engine)
    ceilings = {name: ceiling(name, subject.device)[0] * calls_per_second(rounds[name]) for name in CEILINGS}
    rows = [ceiling_row(name, job, ceilings[name], rounds[name]) for name in CEILINGS]
    for name, engine in engines.items():
        made = {"precision": engine.precision, "seconds_to_make": seconds_to_make[name]}
        rows.append(engine_row(name, job, rounds, subject.gflop, ceilings) | made)
    return rows, problems


def make_engines(subject: Subject, job: Job, names: list[str]) -> tuple[dict[str, Engine], dict[str, float], list[str]]:
    engines: dict[str, Engine] = {}
    seconds_to_make: dict[str, float] = {}
    problems: list[str] = []
    for name in names:
        tell(f"{subject.network.spec.name}: making engine {name} ({described(job)})")
        started = time.perf_counter()
        try:
            engine, _, precision = name.partition(" ")
            wanted = replace(job, precision=precision) if precision else job
            engines[name] = create_engine(engine, subject.network, wanted)
            seconds_to_make[name] = round(time.perf_counter() - started, 1)
        except EngineError as error:
            problems.append(f"left out at {described(job)}: {error}")
    return engines, seconds_to_make, problems


def described(job: Job) -> str:
    return f"batch {job.batches[0]}, {job.lanes} x {job.threads} threads"


def ceiling_row(name: str, job: Job, gflop_per_s: NDArray[np.float64], rounds: Rounds) -> dict[str, Any]:
    rate = round(float(np.median(gflop_per_s)), 1)
    return {"name": name, **setup(job), "gflop_per_s": rate, "network_ms": spread_ms(rounds, NETWORK)}


def engine_row(
    name: str, job: Job, rounds: dict[str, Rounds], gflop: float, ceilings: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    rates = calls_per_second(rounds[name])
    images_per_s = job.batches[0] * rates
    row = {
        "name": name,
        **setup(job),
        "images_per_s": round(float(np.median(images_per_s)), 2),
        "images_per_s_decoded": round(job.batches[0] * float(np.median(calls_per_second(rounds[name], DECODED))), 2),
        "gflop_per_s": round(gflop * float(np.median(images_per_s)), 1),
        "of": {each: round(float(np.median(gflop * images_per_s / ceilings[each])), 3) for each in CEILINGS},
        "network_ms": spread_ms(rounds[name], NETWORK),
        "decoded_ms": spread_ms(rounds[name], DECODED),
    }
    if "eager" in rounds:
        row["times_eager"] = low_median_high(rates / calls_per_second(rounds["eager"]))
    return row


def setup(job: Job) -> dict[str, int]:
    return {"batch": job.batches[0], "lanes": job.lanes, "threads": job.threads}


def low_median_high(ratios: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 3) for value in (ratios.min(), np.median(ratios), ratios.max())]


def bench(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """All rows of one network."""
    subject = Subject.named(name, given)
    rows: list[dict[str, Any]] = []
    notes: list[str] = []

    def add(job: Job) -> None:
        if any(setup(job).items() <= row.items() for row in rows):
            return
        found, problems = measure(subject, job, given)
        rows.extend(found)
        notes.extend(problems)
        release()

    for batch in given.batches:
        seconds = least_seconds(rows, batch)
        if seconds > MOST_TIMES_BUDGET * given.seconds_per_engine:
            notes.append(f"batch {batch} left out: {LEAST_CALLS} calls would take {seconds:.0f} s an engine")
        else:
            add(subject.job(batch, 1, given.threads))
    for batch in pipeline_batches(rows, subject.device):
        add(subject.pipeline_job(batch))
    return {
        "model": name,
        "weights": subject.weights,
        "parameters": subject.parameters,
        "input_width": subject.width,
        "input_height": subject.height,
        "gflop_per_image": round(subject.gflop, 2),
        "published": [(of.gpu, of.frames_per_s) for of in ZOO.values() if of.model == name and of.frames_per_s][:1],
        "rows": rows,
        "notes": notes,
    }


def least_seconds(rows: list[dict[str, Any]], batch: int) -> float:
    """What the fewest calls at this batch would take, to judge by those before; the mean over the engines."""
    each = [batch * LEAST_CALLS / row["images_per_s"] for row in rows if row["name"] not in CEILINGS]
    return float(np.mean(each)) if each else 0.0


def pipeline_batches(rows: list[dict[str, Any]], device: torch.device) -> list[int]:
    """For the pipeline's lanes: 1, which is what it gives; on CUDA also what was best alone."""
    best = max((row for row in rows if row["name"] not in CEILINGS), key=lambda row: row["images_per_s"], default=None)
    return sorted({1, best["batch"]}) if best and device.type == "cuda" else [1]


def release() -> None:
    """Engines that are no longer referred to give their memory back."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


HEADINGS = (
    "batch", "lanes", "engine", "frames/s", "decoded", "p50 ms", "p95 ms", "min ms", "calls", "GFLOP/s", "of mm",
    "of conv", "x eager", "low to high",
)  # fmt: skip


def show(result: dict[str, Any]) -> None:
    print(f"\n{result['model']}, {result['input_width']}x{result['input_height']}, {result['weights']}: ", end="")
    print(f"{result['parameters'] / 1e6:.1f} M of them, {result['gflop_per_image']:.1f} GFLOP an image")
    for gpu, frames_per_s in result["published"]:
        print(f"published: {frames_per_s} frames/s decoded, batch 1 on {gpu}")
    best = best_rows(result["rows"])
    print_table([HEADINGS, *(cells(row, row in best) for row in result["rows"])], left=(2,))
    for note in result["notes"]:
        print(note)


def best_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each engine's best batch in one lane."""
    alone = [row for row in rows if row["name"] not in CEILINGS and row["lanes"] == 1]
    names = {row["name"] for row in alone}
    return [max((r for r in alone if r["name"] == name), key=lambda r: r["images_per_s"]) for name in sorted(names)]


def cells(row: dict[str, Any], is_best: bool) -> tuple[str, ...]:
    """Of the table; `*` marks an engine's best batch."""
    where = (str(row["batch"]), f"{row['lanes']}x{row['threads']}", row["name"])
    ms = row["network_ms"]
    times = (*(f"{ms[which]:.2f}" for which in ("p50", "p95", "min")), str(ms["count"]))
    if row["name"] in CEILINGS:
        return ("", *where[1:], "", "", *times, f"{row['gflop_per_s']:.0f}", "", "", "", "")
    low, median, high = (f"{ratio:.2f}" for ratio in row.get("times_eager", (math.nan,) * 3))
    return (
        *where,
        f"{row['images_per_s']:.2f}{'*' if is_best else ' '}",
        f"{row['images_per_s_decoded']:.2f}",
        *times,
        f"{row['gflop_per_s']:.0f}",
        *(f"{row['of'][each]:.0%}" for each in CEILINGS),
        median,
        f"{low} to {high}",
    )


def print_table(rows: list[tuple[str, ...]], left: tuple[int, ...]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = (f"{text:{'<' if i in left else '>'}{widths[i]}}" for i, text in enumerate(row))
        print("  ".join(texts).rstrip())


def check_choice(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """What `auto` takes for the pipeline's job, against eager in a measurement that it has not seen."""
    subject = Subject.named(name, given)
    job = subject.pipeline_job()
    choice = choose(subject.network, job, lambda doing: tell(f"{name}: {doing}"))
    release()
    chosen, low_mid_high = choice.engine.name, [1.0, 1.0, 1.0]
    if chosen != "eager":
        engines = {"eager": create_engine("eager", subject.network, job), chosen: choice.engine}
        tell(f"{name}: measuring {chosen} against eager")
        lanes_by_name = {each: [lane_of(engines[each], None) for _ in range(job.lanes)] for each in engines}
        rounds = interleave(lanes_by_name, given.seconds_per_engine)
        rates = {each: calls_per_second(rounds[each]) for each in engines}
        low_mid_high = low_median_high(rates[chosen] / rates["eager"])
    return {
        "model": name,
        **setup(job),
        "chosen": chosen,
        "images_per_s_when_chosen": choice.images_per_second,
        "problems": choice.problems,
        "times_eager": low_mid_high,
        "holds": low_mid_high[1] >= 1 / MARGIN,
    }


def show_choice(result: dict[str, Any]) -> None:
    low, median, high = result["times_eager"]
    speeds = ", ".join(f"{name} {speed:.1f}" for name, speed in result["images_per_s_when_chosen"].items())
    verdict = "holds" if result["holds"] else f"MISSED: slower than eager by more than {MARGIN - 1:.0%}"
    print(f"{result['model']}: auto takes {result['chosen']}, which is {median:.2f} ({low:.2f} to {high:.2f}) times")
    print(f"  as fast as eager; when it chose, frames/s were {speeds}; {verdict}")
    for problem in result["problems"]:
        print(f"  {problem}")


def profile(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Where the time of the eager engine goes: by kind of layer, on CUDA by kernel."""
    subject = Subject.named(name, given)
    job = subject.job(given.batches[0], 1, given.threads)
    call = lane_of(create_engine("eager", subject.network, job), None)
    median = float(np.median([call()[NETWORK] for _ in range(LEAST_CALLS)]))
    calls = max(3, min(50, round(given.seconds_per_engine / median)))
    tell(f"{name}: {calls} calls under the profiler")
    times, counts = by_kind(recorded(call, calls, subject.device), subject.device)
    all_ms = sum(times.values())
    rows = [
        {"kind": kind, "ms": ms / calls, "share": ms / all_ms, "count": round(counts[kind] / calls)}
        for kind, ms in sorted(times.items(), key=lambda item: -item[1])
        if ms > LEAST_SHARE * all_ms
    ]
    facts = {"model": name, "weights": subject.weights, **setup(job), "calls": calls}
    return facts | {"median_ms_without_profiler": 1e3 * median, "rows": rows}


def recorded(call: Call, calls: int, device: torch.device) -> Any:
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, record_shapes=True) as record:
        for _ in range(calls):
            call()
    return record


def by_kind(record: Any, device: torch.device) -> tuple[dict[str, float], dict[str, int]]:
    """Milliseconds and counts of all calls together."""
    times: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for kind, milliseconds, number in kernels(record) if device.type == "cuda" else operators(record):
        times[kind] += milliseconds
        counts[kind] += number
    return times, counts


def kernels(record: Any) -> Iterator[tuple[str, float, int]]:
    for event in record.key_averages():
        if event.device_type.name == "CUDA":
            yield event.key[:100], event.self_device_time_total / 1e3, event.count


def operators(record: Any) -> Iterator[tuple[str, float, int]]:
    for event in record.key_averages(group_by_input_shape=True):
        number = event.count if not is_conv(event) or event.key == "aten::convolution" else 0
        yield kind_of(event), event.self_cpu_time_total / 1e3, number


def is_conv(event: Any) -> bool:
    """One of torch's convolutions, each of which is several operators one in another."""
    shapes = event.input_shapes
    return event.key.startswith("aten::") and "conv" in event.key and len(shapes) > 1 and len(shapes[1]) == 4


def kind_of(event: Any) -> str:
    """Convolutions by their size, others by their name."""
    if not is_conv(event):
        return str(event.key).removeprefix("aten::").rstrip("_")
    (_, channels, *_), (_, group, height, width) = event.input_shapes[:2]
    # Only deconvolutions have even sides here.
    what = "convolution" if height % 2 else "deconvolution"
    return f"{what} {height}x{width}" + (" depthwise" if group == 1 < channels else "")


def show_profile(result: dict[str, Any], most: int = 20) -> None:
    setting = f"batch {result['batch']}, {result['threads']} threads, {result['weights']}"
    print(f"\n{result['model']}, eager, {setting}: {result['median_ms_without_profiler']:.1f} ms a call; profiled:")
    rows = [(f"{r['ms']:.2f}", f"{r['share']:.1%}", str(r["count"]), r["kind"]) for r in result["rows"][:most]]
    print_table([("ms", "share", "times", "kind"), *rows], left=(3,))


def tell(doing: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {doing}", file=sys.stderr, flush=True)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", type=names_of(list_models()), help=f"default: {','.join(MODELS)}")
    parser.add_argument("--engines", type=names_of(ENGINES), help="default: all that are here but compile")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: auto")
    parser.add_argument("--batches", type=numbers, help="images at a time, in one lane; default: 1,4; 1,8,… on CUDA")
    parser.add_argument("--threads", type=positive, help="of one lane alone; default: all cores")
    parser.add_argument("--size", type=size, help="WIDTHxHEIGHT of the input; default: what the network was made for")
    parser.add_argument("--seconds-per-engine", type=float, default=3.0, help="for each setting; default: 3")
    parser.add_argument("--out", type=Path, help="a JSON file, written after each network")
    parser.add_argument("--calibration-check", action="store_true", help="is what `auto` takes as fast as eager?")
    parser.add_argument("--profile", metavar="MODEL", choices=list_models(), help="where the time of eager goes")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is none here; give cpu")
    fill(given)
    for name in given.models:
        step = SPECS[name].size_multiple
        if given.size and (given.size[0] % step or given.size[1] % step):
            parser.error(f"--size {given.size[0]}x{given.size[1]}: {name} takes multiples of {step}")
    return given


def fill(given: argparse.Namespace) -> None:
    """What was not given, as far as it depends on the machine."""
    kind = given.device if given.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    settings = InferSettings()
    given.device = torch.device(kind)
    given.models = [given.profile] if given.profile else given.models or list(MODELS)
    given.batches = given.batches or list(BATCHES[kind])
    given.threads = given.threads or settings.cpu_threads() * settings.cpu_workers()
    names = given.engines or [name for name in available_engines(kind) if name not in NOT_TRIED]
    given.engines = [label for name in names for label in in_each_precision(name, kind)]


def in_each_precision(name: str, kind: str) -> list[str]:
    """`openvino`, its usual one, and `openvino bf16`."""
    others = precisions(name, kind)[1:] if name in available_engines(kind) else ()
    return [name, *(f"{name} {precision}" for precision in others)]


def names_of(allowed: Any) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        if unknown := [name for name in text.split(",") if name not in allowed]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r}: allowed are {', '.join(allowed)}")
        return text.split(",")

    return names


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def numbers(text: str) -> list[int]:
    return sorted({positive(part) for part in text.split(",")})


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r}: give WIDTHxHEIGHT in pixels")
    return int(width), int(height)


def main() -> int:
    given = parse()
    here = machine("torch", "torchvision", "numba", "onnxruntime", "openvino")
    here += f", {torch.backends.cpu.get_cpu_capability()}"
    if given.device.type == "cuda":
        here += f", {torch.cuda.get_device_name(given.device)}"
    print(here, flush=True)
    work, display = bench, show
    if given.calibration_check:
        work, display = check_choice, show_choice
    if given.profile:
        work, display = profile, show_profile
    report: dict[str, Any] = {"benchmark": "models", "machine": here, "device": str(given.device), "results": []}
    with tempfile.TemporaryDirectory(prefix="bench-models-") as folder:
        os.environ.setdefault("CENTERSTREAM_CACHE", folder)
        for name in given.models:
            report["results"].append(work(name, given))
            release()
            display(report["results"][-1])
            sys.stdout.flush()
            keep(report, given.out)
    finish(report)
    return 0 if all(result.get("holds", True) for result in report["results"]) else 1


def keep(report: dict[str, Any], path: Path | None) -> None:
    if path:
        with whole_file(path) as partial:
            partial.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    sys.exit(main())
