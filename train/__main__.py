"""`python -m train DATA` or RECIPE: see --help. Bad input is one line and exit code 2; what cannot go on, 4."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from configs import startup
from configs.reader import assigned, parse_assignment, read_settings
from models import DEFAULT_MODEL, list_models
from models.command import exit_code
from models.memory import keep_freed_memory
from train.automatic import choose, plan
from train.loop import TrainingError
from train.recipe import Recipe
from train.run import Run, check_is_free
from train.team import Team, join

FAILED = 4
MINUTES, LEAST_MINUTES, MOST_MINUTES = 20.0, 1.0, 100_000.0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train a CenterNet on images with COCO annotations.",
        epilog="More GPUs or machines: torchrun --nproc-per-node N -m train RECIPE. Ctrl-C keeps the state and ends.",
    )
    parser.add_argument(
        "what",
        metavar="DATA",
        help="a folder with train.json, images/ and, if there are, val.json and test.json: all else is chosen; or a "
        "recipe, a YAML file as configs/train_bccd.yaml, where nothing is",
    )
    of_folder = parser.add_argument_group("of a folder")
    of_folder.add_argument("--minutes", type=float, metavar="N", help=f"until all is done ({MINUTES:g})")
    of_folder.add_argument("--model", help=f"{', '.join(list_models())} ({DEFAULT_MODEL})")
    of_folder.add_argument("--seed", type=int, metavar="N", help="of all that is drawn (0)")
    of_folder.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for all that it leaves (runs/ and the name of DATA)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="set any key of the recipe")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="STATE", help="go on with the training in out, or with this state file"
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    return exit_code(lambda: run(given))


def run(given: argparse.Namespace) -> int:
    """Raises ValueError or OSError with one line."""
    assignments = [parse_assignment(text) for text in given.set]
    try:
        if Path(given.what).is_dir():
            return train_folder(given, assignments)
        for name in ("minutes", "model", "seed", "out"):
            if getattr(given, name) is not None:
                raise ValueError(f"--{name}: is for a folder of data; {given.what} is a recipe, which says that itself")
        recipe = read_settings(Recipe, given.what, assignments)
        resume = None if given.resume is None else Path(given.resume or Path(recipe.out) / "state.safetensors")
        return train(recipe.loop.device, lambda team: Run(recipe, team, resume))
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def train_folder(given: argparse.Namespace, assignments: list[tuple[str, Any]]) -> int:
    """All that is not given is chosen. Raises ValueError or OSError with one line."""
    started, folder = time.monotonic(), Path(given.what)
    minutes = MINUTES if given.minutes is None else given.minutes
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise ValueError(f"--minutes {minutes:g}: give {LEAST_MINUTES:g} to {MOST_MINUTES:g}")
    if given.resume is not None:
        raise ValueError("--resume: the recipe that was chosen goes on: python -m train RUN/recipe.yaml --resume")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{folder}: several processes need a recipe; start one alone, it writes the recipe it chose")
    tell = partial(print, file=sys.stderr, flush=True)
    out = given.out or _free_folder(Path("runs") / folder.resolve().name)
    check_is_free(out)  # before what is held back is drawn anew there
    recipe, data = choose(folder, given.model or DEFAULT_MODEL, out, given.seed or 0, tell)

    def with_given(recipe: Recipe) -> Recipe:
        return assigned(Recipe, to_builtins(recipe), assignments)

    def make_run(team: Team) -> Run:
        until = started + 60 * minutes
        planned, last_seconds = plan(recipe, with_given, data, team, until - time.monotonic(), tell)
        if given.set:
            tell(f"as given, whatever is said above: {', '.join(given.set)}")
        return Run(planned, team, None, until - last_seconds)

    return train(with_given(recipe).loop.device, make_run)


def _free_folder(wanted: Path) -> Path:
    """Where no training is: the folder, or the first with a number behind its name."""
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in count(2))
    return next(path for path in chain([wanted], numbered) if not path.exists())


def train(device: str, make_run: Callable[[Team], Run]) -> int:
    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stops.append(number))
    keep_freed_memory()
    team = join(device)
    try:
        return make_run(team).go(lambda: bool(stops))
    finally:
        team.leave()


if __name__ == "__main__":
    startup.run(main)
