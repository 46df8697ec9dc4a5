"""What an engine is: a network made ready for one job on one device. Knows no way of doing it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from models.centernet import CenterNet
from models.pixels import PixelDetector, PixelNetwork

Images = NDArray[np.uint8]
Outputs = Mapping[str, NDArray[np.float32]]


class EngineError(RuntimeError):
    """An engine that cannot be had, or that cannot take this network; one line."""


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine is made for; nothing of it changes afterwards.

    device            "cpu", "cuda" or "cuda:N"
    batch             images at a time
    height, width     of the input in pixels, multiples of the network's `size_multiple`
    lanes             calls of `run` that may be under way at the same time
    threads           CPU threads for each of them
    top_k, class_ids  search the peaks there as well: the best so many of these classes; 0: raw heads come out
    """

    device: str = "cpu"
    batch: int = 1
    height: int = 512
    width: int = 512
    lanes: int = 1
    threads: int = 1
    top_k: int = 0
    class_ids: tuple[int, ...] = ()


class Engine(ABC):
    """A network at work. `precision` is what it computes in; `output_shapes` are those of what comes out, by name."""

    name: ClassVar[str]
    precision = "fp32"

    def __init__(self, network: CenterNet, job: Job) -> None:
        self.job = job
        self.module = module_for(network, job)
        self.output_shapes = self.module.output_shapes(job.batch, job.height, job.width)

    @abstractmethod
    def run(self, images_bhwc: Images, out: Outputs) -> None:
        """uint8 RGB images (B, H, W, 3) in, C-contiguous float32 arrays of `output_shapes` filled.

        At most `job.lanes` threads at a time. Raises ValueError for images of another shape.
        """

    def allocate(self) -> dict[str, NDArray[np.float32]]:
        """Arrays for `run` to fill."""
        return {name: np.empty(shape, np.float32) for name, shape in self.output_shapes.items()}

    def warm_up(self) -> None:
        """Runs every lane: buffers are kept for each thread that there will be."""
        with ThreadPoolExecutor(self.job.lanes) as lanes:
            list(lanes.map(lambda _: self.run(self.black(), self.allocate()), range(2 * self.job.lanes)))

    def black(self) -> Images:
        """Images that `run` takes."""
        return np.zeros((self.job.batch, self.job.height, self.job.width, 3), np.uint8)

    def check(self, images_bhwc: Images) -> None:
        """Raises ValueError where the images are not what the job said."""
        expected = (self.job.batch, self.job.height, self.job.width, 3)
        if images_bhwc.shape != expected or images_bhwc.dtype != np.uint8:
            raise ValueError(f"images {images_bhwc.dtype} {images_bhwc.shape}: this engine takes uint8 {expected}")


def module_for(network: CenterNet, job: Job) -> PixelNetwork:
    """What the job wants computed."""
    return PixelDetector(network, job.top_k, job.class_ids) if job.top_k else PixelNetwork(network)
