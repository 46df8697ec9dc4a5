"""infer: the network's input in, raw heads out, into shared memory. The only stage that knows torch and the models.

Frames are independent, so on a CPU several are computed side by side, one thread each: two threads inside one step
would wait for each other at every layer. Results leave in the order of the frames.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

import models
from pipeline.errors import StageError, UsageError
from pipeline.frame import Frame
from pipeline.messages import ModelCard
from pipeline.settings import InferSettings
from pipeline.stage import Kit, Stage

LEASE_SECONDS = 0.1


class Infer(Stage):
    """The network's process."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.infer
        self._device = choose_device(self._settings.device)
        self._half = self._device.type == "cuda"
        self.lanes = self._settings.workers or (1 if self._half else self._settings.cpu_workers())

    def prepare(self) -> ModelCard:
        self.kit.tell("loading the network")
        self._model, self._spec, weights = load_model(self._settings)
        self._model.eval().requires_grad_(False)
        dtype = torch.float16 if self._half else torch.float32
        self._model.to(self._device, dtype).to(memory_format=torch.channels_last)
        self._dtype = dtype
        self._mean = torch.tensor(self._spec.mean_rgb, device=self._device, dtype=dtype).view(1, 3, 1, 1)
        self._std = torch.tensor(self._spec.std_rgb, device=self._device, dtype=dtype).view(1, 3, 1, 1)
        self._normalises = bool((self._mean != 0).any() or (self._std != 1).any())
        torch.set_num_threads(self._settings.cpu_threads())
        self.kit.tell("warming up the network")
        nothing = torch.zeros(self._spec.input_height, self._spec.input_width, 3, dtype=torch.uint8)
        with ThreadPoolExecutor(self.lanes) as lanes:  # buffers are kept for each thread that there will be
            list(lanes.map(self._heads, [nothing] * self.lanes * 2))
        return ModelCard(
            name=self._spec.name,
            weights=weights,
            class_names=self._spec.class_names,
            input_width=self._spec.input_width,
            input_height=self._spec.input_height,
            stride=self._spec.stride,
            resize=self._spec.resize,  # type: ignore[arg-type]
            device=str(self._device),
            precision="fp16" if self._half else "fp32",
            workers=self.lanes,
            threads=self._settings.cpu_threads(),
        )

    @torch.inference_mode()
    def _heads(self, input_hwc: torch.Tensor) -> dict[str, torch.Tensor]:
        """Raw heads (1, C, H/stride, W/stride) of one RGB uint8 input (H, W, 3)."""
        # It crosses to a device as it is, one byte a value, and becomes numbers there.
        images_bchw = input_hwc.to(self._device).permute(2, 0, 1).unsqueeze(0).to(self._dtype)
        if self._normalises:
            images_bchw = (images_bchw - self._mean) / self._std
        heads: dict[str, torch.Tensor] = self._model(images_bchw)
        return heads

    def process(self, frame: Frame) -> None:
        try:
            heads = self._heads(torch.from_numpy(frame.array("input_rgb")))
        except (RuntimeError, ValueError) as error:  # out of memory, a broken device: no result, and the frame says so
            frame.header.failure = f"inference failed: {str(error).splitlines()[0]}"
            self.problem = self.problem or StageError(frame.header.failure)
            self.kit.meter.warn(frame.header.failure)
        else:
            self._store(frame, heads)
        frame.discard("input_rgb")

    def _store(self, frame: Frame, heads: dict[str, torch.Tensor]) -> None:
        assert self.kit.leases is not None
        while (slot := self.kit.leases.lease(LEASE_SECONDS)) is None:
            if self.kit.stopped():
                frame.header.failure = "stopped"
                return
        frame.header.leases.append(slot)
        for name, head_bchw in heads.items():
            place = frame.place(name, slot, "float32", tuple(head_bchw.shape[1:]))
            torch.from_numpy(place).copy_(head_bchw[0])


def choose_device(name: str) -> torch.device:
    """The torch device for `infer.device`. Raises UsageError for a CUDA device that is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UsageError(f"infer.device: got {name}, this machine has {count} CUDA devices; use cpu or auto")
    return device


def load_model(settings: InferSettings) -> tuple[torch.nn.Module, models.ModelSpec, str]:
    """The network with its weights, its facts, and the name of the weights file.

    Raises UsageError for an unknown model and for a file that is not a checkpoint of it.
    """
    if settings.model not in models.SPECS:
        raise UsageError(f"infer.model: got {settings.model!r}, allowed is {' or '.join(models.list_models())}")
    path = Path(settings.weights) if settings.weights else models.SPECS[settings.model].weights_file
    if path is None:
        raise UsageError(f"infer.weights: {settings.model} ships without weights; give a checkpoint with --weights")
    try:
        spec = models.read_spec(path)
        model = models.create_model(settings.model, len(spec.class_names))
        models.load_checkpoint(model, path)
    except models.CheckpointError as error:
        raise UsageError(f"infer.weights: {error}") from None
    return model, spec, path.name
