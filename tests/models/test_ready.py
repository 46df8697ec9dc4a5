"""What a start came to is remembered: the next makes the same engine without torch, and anything else is made anew."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models import SPECS, load_model
from models.engines import Job, available_engines, create_engine
from models.ready import recall, remember
from tests.kit.harness import HANG_SECONDS
from tests.kit.places import ROOT

EXPORTING = [name for name in ("onnxruntime", "openvino") if name in available_engines("cpu")]
WEIGHTS = Path(SPECS["mobilenetv3"].weights_file)
JOB = Job(height=64, width=96, batches=(1, 2), lanes=2)
ASKED = ("a network", 7)

pytestmark = pytest.mark.skipif(not EXPORTING, reason="neither ONNX Runtime nor OpenVINO is installed")


@pytest.fixture(scope="module")
def shipped():
    return load_model("mobilenetv3")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def cache(exports, monkeypatch):
    """Where nothing is remembered yet; to export a network takes seconds, and is done once."""
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(exports))
    yield exports
    for path in exports.glob("*.ready"):
        path.unlink()


def heads(engine) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).integers(0, 256, (2, engine.job.height, engine.job.width, 3), np.uint8)
    out = engine.allocate(2)
    engine.run(images, out)
    return out


@pytest.mark.parametrize("name", EXPORTING)
@pytest.mark.parametrize("top_k", [0, 5], ids=["heads", "candidates"])
def test_the_engine_that_is_recalled_computes_the_same(shipped, name, top_k) -> None:
    engine = create_engine(name, shipped, replace(JOB, top_k=top_k))
    assert recall(ASKED, WEIGHTS, dict) is None
    remember(ASKED, WEIGHTS, engine, {"classes": ["person"]})
    found = recall(ASKED, WEIGHTS, dict)
    assert found is not None
    again, card = found
    assert (again.name, again.precision, card) == (name, "fp32", {"classes": ["person"]})
    assert again.job == replace(engine.job, precision="fp32")
    for head, expected in heads(engine).items():
        np.testing.assert_allclose(heads(again)[head], expected, rtol=1e-5, atol=1e-5)


def test_what_was_made_without_an_exported_file_is_not_remembered(shipped, cache) -> None:
    remember(ASKED, WEIGHTS, create_engine("eager", shipped, JOB), {})
    assert recall(ASKED, WEIGHTS, dict) is None and not list(cache.glob("*.ready"))


def other_question(monkeypatch, weights: Path) -> tuple[object, Path]:
    return ("a network", 8), weights


def other_weights(monkeypatch, weights: Path) -> tuple[object, Path]:
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    return ASKED, weights


def other_code(monkeypatch, weights: Path) -> tuple[object, Path]:
    monkeypatch.setattr("models.ready.code_digest", lambda: "changed")
    return ASKED, weights


def other_versions(monkeypatch, weights: Path) -> tuple[object, Path]:
    monkeypatch.setattr("models.ready.versions", lambda *packages: ["openvino 1.0"])
    return ASKED, weights


def other_machine(monkeypatch, weights: Path) -> tuple[object, Path]:
    monkeypatch.setattr("models.ready.processor", lambda: "a smaller one")
    return ASKED, weights


@pytest.mark.parametrize("change", [other_question, other_weights, other_code, other_versions, other_machine])
def test_whatever_changed_is_made_anew(shipped, tmp_path, monkeypatch, change) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(WEIGHTS.read_bytes())
    remember(ASKED, weights, create_engine(EXPORTING[0], shipped, JOB), {})
    assert recall(ASKED, weights, dict)
    asked, weights = change(monkeypatch, weights)
    assert recall(asked, weights, dict) is None


@pytest.mark.parametrize("suffix", [".ready", ".onnx"])
@pytest.mark.parametrize("damage", ["gone", "cut", "zeroed"])
def test_a_damaged_memory_is_none(shipped, cache, suffix, damage) -> None:
    remember(ASKED, WEIGHTS, create_engine(EXPORTING[0], shipped, JOB), {})
    path = max(cache.glob(f"*{suffix}"), key=lambda each: each.stat().st_mtime)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] + (b"" if damage == "cut" else bytes(len(content) // 2)))
    found = recall(ASKED, WEIGHTS, dict)
    path.write_bytes(content)  # for the tests that follow, for which it takes seconds to make
    assert found is None


def test_a_card_of_another_form_is_none(shipped) -> None:
    """As after an update."""
    remember(ASKED, WEIGHTS, create_engine(EXPORTING[0], shipped, JOB), {"classes": ["person"]})
    assert recall(ASKED, WEIGHTS, list) is None and recall(ASKED, WEIGHTS, dict)


def test_a_cache_that_cannot_be_written_is_no_failure(shipped, monkeypatch, tmp_path) -> None:
    engine = create_engine(EXPORTING[0], shipped, JOB)
    (tmp_path / "file").touch()
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path / "file"))
    remember(ASKED, WEIGHTS, engine, {})
    assert recall(ASKED, WEIGHTS, dict) is None


def test_the_second_start_of_inference_imports_no_torch_and_finds_the_same(tmp_path) -> None:
    """Two processes, as two runs would be: the first exports, the second recalls."""
    code = """
import json, sys
import numpy as np
from pipeline.settings import InferSettings, PostprocessSettings
from pipeline.stage import HEATMAPS
from pipeline.stages.infer import Infer
from tests.kit.bench import Bench
infer = InferSettings(engine=sys.argv[1], precision="fp32", input_size="64x64", batch=2, workers=1, threads=1)
bench = Bench(infer=infer, postprocess=PostprocessSettings(classes=("person", "car")))
stage = Infer(bench.kit(HEATMAPS))
card = stage.prepare()
frame = bench.frame(0, input_side=64)
frame.array("input_rgb")[:] = np.random.default_rng(0).integers(0, 250, (64, 64, 3))
stage.process_round([frame])
facts = [card.engine, card.channels, card.class_names[:3], frame.array("hm").shape, float(frame.array("hm").sum())]
print(json.dumps(["torch" in sys.modules, facts]))
"""
    told = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, EXPORTING[-1]], cwd=ROOT, capture_output=True, text=True, timeout=HANG_SECONDS
        )
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    (first_torch, first), (second_torch, second) = told
    assert first_torch and not second_torch
    assert first[:-1] == second[:-1] == [EXPORTING[-1], [0, 2], ["person", "bicycle", "car"], [2, 16, 16]]
    assert first[-1] == pytest.approx(second[-1], rel=1e-4)
