"""The command with the networks of the paper, other sizes and other engines, from weights to delivered frames."""

import pytest
import torch

from models import create_model
from pipeline.command.cli import parse
from pipeline.errors import UsageError
from tests.kit.drawn_weights import drawn_state_dict
from tests.kit.harness import json_lines, run_here
from tests.kit.places import CLIP


def official_checkpoint(arch: str, path) -> None:
    """Drawn weights in the layout of the public checkpoints."""
    weights = drawn_state_dict(create_model(arch), arch)
    weights = {f"module.{key}": value for key, value in weights.items()}
    torch.save({"epoch": 140, "state_dict": weights, "optimizer": {"state": {}, "param_groups": []}}, path)


@pytest.mark.parametrize(
    "arch", ["resdcn_18", "res_18", "dla_34", pytest.param("hourglass", marks=pytest.mark.thorough)]
)
def test_a_public_checkpoint_runs_end_to_end(arch, tmp_path) -> None:
    official_checkpoint(arch, tmp_path / "weights.pth")
    options = ("--model", arch, "--weights", tmp_path / "weights.pth", "--input", "128x128", "--engine", "eager")
    done = run_here(CLIP, *options, "--max-frames", 3, "--jsonl", tmp_path / "o.jsonl", "--out", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    assert f"{arch} (weights.pth) 128x128 on cpu, eager" in done.stderr
    assert "3 captured = 3 delivered + 0 without result" in done.stderr
    lines = json_lines(tmp_path / "o.jsonl")
    assert len(lines) == 3 and {line["status"] for line in lines} == {"ok"}


def people(score: float, *options, folder) -> list[list[list[float]]]:
    """The boxes in each of the first frames."""
    options = ("--max-frames", 8, "--classes", "person", "--score", score, "--engine", "eager", *options)
    done = run_here(CLIP, *options, "--jsonl", folder / "o.jsonl")
    assert done.returncode == 0, done.stderr
    return [[thing["box_xyxy"] for thing in line["objects"]] for line in json_lines(folder / "o.jsonl")]


def iou(a, b) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(0, width) * max(0, height)
    return common / (sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - common)


@pytest.mark.parametrize(
    "size",
    [pytest.param("480x480", marks=pytest.mark.thorough, id="whole strides"), pytest.param("500x470", id="padded")],
)
def test_boxes_find_their_place_from_an_input_of_another_size(size, tmp_path) -> None:
    sure = people(0.6, folder=tmp_path)
    others = people(0.3, "--input", size, folder=tmp_path)
    found = [max((iou(a, b) for b in seen), default=0) for boxes, seen in zip(sure, others, strict=True) for a in boxes]
    assert len(found) > 15
    assert sum(value > 0.75 for value in found) > 0.9 * len(found), sorted(found)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--input", ""), "infer.input_size"),
        (("--input", "512"), "WIDTHxHEIGHT"),
        (("--input", "0x512"), "WIDTHxHEIGHT"),
        (("--input", "4096x512"), "at most 2048"),
        (("--engine", "tensorrt"), "infer.engine"),
    ],
)
def test_what_no_network_could_take_is_refused_before_anything_starts(options, problem) -> None:
    with pytest.raises(UsageError, match=problem):
        parse([str(CLIP), *options])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--engine", "cuda_graphs"), "runs on cuda, not on cpu"),
        (("--model", "yolo"), "infer.model"),
        (("--model", "dla_34"), "infer.weights"),
    ],
)
def test_a_network_that_cannot_be_had_is_one_line(options, problem) -> None:
    done = run_here(CLIP, *options, "--device", "cpu", "--max-frames", 1)
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 2 and len(errors) == 1 and problem in errors[0], done.stderr
    assert "Traceback" not in done.stderr
