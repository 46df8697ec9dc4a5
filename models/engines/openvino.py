"""OpenVINO on a CPU."""

from functools import cache
from pathlib import Path
from queue import LifoQueue
from typing import Any

import numpy as np
import openvino
from openvino import opset8
from openvino.frontend.onnx import ConversionExtension

from models.engines.engine import Engine, Exported, Images, Job, Outputs, Precision

HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVino(Engine):
    """The exported graph in OpenVINO, compiled for each batch, with a stream for each lane.

    One that is compiled for any batch is a fifth slower, also with single images.
    """

    name = "openvino"
    loads_exported = True

    def __init__(self, exported: Exported, job: Job) -> None:
        super().__init__(job, exported.shapes)
        self.exported = exported
        settings = _settings(job, self.precision)
        models = {batch: _compiled(exported.path, job, batch, settings) for batch in job.batches}
        self._free: LifoQueue[dict[int, Any]] = LifoQueue()
        for _ in range(job.lanes):
            self._free.put({batch: model.create_infer_request() for batch, model in models.items()})

    @classmethod
    def precisions(cls, device: str) -> tuple[Precision, ...]:
        return ("fp32", "bf16") if "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else ("fp32",)

    def run(self, images_bhwc: Images, out: Outputs) -> None:
        batch = self.check(images_bhwc)
        lane = self._free.get()
        try:
            for name in self.names:
                lane[batch].set_tensor(name, openvino.Tensor(out[name], shared_memory=True))
            lane[batch].set_input_tensor(openvino.Tensor(np.ascontiguousarray(images_bhwc), shared_memory=True))
            lane[batch].start_async()  # `infer` copies all that comes out once more
            lane[batch].wait()
        finally:
            self._free.put(lane)


def _compiled(path: Path, job: Job, batch: int, settings: dict[str, Any]) -> openvino.CompiledModel:
    model = _core().read_model(path)
    model.reshape([batch, job.height, job.width, 3])
    return _core().compile_model(model, "CPU", settings)


@cache
def _core() -> openvino.Core:
    """The process's one. Each sets up a stack for signal handlers, and of two, whichever goes first, one may be left
    set up after its memory has gone: the next signal is then a segmentation fault (2026.4)."""
    core = openvino.Core()
    core.add_extension(ConversionExtension("DeformConv", _deform_conv))
    return core


def _settings(job: Job, precision: Precision) -> dict[str, Any]:
    return {
        "NUM_STREAMS": job.lanes,
        "INFERENCE_NUM_THREADS": job.lanes * job.threads,
        "INFERENCE_PRECISION_HINT": HINTS[precision],  # never its own choice, which differs from processor to processor
        "ENABLE_CPU_PINNING": False,  # other stages want the cores
    }


def _deform_conv(node: Any) -> list[Any]:
    """DeformConv of ONNX as OpenVINO's own operator; its reader of ONNX does not know it (2026.4)."""
    x, weight, offset, bias, mask = (node.get_input(i) for i in range(5))
    sampled = opset8.deformable_convolution(
        x,
        offset,
        weight,
        strides=node.get_attribute("strides"),
        pads_begin=node.get_attribute("pads")[:2],
        pads_end=node.get_attribute("pads")[2:],
        dilations=node.get_attribute("dilations"),
        mask=mask,
        auto_pad="explicit",
        bilinear_interpolation_pad=True,  # a sample half outside still counts its inner half
    )
    return [opset8.add(sampled, opset8.unsqueeze(bias, opset8.constant(np.array([0, 2, 3])))).output(0)]
