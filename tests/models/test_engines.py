"""Engines: every way of running a network gives the same heads, takes what the job said and nothing else, and `auto`
takes what measured best."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import SPECS, create_model, load_model
from models.agreement import Agreement
from models.decode import decode
from models.engines import ENGINES, EngineError, Job, available_engines, create_engine, precisions
from models.engines.choice import choose, fastest, measure, worth_it
from models.export import main as export_main
from models.pixels import PixelDetector, PixelNetwork
from tests.kit.drawn_weights import drawn_state_dict
from tests.kit.harness import HANG_SECONDS
from tests.kit.places import ROOT

SMALL = Job(height=128, width=128)
# Of one size, for which the network is exported once.
WIDE = Job(height=64, width=96)
EXPORTING = [name for name in ("onnxruntime", "openvino") if name in available_engines("cpu")]
TOLERANCE = 1e-3  # of the largest value


@pytest.fixture(scope="module")
def shipped():
    return load_model("mobilenetv3")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CENTERSTREAM_CACHE", str(folder))
        patch.setattr("models.engines.choice.ROUND_SECONDS", 0.02)
        yield folder


def noise(job: Job, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, job.height, job.width, 3), np.uint8)


def heads_of(engine, images_bhwc) -> dict[str, np.ndarray]:
    out = engine.allocate(len(images_bhwc))
    engine.run(images_bhwc, out)
    return out


def assert_same(got, expected) -> None:
    assert list(got) == list(expected)
    for name in expected:
        assert np.abs(got[name] - expected[name]).max() < TOLERANCE * np.abs(expected[name]).max(), name


def test_pixels_are_normalised_and_put_in_the_order_of_the_spec() -> None:
    network = create_model("res_18", 2)
    module = PixelNetwork(network)
    images = torch.from_numpy(noise(SMALL))
    spec = network.spec
    rgb = (images.permute(0, 3, 1, 2).numpy() - np.array(spec.mean_rgb).reshape(3, 1, 1)) / np.array(
        spec.std_rgb
    ).reshape(3, 1, 1)
    with torch.inference_mode():
        expected = network(torch.from_numpy(rgb[:, ::-1].astype(np.float32)))  # OpenCV's order: blue first
        got = dict(zip(module.names, module(images), strict=True))
    for name in expected:
        assert torch.allclose(got[name], expected[name], atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", [name for name in available_engines("cpu") if name not in ("eager", "compile")])
def test_every_engine_gives_the_heads_of_plain_pytorch(shipped, name, batch) -> None:
    job = replace(WIDE, batches=(batch,))
    images = noise(job, batch)
    assert_same(
        heads_of(create_engine(name, shipped, job), images), heads_of(create_engine("eager", shipped, job), images)
    )


@pytest.mark.parametrize("top_k", [0, 20], ids=["heads", "candidates"])
@pytest.mark.parametrize("name", ["eager", *EXPORTING])
def test_a_batch_gives_what_its_images_give_alone(shipped, name, top_k) -> None:
    job = replace(WIDE, batches=(1, 2, 4), lanes=2, top_k=top_k)
    engine, images = create_engine(name, shipped, job), noise(job, 4)
    alone = [heads_of(engine, image[None]) for image in images]
    for batch in (4, 2):
        together = heads_of(engine, images[:batch])
        assert {head: array.shape for head, array in together.items()} == engine.output_shapes(batch)
        assert_same(together, {head: np.concatenate([one[head] for one in alone[:batch]]) for head in together})


@pytest.mark.parametrize("name", ["eager", *EXPORTING])
def test_lanes_may_run_different_batches(shipped, name) -> None:
    job = replace(WIDE, batches=(1, 3), lanes=2)
    engine, images = create_engine(name, shipped, job), noise(job, 3)
    expected = heads_of(engine, images)["hm"]
    with ThreadPoolExecutor(2) as lanes:
        all_three = [lanes.submit(heads_of, engine, images) for _ in range(6)]
        the_last = [lanes.submit(heads_of, engine, images[2:]) for _ in range(6)]
    for each in all_three:
        np.testing.assert_allclose(each.result()["hm"], expected, atol=1e-4)
    for each in the_last:
        np.testing.assert_allclose(each.result()["hm"], expected[2:], atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize(
    ("images", "parts"), [(1, [1]), (3, [2, 1]), (7, [4, 2, 1]), (8, [4, 4]), (11, [4, 4, 2, 1]), (0, [])]
)
def test_any_number_of_images_is_a_few_batches(images, parts) -> None:
    assert Job(batches=(1, 4, 2)).parts(images) == parts


def test_images_that_make_no_batch_are_told() -> None:
    with pytest.raises(ValueError, match="3 images are fewer than any of the batches"):
        Job(batches=(4,)).parts(3)


@pytest.mark.parametrize("batches", [(), (0,), (1, -2)])
def test_batches_that_are_none_are_refused(batches) -> None:
    with pytest.raises(ValueError, match="give numbers of images from 1 on"):
        Job(batches=batches)


@pytest.mark.parametrize("arch", ["resdcn_18", "dla_34", pytest.param("hourglass", marks=pytest.mark.slow)])
@pytest.mark.skipif(not EXPORTING, reason="neither ONNX Runtime nor OpenVINO is installed")
def test_the_exported_networks_of_the_paper_agree_with_pytorch(arch) -> None:
    network = create_model(arch)
    network.load_state_dict(drawn_state_dict(network, arch))
    images = noise(SMALL)
    expected = heads_of(create_engine("eager", network, SMALL), images)
    for name in EXPORTING:
        assert_same(heads_of(create_engine(name, network, SMALL), images), expected)


@pytest.mark.parametrize("name", ["eager", *EXPORTING])
def test_lanes_do_not_disturb_each_other(shipped, name) -> None:
    job = replace(WIDE, lanes=4)
    engine = create_engine(name, shipped, job)
    images = [np.full((1, 64, 96, 3), value, np.uint8) for value in range(0, 240, 20)]
    alone = [heads_of(engine, image)["hm"] for image in images]
    with ThreadPoolExecutor(4) as lanes:
        together = list(lanes.map(lambda image: heads_of(engine, image)["hm"], images * 3))
    for got, expected in zip(together, alone * 3, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_a_detector_gives_the_candidates_of_decode(shipped) -> None:
    job = Job(height=128, width=128, top_k=20)
    images = np.repeat(noise(job)[:, ::8, ::8], 8, axis=1).repeat(8, axis=2)
    engine = create_engine("eager", shipped, job)
    heads = heads_of(create_engine("eager", shipped, SMALL), images)
    heads = {name: torch.from_numpy(head) for name, head in heads.items()}
    expected = decode(heads["hm"], heads["wh"], None, 20).numpy()
    got = heads_of(engine, images)["candidates"]
    assert engine.output_shapes() == {"candidates": (1, 20, 6)}
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_more_candidates_than_cells_are_as_many_as_there_are_cells(shipped) -> None:
    module = PixelDetector(shipped, top_k=10_000)
    (candidates,) = module(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert tuple(candidates.shape[1:]) == module.output_shapes(32, 32)["candidates"] == (64 * 80, 6)


@pytest.mark.parametrize("name", ["eager", *EXPORTING])
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, 64, 96, 3), np.uint8),
        np.zeros((2, 64, 96, 3), np.uint8),
        np.zeros((1, 64, 64, 3), np.uint8),
        np.zeros((1, 64, 96, 3), np.float32),
    ],
    ids=["no image", "another batch", "another size", "another type"],
)
def test_images_that_the_job_did_not_say_are_refused(shipped, name, images) -> None:
    engine = create_engine(name, shipped, WIDE)
    with pytest.raises(ValueError, match=r"this engine takes uint8 \(1, 64, 96, 3\)"):
        engine.run(images, engine.allocate())
    engine = create_engine(name, shipped, replace(WIDE, batches=(1, 3)))
    with pytest.raises(ValueError, match=r"this engine takes uint8 \(1 or 3, 64, 96, 3\)"):
        engine.run(images, engine.allocate())


@pytest.mark.parametrize(
    ("name", "problem"),
    [("", "allowed are eager"), ("tensorrt", "allowed are eager"), ("cuda_graphs", "runs on cuda, not on cpu")],
)
def test_an_engine_that_cannot_be_had_says_why(shipped, name, problem) -> None:
    with pytest.raises(EngineError, match=problem) as caught:
        create_engine(name, shipped, SMALL)
    assert "\n" not in str(caught.value)


def test_a_network_is_exported_once_for_its_weights(shipped, cache) -> None:
    if not EXPORTING:
        pytest.skip("neither ONNX Runtime nor OpenVINO is installed")
    job = WIDE
    create_engine(EXPORTING[0], shipped, job)
    before = {path: path.stat().st_ino for path in cache.glob("*.onnx")}
    create_engine(EXPORTING[-1], shipped, replace(job, batches=(1, 2)))
    assert {path: path.stat().st_ino for path in cache.glob("*.onnx")} == before
    other = create_model("mobilenetv3")
    create_engine(EXPORTING[0], other, job)
    assert len(list(cache.glob("*.onnx"))) == len(before) + 1


@pytest.mark.parametrize(
    ("speeds", "name"),
    [
        ({}, "eager"),
        ({"eager": 10.0}, "eager"),
        ({"eager": 10.0, "openvino": 10.4}, "eager"),
        ({"eager": 10.0, "openvino": 10.6}, "openvino"),
        ({"eager": 10.0, "openvino": 20.0, "onnxruntime": 21.0}, "onnxruntime"),
        ({"eager": 10.0, "onnxruntime": 5.0}, "eager"),
        ({"eager": 10.0, "openvino": 20.0, "openvino bf16": 40.0}, "openvino"),  # nobody has judged it
    ],
)
def test_auto_takes_the_fastest_and_plain_pytorch_when_it_is_close(speeds, name) -> None:
    assert fastest(speeds) == name


GOOD, OTHER, UNJUDGED = Agreement(0.99, 0.97, 40), Agreement(0.99, 0.90, 40), Agreement(1.0, 1.0, 3)


@pytest.mark.parametrize(
    ("bf16", "agreement", "name"),
    [(40.0, GOOD, "openvino bf16"), (40.0, OTHER, "openvino"), (40.0, UNJUDGED, "openvino"), (20.9, GOOD, "openvino")],
    ids=["agrees", "finds other boxes", "too little to judge by", "hardly faster"],
)
def test_lower_precision_is_taken_where_it_is_faster_and_finds_the_same(bf16, agreement, name) -> None:
    speeds = {"eager": 10.0, "openvino": 20.0, "openvino bf16": bf16}
    assert fastest(speeds, {"openvino bf16": agreement}) == name


@pytest.mark.parametrize(
    ("agreement", "name"), [(GOOD, "eager fp16"), (OTHER, "eager"), (UNJUDGED, "eager fp16")], ids=str
)
def test_a_device_keeps_its_usual_precision_where_nothing_speaks_against_it(agreement, name) -> None:
    speeds = {"eager fp16": 100.0, "eager": 50.0}
    assert fastest(speeds, {"eager fp16": agreement}, usual="eager fp16") == name


class Precise:
    """An engine that computes in fp32, and in bf16 twice as fast, where it moves every box by `shift_cells`."""

    def __init__(self, job: Job, shift_cells: float) -> None:
        self.name, self.job, self.exported = "openvino", job, None
        self.precision = job.precision or "fp32"
        self._shift = shift_cells if self.precision == "bf16" else 0.0

    def allocate(self, batch: int):
        return {"candidates": np.zeros((batch, 3, 6), np.float32)}

    def run(self, images, out) -> None:
        time.sleep(0.002 if self.precision == "bf16" else 0.004)
        out["candidates"][:] = [(10 + self._shift, 10, 30 + self._shift, 60, score, 0) for score in (0.9, 0.5, 0.05)]


@pytest.mark.parametrize(
    ("shift_cells", "taken", "told"),
    [
        (0.0, "bf16", r"bf16 is \d\.\d\d times as fast as fp32 here and finds the same: AP 1.000 at IoU 0.5 and 1.000"),
        (
            4.0,
            "fp32",
            r"fp32 was kept: openvino bf16 is faster, but finds other objects \(AP 1.000 at IoU 0.5 and 0.000",
        ),
    ],
    ids=["the same", "boxes a fifth of their width away"],
)
def test_auto_judges_bf16_by_what_it_finds_and_says_so(
    shipped, tmp_path, monkeypatch, shift_cells, taken, told
) -> None:
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr("models.engines.choice.precisions", lambda name, device: ("fp32", "bf16"))
    monkeypatch.setattr("models.engines.choice.create_engine", lambda name, network, job: Precise(job, shift_cells))
    for _ in range(2):  # measured, then remembered
        choice = choose(shipped, SMALL, name="openvino")
        assert choice.engine.precision == taken and re.match(told, choice.on_precision), choice.on_precision
    for precision in ("fp32", "bf16"):
        assert choose(shipped, SMALL, name="openvino", precision=precision).engine.precision == precision


@pytest.mark.parametrize(
    ("name", "precision", "problem"),
    [
        ("eager", "bf16", "bf16: engine eager does not compute in it on this cpu; here there is fp32"),
        ("auto", "fp16", "fp16: no engine computes in it on this cpu; here there is fp32"),
    ],
)
def test_a_precision_that_cannot_be_had_is_told(shipped, name, precision, problem) -> None:
    with pytest.raises(EngineError, match=problem):
        choose(shipped, SMALL, name=name, precision=precision)


@pytest.mark.skipif(
    "openvino" not in EXPORTING or "bf16" not in precisions("openvino", "cpu"), reason="no bf16 in this processor"
)
def test_openvino_in_bf16_finds_the_same_objects(shipped) -> None:
    choice = choose(shipped, Job(lanes=2), name="openvino")
    assert "finds the same" in choice.on_precision or "fp32 was kept" in choice.on_precision


def test_auto_measures_once(shipped, cache) -> None:
    told: list[str] = []
    job = replace(WIDE, lanes=2)
    first = choose(shipped, job, told.append)
    assert any(word.startswith("measuring eager") for word in told)
    lower = {f"openvino {one}" for name in EXPORTING for one in precisions(name, "cpu") if one != "fp32"}
    assert set(first.images_per_second) == (set(available_engines("cpu")) - {"compile"}) | lower and not first.problems
    assert first.engine.name == fastest(first.images_per_second).split()[0]
    told.clear()
    again = choose(shipped, job, told.append)
    assert again.engine.name == first.engine.name and again.images_per_second == first.images_per_second
    assert told == []


@pytest.mark.parametrize(
    "damage",
    ['{"engines": {"eager": "fast"', '{"engines": {"eager": 1.0, "warp": 1e9}}', "", "\0" * 40],
    ids=["cut", "unknown", "empty", "zeros"],
)
def test_a_damaged_memory_of_measurements_is_made_again(shipped, cache, damage) -> None:
    job = replace(WIDE, lanes=3)
    choose(shipped, job)
    newest(cache.glob("engines-*.json")).write_text(damage)
    choice = choose(shipped, job)
    assert choice.images_per_second and "warp" not in choice.images_per_second
    assert json.loads(newest(cache.glob("engines-*.json")).read_text())["engines"] == choice.images_per_second


@pytest.mark.parametrize(
    ("speeds", "batches"),
    [
        ({1: 40.0, 2: 37.0}, (1,)),
        ({1: 40.0, 2: 41.9}, (1,)),
        ({1: 40.0, 2: 42.1}, (1, 2)),
        ({1: 40.0, 2: 60.0, 4: 62.0, 8: 64.0}, (1, 2, 8)),  # 8 against 2, for 4 is not
        ({1: 40.0, 2: 41.0, 4: 80.0, 8: 150.0}, (1, 4, 8)),
    ],
)
def test_a_batch_is_worth_it_when_it_is_clearly_faster_than_the_smaller_one(speeds, batches) -> None:
    assert worth_it(speeds) == batches


class PacedEngine:
    """A batch of b takes what the pace says."""

    def __init__(self, job: Job, pace: dict[int, float]) -> None:
        self.name, self.job, self._pace = "paced", job, pace

    precision = "fp32"

    def allocate(self, batch: int):
        return None

    def run(self, images, out) -> None:
        time.sleep(len(images) / self._pace[len(images)])


@pytest.fixture
def paced(monkeypatch, tmp_path):
    """Engines whose images a second are `pace`, by batch; what is not there they cannot take. Tells which were made."""
    pace: dict[int, float] = {}
    made: list[tuple[int, ...]] = []

    def make(name: str, network, job: Job):
        if not set(job.batches) <= pace.keys():
            raise EngineError(f"engine {name}: no memory for {max(job.batches)} images")
        made.append(job.batches)
        return PacedEngine(job, pace)

    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr("models.engines.choice.create_engine", make)
    return pace, made


@pytest.mark.parametrize(
    ("pace", "measured", "worth"),
    [
        ({1: 100, 2: 200, 4: 400, 8: 800}, [1, 2, 4, 8], (1, 2, 4, 8)),
        ({1: 400, 2: 200, 4: 800, 8: 800}, [1, 2], (1,)),
        ({1: 200, 2: 400, 4: 200, 8: 800}, [1, 2, 4], (1, 2)),
        ({1: 200, 2: 400}, [1, 2], (1, 2)),
    ],
    ids=["faster and faster", "not with two", "not with four", "no memory for four"],
)
def test_batches_are_measured_until_one_is_slower_than_the_smaller(shipped, paced, pace, measured, worth) -> None:
    rates, made = paced
    rates.update(pace)
    choice = choose(shipped, SMALL, name="eager", batches=(1, 2, 4, 8))
    assert list(choice.by_batch) == measured and choice.engine.job.batches == worth
    assert choice.images_per_second == {}
    assert bool(choice.problems) == (4 not in pace)
    made.clear()
    again = choose(shipped, SMALL, name="eager", batches=(1, 2, 4, 8))
    assert again.by_batch == choice.by_batch and made == [worth]


@pytest.mark.parametrize(
    ("paces", "hopeless", "turns", "medians"),
    [
        ({}, 1.5, {}, {}),
        ({"a": [10, 20, 10, 10, 10]}, 1.5, {"a": 2}, {"a": 15}),
        ({"a": [10] * 5, "b": [8, 9, 11, 11, 11]}, 1.5, {"a": 5, "b": 5}, {"a": 10, "b": 11}),
        ({"a": [10] * 5, "b": [6] * 5}, 1.5, {"a": 2, "b": 2}, {"a": 10, "b": 6}),
        ({"a": [10] * 5, "b": [9] * 5, "c": [6, 2]}, 1.5, {"a": 5, "b": 5, "c": 2}, {"a": 10, "b": 9, "c": 4}),
        ({"a": [10] * 5, "b": [2, 7, 7, 7, 7]}, 1.5, {"a": 5, "b": 5}, {"a": 10, "b": 7}),
        ({"a": [10] * 5, "b": [9.9] * 5}, 1.0, {"a": 2, "b": 2}, {"a": 10, "b": 9.9}),
        ({"a": [10] * 5, "b": [10] * 5}, 1.0, {"a": 5, "b": 5}, {"a": 10, "b": 10}),
    ],
)
def test_what_has_no_chance_has_no_more_turns(
    paces: dict, hopeless: float, turns: dict, medians: dict, monkeypatch
) -> None:
    taken = dict.fromkeys(paces, 0)

    def turn(name: str, images: object) -> float:
        taken[name] += 1
        return paces[name][taken[name] - 1]

    monkeypatch.setattr("models.engines.choice._images_per_second", turn)
    assert measure({name: name for name in paces}, np.empty(0), hopeless) == medians  # type: ignore[misc]
    assert taken == turns


def test_auto_measures_batches_of_the_fastest_engine_too(shipped, cache) -> None:
    told: list[str] = []
    choice = choose(shipped, WIDE, told.append, precision="fp32", batches=(1, 2))
    assert f"measuring {choice.engine.name} with 2 images at a time" in told
    assert set(choice.by_batch) == {1, 2} and choice.engine.job.batches == worth_it(choice.by_batch)
    assert choice.engine.name == fastest(choice.images_per_second).split()[0]


def test_a_named_engine_that_cannot_be_had_is_told_with_its_batches_too(shipped) -> None:
    with pytest.raises(EngineError, match="runs on cuda"):
        choose(shipped, SMALL, name="cuda_graphs", batches=(1, 2))
    with pytest.raises(EngineError, match="runs on cuda"):
        choose(shipped, SMALL, name="cuda_graphs")


def newest(paths) -> Path:
    return max(paths, key=lambda path: path.stat().st_mtime)


@pytest.mark.skipif(not EXPORTING, reason="neither ONNX Runtime nor OpenVINO is installed")
@pytest.mark.parametrize("damage", ["zeroed", "cut"])
def test_a_damaged_export_is_made_again(shipped, cache, damage) -> None:
    job = WIDE
    expected = heads_of(create_engine("eager", shipped, job), noise(job))
    create_engine(EXPORTING[0], shipped, job)
    path = newest(cache.glob("*.onnx"))
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + (bytes(2048) + content[middle + 2048 :] if damage == "zeroed" else b""))
    for name in EXPORTING:
        assert_same(heads_of(create_engine(name, shipped, job), noise(job)), expected)


def test_without_a_cache_engines_are_measured_at_each_start(shipped, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path))
    monkeypatch.setattr("models.cache.partial_file", no_space)
    choice = choose(shipped, Job(height=32, width=32))
    assert choice.engine.name == "eager" and choice.images_per_second["eager"] > 0
    assert any("each start measures: the cache cannot be written" in problem for problem in choice.problems)


def no_space(path: Path):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_every_engine_has_a_line_in_the_settings() -> None:
    from pipeline.settings import InferSettings

    assert InferSettings.__annotations__["engine"].__args__ == ("auto", *ENGINES)


@pytest.mark.skipif("openvino" not in EXPORTING, reason="OpenVINO is not installed")
def test_signals_are_still_heard_after_engines_have_gone() -> None:
    # OpenVINO has a stack of its own for signal handlers, and two of them do not part well.
    code = """
import signal
from models import load_model
from models.engines import Job, create_engine
network, job = load_model("mobilenetv3"), Job(height=64, width=96)
first, second = (create_engine("openvino", network, job) for _ in range(2))
del first
del second
heard = []
signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
signal.raise_signal(signal.SIGUSR1)
assert heard == [signal.SIGUSR1]
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done


def test_an_export_does_not_overwrite_the_weights_it_is_of(tmp_path, capsys) -> None:
    weights, link = tmp_path / "w.safetensors", tmp_path / "net.onnx"
    weights.write_bytes(Path(SPECS["mobilenetv3"].weights_file).read_bytes())
    link.symlink_to(weights)
    before = weights.read_bytes()
    assert export_main([str(link), "--weights", str(weights), "--width", "64", "--height", "64"]) == 2
    assert "is read by this command" in capsys.readouterr().err and weights.read_bytes() == before
