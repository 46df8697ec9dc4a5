"""Whole runs with one set of options against whole runs with another, in alternation: what an option gives.

    python benchmarks/bench_options.py                                   # precision: auto against fp32
    python benchmarks/bench_options.py --base "" --other "--classes person" --source street.mp4 --rounds 5

Each run writes JSON lines (`--video` writes the overlay video, too). Frames a second are those of the summary: from the
first frame captured to the end of the run, loading not counted. The first round, in which caches fill, does not count.
The last line is one JSON object.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import DATA, ROOT, finish, frames_and_seconds, machine, middle_and_ends

from tests.kit.places import CLIP


def frames_per_second(source: str, options: str, video: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        outputs = ["--jsonl", f"{folder}/lines.jsonl", *(["--out", f"{folder}/video.mp4"] if video else [])]
        command = [sys.executable, "run_pipeline.py", source, *outputs, *shlex.split(options)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        lines = len(Path(outputs[1]).read_text().splitlines()) if not done.returncode else 0
    told = frames_and_seconds(done.stderr)
    if done.returncode or not told or lines < told[0]:
        sys.exit(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return told[0] / told[1]


def usual_source() -> str:
    """The whole of PETS where it is there, else the excerpt."""
    pets = DATA / "pets09"
    return next((str(path) for path in sorted(pets.glob("*.avi")) + sorted(pets.glob("*.mp4"))), str(CLIP))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=usual_source())
    parser.add_argument("--base", default="--precision fp32", help="the options to compare with")
    parser.add_argument("--other", default="", help="the options that are compared")
    parser.add_argument("--video", action="store_true", help="write the overlay video, too")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine("torch", "openvino"))
    rates: dict[str, list[float]] = {"base": [], "other": []}
    for turn in range(given.rounds + 1):
        for name, options in (("base", given.base), ("other", given.other)):
            rate = frames_per_second(given.source, options, given.video)
            print(f"{'warm-up' if not turn else f'round {turn}'}: {options or '(no options)'}: {rate:.1f} frames/s")
            if turn:
                rates[name].append(rate)
    ratios = [other / base for base, other in zip(rates["base"], rates["other"], strict=True)]
    print(f"{median(ratios):.2f} times the frames a second ({min(ratios):.2f} to {max(ratios):.2f})")
    finish(
        {
            "benchmark": "options",
            "machine": machine("torch", "openvino"),
            "source": Path(given.source).name,
            "video": given.video,
            "base": given.base,
            "other": given.other,
            "frames_per_second": {name: [round(rate, 2) for rate in values] for name, values in rates.items()},
            "ratio": middle_and_ends(ratios),
        }
    )


if __name__ == "__main__":
    main()
