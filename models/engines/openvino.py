"""OpenVINO on a CPU."""

from functools import cache
from queue import LifoQueue
from typing import Any

import numpy as np
import openvino
from openvino import opset8
from openvino.frontend.onnx import ConversionExtension

from models.centernet import CenterNet
from models.engines.engine import Engine, Images, Job, Outputs
from models.engines.exported import exported


class OpenVino(Engine):
    """The exported graph in OpenVINO, a stream for each lane."""

    name = "openvino"

    def __init__(self, network: CenterNet, job: Job) -> None:
        super().__init__(network, job)
        core = _core()
        model = core.compile_model(core.read_model(exported(self.module, job)), "CPU", _settings(job))
        self._ports = {name: model.output(name) for name in self.output_shapes}
        self._free: LifoQueue[Any] = LifoQueue()
        for _ in range(job.lanes):
            self._free.put(model.create_infer_request())

    def run(self, images_bhwc: Images, out: Outputs) -> None:
        self.check(images_bhwc)
        request = self._free.get()
        try:
            for name, port in self._ports.items():
                request.set_tensor(port, openvino.Tensor(out[name], shared_memory=True))
            request.infer({0: openvino.Tensor(np.ascontiguousarray(images_bhwc), shared_memory=True)})
        finally:
            self._free.put(request)


@cache
def _core() -> openvino.Core:
    """The process's one. Each sets up a stack for signal handlers, and of two, whichever goes first, one may be left
    set up after its memory has gone: the next signal is then a segmentation fault (2026.4)."""
    core = openvino.Core()
    core.add_extension(ConversionExtension("DeformConv", _deform_conv))
    return core


def _settings(job: Job) -> dict[str, Any]:
    return {
        "NUM_STREAMS": job.lanes,
        "INFERENCE_NUM_THREADS": job.lanes * job.threads,
        "INFERENCE_PRECISION_HINT": "f32",  # its own choice on some processors is bf16, and heat maps show it
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
