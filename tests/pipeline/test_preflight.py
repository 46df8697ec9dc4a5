"""What is wrong with model, weights or classes is told at once: before a process is started, and without torch."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models import SPECS, save_checkpoint
from models.spec import DEFAULT_MODEL
from pipeline.command import preflight
from pipeline.settings import InferSettings, Settings
from tests.kit.harness import HANG_SECONDS, run_here
from tests.kit.places import CLIP, ROOT

SHIPPED = SPECS[DEFAULT_MODEL].weights_file


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current one, with files of weights: some are what they should be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CENTERSTREAM_WEIGHTS", str(tmp_path))
    weights = {"hm.weight": torch.zeros(1)}
    save_checkpoint(weights, "cells.safetensors", replace(SPECS[DEFAULT_MODEL], class_names=("red", "white")))
    save_checkpoint(weights, "dla.safetensors", SPECS["dla_34"])
    torch.save(weights, "other.pth")
    whole = Path(SHIPPED).read_bytes()
    Path("cut.safetensors").write_bytes(whole[:100_000])
    Path("odd.safetensors").write_bytes(whole.replace(b"class_names", b"class_nemas", 1))
    Path("empty.pth").touch()
    os.mkfifo("pipe")
    return tmp_path


COUNTING = "{polygon: [[0, 0], [1, 0], [1, 1]], classes: [CLASS]}"
WRONG = {
    "an unknown model": (["--model", "yolo"], "infer.model: got 'yolo', allowed is dla_34 or hourglass or"),
    "no weights": (["--model", "dla_34"], "infer.weights: dla_34 ships without weights; give a file"),
    "an unknown name of weights": (["--weights", "ctdet"], "infer.weights: ctdet: no such file, nor a name of known"),
    "weights of another model": (["--weights", "ctdet_coco_hg"], "ctdet_coco_hg is for hourglass, and the model is"),
    "known weights not here": (["--model", "hourglass", "--weights", "ctdet_coco_hg"], "is not on this machine: put"),
    "another model's file": (["--weights", "dla.safetensors"], "looks like dla_34, and the model is mobilenetv3"),
    "a folder": (["--weights", "."], "infer.weights: .: a directory; give a file"),
    "a pipe": (["--weights", "pipe"], "infer.weights: pipe: not a regular file; give a file"),
    "an empty file": (["--weights", "empty.pth"], "infer.weights: empty.pth: the file is empty"),
    "a video": (["--weights", CLIP], "no weights file: neither safetensors nor written by torch.save"),
    "a file cut short": (["--weights", "cut.safetensors"], "cut.safetensors: damaged, cut short or not a safetensors"),
    "a wrong description": (["--weights", "odd.safetensors"], "odd.safetensors: its description is not valid"),
    "a name of length": (["--weights", "w" * 5000], "File name too long"),
    "an unknown class": (["--classes", "person,persn"], "postprocess.classes: the model knows no 'persn'; it knows"),
    "a class not in the file": (
        ["--weights", "cells.safetensors", "--classes", "person"],
        "the model knows no 'person'; it knows red, white",
    ),
    "a class that no file has": (
        ["--model", "dla_34", "--weights", "other.pth", "--classes", "persn"],
        "the model knows no 'persn'",
    ),
    "a zone of an unknown class": (
        ["--set", f"sources.{CLIP.stem}.zones.yard={COUNTING.replace('CLASS', 'persn')}"],
        f"sources.{CLIP.stem}.zones.yard.classes: 'persn' is not looked for; what is looked for: person, bicycle",
    ),
    "a zone of a class that is not looked for": (
        ["--classes", "car", "--set", f"sources.{CLIP.stem}.zones.yard={COUNTING.replace('CLASS', 'person')}"],
        f"sources.{CLIP.stem}.zones.yard.classes: 'person' is not looked for; what is looked for: car",
    ),
}

RIGHT = {
    "what ships": [],
    "what ships by its name": ["--weights", "mobilenetv3_coco"],
    "classes of the file": ["--weights", "cells.safetensors", "--classes", "white"],
    "usual classes": ["--model", "dla_34", "--weights", "other.pth", "--classes", "person"],
    "classes without names": ["--model", "dla_34", "--weights", "other.pth", "--classes", "class_1"],
    "a zone of a class": ["--set", f"sources.{CLIP.stem}.zones.yard={COUNTING.replace('CLASS', 'person')}"],
}


@pytest.mark.parametrize(("options", "problem"), WRONG.values(), ids=WRONG)
def test_validate_tells_what_is_wrong_in_one_line(options: list, problem: str, folder) -> None:
    done = run_here(CLIP, *options, "--validate")
    assert done.returncode == 2 and done.stdout == "", done.stdout
    assert problem in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("options", RIGHT.values(), ids=RIGHT)
def test_validate_finds_no_fault_with_what_is_right(options: list, folder) -> None:
    done = run_here(CLIP, *options, "--validate")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("own", "given", "score"),
    [(None, None, 0.3), (0.42, None, 0.42), (0.42, 0.2, 0.2), (0.0, None, 0.0)],
    ids=["nobody says", "the model says", "the user says too", "the model reports all"],
)
def test_objects_are_reported_from_the_score_that_the_model_says_where_the_user_does_not(
    own, given, score, tmp_path
) -> None:
    path = tmp_path / "own.safetensors"
    save_checkpoint({"hm.weight": torch.zeros(1)}, path, replace(SPECS[DEFAULT_MODEL], score_threshold=own))
    asked = Settings(infer=InferSettings(weights=str(path), score_threshold=given))
    for settings in (preflight.check(asked), preflight.with_models_own(asked)):
        assert settings.infer.score() == score


TWO = (CLIP, CLIP, "--name", "door", "--name", "yard")
WRONG_OUTPUTS = {
    "an address for two": (
        [*TWO, "--also", "rtsp://u:s3cret@h/a"],
        "rtsp://***@h/… is for one source; put {source} into",
    ),
    "an address twice": ([CLIP, "--also", "rtsp://h/s3cret", "--also", "rtsp://h/s3cret"], "rtsp://h/… is given twice"),
    "no host": ([CLIP, "--also", "rtsp://u:s3/cret@h/a"], "has a letter in its user or password that must be encoded"),
    "no such port": (
        [CLIP, "--also", "rtsp://h:70000/s3cret"],
        "also has 'rtsp://h:70000/…', which has a port beyond 65535",
    ),
    "an unknown scheme": ([CLIP, "--also", "rtmp://h/s3cret"], "or an address that begins with "),
    "no folder": ([CLIP, "--also", "record:"], "allowed is KIND:PATH"),
    "a folder twice": ([CLIP, "--also", "record:a", "--also", "record:./a/"], "give another folder"),
    "a file for a folder": ([CLIP, "--also", "record:other.pth"], "cannot write into other.pth: it is no folder"),
    "a class of no use": (
        [CLIP, "--classes", "person", "--also", "record:a", "--set", "deliver.record.classes=[dog]"],
        "deliver.record.classes: nobody looks for 'dog', only for person",
    ),
}
RIGHT_OUTPUTS = {
    "an address each": [*TWO, "--also", "rtsp://u:p@h/{source}"],
    "two addresses": [CLIP, "--also", "rtsp://h/a", "--also", "rtsps://h/a"],
    "a folder": [*TWO, "--also", "record:a", "--set", "deliver.record.classes=[person]"],
    "a folder each": [*TWO, "--also", "record:a/{source}"],
}


@pytest.mark.parametrize(("arguments", "problem"), WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)
def test_outputs_that_cannot_be_are_told_of_in_one_line_without_secrets(arguments, problem: str, folder) -> None:
    done = run_here(*arguments, "--validate")
    assert done.returncode in (2, 4) and problem in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "s3" not in done.stderr


@pytest.mark.parametrize("arguments", RIGHT_OUTPUTS.values(), ids=RIGHT_OUTPUTS)
def test_outputs_that_can_be_are_not_called_or_made_yet(arguments, folder) -> None:
    done = run_here(*arguments, "--validate")
    assert done.returncode == 0 and not (folder / "a").exists(), done.stderr


def traced(*arguments: object) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """The command in a process of its own, and which modules it imported."""
    line = [sys.executable, "-X", "importtime", str(ROOT / "run_pipeline.py"), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=HANG_SECONDS)
    lines = done.stderr.splitlines()
    loaded = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    done.stderr = "\n".join(line for line in lines if not line.startswith("import time:"))
    return done, loaded


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        ((CLIP, "--model", "yolo"), 2, "infer.model"),
        ((CLIP, "--weights", "nowhere"), 2, "infer.weights"),
        ((CLIP, "--classes", "persn"), 2, "postprocess.classes"),
        (("nowhere.mp4", "--classes", "persn"), 2, "postprocess.classes"),
        (("nowhere.mp4",), 3, "nowhere.mp4: no such file"),
    ],
)
def test_a_run_tells_it_before_anything_slow_is_started(arguments, code: int, problem: str) -> None:
    done, loaded = traced(*arguments)
    assert done.returncode == code and done.stderr.startswith(f"error: {problem}"), done.stderr
    assert done.stderr.count("\n") == 0
    assert not loaded & {"torch", "numba", "cv2", "pipeline.run.supervisor"}


def test_what_is_right_is_found_so_without_torch() -> None:
    done, loaded = traced(CLIP, "--validate", "--classes", "person")
    assert done.returncode == 0 and "pipeline.command.preflight" in loaded
    assert not loaded & {"torch", "numba", "cv2"}
