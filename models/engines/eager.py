"""PyTorch as it is, and through torch.compile."""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor

from models.engines.engine import Engine, Images, Job, Outputs, Precision
from models.pixels import PixelNetwork

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


class Eager(Engine):
    """PyTorch, layer by layer; half precision on CUDA. Everything can run here."""

    name = "eager"

    def __init__(self, module: PixelNetwork, job: Job) -> None:
        super().__init__(job, module.output_shapes(job.height, job.width))
        torch.set_num_threads(job.threads)
        self._device = torch.device(job.device)
        # A copy where it changes: of one network there may be several engines.
        own = module if job.device == "cpu" and self.precision == "fp32" else deepcopy(module)
        self.module = own.to(self._device, DTYPES[self.precision])
        self.module.to(memory_format=torch.channels_last)
        self._call: Callable[[Tensor], tuple[Tensor, ...]] = self.module

    @classmethod
    def precisions(cls, device: str) -> tuple[Precision, ...]:
        return ("fp16", "fp32") if device.startswith("cuda") else ("fp32",)

    def run(self, images_bhwc: Images, out: Outputs) -> None:
        self.check(images_bhwc)
        with torch.inference_mode():
            # They cross to a device as they are, one byte a value, and become numbers there.
            outputs = self._call(torch.from_numpy(images_bhwc).to(self._device))
            for name, output in zip(self.names, outputs, strict=True):
                torch.from_numpy(out[name]).copy_(output)


class Compiled(Eager):
    """torch.compile: fused by Inductor, which needs a C++ compiler on a CPU and its time at the start."""

    name = "compile"

    def __init__(self, module: PixelNetwork, job: Job) -> None:
        super().__init__(module, job)
        self._call = torch.compile(self.module, dynamic=False)

    def warm_up(self) -> None:
        for batch in self.job.batches:
            self.run_black(batch)  # compiled once, not in every lane at the same time
        super().warm_up()
