"""Ways to run a network on this machine, behind one small interface: uint8 frames in, heads out (see `engine`).

    engine = create_engine("openvino", network, Job("cpu", (1, 4), 512, 512, lanes=2, threads=1))
    engine.run(images_bhwc, out)                          # one image, or four

`auto` is the one that measured best here (see `choice`).
"""

import importlib
from importlib.util import find_spec

import torch

from models.centernet import CenterNet
from models.engines.engine import Engine, EngineError, Job

__all__ = ["ENGINES", "Engine", "EngineError", "Job", "available_engines", "create_engine"]

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


def create_engine(name: str, network: CenterNet, job: Job) -> Engine:
    """The engine `name`, made for `job` and warmed up. Raises EngineError with one line where that cannot be."""
    if name not in ENGINES:
        raise EngineError(f"engine '{name}': allowed are {', '.join(ENGINES)}")
    if problem := _why_not(name, job.device):
        raise EngineError(f"engine {name}: {problem}; here there are {', '.join(available_engines(job.device))}")
    module, kind, _, _ = ENGINES[name]
    torch.set_num_threads(job.threads)
    try:
        engine: Engine = getattr(importlib.import_module(module), kind)(network, job)
        engine.warm_up()
    except EngineError:
        raise
    except Exception as error:  # whatever a runtime or a compiler has to say against this network
        raise EngineError(
            f"engine {name} cannot run {network.spec.name}: {str(error).strip().splitlines()[0]}"
        ) from error
    return engine


def _why_not(name: str, device: str) -> str | None:
    _, _, package, devices = ENGINES[name]
    if device.partition(":")[0] not in devices:
        return f"runs on {' or '.join(devices)}, not on {device}"
    if package and not all(find_spec(needed) for needed in (package, "onnx", "onnxscript")):
        return f"is not installed; pip install 'centerstream[{package}]'"
    return None
