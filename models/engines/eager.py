"""PyTorch as it is, and through torch.compile."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.centernet import CenterNet
from models.engines.engine import Engine, Images, Job, Outputs


class Eager(Engine):
    """PyTorch, layer by layer; half precision on CUDA. Everything can run here."""

    name = "eager"

    def __init__(self, network: CenterNet, job: Job) -> None:
        super().__init__(network, job)
        self._device = torch.device(job.device)
        half = self._device.type == "cuda"
        self.precision = "fp16" if half else "fp32"
        self.module.to(self._device, torch.float16 if half else torch.float32)
        self.module.to(memory_format=torch.channels_last)
        self._call: Callable[[Tensor], tuple[Tensor, ...]] = self.module

    def run(self, images_bhwc: Images, out: Outputs) -> None:
        self.check(images_bhwc)
        with torch.inference_mode():
            # They cross to a device as they are, one byte a value, and become numbers there.
            outputs = self._call(torch.from_numpy(images_bhwc).to(self._device))
            for name, output in zip(self.module.names, outputs, strict=True):
                torch.from_numpy(out[name]).copy_(output)


class Compiled(Eager):
    """torch.compile: fused by Inductor, which needs a C++ compiler on a CPU and its time at the start."""

    name = "compile"

    def __init__(self, network: CenterNet, job: Job) -> None:
        super().__init__(network, job)
        self._call = torch.compile(self.module, dynamic=False)

    def warm_up(self) -> None:
        for batch in self.job.batches:
            self.run_black(batch)  # compiled once, not in every lane at the same time
        super().warm_up()
