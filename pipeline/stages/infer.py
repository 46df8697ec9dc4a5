"""infer: the network's input in, raw heads out, into shared memory. The only stage that knows torch and the models.

Frames are independent, so on a CPU several are computed side by side, one thread each: two threads inside one step
would wait for each other at every layer. Results leave in the order of the frames.
"""

from typing import Any

import numpy as np
import torch

import models
from models import devices
from models.centernet import CenterNet
from models.engines import Engine, EngineError, Job, create_engine
from models.engines.choice import choose
from pipeline.errors import StageError, UsageError
from pipeline.frame import Frame
from pipeline.messages import ModelCard, Slot
from pipeline.settings import InferSettings
from pipeline.stage import HEATMAPS, Kit, Stage

LEASE_SECONDS = 0.1
# One batch computes while the other is copied.
CUDA_LANES = 2


class Infer(Stage):
    """The network's process."""

    # Frames that come too late are dropped here and nowhere after: what the network was paid for is delivered.
    drops_late = True

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.infer
        self._device = choose_device(self._settings.device)
        on_cuda = self._device.type == "cuda"
        self.lanes = self._settings.workers or (CUDA_LANES if on_cuda else self._settings.cpu_workers())

    def prepare(self) -> ModelCard:
        self.kit.tell("loading the network")
        network, weights = load_model(self._settings)
        spec = network.spec
        width, height = self._settings.input_sides() or (spec.input_width, spec.input_height)
        job = Job(
            device=str(self._device),
            height=_padded(height, spec.size_multiple),
            width=_padded(width, spec.size_multiple),
            lanes=self.lanes,
            threads=self._settings.cpu_threads(),
            **self._peaks_there(spec.class_names),
        )
        self._engine, speeds = self._make_engine(network, job)
        return ModelCard(
            name=spec.name,
            weights=weights,
            class_names=spec.class_names,
            input_width=width,
            input_height=height,
            padded_width=job.width,
            padded_height=job.height,
            stride=spec.stride,
            resize=spec.resize,  # type: ignore[arg-type]
            device=job.device,
            engine=self._engine.name,
            engine_speeds=speeds,
            precision=self._engine.precision,
            workers=self.lanes,
            threads=job.threads,
        )

    def _peaks_there(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """From a device come the best few peaks, for heat maps would be a long way; on a CPU a kernel reads them."""
        if self._device.type == "cpu":
            return {}
        wanted = self.kit.settings.postprocess
        return {"top_k": wanted.max_detections, "class_ids": wanted.class_ids(class_names)}

    def _make_engine(self, network: CenterNet, job: Job) -> tuple[Engine, dict[str, float]]:
        """The engine, and for `auto` the images a second of those it was chosen from."""
        name = self._settings.engine
        try:
            if name != "auto":
                self.kit.tell(f"making engine {name}")
                return create_engine(name, network, job), {}
            choice = choose(network, job, self.kit.tell)
        except EngineError as error:
            raise UsageError(f"infer.engine: {error}") from None
        for problem in choice.problems:
            self.kit.meter.warn(f"left out: {problem}")
        return choice.engine, choice.images_per_second

    def process(self, frame: Frame) -> None:
        slot = self._lease()
        if slot is None:
            frame.header.failure = "stopped"
            return
        frame.header.leases.append(slot)
        try:
            self._engine.run(frame.array("input_rgb")[None], self._room(frame, slot))
        except (RuntimeError, ValueError) as error:  # out of memory, a broken device: no result, and the frame says so
            self.kit.give_back(frame.take_leases(HEATMAPS))
            frame.header.failure = f"inference failed: {str(error).splitlines()[0]}"
            self.problem = self.problem or StageError(frame.header.failure)
            self.kit.meter.warn(frame.header.failure)
        frame.discard("input_rgb")

    def _lease(self) -> Slot | None:
        assert self.kit.leases is not None
        while (slot := self.kit.leases.lease(LEASE_SECONDS)) is None:
            if self.kit.stopped():
                return None
        return slot

    def _room(self, frame: Frame, slot: Slot) -> dict[str, np.ndarray]:
        """Arrays in `slot`, where the engine writes its one image's heads by itself."""
        shapes = self._engine.output_shapes()
        return {name: frame.place(name, slot, "float32", shape[1:])[None] for name, shape in shapes.items()}


def _padded(side: int, multiple: int) -> int:
    """What the network can take; the rest is black, to the right and below."""
    return -(-side // multiple) * multiple


def choose_device(name: str) -> torch.device:
    """Raises UsageError for a CUDA device that is not there."""
    try:
        return devices.choose_device(name, "infer.device")
    except ValueError as error:
        raise UsageError(str(error)) from None


def load_model(settings: InferSettings) -> tuple[CenterNet, str]:
    """The network with its weights, whose spec says what they are for, and the name of the weights file.

    Raises UsageError for an unknown model and for weights that are not there, not readable or not for it.
    """
    settings.check_model(models.list_models())
    try:
        network = models.load_model(settings.model, settings.weights)
    except models.CheckpointError as error:
        raise UsageError(f"infer.weights: {error}") from None
    assert network.spec.weights_file is not None
    return network, network.spec.weights_file.name
