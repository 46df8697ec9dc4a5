"""What an engine is: a network made ready for one job on one device. Knows no way of doing it, and no torch: a network
that was exported at an earlier start runs without."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Outputs = Mapping[str, NDArray[np.float32]]
Precision = Literal["fp32", "bf16", "fp16"]


class EngineError(RuntimeError):
    """An engine that cannot be had, or that cannot take this network; one line."""


@dataclass(frozen=True, slots=True)
class Job:
    """What an engine is made for; nothing of it changes afterwards.

    device            "cpu", "cuda" or "cuda:N"
    batches           how many images at a time: any of these
    height, width     of the input in pixels, multiples of the network's `size_multiple`
    lanes             calls of `run` that may be under way at the same time
    threads           CPU threads for each of them
    top_k             search the peaks there as well, the best so many; 0: raw heads come out
    precision         in which the engine computes; None: its usual one on this device
    """

    device: str = "cpu"
    batches: tuple[int, ...] = (1,)
    height: int = 512
    width: int = 512
    lanes: int = 1
    threads: int = 1
    top_k: int = 0
    precision: Precision | None = None

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise ValueError(f"batches {self.batches}: give numbers of images from 1 on, such as (1, 4)")

    def parts(self, images: int) -> list[int]:
        """So many images as batches, the largest first. Raises ValueError where that leaves some."""
        parts: list[int] = []
        for batch in sorted(self.batches, reverse=True):
            count, images = divmod(images, batch)
            parts += [batch] * count
        if images:
            raise ValueError(f"{images} images are fewer than any of the batches {self.batches}")
        return parts


@dataclass(frozen=True, slots=True)
class Exported:
    """A network in a file that runtimes load, for any number of images of the job's size; `shapes` of what comes out
    for one of them, by name."""

    path: Path
    shapes: dict[str, tuple[int, ...]]


class Engine(ABC):
    """A network at work. It is made of an `Exported` where it `loads_exported`, else of a `PixelNetwork`."""

    name: ClassVar[str]
    loads_exported: ClassVar[bool] = False
    exported: Exported | None = None

    def __init__(self, job: Job, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """`shapes` is what comes out for one image, by name."""
        self.job = job
        self.names = tuple(shapes)
        self._shapes = shapes

    @classmethod
    def precisions(cls, device: str) -> tuple[Precision, ...]:
        """Those that it can compute in on `device`, the usual one first."""
        return ("fp32",)

    @property
    def precision(self) -> Precision:
        return self.job.precision or self.precisions(self.job.device)[0]

    @abstractmethod
    def run(self, images_bhwc: Images, out: Outputs) -> None:
        """uint8 RGB images (B, H, W, 3) in, B any of the job's batches; C-contiguous float32 arrays of
        `output_shapes(B)` filled.

        At most `job.lanes` threads at a time. Raises ValueError for images of another shape.
        """

    def output_shapes(self, batch: int = 1) -> dict[str, tuple[int, ...]]:
        """Of what comes out for so many images, by name."""
        return {name: (batch, *shape) for name, shape in self._shapes.items()}

    def allocate(self, batch: int = 1) -> dict[str, NDArray[np.float32]]:
        """Arrays for `run` to fill."""
        return {name: np.empty(shape, np.float32) for name, shape in self.output_shapes(batch).items()}

    def warm_up(self) -> None:
        """Runs every batch in every lane: buffers are kept for each thread that there will be."""
        with ThreadPoolExecutor(self.job.lanes) as lanes:
            for batch in self.job.batches:
                list(lanes.map(self.run_black, [batch] * 2 * self.job.lanes))

    def run_black(self, batch: int) -> None:
        """For what happens at the first time only."""
        self.run(self.black(batch), self.allocate(batch))

    def black(self, batch: int = 1) -> Images:
        """Images that `run` takes."""
        return np.zeros((batch, self.job.height, self.job.width, 3), np.uint8)

    def check(self, images_bhwc: Images) -> int:
        """The batch. Raises ValueError where the images are not what the job said."""
        job, (batch, *rest) = self.job, images_bhwc.shape
        if batch not in job.batches or rest != [job.height, job.width, 3] or images_bhwc.dtype != np.uint8:
            batches = " or ".join(map(str, sorted(job.batches)))
            raise ValueError(
                f"images {images_bhwc.dtype} {images_bhwc.shape}: this engine takes uint8 "
                f"({batches}, {job.height}, {job.width}, 3)"
            )
        return batch
