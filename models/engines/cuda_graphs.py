"""PyTorch on CUDA with each batch recorded once and replayed: no launch of a kernel waits for Python."""

from queue import LifoQueue

import torch

from models.engines.eager import Eager
from models.engines.engine import Images, Job, Outputs
from models.pixels import PixelNetwork


class CudaGraphs(Eager):
    """A recording for each lane and batch, with its own stream and pinned buffers: one lane's copies go on beside the
    other's kernels. Pixels cross once, as bytes."""

    name = "cuda_graphs"

    def __init__(self, module: PixelNetwork, job: Job) -> None:
        super().__init__(module, job)
        torch.backends.cudnn.benchmark = True  # the shapes never change
        self._free: LifoQueue[dict[int, _Recording]] = LifoQueue()
        for _ in range(job.lanes):
            self._free.put({batch: _Recording(self, batch) for batch in job.batches})

    def run(self, images_bhwc: Images, out: Outputs) -> None:
        batch = self.check(images_bhwc)
        lane = self._free.get()
        try:
            lane[batch].replay(images_bhwc, out)
        finally:
            self._free.put(lane)


class _Recording:
    """One batch of one lane: its buffers on either side and the graph between them."""

    def __init__(self, engine: CudaGraphs, batch: int) -> None:
        self._names = engine.names
        device = torch.device(engine.job.device)
        self._host_in = torch.from_numpy(engine.black(batch)).pin_memory()
        self._device_in = self._host_in.to(device)
        self._stream = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.device(device):
            self._settle(engine)
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._device_out = [output.float() for output in engine.module(self._device_in)]
        self._host_out = [torch.empty(output.shape, pin_memory=True) for output in self._device_out]

    def _settle(self, engine: CudaGraphs) -> None:
        """Libraries choose their kernels and take their memory before the recording, not in it."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(3):
                engine.module(self._device_in)
        torch.cuda.current_stream().wait_stream(self._stream)

    def replay(self, images_bhwc: Images, out: Outputs) -> None:
        self._host_in.numpy()[:] = images_bhwc
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            self._device_in.copy_(self._host_in, non_blocking=True)
            self._graph.replay()
            for host, output in zip(self._host_out, self._device_out, strict=True):
                host.copy_(output, non_blocking=True)
        self._stream.synchronize()
        for name, host in zip(self._names, self._host_out, strict=True):
            out[name][:] = host.numpy()
