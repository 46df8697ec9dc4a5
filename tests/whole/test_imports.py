"""Who may import whom, kept as a test: imports point down, and only inference pays for torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.places import ROOT

# Package or module → what it may import of ours and of the listed third parties. First match wins.
WATCHED = {"zmq", "torch", "torchvision", "cv2", "av", "numba", "rich", "yaml", "onnxruntime", "openvino", "onnxscript"}
ALLOWED = [
    ("pipeline.kernels", {"configs.folders", "pipeline.kernels", "numba"}),
    ("pipeline.errors", set()),
    ("pipeline.files", {"configs.startup", "configs.uri", "pipeline.errors"}),
    ("pipeline.settings", {"configs.uri", "pipeline.errors", "pipeline.kinds"}),
    ("pipeline.kinds", set()),
    ("pipeline.fates", set()),
    ("pipeline.detections", set()),
    ("pipeline.geometry", set()),
    ("pipeline.messages", {"pipeline.fates"}),
    ("pipeline.sharedmem", {"pipeline.errors", "pipeline.messages"}),
    ("pipeline.ledger", {"pipeline.fates", "pipeline.sharedmem"}),
    ("pipeline.frame", {"pipeline.messages", "pipeline.detections", "pipeline.fates", "pipeline.sharedmem"}),
    ("pipeline.results", {"pipeline.detections", "pipeline.fates", "pipeline.messages"}),
    ("pipeline.order", {"pipeline.fates", "pipeline.frame", "pipeline.messages"}),
    ("pipeline.plan", {"pipeline.messages", "pipeline.settings", "pipeline.stage"}),
    (
        "pipeline.reclaim",
        {
            *("pipeline.fates", "pipeline.frame", "pipeline.ledger", "pipeline.messages", "pipeline.plan"),
            *("pipeline.sharedmem", "pipeline.stage"),
        },
    ),
    (
        "pipeline.lines",
        {
            *("pipeline.frame", "pipeline.ledger", "pipeline.messages", "pipeline.order", "pipeline.sharedmem"),
            "pipeline.transport",
        },
    ),
    (
        "pipeline.outputs",
        {"pipeline.errors", "pipeline.frame", "pipeline.messages", "pipeline.results", "pipeline.sinks"},
    ),
    ("configs.folders", set()),
    ("configs.startup", {"configs.folders"}),
    ("configs.uri", set()),
    ("configs.plainyaml", {"yaml"}),
    ("configs", {"configs"}),
    ("pipeline.config", {"configs", "pipeline.errors", "pipeline.settings"}),
    ("pipeline.transport", {"pipeline.frame", "pipeline.messages", "zmq"}),
    ("pipeline.metrics", {"pipeline.messages"}),
    ("pipeline.rounds", {"pipeline.messages"}),
    ("pipeline.heartbeat", set()),
    ("pipeline.pixels", {"pipeline.errors", "pipeline.geometry", "av"}),
    (
        "pipeline.sources",
        {"configs.uri", "pipeline.sources", "pipeline.errors", "pipeline.settings", "pipeline.pixels", "av"},
    ),
    ("pipeline.tracker", {"pipeline.kernels", "pipeline.detections", "pipeline.errors", "pipeline.settings", "numba"}),
    ("pipeline.overlay", {"pipeline.results", "pipeline.detections", "cv2"}),
    (
        "pipeline.sinks",
        {
            *("configs.uri", "pipeline.sinks", "pipeline.results", "pipeline.detections", "pipeline.errors"),
            *("pipeline.messages", "av", "cv2"),
        },
    ),
    ("pipeline.stages.infer", {"pipeline", "models", "torch"}),
    ("pipeline.stages", {"pipeline"}),
    ("pipeline.stage", {"pipeline"}),
    ("pipeline.worker", {"pipeline", "configs.startup"}),
    ("pipeline.runstate", {"pipeline"}),
    ("pipeline.launch", {"configs.uri", "pipeline"}),
    ("pipeline.house", {"pipeline"}),
    ("pipeline.crew", {"pipeline"}),
    ("pipeline.supervisor", {"pipeline"}),
    ("pipeline.console", {"configs.uri", "pipeline", "rich"}),
    ("pipeline.validate", {"pipeline"}),
    ("pipeline.preflight", {"pipeline", "configs.uri", "models"}),
    ("pipeline.cli", {"configs.uri", "configs.secrets", "pipeline.config", "pipeline.errors", "pipeline.settings"}),
    ("pipeline.control", {"configs.uri", "pipeline.errors", "pipeline.settings", "pipeline.transport"}),
    (
        "pipeline.ctl",
        {"configs.uri", "pipeline.cli", "pipeline.config", "pipeline.control", "pipeline.errors", "pipeline.settings"},
    ),
    ("pipeline.desk", {"pipeline"}),
    ("pipeline.follow", {"configs.uri", "pipeline"}),
    ("pipeline", set()),
    ("models.kernels", {"models.kernels", "numba"}),
    ("models.soft_nms", set()),
    ("models.preprocess", {"models", "torch", "cv2"}),
    ("models.detect", {"models", "configs.startup", "torch", "cv2"}),
    ("models.engines.onnxruntime", {"models", "onnxruntime"}),
    ("models.engines.openvino", {"models", "openvino"}),
    ("models.export", {"models", "configs.startup", "torch", "torchvision", "onnxscript"}),
    ("models", {"models", "configs.startup", "configs.folders", "configs.uri", "torch", "torchvision"}),
    ("train.kernels", {"train.kernels", "numba"}),
    ("train", {"train", "configs", "models", "torch", "torchvision", "cv2", "rich"}),
    ("run_pipeline", {"pipeline", "configs.startup"}),
]

# What anyone may import that bare; `from configs import startup` counts as configs.startup.
BARE = ("configs", "pipeline", "models")


def modules() -> list[tuple[str, Path]]:
    files = [ROOT / "run_pipeline.py"]
    for package in ("configs", "pipeline", "models", "train"):
        files += sorted((ROOT / package).rglob("*.py"))
    return [(".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), f) for f in files]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module in BARE}
    return names


def is_under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_point_down(module: str, path: Path) -> None:
    allowed = next(rule for prefix, rule in ALLOWED if is_under(module, prefix))
    for name in imported(path):
        watched = name.split(".")[0] in WATCHED | {"configs", "pipeline", "models", "train"} and name not in BARE
        assert not watched or any(is_under(name, package) for package in allowed), f"{module} must not import {name}"


def test_stages_do_not_know_each_other() -> None:
    for module, path in modules():
        if is_under(module, "pipeline.stages"):
            assert not any(is_under(name, "pipeline.stages") for name in imported(path)), module


def test_one_file_knows_zeromq() -> None:
    assert [module for module, path in modules() if "zmq" in imported(path)] == ["pipeline.transport"]


@pytest.mark.parametrize("stage", ["decode", "gather", "track", "postprocess", "deliver"])
def test_only_inference_loads_torch(stage: str) -> None:
    code = f"import pipeline.worker, pipeline.stages.{stage}"
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    ).stderr
    loaded = {line.rpartition("|")[2].strip() for line in trace.splitlines()}
    assert f"pipeline.stages.{stage}" in loaded
    assert not loaded & {"torch", "models"}


def test_help_loads_nothing_slow() -> None:
    command = [sys.executable, "-X", "importtime", "run_pipeline.py", "--help"]
    trace = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    loaded = {line.rpartition("|")[2].strip() for line in trace.stderr.splitlines()}
    assert trace.returncode == 0
    assert "pipeline.cli" in loaded
    assert not loaded & {"torch", "numba", "numpy", "av", "cv2", "rich", "zmq"}
