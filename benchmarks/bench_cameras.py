"""Many live cameras on this machine: the age of each frame, what each camera got through, why the rest was dropped, and
the memory of every process.

    python benchmarks/bench_cameras.py --cameras 8 --rate 10              # more than the network can do on two cores
    python benchmarks/bench_cameras.py --cameras 30 --rate 2 --seconds 600

The cameras are real RTSP streams (H.264, 320x240, people who walk) that are made on the same machine, which costs it
about 1 ms of a core for each frame. The first seconds, in which caches fill and streams begin, do not count. The last
line is one JSON object.
"""

import argparse
import json
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import finish, machine, percentiles

from tests.kit.harness import start, wait_until, worker_pids
from tests.whole.witness.site import Site, running_site

WARM_SECONDS = 20.0
SAMPLE_SECONDS = 5.0


def own_memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def config(site: Site, cameras: int, lines: Path, engine: str) -> dict[str, Any]:
    sources = {f"cam{number}": {"uri": site.url_of(number)} for number in range(cameras)}
    return {"sources": sources, "infer": {"engine": engine}, "deliver": {"jsonl": str(lines)}}


def run(folder: Path, site: Site, given: argparse.Namespace) -> dict[str, Any]:
    lines_path = folder / "lines.jsonl"
    settings = folder / "run.yaml"
    settings.write_text(json.dumps(config(site, given.cameras, lines_path, given.engine)))  # JSON is YAML
    process = start("--config", settings)
    try:
        wait_until(lambda: lines_path.exists() and lines_path.stat().st_size > 0, 120, "the first line")
        time.sleep(WARM_SECONDS)
        began_unix, samples = time.time(), []
        while time.time() < began_unix + given.seconds:
            workers = {"supervisor": process.pid} | worker_pids(process.pid)
            samples.append({worker: own_memory_mb(pid) for worker, pid in workers.items()})
            time.sleep(SAMPLE_SECONDS)
        ended_unix = time.time()
    finally:
        process.send_signal(signal.SIGINT)
        summary = process.communicate(timeout=60)[1]
    print(summary)
    lines = [json.loads(line) for line in lines_path.read_text().splitlines()]
    frames = [line for line in lines if began_unix <= line.get("captured_unix", 0) < ended_unix]
    return figures(frames, samples, ended_unix - began_unix)


def figures(frames: list[dict[str, Any]], samples: list[dict[str, float]], seconds: float) -> dict[str, Any]:
    done = [line for line in frames if line["status"] == "ok"]
    per_second = {name: count / seconds for name, count in Counter(line["source"] for line in done).items()}
    mean = sum(per_second.values()) / len(per_second)
    dropped = Counter(f"{line['stage']}: {line['reason']}" for line in frames if line["status"] == "dropped")
    first, last = samples[0], samples[-1]
    kinds = sorted({worker.partition(":")[0] for worker in last})
    return {
        "seconds": round(seconds),
        "captured": len(frames),
        "with_result": len(done),
        "results_per_second": round(sum(per_second.values()), 2),
        "least_and_most_of_a_camera": [round(edge(per_second.values()) / mean, 3) for edge in (min, max)],
        "dropped": dict(dropped),
        "age_ms": percentiles(line["latency_ms"] for line in done) | {"p95": p95(done)},
        "memory_mb_first_and_last": {
            kind: [
                round(sum(mb for worker, mb in one.items() if worker.partition(":")[0] == kind))
                for one in (first, last)
            ]
            for kind in kinds
        },
        "grew_most": max(((round(last[w] - first[w], 2), w) for w in last if w in first), default=None),
    }


def p95(lines: list[dict[str, Any]]) -> float:
    ages_ms = sorted(line["latency_ms"] for line in lines)
    return float(ages_ms[int(0.95 * (len(ages_ms) - 1))])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cameras", type=int, default=8)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--engine", default="openvino")
    given = parser.parse_args()
    here = machine("av", "openvino")
    print(here)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ("--cameras", given.cameras, "--rate", given.rate)
        with running_site(folder / "sent.jsonl", *words) as site:
            told = run(folder, site, given)
    for key, value in told.items():
        print(f"{key}: {value}")
    finish({"benchmark": "cameras", "machine": here, "cameras": given.cameras, "rate": given.rate, **told})


if __name__ == "__main__":
    main()
