"""`python -m train RECIPE`: see --help. Bad input is one line and exit code 2; a training that cannot go on, 4."""

import argparse
import signal
import sys
from pathlib import Path

from configs import startup
from configs.reader import parse_assignment, read_settings
from models.command import exit_code
from models.memory import keep_freed_memory
from train.loop import TrainingError
from train.recipe import Recipe
from train.run import Run
from train.team import join

FAILED = 4


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train a CenterNet on images with COCO annotations.",
        epilog="More GPUs or machines: torchrun --nproc-per-node N -m train RECIPE. Ctrl-C keeps the state and ends.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, for example configs/train_bccd.yaml")
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
    recipe = read_settings(Recipe, given.recipe, [parse_assignment(text) for text in given.set])
    resume = None if given.resume is None else Path(given.resume or Path(recipe.out) / "state.safetensors")
    try:
        return train(recipe, resume)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED


def train(recipe: Recipe, resume: Path | None) -> int:
    stops: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stops.append(number))
    keep_freed_memory()
    team = join(recipe.loop.device)
    try:
        return Run(recipe, team, resume).go(lambda: bool(stops))
    finally:
        team.leave()


if __name__ == "__main__":
    startup.run(main)
