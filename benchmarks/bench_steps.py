"""Does a training make as many steps a second as it did before? This checkout against another, in alternation.

    python benchmarks/bench_steps.py OTHER [--rounds 3] [--recipe configs/train_bccd.yaml] [--set KEY=VALUE ...]

OTHER is the folder of another version of the project. Each run is the command as its user types it, two epochs of the
same recipe without a picture; what counts is the second, by the images a second that its metrics.csv tells. Data lie in
$CENTERSTREAM_DATA. The last line is one JSON object.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import DATA, ROOT, finish, machine, middle_and_ends

SETTINGS = ("schedule.epochs=2", "schedule.kind=one_cycle", "loop.evaluate_every=2", "loop.pictures=0")


def images_per_second(tree: Path, recipe: Path, settings: list[str]) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-steps-") as folder:
        sets = [word for setting in (*SETTINGS, *settings, f"out={folder}/run") for word in ("--set", setting)]
        line = [sys.executable, "-m", "train", str(tree / recipe), *sets]
        done = subprocess.run(
            line, cwd=DATA, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{tree}: {done.stderr[-1000:]}")
        with Path(folder, "run", "metrics.csv").open(newline="") as file:
            return float(list(csv.DictReader(file))[1]["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", type=Path, default=Path("configs/train_bccd.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    print(machine("torch"), flush=True)
    trees = {"ours": ROOT, "other": given.other.resolve()}
    rates: dict[str, list[float]] = {name: [] for name in trees}
    for turn in range(given.rounds):
        for name in sorted(trees, reverse=turn % 2 == 1):
            rates[name].append(images_per_second(trees[name], given.recipe, given.set))
            print(f"round {turn + 1}: {name}: {rates[name][-1]:.2f} images/s", flush=True)
    ratios = [ours / other for ours, other in zip(rates["ours"], rates["other"], strict=True)]
    print(f"{median(ratios):.3f} times the images a second ({min(ratios):.3f} to {max(ratios):.3f})")
    finish(
        {
            "benchmark": "steps",
            "machine": machine("torch"),
            "recipe": str(given.recipe),
            "set": given.set,
            "images_per_second": {name: [round(rate, 2) for rate in of] for name, of in rates.items()},
            "ratio": middle_and_ends(ratios),
        }
    )


if __name__ == "__main__":
    main()
