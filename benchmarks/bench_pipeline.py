"""How much does the pipeline waste? Its frames a second against the bound that its parts allow.

The bound is cores ÷ the CPU-seconds that a frame costs in the parts, each measured alone on the same frames: decode and
scale, network, peaks, tracker, and for the overlay video drawing and encoding. What a run takes beyond that goes to
queues, processes, copies, and to cores that had nothing to do. The network is measured as it is configured, with its
workers side by side and nothing else running; two of them share caches and memory, so a frame costs more CPU-seconds
then than one worker takes that has the machine to itself. The ratio to that stricter bound is printed too.
Parts and runs are measured in turn, several rounds of both, because the machine may be shared.

    python benchmarks/bench_pipeline.py [VIDEO] [--frames N] [--rounds N] [--engine E] [--workers N --threads N]
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from common import DATA, ROOT, finish, machine

import models
from models.engines import Job, create_engine
from models.engines.choice import choose
from pipeline.flow.detections import Detections
from pipeline.flow.results import FrameResult
from pipeline.geometry import fit_input
from pipeline.kernels.boxes import decode_heads
from pipeline.overlay import Overlay
from pipeline.run.start import WORKER_ENVIRONMENT
from pipeline.run.supervisor import Supervisor
from pipeline.settings import DeliverSettings, InferSettings, QueueSettings, Settings, SourceSettings, usable_cores
from pipeline.sinks.video import VideoSink
from pipeline.sources import CapturedFrame, open_source
from pipeline.sources.pixels import PixelConverter
from pipeline.tracker import Tracker

NETWORK_FRAMES = 60


def cpu_seconds(work: Callable[[], int]) -> float:
    """CPU-seconds of the whole process for each of the frames that `work` says it did."""
    started = time.process_time()
    frames = work()
    return (time.process_time() - started) / frames


class Parts:
    """The work of each stage without the stages, on the first frames of a video."""

    def __init__(self, video: Path, frames: int, infer: InferSettings) -> None:
        self._workers = infer.cpu_workers()
        self._source = SourceSettings(uri=str(video), max_frames=frames)
        network = models.load_model(models.DEFAULT_MODEL)
        self._spec = network.spec
        job = Job(lanes=self._workers, threads=infer.cpu_threads())
        self._engine = (
            choose(network, job).engine if infer.engine == "auto" else create_engine(infer.engine, network, job)
        )
        self.engine_name = self._engine.name
        self._inputs = list(self._decoded(full_size=False, keep=True))[:NETWORK_FRAMES]
        self._heads = [self._network(input_hwc) for input_hwc in self._inputs]
        self._detections = [self._peaks(heads) for heads in self._heads]
        self.pictures = list(self._decoded(full_size=True, keep=True))[:NETWORK_FRAMES]

    def _decoded(self, full_size: bool, keep: bool = False) -> Iterator[np.ndarray]:
        converter = PixelConverter()
        spec = self._spec
        out = np.empty((spec.input_height, spec.input_width, 3), np.uint8)
        with open_source(self._source, "bench") as source:
            self.rate = source.info.frames_per_second or 25.0
            self.height, self.width = source.info.height, source.info.width
            image = np.empty((self.height, self.width, 3), np.uint8)
            for frame in source.frames(lambda: False):
                if not isinstance(frame, CapturedFrame):
                    continue
                converter.write_input(frame.video_frame, frame.rotation_degrees, out)
                if full_size:
                    converter.write_bgr(frame.video_frame, frame.rotation_degrees, image)
                wanted = image if full_size else out
                yield wanted.copy() if keep else wanted

    def _network(self, input_hwc: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        heads = self._engine.allocate()
        self._engine.run(input_hwc[None], heads)
        return heads["hm"][0], heads["wh"][0]

    def _peaks(self, heads: tuple[np.ndarray, np.ndarray]) -> Detections:
        spec = self._spec
        geometry = fit_input(self.width, self.height, spec.input_width, spec.input_height, "stretch")
        class_ids = np.arange(len(spec.class_names), dtype=np.int32)
        found = decode_heads(*heads, None, class_ids, 0.1, 100, spec.stride, geometry.affine, self.width, self.height)
        return Detections.untracked(*found)

    def decode(self, full_size: bool) -> int:
        return sum(1 for _ in self._decoded(full_size))

    def network(self) -> int:
        heads = self._engine.allocate()
        for input_hwc in self._inputs:
            self._engine.run(input_hwc[None], heads)
        return len(self._inputs)

    def network_side_by_side(self) -> int:
        with ThreadPoolExecutor(self._workers) as lanes:
            return sum(lane.result() for lane in [lanes.submit(self.network) for _ in range(self._workers)])

    def peaks(self) -> int:
        for heads in self._heads:
            self._peaks(heads)
        return len(self._heads)

    def tracker(self) -> int:
        return len(self._tracked())

    def draw_and_encode(self) -> int:
        overlay, results = Overlay(), self.results()
        with tempfile.TemporaryDirectory() as folder:
            sink = VideoSink(f"{folder}/bench.mp4", self.rate)
            for picture, result in zip(self.pictures, results, strict=True):
                picture = picture.copy()
                overlay.draw(picture, result)
                sink.write(result, picture)
            sink.close()
        return len(results)

    def results(self) -> list[FrameResult]:
        """Of the `pictures`, with tracks."""
        return [self._result(seq, detections) for seq, detections in enumerate(self._tracked())]

    def _tracked(self) -> list[Detections]:
        tracker = Tracker(Settings().track)
        return [tracker.update(detections, seq / self.rate) for seq, detections in enumerate(self._detections)]

    def _result(self, seq: int, detections: Detections) -> FrameResult:
        return FrameResult(
            source_id="bench",
            seq=seq,
            pts_seconds=seq / self.rate,
            captured_unix=0.0,
            width=self.width,
            height=self.height,
            clock="arrival",
            failure=None,
            dropped=None,
            predicted=False,
            latency_ms=0.0,
            detections=detections,
            score_threshold=0.3,
            class_names=self._spec.class_names,
            frames_per_second=None,
        )

    def cost(self, overlay: bool) -> dict[str, float]:
        """CPU milliseconds a frame of each part."""
        parts: dict[str, Callable[[], int]] = {
            "decode and scale": lambda: self.decode(overlay),
            "network": self.network_side_by_side,
            "peaks": self.peaks,
            "tracker": self.tracker,
        }
        if overlay:
            parts["draw and encode"] = self.draw_and_encode
        return {name: cpu_seconds(part) * 1e3 for name, part in parts.items()}

    def one_worker_cost(self) -> float:
        """CPU milliseconds a frame of one network worker that has the machine to itself."""
        return cpu_seconds(self.network) * 1e3


def whole(video: Path, frames: int, overlay: bool, infer: InferSettings, queue: QueueSettings) -> dict[str, Any]:
    """Frames a second of a run, and the CPU milliseconds a frame of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            sources={"bench": SourceSettings(uri=str(video), max_frames=frames)},
            infer=infer,
            queue=queue,
            deliver=DeliverSettings(jsonl=f"{folder}/o.jsonl", video=f"{folder}/o.mp4" if overlay else None),
        )
        state = Supervisor(settings, lambda state: None).run()
    page = state.ledger()["bench"]
    assert page.delivered == page.captured == frames and state.started_at and state.ended_at, state.problems
    stages = {name: 1e3 * (report.cpu_seconds or 0.0) / frames for name, report in state.reports.items()}
    return {"rate": frames / (state.ended_at - state.started_at), "cpu_ms": stages}


def main() -> None:
    arguments = parse()
    here, cores = machine("torch", "numba", "av"), usable_cores()
    infer = InferSettings(workers=arguments.workers, threads=arguments.threads, engine=arguments.engine)
    queue = QueueSettings(capacity=arguments.capacity)
    print(here)
    with open_source(SourceSettings(uri=str(arguments.video)), "bench") as source:
        frames = min(arguments.frames, source.info.frame_count or arguments.frames)
    parts = Parts(arguments.video, frames, infer)
    infer = msgspec.structs.replace(infer, engine=parts.engine_name)
    print(f"engine {parts.engine_name}, {infer.cpu_workers()} workers of {infer.cpu_threads()} threads")
    parts.cost(overlay=True)  # warm-up of the parts, and of the whole
    whole(arguments.video, min(frames, 100), True, infer, queue)
    results = {}
    for name, overlay in (("JSON lines", False), ("JSON lines and overlay video", True)):
        run = partial(whole, arguments.video, frames, overlay, infer, queue)
        rounds = []
        for _ in range(arguments.rounds):
            rounds.append(one_round(parts, cores, run, overlay))
            show(name, rounds[-1])
        median = sorted(rounds, key=lambda r: r["ratio"])[len(rounds) // 2]
        print(f"{name}: median {median['ratio']:.3f} of the bound\n")
        ratios = {key: [r[key] for r in rounds] for key in ("ratio", "strict_ratio")}
        results[name] = {"median_round": median, "all_rounds": ratios}
    finish(
        rounded(
            {
                "benchmark": "pipeline",
                "machine": here,
                "engine": parts.engine_name,
                "frames": frames,
                "results": results,
            }
        )
    )


def parse() -> argparse.Namespace:
    usual = DATA / "pets09/vtest.avi"
    clip = ROOT / "tests/data/pets09_excerpt.mp4"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("video", nargs="?", type=Path, default=usual if usual.exists() else clip)
    parser.add_argument("--frames", type=int, default=795)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--capacity", type=int, default=QueueSettings().capacity)
    return parser.parse_args()


def one_round(parts: Parts, cores: int, run: Callable[[], dict[str, Any]], overlay: bool) -> dict[str, Any]:
    """The parts before and after a run, so that a machine that changes its pace changes it for both."""
    before, alone_before = parts.cost(overlay), parts.one_worker_cost()
    ran = run()
    after, alone_after = parts.cost(overlay), parts.one_worker_cost()
    costs = {part: (before[part] + after[part]) / 2 for part in before}
    alone = (alone_before + alone_after) / 2
    bound = cores * 1e3 / sum(costs.values())
    strict_bound = cores * 1e3 / (sum(costs.values()) - costs["network"] + alone)
    return {
        "rate": ran["rate"],
        "bound": bound,
        "ratio": ran["rate"] / bound,
        "strict_ratio": ran["rate"] / strict_bound,
        "parts": costs,
        "one_network_worker": alone,
        "stages": ran["cpu_ms"],
    }


def show(name: str, round_: dict[str, Any]) -> None:
    parts = ", ".join(f"{part} {ms:.2f}" for part, ms in round_["parts"].items())
    stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in round_["stages"].items())
    ratios = f"ratio {round_['ratio']:.3f}, strict {round_['strict_ratio']:.3f}"
    print(f"{name}: {round_['rate']:.2f} frames/s, bound {round_['bound']:.2f}, {ratios}", flush=True)
    print(f"  CPU ms a frame, parts alone: {parts} (sum {sum(round_['parts'].values()):.2f})")
    print(f"  CPU ms a frame, in the run:  {stages} (sum {sum(round_['stages'].values()):.2f})")


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value


if __name__ == "__main__":
    if any(os.environ.get(name) != value for name, value in WORKER_ENVIRONMENT.items()):
        # The parts run under the allocator and thread settings that the workers have.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | WORKER_ENVIRONMENT)
    main()
