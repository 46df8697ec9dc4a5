"""The recipe of a training on any folder, for who does not want to know how: choices by rules, told with their reasons.

The rules look at the images, at their objects, and at how fast this machine makes a step. The evidence for each is in
docs/training.md. Knows no network from inside.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from models import SPECS, create_model, list_models
from models.centernet import CenterNet
from train import memory
from train.check import folder_splits
from train.coco import CocoData, DataError, read_coco
from train.order import Order
from train.pace import Pace, measure
from train.recipe import (
    AugmentSettings,
    DataSettings,
    LoopSettings,
    ModelSettings,
    OptimiserSettings,
    Recipe,
    ScheduleSettings,
    TargetSettings,
)
from train.run import read_data
from train.split import split_off
from train.start import Tell, start_network
from train.team import Team

Column = NDArray[np.float64]

# Pixels of the input that the middle object of the smallest class should have at its shorter side at least: nine cells.
OBJECT_PIXELS = 36
# The longer side of the input is between these.
SMALLEST_SIDE, LARGEST_SIDE = 320, 640
# Standard deviation of the logarithm of sizes within a class, below which objects are of one size.
ONE_SIZE = 0.27
# Where images know no up, objects lie at all heights (the largest distance from an even distribution), are about as
# wide as high, and there are several in an image.
EVEN_HEIGHTS, ROUND, SEVERAL = 0.1, 1.1, 3.0
BATCH, SMALL_BATCH, FEW_IMAGES = 8, 4, 64
LEARNING_RATE = 5e-4
# Of the steps, over which the running mean of the weights reaches back; and the least and the most it decays by.
MEAN_SHARE, LEAST_DECAY, MOST_DECAY = 0.02, 0.9, 0.999
# Of the minutes, for what cannot be foreseen; and seconds for the report.
RESERVE, REPORT_SECONDS = 0.05, 8.0
# A mirrored image is evaluated alone, which takes so much longer.
ALONE = 3.0
EVALUATIONS = 8
# So many passes over the images, but no fewer steps, are a training; in more time there are more of them, each from the
# start, and the mean of their weights is kept.
ROUND_EPOCHS, ROUND_STEPS = 40, 300
# With fewer passes over the images than this, a smaller input learns more.
ENOUGH_EPOCHS = 10
# Pictures are drawn after epochs that take longer: they take half a second.
PICTURE_SECONDS = 20.0
FEWEST_EPOCHS = 3


@dataclass(frozen=True, slots=True)
class Objects:
    """What the boxes of a data set are like; sides relative to the longer side of the image.

    shorter     (N,) shorter sides
    class_ids   (N,)
    aspects     (N,) logarithm of width by height
    heights     (N,) of the centres, 0 at the top to 1 at the bottom
    sizes       (N,) logarithm of the square root of the area
    """

    shorter: Column
    class_ids: NDArray[np.int64]
    aspects: Column
    heights: Column
    sizes: Column

    @classmethod
    def of(cls, data: CocoData) -> "Objects":
        wholes = np.repeat([(image.width, image.height) for image in data.images], _counts(data), axis=0)
        boxes = np.concatenate([image.boxes_xyxy for image in data.images]).astype(float)
        boxes = boxes.clip(0, np.tile(wholes, 2))
        sides = (boxes[:, 2:] - boxes[:, :2]).clip(min=1e-3)
        longer = wholes.max(1, keepdims=True)
        return cls(
            shorter=(sides / longer).min(1),
            class_ids=np.concatenate([image.class_ids for image in data.images]),
            aspects=np.log(sides[:, 0] / sides[:, 1]),
            heights=(boxes[:, 1] + boxes[:, 3]) / 2 / wholes[:, 1],
            sizes=np.log(np.sqrt(sides.prod(1)) / longer[:, 0]),
        )


def _counts(data: CocoData) -> list[int]:
    return [len(image.class_ids) for image in data.images]


# -- what the data says


def choose(folder: Path, model: str, out: Path, seed: int, tell: Tell) -> tuple[Recipe, CocoData]:
    """All but the length of the training, and the images to train on; `tell` hears each choice with its reason.

    Raises DataError, or OSError where `out` cannot be written.
    """
    if model not in SPECS:
        raise ValueError(f"model '{model}': allowed are {', '.join(list_models())}")
    settings = _splits(folder, out, seed, tell)
    data = read_coco(settings.train_json, settings.train_images)
    objects = Objects.of(data)
    images = len(data.images)
    batch = BATCH if images >= FEW_IMAGES else SMALL_BATCH
    tell(f"batch {batch}: {images} images are {'enough' if batch == BATCH else 'few, and more steps learn more'}")
    tell(
        f"rate {LEARNING_RATE:g} at the most, with weight normalisation and a guard that halves it where it is too high"
    )
    with torch.device("meta"):  # no weights: only what it tells
        network = create_model(model)
    recipe = Recipe(
        data=settings,
        out=str(out),
        model=ModelSettings(
            name=model,
            input_size=_input_size(model, data, objects, tell),
            new_classes="nearest",
            freeze=_freeze(network, tell),
            weight_norm=True,
        ),
        augment=_augment(data, objects, tell),
        targets=_targets(network, data, tell),
        size_loss="giou",
        optimiser=OptimiserSettings(
            kind="adamw", learning_rate=LEARNING_RATE, weight_decay=0.01, clip_norm=10.0, guard=True
        ),
        schedule=ScheduleSettings(kind="one_cycle", epochs=FEWEST_EPOCHS),
        loop=LoopSettings(batch=batch, seed=seed),
    )
    return recipe, data


def _splits(folder: Path, out: Path, seed: int, tell: Tell) -> DataSettings:
    found = {split.name: split for split in folder_splits(folder)}
    if "train" not in found:
        raise DataError(f"{folder}: no train.json there, only {', '.join(found)}.json; give what is to be learnt from")
    images = str(folder / "images")
    paths = {name: str(split.json_path) for name, split in found.items()}
    tell(f"{folder}: {', '.join(f'{name}.json' for name in found)}")
    if "val" not in found:
        parts = split_off(found["train"].json_path, found["train"].image_folder, out / "split", seed)
        if parts:
            paths |= {"train": str(parts[0]), "val": str(parts[1])}
            tell(
                f"no val.json: part of train.json is held back, drawn with seed {seed}, copies on one side and of a "
                f"scene one stretch ({parts[1]})"
            )
        else:
            tell("no val.json, and too few images to hold some back, copies counted once: the last epoch is kept")
    return DataSettings(
        train_json=paths["train"],
        train_images=images,
        val_json=paths.get("val", ""),
        val_images=images if "val" in paths else "",
        test_json=paths.get("test", ""),
        test_images=images if "test" in paths else "",
    )


def _input_size(model: str, data: CocoData, objects: Objects, tell: Tell) -> str:
    """As large as the smallest class needs, in the shape of the images."""
    middles = {
        data.class_names[i]: float(np.median(objects.shorter[objects.class_ids == i]))
        for i in set(objects.class_ids.tolist())
    }
    smallest = min(middles, key=lambda name: middles[name])
    step = SPECS[model].size_multiple
    wanted = step * math.ceil(OBJECT_PIXELS / middles[smallest] / step)
    longer = min(max(wanted, SMALLEST_SIDE), LARGEST_SIDE)
    aspect = float(np.median([image.width / image.height for image in data.images]))
    sides = (longer, longer / aspect) if aspect >= 1 else (longer * aspect, longer)
    size = _whole_size(model, *sides)
    tell(
        f"input {size}: the images' shape, and {middles[smallest] * longer:.0f} pixels for the shorter side of the "
        f"smallest class, {smallest}"
    )
    return size


def _whole_size(model: str, width: float, height: float) -> str:
    """Near it, of sides that the model takes."""
    step = SPECS[model].size_multiple
    return "x".join(str(max(step, round(side / step) * step)) for side in (width, height))


def _freeze(network: CenterNet, tell: Tell) -> tuple[str, ...]:
    tell(
        "the first layers are not trained: they see edges and colours, and a step takes a fifth less time without them"
    )
    return network.first_layers


def _targets(network: CenterNet, data: CocoData, tell: Tell) -> TargetSettings:
    has_distances = any(head.name == "wh" and head.channels == 4 for head in network.head_specs)
    if has_distances:
        tell("an object's sides are learnt in its inner part, for this model tells how far they are from a cell")
    return TargetSettings(max_objects=max(128, max(_counts(data))), size_cells="inner" if has_distances else "centre")


def _augment(data: CocoData, objects: Objects, tell: Tell) -> AugmentSettings:
    spread = _within_classes(objects.sizes, objects.class_ids)
    if spread < ONE_SIZE:
        sized = AugmentSettings(scale_low=0.85, scale_high=1.15, crop=False)
        tell(f"scales 0.85 to 1.15, whole images: objects of a class are of one size (they vary by {spread:.0%})")
    else:
        sized = AugmentSettings()
        tell(f"scales 0.6 to 1.3, with crops: objects of a class are of many sizes (they vary by {spread:.0%})")
    if _know_no_up(data, objects):
        tell("also turned upside down: objects lie at all heights and are as wide as high, so the images know no up")
        return replace(sized, flip_vertical=0.5)
    tell("left and right are exchanged, up and down are not: objects do not lie evenly at all heights")
    return sized


def _within_classes(values: Column, class_ids: NDArray[np.int64]) -> float:
    """Standard deviation around each class's own mean."""
    means = np.bincount(class_ids, values) / np.maximum(np.bincount(class_ids), 1)
    return float(np.sqrt(np.mean((values - means[class_ids]) ** 2)))


def _know_no_up(data: CocoData, objects: Objects) -> bool:
    heights = np.sort(objects.heights)
    from_even = np.abs(heights - np.linspace(0, 1, len(heights))).max()
    is_round = abs(float(np.median(objects.aspects))) <= np.log(ROUND)
    return bool(from_even <= EVEN_HEIGHTS and is_round and np.mean(_counts(data)) >= SEVERAL)


# -- what the minutes allow


def plan(
    recipe: Recipe, with_given: Callable[[Recipe], Recipe], data: CocoData, team: Team, seconds: float, tell: Tell
) -> tuple[Recipe, float]:
    """The recipe with its length, by this machine's pace, and the seconds that are for what follows its last epoch.
    `with_given` puts on top what the user has given, who has the last word.

    Raises ValueError or TrainingError.
    """
    started = time.monotonic()
    _, val, test = read_data(with_given(recipe).data)
    images = len(data.images), len(val.images) if val else 0, len(test.images) if test else 0

    def with_length(recipe: Recipe) -> tuple[Recipe, float]:
        trial = with_given(recipe)
        network = start_network(trial.model, data, lambda text: None)
        if trial.loop.batch == recipe.loop.batch:
            trial = with_given(with_room(recipe, trial, network, data, team, tell))
        pace = measure(trial, network, data, team)
        planned, last_seconds = fitted(trial, pace, images, seconds - (time.monotonic() - started), tell)
        given = with_given(planned)
        if given.schedule.epochs != planned.schedule.epochs:  # whoever says how many means all of them
            given = with_given(replace(planned, schedule=replace(planned.schedule, rounds=1)))
        return given, last_seconds

    planned, last_seconds = with_length(recipe)
    less = smaller(recipe, planned.schedule.epochs)
    if less is None or with_given(less).model.input_size != less.model.input_size:
        return planned, last_seconds
    tell(
        f"input {less.model.input_size} instead: of fewer than {ENOUGH_EPOCHS} passes over the images more is learnt so"
    )
    return with_length(less)


def with_room(recipe: Recipe, trial: Recipe, network: CenterNet, data: CocoData, team: Team, tell: Tell) -> Recipe:
    """The recipe with batches for which there is memory, as many of them a step as make up for it; `trial` is how it
    would be run. Raises TrainingError."""
    needed = memory.need(trial, network, data, team)
    if needed is None:
        return recipe
    room = memory.room_bytes(team.device)
    batch = needed.images(room, recipe.loop.batch)
    if batch == recipe.loop.batch:
        return recipe
    tell(
        f"batch {batch} instead, {recipe.loop.batch // batch} of them a step: an image takes {needed.each / 1e6:.0f} "
        f"MB here, of {room / 1e6:.0f} in all"
    )
    return replace(
        recipe,
        loop=replace(recipe.loop, batch=batch),
        optimiser=replace(recipe.optimiser, accumulate=recipe.loop.batch // batch),
    )


def smaller(recipe: Recipe, epochs: int) -> Recipe | None:
    """The recipe with an input for which about ENOUGH_EPOCHS go into the time that `epochs` take; None where these are
    enough, or the input as small as any."""
    assert recipe.model.input_size
    width, height = recipe.model.input_wh((0, 0))
    longer = max(width, height)
    if epochs >= ENOUGH_EPOCHS or longer <= SMALLEST_SIDE:
        return None
    share = max((epochs / ENOUGH_EPOCHS) ** 0.5, SMALLEST_SIDE / longer)
    size = _whole_size(recipe.model.name, width * share, height * share)
    return replace(recipe, model=replace(recipe.model, input_size=size))


def _rounds_of(rounds: int) -> str:
    return f"{rounds} rounds from the start, of which the mean is kept, each of " if rounds > 1 else ""


def fitted(
    recipe: Recipe, pace: Pace, images: tuple[int, int, int], seconds: float, tell: Tell
) -> tuple[Recipe, float]:
    """The recipe with as many epochs as go into the seconds left, and how many of them are for what follows the last
    epoch; `images` to train on, choose by and report on."""
    train, val, test = images
    steps = Order(train, recipe.loop.batch, 1, recipe.loop.seed).steps_per_epoch
    last = (ALONE + 1) * (test or val or train) * pace.image_seconds + val * pace.image_seconds + REPORT_SECONDS
    left = seconds * (1 - RESERVE) - last - pace.start_seconds - EVALUATIONS * val * pace.image_seconds
    all_epochs = max(FEWEST_EPOCHS, int(left / (steps * pace.step_seconds)))
    rounds = max(1, round(all_epochs / max(ROUND_EPOCHS, ROUND_STEPS / steps)))
    epochs = all_epochs // rounds
    every = epochs * -(-rounds // EVALUATIONS) if rounds > 1 else -(-epochs // EVALUATIONS)
    updates = epochs * -(-steps // recipe.optimiser.accumulate)
    decay = min(max(1 - 1 / (MEAN_SHARE * updates), LEAST_DECAY), MOST_DECAY)
    tell(
        f"{_rounds_of(rounds)}{epochs} epochs of {steps} steps: a step takes {pace.step_seconds:.2f} s here; start, "
        f"evaluations and report leave {max(left, 0) / 60:.1f} minutes"
    )
    recipe = replace(
        recipe,
        optimiser=replace(recipe.optimiser, ema_decay=round(decay, 4)),
        schedule=replace(recipe.schedule, epochs=epochs, rounds=rounds),
        loop=replace(
            recipe.loop, evaluate_every=every, pictures=4 if steps * pace.step_seconds > PICTURE_SECONDS else 0
        ),
    )
    return recipe, last
