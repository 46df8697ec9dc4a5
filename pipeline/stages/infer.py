"""infer: the network's input in, raw heads out, into shared memory. The only stage that knows the models.

Frames are independent, so on a CPU several are computed side by side, one thread each: two threads inside one step
would wait for each other at every layer.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace as replace_struct

import models
from models import devices, ready
from models.engines import Engine, EngineError, Job
from pipeline.errors import StageError, UsageError
from pipeline.flow.frame import Frame
from pipeline.flow.messages import Gpu, ModelCard, Slot
from pipeline.settings import InferSettings
from pipeline.stage import DEVICE_LANES, HEATMAPS, Kit, RoundStage

if TYPE_CHECKING:
    from models.centernet import CenterNet
    from models.engines.choice import Choice
    from models.shadow import Probation, Shadow


class Infer(RoundStage):
    """A network's process. It imports torch only where this start needs it: not where an earlier one was the same."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._leasing = threading.Lock()
        self._settings = kit.settings.infer
        self._device = choose_device(self._settings.device)
        on_cuda = self._device != "cpu"
        self.lanes = self._settings.workers or (DEVICE_LANES if on_cuda else self._settings.cpu_workers())
        self._judging = threading.Lock()
        self._exact: Engine | None = None
        self._probation: Probation | None = None
        self._shadow: Shadow | None = None

    def prepare(self) -> ModelCard:
        self._weights = weights_path(self._settings)
        try:
            recalled = None if self._settings.shadow else ready.recall(self._asked(), self._weights, ModelCard)
        except OSError as error:
            raise UsageError(f"infer.weights: {error}") from None
        self._engine, self._card = recalled or self._made_anew()
        if self._device != "cpu":
            self.kit.meter.gpu = self._gpu
        if not recalled and not self._probation:
            self._remember()
        return self._card

    def close(self) -> None:
        self.settle()

    def _gpu(self) -> Gpu | None:
        use = devices.cuda_use(self._device)
        return Gpu(self._device, *use) if use else None

    def _remember(self) -> None:
        ready.remember(self._asked(), self._weights, self._engine, self._card)

    def _asked(self) -> object:
        """All of the settings that decide what the engine and its card are."""
        asked, wanted = self._settings, self.kit.settings.postprocess
        how = (asked.engine, asked.precision, asked.batch, self._device, self.lanes, asked.cpu_threads())
        return (asked.model, asked.weights, asked.input_size, *how, wanted.classes, wanted.max_detections)

    def _made_anew(self) -> tuple[Engine, ModelCard]:
        from models.classes import keep_classes

        self.kit.tell("loading the network")
        network = load_model(self._settings)
        spec = network.spec
        channels = self.kit.settings.postprocess.class_ids(spec.class_names)
        keep_classes(network, channels)
        width, height = self._settings.input_sides() or (spec.input_width, spec.input_height)
        job = Job(
            device=self._device,
            height=_padded(height, spec.size_multiple),
            width=_padded(width, spec.size_multiple),
            lanes=self.lanes,
            threads=self._settings.cpu_threads(),
            # From a device come the best few peaks, for heat maps would be a long way; on a CPU a kernel reads them.
            top_k=0 if self._device == "cpu" else self.kit.settings.postprocess.max_detections,
        )
        choice = self._choose(network, job)
        return choice.engine, ModelCard(
            name=spec.name,
            weights=spec.weights_file.name if spec.weights_file else "",
            class_names=spec.class_names,
            channels=channels,
            input_width=width,
            input_height=height,
            padded_width=job.width,
            padded_height=job.height,
            stride=spec.stride,
            resize=spec.resize,  # type: ignore[arg-type]
            device=job.device,
            engine=choice.engine.name,
            engine_speeds=choice.images_per_second,
            precision=choice.engine.precision,
            on_precision=choice.on_precision,
            workers=self.lanes,
            batch=max(choice.engine.job.batches),
            threads=job.threads,
        )

    def _choose(self, network: CenterNet, job: Job) -> Choice:
        from models.engines.choice import BATCHES, choose

        name, batch = self._settings.engine, self._settings.batch
        if batch:
            job = replace(job, batches=batches_up_to(batch))
        measured = BATCHES if name == "auto" and batch is None else ()
        self.kit.tell("making the engine" if name == "auto" else f"making engine {name}")
        try:
            choice = choose(
                network, job, self.kit.tell, name=name, precision=self._settings.precision, batches=measured
            )
            self._compare_with_exact(network, choice.engine)
        except EngineError as error:
            raise UsageError(f"infer.engine: {error}") from None
        for problem in choice.problems:
            self.kit.meter.warn(f"left out: {problem}")
        return choice

    def _compare_with_exact(self, network: CenterNet, engine: Engine) -> None:
        """The same engine in fp32 beside it: for the first frames, and for a shadow to the end."""
        is_shadowed, is_on_probation = self._settings.shadow, self._settings.precision == "auto"
        if engine.precision == "fp32":
            if is_shadowed:
                self.kit.meter.warn(
                    "infer.shadow: there is nothing to compare, for the network computes in fp32 as it is"
                )
            return
        if not (is_shadowed or is_on_probation):
            return
        from models.engines import create_engine
        from models.shadow import Probation, Shadow

        self.kit.tell("making the engine in fp32, too")
        self._exact = create_engine(engine.name, network, replace(engine.job, precision="fp32"))
        if is_on_probation:
            self._probation = Probation(self._exact)
        if is_shadowed:
            self._shadow = Shadow(self._exact, self._settings.score())
            self.kit.meter.figures = self._shadow.figures

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
        engine = self._engine  # another lane may put another in its place
        for frame in frames:
            frame.header.leases.append(self._lease(frame))
        if len(frames) == 1:
            # The engine writes into the slot by itself.
            frame = frames[0]
            engine.run(frame.array("input_rgb")[None], self._room(frame))
        else:
            out = engine.allocate(len(frames))
            engine.run(np.stack([frame.array("input_rgb") for frame in frames]), out)
            for number, frame in enumerate(frames):
                for name, room in self._room(frame).items():
                    room[0] = out[name][number]
        for frame in frames:
            self._compare(frame)
            frame.discard("input_rgb")

    def _compare(self, frame: Frame) -> None:
        """With fp32, where there is something to be learnt."""
        probation, shadow = self._probation, self._shadow
        if shadow and frame.header.seq % self._settings.shadow:
            shadow = None
        if not (probation or shadow):
            return
        image_hwc = frame.array("input_rgb")
        outputs = {name: frame.array(name)[None] for name in self._engine.names}
        if shadow:
            shadow.compare(image_hwc, outputs)
        if probation and probation.compare(image_hwc, outputs):
            self.settle()

    def settle(self) -> None:
        """The first frames have shown what they can: lower precision stays, or fp32 takes its place; both for good."""
        with self._judging:
            probation, self._probation = self._probation, None
        if probation is None or not probation.frames:
            return
        told = "; ".join(filter(None, (self._card.on_precision, str(probation))))
        self._card = replace_struct(self._card, on_precision=told)
        if probation.refuses:
            assert self._exact
            self._engine, self._shadow = self._exact, None
            self._card = replace_struct(self._card, precision=self._engine.precision)
        self._exact = None
        self.kit.say_model(self._card)
        self._remember()

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


def choose_device(name: str) -> str:
    """Raises UsageError for a CUDA device that is not there."""
    try:
        return devices.choose_device(name, "infer.device")
    except ValueError as error:
        raise UsageError(str(error)) from None


def weights_path(settings: InferSettings) -> Path:
    """Raises UsageError for an unknown model and for weights that are not there or, by what they say, not for it."""
    settings.check_model(models.list_models())
    try:
        return models.describe_weights(settings.model, settings.weights)[0]
    except models.CheckpointError as error:
        raise UsageError(f"infer.weights: {error}") from None


def load_model(settings: InferSettings) -> CenterNet:
    """The network with its weights, whose spec says what they are for. Raises UsageError for those that do not fit."""
    try:
        return models.load_model(settings.model, settings.weights)
    except models.CheckpointError as error:
        raise UsageError(f"infer.weights: {error}") from None
