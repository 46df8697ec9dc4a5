"""Who may import whom, kept as a test: imports point down, and only inference pays for torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.places import ROOT

# Package or module → what it may import of ours and of the listed third parties. First match wins.
WATCHED = {
    *("zmq", "paho", "aiohttp", "prometheus_client", "torch", "torchvision", "cv2", "av", "numba", "rich", "yaml"),
    *("onnxruntime", "openvino", "onnxscript"),
}
BASE = {
    *("pipeline.errors", "pipeline.kinds", "pipeline.settings", "pipeline.shapes", "pipeline.source_address"),
    "configs.uri",
}
FLOW = "pipeline.flow"
STAGE = BASE | {FLOW, "pipeline.stage"}
SINK = {
    *("configs.uri", "pipeline.sinks", "pipeline.flow.results", "pipeline.flow.detections", "pipeline.errors"),
    *(
        "pipeline.flow.messages",
        "pipeline.flow.events",
        "pipeline.flow.heat",
        "pipeline.settings",
        "pipeline.backoff",
        "av",
        "cv2",
    ),
}
# The page's process asks the run as anybody does, and knows nothing of who runs it.
SERVE = STAGE | {"pipeline.control.words", "pipeline.serve"}
ALLOWED = [
    ("configs.folders", set()),
    ("configs.startup", {"configs.folders"}),
    ("configs.uri", set()),
    ("configs.names", set()),
    ("configs.plainyaml", {"yaml"}),
    ("configs.edit", {"configs.plainyaml", "yaml"}),
    ("configs", {"configs"}),
    # what all of the pipeline may know
    ("pipeline.errors", set()),
    ("pipeline.addresses", {"configs.plainyaml", "configs.reader", "configs.uri"}),
    ("pipeline.backoff", set()),
    ("pipeline.kinds", {"pipeline.addresses"}),
    ("pipeline.geometry", set()),
    ("pipeline.shapes", set()),
    (
        "pipeline.settings",
        {"configs.uri", "pipeline.addresses", "pipeline.errors", "pipeline.kinds", "pipeline.shapes"},
    ),
    ("pipeline.source_address", {"configs.names", "configs.uri", "pipeline.errors", "pipeline.settings"}),
    # what travels, and how
    ("pipeline.flow.fates", set()),
    ("pipeline.flow.detections", set()),
    ("pipeline.flow.events", set()),
    ("pipeline.flow.messages", {"pipeline.flow.events", "pipeline.flow.fates", "pipeline.shapes"}),
    ("pipeline.flow.rounds", {"pipeline.flow.messages"}),
    ("pipeline.flow.metrics", {"pipeline.flow.messages"}),
    ("pipeline.flow.sharedmem", {"pipeline.errors", "pipeline.flow.messages"}),
    ("pipeline.flow.transport", {"pipeline.flow.frame", "zmq"}),
    ("pipeline.flow", {FLOW, "pipeline.shapes"}),
    # each knows its own domain
    ("pipeline.kernels", {"configs.folders", "pipeline.kernels", "numba"}),
    ("pipeline.tracker", {"pipeline.kernels", "pipeline.flow.detections", "pipeline.settings"}),
    ("pipeline.zones", {"pipeline.flow.detections", "pipeline.flow.events", "pipeline.shapes"}),
    ("pipeline.still", {"pipeline.kernels", "pipeline.flow.detections", "pipeline.flow.messages"}),
    ("pipeline.overlay", {"pipeline.flow.results", "pipeline.flow.detections", "pipeline.shapes", "cv2"}),
    (
        "pipeline.sources",
        BASE - {"pipeline.kinds"} | {"pipeline.sources", "pipeline.geometry", "pipeline.backoff", "av"},
    ),
    ("pipeline.jpeg", {"cv2"}),
    ("pipeline.onlooker", {FLOW, "pipeline.errors", "pipeline.jpeg", "pipeline.sources", "av"}),
    (
        "pipeline.sinks.publish",
        {"pipeline.flow.transport", "pipeline.flow.topics", "pipeline.jpeg", "pipeline.overlay", *SINK},
    ),
    ("pipeline.sinks.coco", {"models.spec", *SINK}),
    ("pipeline.sinks.spool", {"configs.folders", *SINK}),
    ("pipeline.sinks.mqtt", {"pipeline.addresses", "paho", *SINK}),
    ("pipeline.sinks.webhook", {"pipeline.addresses", *SINK}),
    ("pipeline.sinks.network", {"pipeline.addresses", "pipeline.flow.fates", *SINK}),
    ("pipeline.sinks", SINK),
    ("pipeline.outputs", {"pipeline.errors", "pipeline.kinds", "pipeline.sinks", FLOW}),
    # the stages, none of which knows another, or who runs it
    ("pipeline.stage", BASE | {FLOW}),
    ("pipeline.stages.decode", STAGE | {"pipeline.onlooker", "pipeline.sources"}),
    ("pipeline.stages.gather", STAGE | {"pipeline.kernels", "pipeline.still"}),
    ("pipeline.stages.infer", STAGE | {"models"}),
    ("pipeline.stages.postprocess", STAGE | {"pipeline.geometry", "pipeline.kernels"}),
    ("pipeline.stages.track", STAGE | {"pipeline.kernels", "pipeline.still", "pipeline.tracker", "pipeline.zones"}),
    ("pipeline.stages.deliver", STAGE | {"pipeline.outputs", "pipeline.overlay", "pipeline.sinks"}),
    ("pipeline.stages.serve", STAGE | {"pipeline.serve"}),
    ("pipeline.stages", set()),
    ("pipeline.serve.guard", {"pipeline.settings", "aiohttp"}),
    ("pipeline.serve.asking", SERVE),
    ("pipeline.serve.pairs", {FLOW}),
    ("pipeline.serve.pictures", {FLOW, "pipeline.serve.pairs"}),
    ("pipeline.serve.figures", SERVE | {"prometheus_client"}),
    ("pipeline.serve", SERVE | {"aiohttp"}),
    # a run, from outside and from inside
    ("pipeline.control.save", BASE | {"configs.edit", "configs.plainyaml", "configs.reader"}),
    ("pipeline.control", STAGE | {"pipeline.control"}),
    ("pipeline.run.heartbeat", set()),
    ("pipeline.run.plan", STAGE),
    ("pipeline.run.reclaim", STAGE | {"pipeline.run.plan"}),
    ("pipeline.run.lanes", set()),
    ("pipeline.run.start", set()),
    ("pipeline.run.nursery", {"configs.startup", "pipeline.run.start", "pipeline.run.worker", "pipeline.stage"}),
    ("pipeline.run.worker", STAGE | {"pipeline.run.lanes", "pipeline.run.plan", "configs.startup"}),
    ("pipeline.run", STAGE | {"pipeline.run", "pipeline.control"}),
    ("pipeline.profile.model", {"pipeline.stage"}),
    ("pipeline.profile.clocks", {"pipeline.settings"}),
    ("pipeline.profile.parts", {"pipeline.flow", "pipeline.profile.model", "pipeline.settings", "pipeline.stage"}),
    ("pipeline.profile.chrome", {"pipeline.profile.frames", "pipeline.sinks.trace", "pipeline.stage"}),
    (
        "pipeline.profile",
        STAGE
        | {"pipeline.profile", "pipeline.run", "pipeline.control", "pipeline.sources", "pipeline.sinks.trace"}
        | {"models.devices", "pipeline.kernels", "pipeline.still"}
        | {"configs.startup"},
    ),
    # what a run would meet: each check has a process of its own, so that one alone may import what computes
    ("pipeline.doctor.alone", {"configs.startup", "pipeline.doctor.finding", "pipeline.errors"}),
    ("pipeline.doctor.examine", BASE | {"pipeline.doctor.alone", "pipeline.doctor.finding", "pipeline.run.start"}),
    ("pipeline.doctor.network", BASE | {"configs.folders", "pipeline.doctor.finding", "models", "torch"}),
    ("pipeline.doctor.packages", {"pipeline.doctor.finding", "cv2"}),
    ("pipeline.doctor.video", BASE | {"pipeline.doctor.finding", "pipeline.sinks", "av", "cv2"}),
    (
        "pipeline.doctor.places",
        BASE
        | {"configs.folders", "pipeline.doctor.finding", "pipeline.control.words"}
        | {"pipeline.flow.sharedmem", "pipeline.run.plan"},
    ),
    ("pipeline.doctor", BASE | {"pipeline.doctor.finding", "pipeline.sources"}),
    # what is typed
    ("pipeline.command.files", {"configs.startup", "configs.uri", "pipeline.errors"}),
    ("pipeline.command.config", {"configs", "pipeline.errors", "pipeline.settings"}),
    ("pipeline.command.cli", BASE | {"configs.secrets", "pipeline.command.config"}),
    ("pipeline.command.ctl", BASE | {"pipeline.command", "pipeline.control.words"}),
    ("pipeline.command.unhurried", set()),
    ("pipeline.command.logline", set()),
    ("pipeline.command.log", STAGE | {"pipeline.command", "pipeline.control"}),
    ("pipeline.command.console", STAGE | {"pipeline.command.unhurried", "pipeline.control", "rich"}),
    ("pipeline.command.preflight", BASE | {"pipeline.command.files", "models"}),
    ("pipeline.command.welcome", {"pipeline.errors"}),
    (
        "pipeline.command.doctor",
        BASE | {"pipeline.command", "pipeline.doctor.examine", "pipeline.doctor.finding", "rich"},
    ),
    ("pipeline.command.profile", BASE | {"pipeline.command", "pipeline.profile", "rich"}),
    ("pipeline.command", STAGE | {"pipeline.control", "pipeline.sources", "rich"}),
    ("pipeline", {"configs"}),
    ("models.kernels", {"models.kernels", "numba"}),
    ("models.soft_nms", set()),
    ("models.preprocess", {"models", "torch", "cv2"}),
    ("models.samples", {"models", "cv2"}),
    ("models.fingerprint", set()),
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
BARE = ("configs", "pipeline", "pipeline.control", "pipeline.flow", "pipeline.command", "pipeline.kernels", "models")


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
    assert [module for module, path in modules() if "zmq" in imported(path)] == ["pipeline.flow.transport"]


@pytest.mark.parametrize("stage", ["decode", "gather", "track", "postprocess", "deliver"])
def test_only_inference_loads_torch(stage: str) -> None:
    code = f"import pipeline.run.worker, pipeline.stages.{stage}"
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    ).stderr
    loaded = {line.rpartition("|")[2].strip() for line in trace.splitlines()}
    assert f"pipeline.stages.{stage}" in loaded
    assert not loaded & {"torch", "models", "asyncio"}


@pytest.mark.parametrize("stage", ["postprocess", "track"])
def test_kernels_come_without_linear_algebra(stage: str) -> None:
    """SciPy's, which tests need, and Numba would import."""
    code = (
        f"import sys; from pipeline.stages.{stage} import compiled, warm_up; compiled(warm_up); "
        "assert 'numba' in sys.modules and 'scipy.linalg' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(("arguments", "code"), [((), 2), (("--help",), 0)])
def test_help_loads_nothing_slow(arguments: tuple[str, ...], code: int) -> None:
    command = [sys.executable, "-X", "importtime", "run_pipeline.py", *arguments]
    trace = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    loaded = {line.rpartition("|")[2].strip() for line in trace.stderr.splitlines()}
    assert trace.returncode == code
    assert "pipeline.command.cli" in loaded
    assert not loaded & {"torch", "numba", "numpy", "av", "cv2", "rich", "zmq"}
