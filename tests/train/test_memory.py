"""A batch that there is memory for: what a step takes is measured, and fewer images are taken where it is too much."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.reader import read_settings
from tests.kit.places import ROOT
from train import memory
from train.__main__ import main
from train.memory import Need
from train.recipe import Recipe

MINI = ROOT / "tests" / "data" / "bccd_mini"


@pytest.mark.parametrize(
    ("room", "most", "images"),
    [(0, 1, 1), (0, 8, 1), (249, 8, 1), (250, 8, 2), (499, 8, 2), (500, 8, 4), (999, 8, 4), (1000, 8, 8), (9999, 4, 4)],
)
def test_a_batch_is_halved_until_it_fits_into_four_fifths_of_the_room(room, most, images) -> None:
    assert Need(first=100, each=100).images(room, most) == images


MEASURE = """
import json
from configs.reader import read_settings
from models.memory import keep_freed_memory
from train import memory
from train.recipe import Recipe
from train.run import read_data
from train.start import start_network
from train.team import join

keep_freed_memory()
recipe = read_settings(Recipe, "configs/train_smoke.yaml", [("model.input_size", "320x256")])
data, team = read_data(recipe.data)[0], join("cpu")
network = start_network(recipe.model, data, lambda text: None)
needed = memory.need(recipe, network, data, team)
print(json.dumps([needed.first, needed.each, memory._step_bytes(recipe, network, data, team, 8)]))
"""


@pytest.mark.skipif(not memory.RESET_PEAK.exists(), reason="peaks are reset by Linux's clear_refs")
def test_two_steps_tell_what_eight_images_take() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr
    first, each, eight = json.loads(done.stdout)
    assert 10e6 < each < 400e6 and first < eight
    assert 0.7 < (first + 7 * each) / eight < 1.3, (first, each, eight)


@pytest.fixture
def narrow(monkeypatch, tmp_path):
    """A machine with room for two images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "need", lambda *what: Need(100, 100))
    monkeypatch.setattr(memory, "room_bytes", lambda device: 300)
    shutil.copytree(MINI, tmp_path / "cells")


def trained(*given: str) -> Recipe:
    own = ("model.input_size=128x96", "loop.loaders=0", "schedule.epochs=1", *given)
    assert main(["cells", *(word for text in own for word in ("--set", text))]) == 0
    return read_settings(Recipe, str(Path("runs") / "cells" / "recipe.yaml"))


@pytest.mark.usefixtures("narrow")
def test_where_memory_is_short_a_step_is_made_of_smaller_batches(capfd) -> None:
    recipe = trained()
    assert (recipe.loop.batch, recipe.optimiser.accumulate) == (2, 2)
    assert "batch 2 instead, 2 of them a step" in capfd.readouterr().err


@pytest.mark.usefixtures("narrow")
def test_a_batch_that_was_given_is_kept(capfd) -> None:
    recipe = trained("loop.batch=8")
    assert (recipe.loop.batch, recipe.optimiser.accumulate) == (8, 1)
    assert "instead" not in capfd.readouterr().err
