"""Imports what the processes of a run import, so that Python has compiled it before the first start, as pip does at
once and uv does not: half of a first start would be that. `make setup` calls it.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

OURS = (
    *("run_pipeline", "pipeline.command.preflight", "pipeline.command.console", "pipeline.run.supervisor"),
    *(f"pipeline.stages.{name}" for name in ("decode", "gather", "infer", "postprocess", "track", "deliver", "serve")),
    *("pipeline.sinks.video", "pipeline.sinks.jsonl", "models.loading", "models.engines.choice", "models.shadow"),
    *("models.skeleton", "models.engines.exported"),
)
ENGINES = ("onnx", "onnxruntime", "openvino")

for module in OURS:
    import_module(module)
for package in filter(find_spec, ENGINES):
    import_module(package)
if find_spec("openvino"):
    import_module("models.engines.openvino")
