"""What `python -m train FOLDER --minutes N` makes of a data set: by minutes and seeds, with few images, and with rates
that somebody gives by hand.

    python benchmarks/train_folder.py raccoon [--minutes 5 20 60] [--seeds 0 1 2]
    python benchmarks/train_folder.py raccoon --minutes 10 --first 20       only the first 20 images, and no validation
    python benchmarks/train_folder.py raccoon --minutes 5 --rates 20        rates drawn from 1e-5 to 1e-2
    python benchmarks/train_folder.py --draw CURVE.svg TOLD.txt ...         AP by minutes, of what such runs printed

Each run is the command as its user types it, one after the other, and the figures are those of the test images, from
the scores.json that it leaves; late is how much longer than its minutes it took. FOLDER may be the name of one in
$CENTERSTREAM_DATA.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import DATA, ROOT, finish, machine

from train.curves import HEIGHT, WIDTH, chart

LOWEST_RATE, HIGHEST_RATE = 1e-5, 1e-2
LEGEND = WIDTH + 10
STYLE = (
    "text{fill:#555;font-size:11px} path{fill:none;stroke:#ccc} .axis{stroke:#555}"
    " polyline{fill:none;stroke:currentColor;stroke-width:1.8} circle{fill:currentColor}"
    " g[class] text{fill:currentColor} .line0{color:#1668b8} .line1{color:#7db4e6}"
    " .line2{color:#b8541d} .line3{color:#e8a77f}"
)


def first_images(folder: Path, count: int, made: Path) -> Path:
    """A folder with the first so many images to train on, the same test images, and no validation."""
    made.mkdir()
    (made / "images").symlink_to((folder / "images").resolve())
    (made / "test.json").write_bytes((folder / "test.json").read_bytes())
    tree = json.loads((folder / "train.json").read_text())
    tree["images"] = tree["images"][:count]
    kept = {image["id"] for image in tree["images"]}
    tree["annotations"] = [each for each in tree["annotations"] if each["image_id"] in kept]
    (made / "train.json").write_text(json.dumps(tree))
    return made


def train(folder: Path, minutes: float, seed: int, out: Path, rate: float | None = None) -> dict[str, Any]:
    """One run; raises RuntimeError with what it said where it failed."""
    line = [
        sys.executable,
        "-m",
        "train",
        str(folder),
        "--minutes",
        f"{minutes:g}",
        "--seed",
        str(seed),
        "--out",
        str(out),
    ]
    if rate:
        line += ["--set", f"optimiser.learning_rate={rate:.3g}"]
    started = time.monotonic()
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    took = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}: {done.stderr[-2000:]}")
    scores = json.loads((out / "scores.json").read_text())
    lowered = sum("the learning rate is too high" in line for line in done.stderr.splitlines())
    figures = {
        "minutes": minutes,
        "seed": seed,
        "ap": round(scores["ap"], 4),
        "ap50": round(scores["ap50"], 4),
        "late_percent": round(100 * (took / 60 / minutes - 1), 1),
        "rate_lowered": lowered,
    }
    if rate:
        figures["rate"] = float(f"{rate:.3g}")
    print("  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return figures


def draw(path: Path, told: list[Path]) -> None:
    """The medians of runs of whole folders as curves; `told` is what this script printed, its last line JSON."""
    points: dict[str, dict[float, float]] = {}
    for each in told:
        result = json.loads(next(line for line in reversed(each.read_text().splitlines()) if line.startswith("{")))
        for of in result["median"]:
            for name in ("ap50", "ap"):
                points.setdefault(f"{result['folder']} {name.upper()}", {})[of["minutes"]] = of[name]
    drawn = chart({name: sorted(of.items()) for name, of in points.items()}, "minutes")
    names = "".join(
        f'<g class="line{i}"><text x="{LEGEND}" y="{30 + 18 * i}">{name}</text></g>' for i, name in enumerate(points)
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEGEND + 100} {HEIGHT}" font-family="sans-serif">'
    path.write_text(f"{head}<style>{STYLE}</style><g>{drawn[drawn.index('>') + 1 : -len('</svg>')]}</g>{names}</svg>\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5.0, 20.0, 60.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--first", type=int, metavar="N")
    parser.add_argument("--rates", type=int, metavar="N")
    parser.add_argument("--draw", type=Path, nargs="+", metavar="FILE")
    given = parser.parse_args()
    if given.draw:
        draw(given.draw[0], given.draw[1:])
        return
    if given.folder is None:
        parser.error("which folder?")
    folder = given.folder if given.folder.is_dir() else DATA / given.folder
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="train-folder-") as made:
        if given.first:
            folder = first_images(folder, given.first, Path(made) / folder.name)
        runs = []
        for minutes in given.minutes:
            if given.rates:
                exponents = np.random.default_rng(0).uniform(np.log10(LOWEST_RATE), np.log10(HIGHEST_RATE), given.rates)
                for number, exponent in enumerate(exponents):
                    out = Path(made) / f"rate-{minutes:g}-{number}"
                    runs.append(train(folder, minutes, given.seeds[0], out, float(10**exponent)))
                continue
            for seed in given.seeds:
                runs.append(train(folder, minutes, seed, Path(made) / f"run-{minutes:g}-{seed}"))
        by_minutes = [
            {"minutes": minutes, "runs": len(of), **{name: median(run[name] for run in of) for name in ("ap", "ap50")}}
            for minutes in given.minutes
            if (of := [run for run in runs if run["minutes"] == minutes])
        ]
    finish(
        {"benchmark": "train_folder", "folder": folder.name, "first": given.first, "median": by_minutes, "runs": runs}
    )


if __name__ == "__main__":
    main()
