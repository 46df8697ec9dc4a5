"""infer: the network's input in, raw heads out, into shared memory. The only stage that knows torch and the models.

Frames are independent, so on a CPU several are computed side by side, one thread each: two threads inside one step
would wait for each other at every layer.
"""

import threading
from dataclasses import replace
from typing import Any

import numpy as np
import torch

import models
from models import devices
from models.centernet import CenterNet
from models.engines import Engine, EngineError, Job
from models.engines.choice import choose
from pipeline.errors import StageError, UsageError
from pipeline.flow.frame import Frame
from pipeline.flow.messages import ModelCard, Slot
from pipeline.settings import InferSettings
from pipeline.stage import DEVICE_LANES, HEATMAPS, Kit, RoundStage

# Of these it is measured which pay, where nobody said how many.
BATCHES = (1, 2, 4, 8)


class Infer(RoundStage):
    """A network's process."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._leasing = threading.Lock()
        self._settings = kit.settings.infer
        self._device = choose_device(self._settings.device)
        on_cuda = self._device.type == "cuda"
        self.lanes = self._settings.workers or (DEVICE_LANES if on_cuda else self._settings.cpu_workers())

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
            batch=max(self._engine.job.batches),
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
        name, batch = self._settings.engine, self._settings.batch
        if batch:
            job = replace(job, batches=batches_up_to(batch))
        measured = BATCHES if name == "auto" and batch is None else ()
        try:
            self.kit.tell("making the engine" if name == "auto" else f"making engine {name}")
            choice = choose(network, job, self.kit.tell, name=name, batches=measured)
        except EngineError as error:
            raise UsageError(f"infer.engine: {error}") from None
        for problem in choice.problems:
            self.kit.meter.warn(f"left out: {problem}")
        return choice.engine, choice.images_per_second

    def process_round(self, frames: list[Frame]) -> None:
        done = 0
        for size in self._engine.job.parts(len(frames)):
            self._try(frames[done : done + size])
            done += size

    def _try(self, frames: list[Frame]) -> None:
        """A step that fails is halved and tried again: what fails alone has no result, and says so."""
        try:
            self._step(frames)
        except (RuntimeError, ValueError, MemoryError) as error:  # out of memory, a broken device
            for frame in frames:
                frame.give_back(HEATMAPS)
            if len(frames) == 1:
                self._fail(frames[0], f"inference failed: {str(error).splitlines()[0] if str(error) else 'memory'}")
                return
            self.kit.meter.tally(f"steps that failed ({type(error).__name__}) and were tried again in halves")
            self.process_round(frames[: len(frames) // 2])
            self.process_round(frames[len(frames) // 2 :])

    def _fail(self, frame: Frame, why: str) -> None:
        frame.header.failure = why
        frame.discard("input_rgb")
        self.problem = self.problem or StageError(why)
        self.kit.meter.tally(why)

    def _step(self, frames: list[Frame]) -> None:
        for frame in frames:
            frame.header.leases.append(self._lease(frame))
        if len(frames) == 1:
            # The engine writes into the slot by itself.
            frame = frames[0]
            self._engine.run(frame.array("input_rgb")[None], self._room(frame))
        else:
            out = self._engine.allocate(len(frames))
            self._engine.run(np.stack([frame.array("input_rgb") for frame in frames]), out)
            for number, frame in enumerate(frames):
                for name, room in self._room(frame).items():
                    room[0] = out[name][number]
        for frame in frames:
            frame.discard("input_rgb")

    def _lease(self, frame: Frame) -> Slot:
        assert self.kit.lessor is not None
        with self._leasing:  # there is one for each frame that may be on its way
            slot = self.kit.lessor.lease(frame.header.place, frame.header.seq)
        if slot is None:
            raise RuntimeError("no slot for its heat maps")
        return slot

    def _room(self, frame: Frame) -> dict[str, np.ndarray]:
        """Arrays in the frame's own slot, for one image's heads."""
        slot = frame.header.leases[-1]
        shapes = self._engine.output_shapes()
        return {name: frame.place(name, slot, "float32", shape[1:])[None] for name, shape in shapes.items()}


def batches_up_to(largest: int) -> tuple[int, ...]:
    """1, 2, 4 … and the largest: every round falls into few of them."""
    return (*(size for size in (1, 2, 4, 8, 16) if size < largest), largest)


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
