"""What is chosen for a folder: what is held back, by what rule, and how long it may take."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from configs.reader import read_settings
from models import SPECS, load_model
from models.backbones.mobilenetv3 import MobileCenterNet
from tests.kit.places import ROOT
from train.__main__ import main
from train.automatic import FEWEST_EPOCHS, ROUND_EPOCHS, ROUND_STEPS, choose, fitted, smaller
from train.check import DataError
from train.coco import read_coco
from train.pace import Pace
from train.recipe import DataSettings, ModelSettings, Recipe, ScheduleSettings
from train.split import ENOUGH, split_off

pytestmark = pytest.mark.usefixtures("one_thread")

MINI = ROOT / "tests" / "data" / "bccd_mini"


def folder_of(
    folder: Path,
    images: int,
    boxes=lambda place: [[100, 80, 200, 150]],
    size=(640, 480),
    copies: int = 1,
    files: bool = True,
) -> Path:
    """A data set of one class; `boxes(place)` are those of an image, xywh; each picture is there so many times."""
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for place in range(images):
        name = f"{place:03}.png"
        if files:
            pixels = np.full((16, 16, 3), place // copies, np.uint8)
            cv2.imwrite(str(folder / "images" / name), pixels)
        else:
            (folder / "images" / name).touch()
        entries.append({"id": place, "file_name": name, "width": size[0], "height": size[1]})
        annotations += [{"image_id": place, "category_id": 1, "bbox": box} for box in boxes(place)]
    tree = {"images": entries, "categories": [{"id": 1, "name": "gear"}], "annotations": annotations}
    (folder / "train.json").write_text(json.dumps(tree))
    return folder


# -- what is held back


def test_few_images_are_all_learnt_from(tmp_path) -> None:
    folder = folder_of(tmp_path, ENOUGH - 1)
    assert split_off(folder / "train.json", folder / "images", tmp_path / "split", 0) is None
    assert not (tmp_path / "split").exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_held_back_is_drawn_by_the_seed_and_copies_stay_together(tmp_path, seed) -> None:
    folder = folder_of(tmp_path, 90, copies=3)

    def parts(name: str, seed: int) -> tuple[set[int], set[int]]:
        paths = split_off(folder / "train.json", folder / "images", tmp_path / name, seed)
        assert paths
        train, val = (read_coco(path, folder / "images") for path in paths)
        return {image.image_id for image in train.images}, {image.image_id for image in val.images}

    train, val = parts("a", seed)
    assert train | val == set(range(90)) and not train & val
    assert 12 <= len(val) <= 14
    assert not {place // 3 for place in train} & {place // 3 for place in val}
    assert parts("b", seed) == (train, val)
    assert parts("c", seed + 1) != (train, val)


def test_copies_of_one_image_are_all_learnt_from(tmp_path) -> None:
    folder = folder_of(tmp_path, 90, copies=90)
    assert split_off(folder / "train.json", folder / "images", tmp_path / "split", 0) is None


def scenes_of(folder: Path, lengths: list[int]) -> Path:
    """Pictures of a camera that stands in one place after the other, and of what moves there; unpadded numbers, so that
    their natural order is not that of their letters."""
    (folder / "images").mkdir(parents=True)
    random, names = np.random.default_rng(5), []
    for length in lengths:
        scene = cv2.resize(random.integers(0, 255, (9, 12), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
        for step in range(length):
            picture = scene.copy()
            picture[100:140, 3 * step :][:, :20] = 255
            names.append(f"frame{len(names)}.jpg")
            cv2.imwrite(str(folder / "images" / names[-1]), picture)
    entries = [{"id": n, "file_name": name, "width": 320, "height": 240} for n, name in enumerate(names)]
    random.shuffle(entries)
    boxes = [{"image_id": n, "category_id": 1, "bbox": [10, 20, 30, 40]} for n in range(len(names))]
    tree = {"images": entries, "categories": [{"id": 1, "name": "gear"}], "annotations": boxes}
    (folder / "train.json").write_text(json.dumps(tree))
    return folder


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("lengths", "most_cuts"),
    [([100], 2), ([50, 50], 2), ([4] * 25, 2), ([1] * 60 + [40], 2)],
    ids=["one scene", "two", "many short ones", "photographs and a scene"],
)
def test_of_a_scene_one_stretch_is_held_back(tmp_path, lengths, most_cuts, seed) -> None:
    """So that what is held back has but a few neighbours that are learnt from."""
    folder = scenes_of(tmp_path, lengths)
    paths = split_off(folder / "train.json", folder / "images", tmp_path / "split", seed)
    assert paths
    val = {image.image_id for image in read_coco(paths[1], folder / "images").images}
    assert len(val) == 15
    scene_of = np.repeat(np.arange(len(lengths)), lengths)
    cuts = [n for n in range(1, 100) if scene_of[n] == scene_of[n - 1] and (n in val) != (n - 1 in val)]
    assert len(cuts) <= most_cuts


def test_boxes_stay_with_their_images(tmp_path) -> None:
    folder = folder_of(tmp_path, 70, boxes=lambda place: [[place, 10, 20, 30]] * (place % 3))
    paths = split_off(folder / "train.json", folder / "images", tmp_path / "split", 0)
    assert paths
    for path in paths:
        for image in read_coco(path, folder / "images").images:
            assert image.boxes_xyxy[:, 0].tolist() == [image.image_id] * (image.image_id % 3)


# -- by what rule


def chosen(folder: Path, out: Path) -> tuple[Recipe, str]:
    told: list[str] = []
    recipe, _ = choose(folder, "mobilenetv3", out, 0, told.append)
    return recipe, "\n".join(told)


def large(place: int) -> list[list[float]]:
    return [[100, 40, 300 + 7 * (place % 20), 380]]


def cells(place: int) -> list[list[float]]:
    """Of one size, everywhere."""
    random = np.random.default_rng(place)
    return [[*random.uniform((0, 0), (600, 440)), 38, 40] for _ in range(12)]


def cars(place: int) -> list[list[float]]:
    """Of all sizes, low in the picture."""
    random = np.random.default_rng(place)
    return [[random.uniform(0, 300), random.uniform(240, 330), side, side / 2] for side in random.uniform(20, 280, 6)]


@pytest.mark.parametrize(
    ("boxes", "size", "input_size", "is_of_one_size", "knows_up"),
    [
        (large, (640, 480), "320x256", True, True),
        (large, (480, 640), "256x320", True, True),
        (cells, (640, 480), "608x448", True, False),
        (cars, (1920, 1080), "640x352", False, True),
    ],
    ids=["large", "large and upright", "cells", "cars"],
)
def test_size_and_augmentation_follow_from_the_objects(
    tmp_path, boxes, size, input_size, is_of_one_size, knows_up
) -> None:
    folder = folder_of(tmp_path / "data", 80, boxes, size, files=False)
    shutil.copy(folder / "train.json", folder / "val.json")
    recipe, told = chosen(folder, tmp_path / "run")
    assert recipe.model.input_size == input_size, told
    assert (recipe.augment.scale_low > 0.8) == is_of_one_size, told
    assert (recipe.augment.flip_vertical == 0.0) == knows_up, told
    assert recipe.size_loss == "giou" and recipe.model.weight_norm and recipe.optimiser.guard
    assert recipe.model.freeze == MobileCenterNet.first_layers


def test_the_input_has_sides_that_the_model_takes(tmp_path) -> None:
    folder = folder_of(tmp_path / "data", 20)
    for model, spec in SPECS.items():
        chosen_for, _ = choose(folder, model, tmp_path / "run", 0, lambda text: None)
        assert all(side % spec.size_multiple == 0 for side in chosen_for.model.input_wh((1, 1))), model


def test_sides_are_learnt_in_the_inner_part_where_the_model_tells_distances(tmp_path) -> None:
    folder = folder_of(tmp_path / "data", 20)
    cells = {model: choose(folder, model, tmp_path / "run", 0, lambda text: None)[0].targets for model in SPECS}
    assert {model for model, targets in cells.items() if targets.size_cells == "inner"} == {"mobilenetv3"}


def test_what_is_chosen_is_told_with_its_reason(tmp_path) -> None:
    told = chosen(folder_of(tmp_path / "data", 70), tmp_path / "run")[1]
    for words in (
        "no val.json: part of train.json is held back, drawn with seed 0",
        "input 320x256: the images' shape",
    ):
        assert words in told, told


def test_a_folder_without_images_to_learn_from_is_refused(tmp_path) -> None:
    folder = folder_of(tmp_path / "data", 3)
    (folder / "train.json").rename(folder / "test.json")
    with pytest.raises(DataError, match=r"no train.json there, only test.json"):
        chosen(folder, tmp_path / "run")


# -- how long


def recipe() -> Recipe:
    return Recipe(DataSettings("train.json", "images"), schedule=ScheduleSettings(kind="one_cycle", epochs=1))


PACES = st.builds(Pace, st.floats(0.05, 10.0), st.floats(0.01, 1.0), st.floats(0.5, 20.0))


@given(PACES, st.integers(1, 5000), st.integers(0, 500), st.integers(0, 500), st.floats(60, 36_000))
def test_what_is_planned_fits_into_the_time(pace, train, val, test, seconds) -> None:
    planned, last = fitted(recipe(), pace, (train, val, test), seconds, lambda text: None)
    steps = max(1, train // min(planned.loop.batch, train))
    evaluations = -(-planned.schedule.all_epochs // planned.loop.evaluate_every)
    needed = pace.start_seconds + planned.schedule.all_epochs * steps * pace.step_seconds
    needed += evaluations * val * pace.image_seconds + last
    assert planned.schedule.all_epochs == FEWEST_EPOCHS or needed <= seconds * 1.1
    assert 0.9 <= planned.optimiser.ema_decay < 1


@given(PACES, st.integers(8, 5000), st.floats(60, 36_000))
def test_a_round_is_neither_short_nor_long_and_is_looked_at_when_it_is_over(pace, train, seconds) -> None:
    planned, _ = fitted(recipe(), pace, (train, 20, 20), seconds, lambda text: None)
    schedule, steps = planned.schedule, train // planned.loop.batch if train > planned.loop.batch else 1
    usual = max(ROUND_EPOCHS, ROUND_STEPS / steps)
    assert schedule.epochs <= 1.5 * usual
    if schedule.rounds > 1:
        assert schedule.epochs > 0.7 * usual and planned.loop.evaluate_every % schedule.epochs == 0


def test_more_time_is_more_epochs() -> None:
    epochs = [
        fitted(recipe(), Pace(1.0, 0.1, 5.0), (100, 20, 20), 60.0 * minutes, lambda text: None)[0].schedule.all_epochs
        for minutes in (5, 20, 60)
    ]
    assert epochs[0] >= FEWEST_EPOCHS and 3 < epochs[1] / epochs[0] < 6 and 2.5 < epochs[2] / epochs[1] < 3.5


@pytest.mark.parametrize(
    ("size", "epochs", "less"),
    [
        ("512x384", 10, None),
        ("512x384", 9, "480x352"),
        ("512x384", 5, "352x256"),
        ("512x384", 1, "320x256"),
        ("384x512", 1, "256x320"),
        ("320x256", 1, None),
    ],
)
def test_with_few_passes_the_input_is_smaller(size, epochs, less) -> None:
    planned = smaller(replace(recipe(), model=ModelSettings(input_size=size)), epochs)
    assert (planned and planned.model.input_size) == less


# -- as its user runs it


@pytest.mark.thorough
def test_one_command_trains_on_a_folder_and_leaves_a_recipe_that_does_it_again(tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    data = Path(shutil.copytree(MINI, tmp_path / "cells"))
    own = [
        word for text in ("model.input_size=128x96", "loop.loaders=0", "schedule.epochs=40") for word in ("--set", text)
    ]
    assert main([str(data), "--minutes", "20", *own]) == 0  # of which it takes one: 40 epochs, however fast they are
    told = capfd.readouterr().err
    assert "too few images to hold some back" in told and "epochs of 2 steps" in told, told
    assert f"as given, whatever is said above: {', '.join(own[1::2])}" in told, told
    assert "./run_pipeline.py SOURCE --weights runs/cells/best.safetensors" in told, told
    out = tmp_path / "runs" / "cells"
    written = read_settings(Recipe, str(out / "recipe.yaml"))
    assert (written.model.input_size, written.schedule.epochs) == ("128x96", 40)
    assert load_model("mobilenetv3", out / "best.safetensors").spec.class_names == ("RBC", "WBC", "Platelets")
    again = [str(out / "recipe.yaml"), "--set", f"out={tmp_path / 'again'}", "--set", "schedule.epochs=3"]
    assert main(again) == 0
    long, short = (json.loads((tmp_path / run / "scores.json").read_text()) for run in ("runs/cells", "again"))
    assert long["ap50"] > 2 * short["ap50"], (long, short)  # few of it either way: platelets have three pixels here


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--minutes", "0"], "--minutes 0: give 1 to"),
        (["--minutes", "nan"], "--minutes nan: give 1 to"),
        (["--model", "yolo"], "model 'yolo': allowed are"),
        (["--resume"], "python -m train RUN/recipe.yaml --resume"),
        (["--set", "optimizer.kind=adam"], "optimiser"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_with_a_folders_command_is_one_line(tmp_path, capfd, arguments, words) -> None:
    assert main([str(MINI), "--out", str(tmp_path / "run"), *arguments]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0], errors


def test_a_folder_that_holds_a_training_keeps_what_was_held_back_for_it(tmp_path, capfd) -> None:
    data, out = folder_of(tmp_path / "data", 70), tmp_path / "run"
    split_off(data / "train.json", data / "images", out / "split", 0)
    (out / "state.safetensors").touch()
    before = (out / "split" / "val.json").read_bytes()
    assert main([str(data), "--out", str(out), "--seed", "1"]) == 2
    assert "holds a training already" in capfd.readouterr().err
    assert (out / "split" / "val.json").read_bytes() == before


def test_a_recipe_says_itself_what_a_folder_is_told(tmp_path, capfd) -> None:
    assert main([str(ROOT / "configs" / "train_smoke.yaml"), "--minutes", "5"]) == 2
    assert "--minutes: is for a folder of data" in capfd.readouterr().err
