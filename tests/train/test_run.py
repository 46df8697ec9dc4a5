"""Training as its user runs it: it learns, it goes on where it stopped, it says what is wrong, and nothing is lost."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from configs.reader import parse_assignment, read_settings
from models import load_model, read_spec
from tests.kit.harness import HANG_SECONDS, children, finish, run, wait_until
from tests.kit.places import ROOT
from train.__main__ import main
from train.recipe import Recipe
from train.run import Run
from train.team import join

pytestmark = pytest.mark.usefixtures("one_thread")

MINI = ROOT / "tests" / "data" / "bccd_mini"
RECIPE = ROOT / "configs" / "train_smoke.yaml"
TINY = ("model.input_size=64x64", "loop.pictures=0", "schedule.kind=step", "schedule.drops=[]", "loop.loaders=0")


def command(out: Path, *settings: str, arguments: tuple[object, ...] = ()) -> list[str]:
    sets = [word for setting in (f"out={out}", *settings) for word in ("--set", setting)]
    return [sys.executable, "-m", "train", str(RECIPE), *sets, *map(str, arguments)]


def train(out: Path, *settings: str, arguments: tuple[object, ...] = (), before: tuple[str, ...] = ()):
    """The command to its end; its data are those of the smoke recipe."""
    line = [*before, *command(out, *settings, arguments=arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS)


def train_here(capfd, out: Path, *settings: str, arguments: tuple[object, ...] = ()) -> SimpleNamespace:
    """The same in this process, for what ends early."""
    code = main(command(out, *settings, arguments=arguments)[3:])
    return SimpleNamespace(returncode=code, stderr=capfd.readouterr().err)


def start(out: Path, *settings: str) -> subprocess.Popen[str]:
    line = command(out, *settings)
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_one_line(done, code: int, *words: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == code and len(errors) == 1, done.stderr
    assert all(word in errors[0] for word in words), errors[0]
    assert "Traceback" not in done.stderr


def same_bytes(a: Path, b: Path) -> bool:
    return a.read_bytes() == b.read_bytes()


@pytest.mark.thorough
def test_eight_images_are_learnt_by_heart_and_the_result_runs_in_the_pipeline(tmp_path) -> None:
    out = tmp_path / "run"
    done = train(out)
    assert done.returncode == 0, done.stderr
    scores = json.loads((out / "scores.json").read_text())
    assert scores["ap50"] > 0.95 and scores["with_flip"]["ap50"] > 0.9, done.stderr
    assert scores["intervals"]["ap50"][0] <= scores["ap50"] <= scores["intervals"]["ap50"][1]
    assert {
        "recipe.yaml",
        "metrics.csv",
        "best.safetensors",
        "last.safetensors",
        "state.safetensors",
        "report.html",
    } <= {path.name for path in out.iterdir()}
    assert 0.0 < (read_spec(out / "best.safetensors").score_threshold or 0.0) < 1.0
    assert float(rows(out)[-1]["loss"]) < 0.2 * float(rows(out)[0]["loss"])
    assert list((out / "pictures").iterdir())
    ran = run(
        MINI / "images", "--weights", out / "best.safetensors", "--engine", "eager", "--jsonl", tmp_path / "o.jsonl"
    )
    assert ran.returncode == 0, ran.stderr
    found = [len(json.loads(line)["objects"]) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert len(found) == 8 and min(found) > 3


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("more", "rounds"),
    [((), 1), (("model.weight_norm=true", "optimiser.guard=true"), 1), (("model.weight_norm=true",), 3)],
    ids=["plain", "as on folders", "in rounds"],
)
def test_a_training_that_was_stopped_goes_on_bit_for_bit(tmp_path, monkeypatch, more, rounds) -> None:
    if not more:
        monkeypatch.delenv("OMP_NUM_THREADS")  # and on all threads there are
    settings = (
        *TINY,
        *more,
        "loop.loaders=1",
        "schedule.epochs=10",
        f"schedule.rounds={rounds}",
        "optimiser.ema_decay=0.9",
        "loop.evaluate_every=10",
        "augment.flip=0.5",
    )
    whole, parts, before = tmp_path / "whole", tmp_path / "parts", 1 if rounds == 1 else 11  # in the second round
    assert train(whole, *settings).returncode == 0
    process = start(parts, *settings)
    wait_until(lambda: process.poll() is not None or ((parts / "metrics.csv").exists() and len(rows(parts)) > before))
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code == 130 and "go on with --resume" in errors, errors
    resumed = train(parts, *settings, arguments=("--resume",))
    assert resumed.returncode == 0, resumed.stderr
    assert same_bytes(whole / "last.safetensors", parts / "last.safetensors")
    whole_state, parts_state = load_file(whole / "state.safetensors"), load_file(parts / "state.safetensors")
    assert all(torch.equal(value, parts_state[key]) for key, value in whole_state.items())
    assert [row["epoch"] for row in rows(parts)] == [str(epoch) for epoch in range(1, 10 * rounds + 1)]


def test_of_rounds_the_mean_of_their_weights_is_kept(tmp_path, capfd) -> None:
    settings = (
        *TINY,
        "schedule.epochs=2",
        "loop.evaluate_every=2",
        "model.weight_norm=true",
        "schedule.kind=one_cycle",
    )
    one, two = tmp_path / "one", tmp_path / "two"
    assert train_here(capfd, one, *settings).returncode == 0
    done = train_here(capfd, two, *settings, "schedule.rounds=2")
    assert done.returncode == 0 and "round 2 of 2 is over; kept is the mean of their weights" in done.stderr
    assert [row["epoch"] for row in rows(two)] == ["1", "2", "3", "4"]
    assert [rows(two)[at]["learning_rate"] for at in (0, 1)] == [rows(two)[at]["learning_rate"] for at in (2, 3)]
    first, mean, state = (
        load_file(path) for path in (one / "last.safetensors", two / "last.safetensors", two / "state.safetensors")
    )
    bias = "heads.hm.pointwise.bias"
    second = state[f"network/{bias}"]
    assert not torch.equal(first[bias], second)
    torch.testing.assert_close(mean[bias], (first[bias] + second) / 2)
    assert rows(one)[0]["loss"] == rows(two)[0]["loss"] != rows(two)[2]["loss"]  # another order of the images
    assert float(rows(two)[2]["loss"]) == pytest.approx(float(rows(one)[0]["loss"]), rel=0.3)  # from the start again


@pytest.mark.thorough
def test_two_processes_make_the_steps_of_one_with_twice_the_batch(tmp_path) -> None:
    # Adam's first steps follow the sign of a gradient, however small: a lower rate keeps rounding from becoming a loss.
    settings = (
        *TINY,
        "schedule.epochs=4",
        "loop.evaluate_every=4",
        "optimiser.learning_rate=1.0e-5",
        "augment.flip=0.5",
    )
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(one, *settings, "loop.batch=4").returncode == 0
    line = command(two, *settings, "loop.batch=2")[1:]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *line]
    done = subprocess.run(torchrun, cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    for alone, together in zip(rows(one), rows(two), strict=True):
        for name in ("loss", "hm", "wh"):
            assert float(together[name]) == pytest.approx(float(alone[name]), rel=1e-4), name


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A training of one epoch."""
    out = tmp_path_factory.mktemp("begun") / "run"
    done = train(out, *TINY, "schedule.epochs=1")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def begun_copy(begun, tmp_path):
    return Path(shutil.copytree(begun, tmp_path / "run"))


def test_a_folder_that_holds_a_training_is_not_overwritten(begun, capfd) -> None:
    before = (begun / "state.safetensors").read_bytes()
    assert_one_line(train_here(capfd, begun, *TINY), 2, "holds a training already", "--resume")
    assert (begun / "state.safetensors").read_bytes() == before


def test_a_full_disk_leaves_the_last_good_checkpoint(begun, begun_copy) -> None:
    limit = ("bash", "-c", 'ulimit -f 1000; exec "$@"', "train")
    settings = (*TINY, "schedule.epochs=2")
    done = train(begun_copy, *settings, arguments=("--resume",), before=limit)
    assert_one_line(done, 4, "cannot be written", "what was kept before is still there")
    for name in ("last.safetensors", "best.safetensors", "state.safetensors"):
        assert same_bytes(begun / name, begun_copy / name)
    load_model("mobilenetv3", begun_copy / "last.safetensors")


@pytest.mark.thorough
def test_a_loss_that_is_no_number_stops_the_training(begun, begun_copy) -> None:
    settings = (*TINY, "schedule.epochs=30", "optimiser.learning_rate=1.0e+2")
    done = train(begun_copy, *settings, arguments=("--resume",))
    assert_one_line(done, 4, "the loss is", "at step", "images", "lower learning rate")
    load_model("mobilenetv3", begun_copy / "last.safetensors")


def test_a_guarded_training_goes_on_at_a_lower_rate(tmp_path, capfd) -> None:
    """With a rate that destroys the network at once: to the last step, and it learns after all."""
    settings = (*TINY, "schedule.epochs=30", "optimiser.learning_rate=3.0", "optimiser.guard=true", "loop.batch=8")
    out = tmp_path / "run"
    done = train_here(capfd, out, *settings)
    lowered = [
        line for line in done.stderr.splitlines() if "the learning rate is too high: back to the weights" in line
    ]
    assert done.returncode == 0 and lowered, done.stderr
    assert [row["epoch"] for row in rows(out)] == [str(epoch) for epoch in range(1, 31)]
    assert float(rows(out)[-1]["learning_rate"]) == pytest.approx(3.0 * 0.5 ** len(lowered))
    assert float(rows(out)[-1]["loss"]) < float(rows(out)[0]["loss"])
    load_model("mobilenetv3", out / "last.safetensors")


def test_a_training_whose_time_is_over_ends_with_what_it_has(tmp_path, capfd) -> None:
    out = tmp_path / "run"
    settings = [parse_assignment(text) for text in (f"out={out}", *TINY, "schedule.epochs=50", "loop.batch=2")]
    recipe = read_settings(Recipe, str(RECIPE), settings)
    assert Run(recipe, join("cpu"), None, until=time.monotonic()).go(lambda: False) == 0
    assert "the time is over after step 1:" in capfd.readouterr().err
    assert json.loads((out / "scores.json").read_text())["images"] == 8
    load_model("mobilenetv3", out / "best.safetensors")


def test_of_a_round_that_the_time_cuts_off_nothing_is_lost(tmp_path, capfd, monkeypatch) -> None:
    """Nothing was evaluated before: so what was learnt in one round and a part of the next is the best there is."""
    settings = (*TINY, "model.weight_norm=true", "schedule.epochs=3", "schedule.rounds=2", "loop.evaluate_every=99")
    whole, cut, steps = tmp_path / "whole", tmp_path / "cut", iter(range(1, 99))
    assert train_here(capfd, whole, *settings[:-2], *settings[-1:]).returncode == 0
    assert len(rows(whole)) == 3
    recipe = read_settings(Recipe, str(RECIPE), [parse_assignment(text) for text in (f"out={cut}", *settings)])
    clock = SimpleNamespace(monotonic=time.monotonic)
    monkeypatch.setattr("train.run.time", clock)

    def late_in_the_second_round() -> bool:
        if next(steps) == 8:  # of 12, in the second round
            clock.monotonic = lambda: time.monotonic() + 9e9
        return False

    assert Run(recipe, join("cpu"), None, until=time.monotonic() + 9e6).go(late_in_the_second_round) == 0
    told = capfd.readouterr().err
    assert "the time is over after" in told and "what was learnt since the last evaluation is kept: AP" in told
    bias = "heads.hm.pointwise.bias"
    first, last, best, state = (
        load_file(path)[name]
        for path, name in (
            (whole / "last.safetensors", bias),
            (cut / "last.safetensors", bias),
            (cut / "best.safetensors", bias),
            (cut / "state.safetensors", f"network/{bias}"),
        )
    )
    assert torch.equal(last, first) and not torch.equal(state, first)
    torch.testing.assert_close(best, (first + state) / 2)


def test_a_killed_loader_stops_the_training(tmp_path) -> None:
    process = start(tmp_path / "run", *TINY, "loop.loaders=1", "schedule.epochs=5000")
    wait_until(lambda: process.poll() is not None or (tmp_path / "run" / "state.safetensors").exists())
    loaders = [pid for pid in children(process.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(loaders) == 1
    os.kill(loaders[0], signal.SIGKILL)
    code, errors = finish(process)
    assert code == 4 and "a process that loads images ended" in errors and "Traceback" not in errors, errors
    load_model("mobilenetv3", tmp_path / "run" / "last.safetensors")


@pytest.fixture
def data(tmp_path):
    """A copy of the images that a test may damage."""
    return Path(shutil.copytree(MINI, tmp_path / "data"))


def on(data: Path) -> tuple[str, ...]:
    return (
        *TINY,
        "schedule.epochs=2",
        f"data.train_json={data}/train.json",
        f"data.train_images={data}/images",
        "data.val_json=''",
    )


@pytest.mark.thorough
def test_images_that_cannot_be_read_are_counted_and_too_many_end_it(data, tmp_path) -> None:
    image = next((data / "images").iterdir())
    image.write_bytes(image.read_bytes()[:100])
    assert_one_line(train(tmp_path / "run", *on(data)), 4, "1 images cannot be read", image.name, "train.check")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("data.train_json=nowhere.json",), ("nowhere.json",)),
        (("data.train_images=nowhere",), ("nowhere",)),
        (("model.name=yolo",), ("yolo", "allowed are")),
        (("model.start=nowhere.safetensors",), ("nowhere.safetensors",)),
        (("model.name=res_18", "model.start=shipped"), ("res_18 ships without weights",)),
        (("model.name=dla_34", "model.start=imagenet"), ("imagenet", "dla_34")),
        (("model.freeze=[neckk]",), ("neckk", "backbone")),
        (("model.input_size=100x64",), ("100", "multiples of 32")),
        (("optimiser.learning_rate=0",), ("optimiser.learning_rate", "above 0")),
        (("schedule.kind=step", "schedule.drops=[90]", "schedule.epochs=60"), ("schedule", "drops")),
        (("loss_weights.size=1.0",), ("loss_weights", "size", "hm, wh")),
        (("loss_weights.wh=-1.0",), ("loss_weights.wh", "0", "-1.0")),
        (("loop.device=cuda:7",), ("cuda:7",)),
        (("optimizer.kind=adam",), ("optimiser",)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and "=" in value[0] else "",
)
def test_what_is_wrong_is_one_line(settings, words, tmp_path, capfd) -> None:
    assert main(command(tmp_path / "run", *settings)[3:]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: "), errors
    assert all(word in errors[0] for word in words), errors[0]


def test_a_state_of_another_network_is_refused(begun_copy, capfd) -> None:
    settings = ("model.name=res_18", "model.start=none", "schedule.epochs=2")
    done = train_here(capfd, begun_copy, *TINY, *settings, arguments=("--resume",))
    assert_one_line(done, 4, "another network or recipe")


def test_what_is_no_state_is_refused(begun_copy, capfd) -> None:
    done = train_here(capfd, begun_copy, *TINY, arguments=("--resume", begun_copy / "last.safetensors"))
    assert_one_line(done, 2, "no state of a training")
    (begun_copy / "cut").write_bytes((begun_copy / "state.safetensors").read_bytes()[:5000])
    done = train_here(capfd, begun_copy, *TINY, arguments=("--resume", begun_copy / "cut"))
    assert_one_line(done, 2, "cannot be read")
