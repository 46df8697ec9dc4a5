"""Ways to run a network on this machine, behind one small interface: uint8 frames in, heads out (see `engine`).

    engine = create_engine("openvino", network, Job("cpu", (1, 4), 512, 512, lanes=2, threads=1))
    engine.run(images_bhwc, out)                          # one image, or four

`auto` is the one that measured best here (see `choice`). Importing this imports no torch; most engines do.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from models.engines.engine import Engine, EngineError, Exported, Job, Precision

if TYPE_CHECKING:
    from models.centernet import CenterNet
    from models.pixels import PixelNetwork

__all__ = [
    "ENGINES",
    "Engine",
    "EngineError",
    "Exported",
    "Job",
    "Precision",
    "available_engines",
    "create_engine",
    "engine_of",
    "precisions",
]

# Name → module and class, the package it needs beyond torch, and the devices it is for.
ENGINES = {
    "eager": ("models.engines.eager", "Eager", None, ("cpu", "cuda")),
    "compile": ("models.engines.eager", "Compiled", None, ("cpu", "cuda")),
    "cuda_graphs": ("models.engines.cuda_graphs", "CudaGraphs", None, ("cuda",)),
    "onnxruntime": ("models.engines.onnxruntime", "OnnxRuntime", "onnxruntime", ("cpu",)),
    "openvino": ("models.engines.openvino", "OpenVino", "openvino", ("cpu",)),
}


def available_engines(device: str) -> list[str]:
    """Those that can run on `device` ("cpu", "cuda:0") with what is installed here."""
    return [name for name in ENGINES if _why_not(name, device) is None]


def precisions(name: str, device: str) -> tuple[Precision, ...]:
    """Those that the engine `name` can compute in on `device`, the usual one first. Raises EngineError."""
    return _engine_class(name, device).precisions(device)


def create_engine(name: str, network: CenterNet, job: Job) -> Engine:
    """The engine `name`, made for `job` and warmed up. Raises EngineError with one line where that cannot be."""
    from models.pixels import PixelDetector, PixelNetwork

    kind = _engine_class(name, job.device)
    module = PixelDetector(network, job.top_k) if job.top_k else PixelNetwork(network)
    if not kind.loads_exported:
        return engine_of(name, module, job)
    from models.engines.exported import exported

    return engine_of(name, exported(module, job), job)


def engine_of(name: str, subject: PixelNetwork | Exported, job: Job) -> Engine:
    """The same of an exported network, or of the module where the engine takes that: no torch but the engine's own."""
    kind = _engine_class(name, job.device)
    _check_precision(name, kind, job)
    try:
        engine = kind(subject, replace(job, precision=job.precision or kind.precisions(job.device)[0]))
        engine.warm_up()
    except EngineError:
        raise
    except Exception as error:  # whatever a runtime or a compiler has to say against this network
        raise EngineError(f"engine {name} cannot run this network: {str(error).strip().splitlines()[0]}") from error
    return engine


def _engine_class(name: str, device: str) -> type[Any]:
    if name not in ENGINES:
        raise EngineError(f"engine '{name}': allowed are {', '.join(ENGINES)}")
    if problem := _why_not(name, device):
        raise EngineError(f"engine {name}: {problem}; here there are {', '.join(available_engines(device))}")
    module, kind, _, _ = ENGINES[name]
    found: type[Any] = getattr(importlib.import_module(module), kind)
    return found


def _check_precision(name: str, kind: type[Engine], job: Job) -> None:
    allowed = kind.precisions(job.device)
    if job.precision and job.precision not in allowed:
        raise EngineError(
            f"engine {name} does not compute in {job.precision} on this {job.device.partition(':')[0]}, "
            f"but in {' or '.join(allowed)}"
        )


def _why_not(name: str, device: str) -> str | None:
    _, _, package, devices = ENGINES[name]
    if device.partition(":")[0] not in devices:
        return f"runs on {' or '.join(devices)}, not on {device}"
    if package and not all(find_spec(needed) for needed in (package, "onnx", "onnxscript")):
        return f"is not installed; pip install 'centerstream[{package}]'"
    return None
