"""How fast a training goes on this machine: measured by making a few of its steps, of which nothing stays."""

import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from msgspec.structs import replace

from models.centernet import CenterNet
from train.coco import CocoData
from train.evaluate import evaluate
from train.loop import Trainer
from train.recipe import Recipe
from train.team import Team

# The first steps start loaders, threads and memory; the middle of the others is the pace.
FIRST_STEPS, STEPS = 3, 9
IMAGES = 8


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: of a step with its wait for images, of an evaluated image, and until the first step is made."""

    step_seconds: float
    image_seconds: float
    start_seconds: float


def measure(recipe: Recipe, network: CenterNet, data: CocoData, team: Team) -> Pace:
    """`network` is of no use afterwards. Raises TrainingError."""
    epochs = 1 + (FIRST_STEPS + STEPS) * recipe.loop.batch // len(data.images)
    trainer = Trainer(replace(recipe, schedule=replace(recipe.schedule, epochs=epochs)), network, data, team)
    started = time.monotonic()
    ends = [started]
    steps = trainer.steps_made(lambda text: None)
    for _ in range(min(FIRST_STEPS + STEPS, trainer.steps)):
        next(steps)
        ends.append(time.monotonic())
    steps.close()  # and the processes that load
    seconds = [after - before for before, after in pairwise(ends)]
    return Pace(median(seconds[FIRST_STEPS:] or seconds), _per_image(network, data, team), ends[1] - started)


def _per_image(network: CenterNet, data: CocoData, team: Team) -> float:
    some = CocoData(data.class_names, data.category_ids, data.images[:IMAGES])
    for _ in range(2):  # the first makes what the second has
        started = time.monotonic()
        evaluate(network, some, device=team.device, batch=IMAGES)
    return (time.monotonic() - started) / len(some.images)
