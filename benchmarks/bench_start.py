"""How long a user waits: from the command to the first frame delivered, and to the help.

    python benchmarks/bench_start.py [--runs 10] [--source street.mp4] [--fresh]

With `--fresh` the first start is measured, too: with an empty cache, so that kernels are compiled, the network is
exported, and engines are measured. The next start finds what that left, and does not count; then so many are counted.
The first frame is delivered when its line is there to be read. The last line is one JSON object.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, finish, machine, percentiles

from tests.kit.places import CLIP

FRAMES = 3


def first_frame_seconds(source: str, environment: dict[str, str]) -> float:
    """Until the first line of results; the run is then waited for."""
    command = [sys.executable, "run_pipeline.py", source, "--max-frames", str(FRAMES), "--jsonl", "-"]
    started = time.perf_counter()
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        told = process.communicate()[1]
    if process.returncode or not line:
        sys.exit(f"the run ended with {process.returncode}: {told.strip()}")
    return seconds


def help_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "run_pipeline.py", "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=str(CLIP))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--fresh", action="store_true", help="measure a start with an empty cache before")
    given = parser.parse_args()
    result = {"benchmark": "start", "machine": machine("torch", "openvino")}
    print(result["machine"])
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | ({"CENTERSTREAM_CACHE": str(Path(folder) / "cache")} if given.fresh else {})
        first = first_frame_seconds(given.source, environment)
        if given.fresh:
            result["first_start_seconds"] = round(first, 2)
            print(f"first start, empty cache: {first:.2f} s to the first frame delivered")
        first_frame_seconds(given.source, environment)
        starts = percentiles(first_frame_seconds(given.source, environment) for _ in range(given.runs))
    helps = percentiles(help_seconds() for _ in range(given.runs))
    print(
        f"next starts: {starts['p50']:.2f} s (median of {starts['count']}, {starts['min']:.2f} to {starts['p99']:.2f})"
    )
    print(f"--help: {helps['p50']:.2f} s")
    finish(result | {"start_seconds": starts, "help_seconds": helps})


if __name__ == "__main__":
    main()
