"""The whole against two peers, on the same file with the same network, thresholds, encoder settings and overlay video.

    python benchmarks/bench_peers.py --peers-venv DIR [--inference-venv DIR] [VIDEO] [--rounds N]

program    what a good engineer writes in a day (peers/program.py)
inference  Roboflow's `inference` with our network as its custom handler (peers/roboflow_pipeline.py)
ours       run_pipeline.py with its default settings and an overlay video

Each needs packages that the product does not, in a virtual environment of its own:

    uv venv benchmarks/peers/.venv
    uv pip install --python benchmarks/peers/.venv/bin/python -r benchmarks/peers/requirements.txt
    uv venv benchmarks/peers/.venv-inference   # the same with requirements-inference.txt

All run in turn, several rounds; medians count. Frames a second and age (capture to written, p50 and p95; files wait, so
it tells of queues) are what each says of itself, from the first frame to the closed file. Memory is the most that all
its processes together had, a page that several share counted once (Pss), looked at four times a second. CPU
milliseconds a frame is what a run of the whole file took more than one of its first frames, so that starting is not in
it. Accuracy as in accuracy_pets09.py, where its data is there and the video is its clip.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from common import ROOT, finish, frames_and_seconds, machine  # first, for the path to the rest

# isort: split
import av
import psutil
from accuracy_pets09 import CLIP, TRUTH, average_precision, read_mot, read_persons, tracking

from pipeline.settings import EncoderSettings

PEERS = ROOT / "benchmarks/peers"
FIRST_FRAMES = 60
SAMPLE_SECONDS = 0.25
TARGETS = {"times_the_programs_rate": 2.5, "times_its_memory": 3.0}
_LATENCY = re.compile(r"latency from capture to delivery: p50 ([\d.]+)  p95 ([\d.]+)")


class Peer(NamedTuple):
    """`command(video, folder)` writes an overlay video into the folder, `accurate` writes all.jsonl and tracks.txt."""

    command: Callable[[Path, Path], list[str]]
    accurate: Callable[[Path, Path], list[list[str]]]
    figures: Callable[[subprocess.CompletedProcess[str]], dict[str, float]]


def other(python: Path, script: str, network: Path) -> Peer:
    encoder = EncoderSettings()
    run = [str(python), "-W", "ignore", str(PEERS / script)]
    same = ["--preset", encoder.preset, "--crf", str(encoder.quality)]

    def command(video: Path, folder: Path) -> list[str]:
        return [*run, str(video), str(network), *same, "--out", f"{folder}/o.mp4"]

    def accurate(video: Path, folder: Path) -> list[list[str]]:
        results = ["--score", "0.05", "--jsonl", f"{folder}/all.jsonl", "--mot", f"{folder}/tracks.txt"]
        return [[*run, str(video), str(network), *results]]

    return Peer(command, accurate, lambda done: json.loads(done.stdout.splitlines()[-1]))


def ours() -> Peer:
    run = [sys.executable, str(ROOT / "run_pipeline.py")]

    def command(video: Path, folder: Path) -> list[str]:
        return [*run, str(video), "--out", f"{folder}/o.mp4"]

    def accurate(video: Path, folder: Path) -> list[list[str]]:
        everything = ["--score", "0.05", "--jsonl", f"{folder}/all.jsonl"]
        return [[*run, str(video), *everything], [*run, str(video), "--mot", f"{folder}/tracks.txt"]]

    def figures(done: subprocess.CompletedProcess[str]) -> dict[str, float]:
        length, latency = frames_and_seconds(done.stderr), _LATENCY.search(done.stderr)
        assert length and latency, done.stderr
        told = dict(zip(("frames", "seconds"), length, strict=True))
        return told | {"age_p50_ms": float(latency[1]), "age_p95_ms": float(latency[2])}

    return Peer(command, accurate, figures)


class Memory:
    """The most that a process and all below it have had at once, in bytes; shared pages are counted once."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._root, self._over = psutil.Process(pid), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(map(_shared_once, self._tree())))

    def _tree(self) -> list[int]:
        try:
            return [self._root.pid, *(child.pid for child in self._root.children(recursive=True))]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> int:
        self._over.set()
        self._thread.join()
        return self.peak


def _shared_once(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ProcessLookupError):  # it has ended
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def run(peer: Peer, video: Path) -> dict[str, float]:
    """Its figures of one run, with the peak memory in MB and the CPU seconds of all its processes."""
    before = _cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        command = peer.command(video, Path(folder))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        memory = Memory(process.pid)
        out, errors = process.communicate()
        peak = memory.stop()
        done = subprocess.CompletedProcess(command, process.returncode, out, errors)
        if done.returncode:
            sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{errors[-2000:]}")
        size = Path(folder, "o.mp4").stat().st_size
    figures = peer.figures(done)
    return figures | {"memory_mb": peak / 1e6, "cpu_seconds": _cpu_seconds() - before, "file_mb": size / 1e6}


def _cpu_seconds() -> float:
    """Of all processes below this one that have ended and were waited for, by us or by those that started them."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(peers: dict[str, Peer], video: Path, rounds: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        beginning = first_frames(video, Path(folder, f"beginning{video.suffix}"))
        runs: dict[str, list[tuple[dict[str, float], dict[str, float]]]] = {name: [] for name in peers}
        for name, peer in peers.items():  # warm-up: files are in memory, engines are chosen, kernels compiled
            print(f"warm-up of {name}: {shown(run(peer, beginning))}", flush=True)
        for number in range(rounds):
            for name, peer in peers.items():
                runs[name].append((run(peer, beginning), run(peer, video)))
                print(f"round {number + 1}, {name}: {shown(whole_figures([runs[name][-1]]))}", flush=True)
    return {name: whole_figures(some) for name, some in runs.items()}


def whole_figures(runs: list[tuple[dict[str, float], dict[str, float]]]) -> dict[str, float]:
    """Medians of the rounds, each a run of the beginning and one of the whole."""
    rounds = [
        {
            "frames_per_second": whole["frames"] / whole["seconds"],
            "age_p50_ms": whole["age_p50_ms"],
            "age_p95_ms": whole["age_p95_ms"],
            "memory_mb": whole["memory_mb"],
            "cpu_ms_a_frame": 1e3 * (whole["cpu_seconds"] - first["cpu_seconds"]) / (whole["frames"] - first["frames"]),
            "file_mb": whole["file_mb"],
        }
        for first, whole in runs
    ]
    return {key: round(median(each[key] for each in rounds), 2) for key in rounds[0]}


def first_frames(video: Path, path: Path) -> Path:
    """The beginning of a video, its packets as they are."""
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet, _ in zip(source.demux(video=0), range(FIRST_FRAMES), strict=False) if packet.size]
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    return path


def accuracy(peer: Peer, video: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        for command in peer.accurate(video, Path(folder)):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        truth = read_mot(TRUTH)
        ap50, _ = average_precision(read_persons(Path(folder, "all.jsonl")), truth)
        tracked = tracking(read_mot(Path(folder, "tracks.txt")), truth)
    return {"ap50": round(ap50, 4), "mota": tracked["mota"], "idf1": tracked["idf1"]}


def shown(figures: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in figures.items())


def usable(venv: Path, peer: str, requirements: str, module: str) -> Path | None:
    """The environment's Python; None, and a line that says what is missing, where it cannot run that peer."""
    python = venv / "bin/python"
    filled = f"uv pip install --python {python} -r benchmarks/peers/{requirements}"
    if not python.exists():
        print(f"skipped the peer {peer}: no virtual environment {venv}; make it: uv venv {venv} && {filled}")
        return None
    found = subprocess.run(
        [str(python), "-c", f"import importlib.util as i, sys; sys.exit(i.find_spec('{module}') is None)"]
    )
    if found.returncode:
        print(f"skipped the peer {peer}: {venv} has no package {module}; fill it: {filled}")
        return None
    return python


def ratios(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """Ours against the program's."""
    mine, program = figures["ours"], figures["program"]
    return {
        "times_the_programs_rate": round(mine["frames_per_second"] / program["frames_per_second"], 3),
        "times_its_memory": round(mine["memory_mb"] / program["memory_mb"], 3),
        "times_its_cpu": round(mine["cpu_ms_a_frame"] / program["cpu_ms_a_frame"], 3),
    }


def parse() -> argparse.Namespace:
    clip = ROOT / "tests/data/pets09_excerpt.mp4"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("video", nargs="?", type=Path, default=CLIP if CLIP.exists() else clip)
    parser.add_argument("--peers-venv", type=Path, default=PEERS / ".venv", metavar="DIR")
    parser.add_argument("--inference-venv", type=Path, default=PEERS / ".venv-inference", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    given = parse()
    program = usable(given.peers_venv, "program", "requirements.txt", "trackers")
    if program is None:
        return
    inference = usable(given.inference_venv, "inference", "requirements-inference.txt", "inference")
    here = machine("torch", "onnxruntime", "openvino", "av")
    print(here)
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder, "network.onnx")
        subprocess.run([sys.executable, "-m", "models.export", str(network)], cwd=ROOT, check=True)
        peers = {"program": other(program, "program.py", network), "ours": ours()}
        if inference:
            peers["inference"] = other(inference, "roboflow_pipeline.py", network)
        figures = measure(peers, given.video, given.rounds)
        exact: dict[str, dict[str, float]] = {}
        if TRUTH.exists() and given.video.resolve() == CLIP.resolve():
            exact = {name: accuracy(peer, given.video) for name, peer in peers.items()}
        else:
            print(f"no accuracy: it needs {CLIP} and {TRUTH.name} beside it")
    told = ratios(figures)
    for name, some in figures.items():
        print(f"{name:10} {shown(some | exact.get(name, {}))}")
    for name, ratio in told.items():
        print(f"{name:24} {ratio:g}" + (f"   target {TARGETS[name]}" if name in TARGETS else ""))
    result: dict[str, Any] = {"benchmark": "peers", "machine": here, "video": given.video.name, "rounds": given.rounds}
    finish(result | {"figures": figures, "accuracy": exact, "ratios": told, "targets": TARGETS})


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for the peers too: threads that spin take their own cores
    main()
