"""The training itself: batches in, steps made, epochs evaluated and kept. One process of it; torchrun starts more.

The order of the images and what is drawn for each follow from the seed, the learning rate from the step: so a training
that was stopped and resumed makes the same steps, bit for bit, as one that was not (on one process and one device).
"""

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, cast

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from models import save_checkpoint
from models.centernet import CenterNet
from models.normalise import Normalise
from train.coco import CocoData
from train.dataset import LOADER_START, UNREADABLE_SHARE, Batch, DetectionDataset, Sample, collate, loader_process
from train.guard import Guard
from train.losses import CenterNetLoss
from train.order import Order
from train.recipe import OptimiserSettings, Recipe
from train.rounds import MeanOfRounds
from train.schedule import peak_rate, rate_factor
from train.start import train_mode
from train.state import Progress, State, Tensors, optimiser_tensors, restore_optimiser
from train.team import Team
from train.weight_norm import folded

# A state that was good is kept so often. Where the rate was halved so often, it is not the rate.
GOOD_STEPS, MOST_HALVINGS = 50, 12
# That tell a guard what the loss is before anything was learnt.
FIRST_BATCHES = 8
KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
LOADER_END_SECONDS = 5.0  # for the kernel to tell us that a process which broke its connection has ended
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}

Losses = dict[str, float]


class TrainingError(RuntimeError):
    """A training that cannot go on; one line. What was kept before is still there."""


class Trainer:
    """A network on its way through the data. `progress.step` is the next step to be made."""

    def __init__(self, recipe: Recipe, network: CenterNet, data: CocoData, team: Team) -> None:
        self.recipe, self.team, self.network = recipe, team, network
        loop = recipe.loop
        self.progress = Progress(recipe=msgspec.json.encode(recipe).decode())
        self.order = Order(len(data.images), loop.batch, team.size, loop.seed)
        self.steps = self.order.steps_per_epoch * recipe.schedule.all_epochs
        self.peak_rate = peak_rate(recipe.optimiser, self.order.images_per_step * recipe.optimiser.accumulate)
        self._data = data
        self._normalise = Normalise(network.spec).to(team.device)
        network.to(team.device)
        if loop.channels_last:
            network.to(memory_format=torch.channels_last)
        self._module = _spread(network, team, loop.sync_batch_norm)
        self._loss = CenterNetLoss(network.head_specs, recipe.loss_weights, recipe.size_loss)
        self._optimiser = _optimiser(network, recipe.optimiser)
        self._scaler = torch.amp.GradScaler(team.device.type, enabled=loop.precision == "fp16")
        decay = recipe.optimiser.ema_decay
        average = (
            None
            if decay is None
            else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        )
        self._average = average
        self._guard: Guard | None = None
        self._good: tuple[State, State] | tuple[()] = ()  # the older has stood the test
        self._unreadable: set[str] = set()
        self._mean: MeanOfRounds | None = None
        if recipe.schedule.rounds > 1:
            self._mean = MeanOfRounds(recipe.model.name, network.spec)
            self._mean.network.to(team.device)
            self._start = _copied(self.state())

    @property
    def result(self) -> CenterNet:
        """The network to evaluate and keep: the mean of the rounds that are over, or before there are any, of this one
        the running mean of the weights where there is one."""
        return self._mean.network if self._mean and self._mean.rounds else self._of_this_round

    def with_begun_round(self) -> CenterNet:
        """What `result` is if the round that was begun ends here."""
        if not (self._mean and self._mean.rounds and self.progress.step % self._round_steps):
            return self.result
        mean = deepcopy(self._mean)
        mean.add(folded(self._of_this_round))
        return mean.network

    @property
    def _of_this_round(self) -> CenterNet:
        return cast(CenterNet, self._average.module) if self._average else self.network

    # -- steps

    def steps_made(self, tell: Callable[[str], None]) -> Generator[tuple[Losses, float, int], None, None]:
        """Makes the remaining steps; after each its losses, the seconds it waited for images, and how many they were.
        `tell` hears what is done against a training that diverges.

        Raises TrainingError.
        """
        self._of_this_round.eval()
        batches: Iterator[Batch] = iter(self._loader())
        if self.recipe.optimiser.guard:
            batches = self._guarded(batches)
        while self.progress.step < self.steps:
            asked = time.monotonic()
            batch = self._next(batches)
            waited = time.monotonic() - asked
            train_mode(self.network)
            if self._guard:
                self._keep_good()
            losses = self._step(batch)
            self.progress.step += 1
            if self._guard:
                self._watch_over(self._guard, losses["loss"], tell)
            if self._mean and self.progress.step % self._round_steps == 0:
                self._end_round(self._mean, tell)
            yield losses, waited, len(batch.image_ids)

    @property
    def _round_steps(self) -> int:
        return self.order.steps_per_epoch * self.recipe.schedule.epochs

    def _end_round(self, mean: MeanOfRounds, tell: Callable[[str], None]) -> None:
        """Its weights into the mean, and where there are more rounds, back to the start."""
        mean.add(folded(self._of_this_round))
        tell(f"round {mean.rounds} of {self.recipe.schedule.rounds} is over; kept is the mean of their weights")
        if self.progress.step < self.steps:
            self._take_over(_copied(self._start).parts)
            self._good = ()
            if self._guard:
                self._guard.go_on()

    def _guarded(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, once the loss before anything was learnt is known, by which the guard measures. After a
        few steps of learning it can be half of that, to which a training comes back that is sent back to its begin."""
        looked_at: list[Batch] = []
        if self.progress.first_loss is None:
            looked_at = [self._next(batches) for _ in range(min(FIRST_BATCHES, self.steps - self.progress.step))]
            train_mode(self.network)
            with torch.no_grad():
                losses = [self._told(self._losses(batch), batch)["loss"] for batch in looked_at]
            self.progress.first_loss = sum(losses) / len(losses)
        self._guard = Guard(self.progress.first_loss)
        return chain(looked_at, batches)

    def _loader(self) -> DataLoader[Sample]:
        recipe, spec, loop = self.recipe, self.network.spec, self.recipe.loop
        dataset = DetectionDataset(self._data, spec, recipe.augment, loop.seed)
        loaders = loader_count(loop.loaders)
        sizes = next(head.channels for head in self.network.head_specs if head.name == "wh")
        keys = self.order.batches(self.team.rank, self.progress.step, recipe.schedule.all_epochs)
        return DataLoader(
            dataset,
            batch_sampler=list(keys),
            num_workers=loaders,
            multiprocessing_context=LOADER_START if loaders else None,
            collate_fn=partial(collate, spec=spec, size_channels=sizes, settings=recipe.targets),
            pin_memory=self.team.device.type == "cuda",
            worker_init_fn=loader_process,
            generator=torch.Generator(),  # its own: torch's is kept, and goes on as if nothing had stopped
        )

    def _next(self, batches: Iterator[Batch]) -> Batch:
        try:
            batch = next(batches)
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            # Its batch was lost on the way from it. Its end itself is a RuntimeError of DataLoader's signal handler.
            time.sleep(LOADER_END_SECONDS)
            raise TrainingError(f"a process that loads images is not heard any more: {error}") from None
        self._unreadable.update(batch.problems)
        if len(self._unreadable) > UNREADABLE_SHARE * len(self._data.images):
            some = "; ".join(sorted(self._unreadable)[:3])
            raise TrainingError(
                f"{len(self._unreadable)} images cannot be read: {some}; look with python -m train.check"
            )
        return batch

    def _step(self, batch: Batch) -> Losses:
        step, accumulate = self.progress.step, self.recipe.optimiser.accumulate
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate(step)
        updates = self.may_stop_after(step)
        with nullcontext() if updates or self.team.size == 1 else self._module.no_sync():
            losses = self._losses(batch)
            told = self._told(losses, batch)
            self._scaler.scale(losses["loss"] / accumulate).backward()
        if updates and math.isfinite(told["loss"]):
            self._update()
        return told

    def _keep_good(self) -> None:
        """Now and then, before a step: the state that has stood the test since then is the one to go back to."""
        if not self._good or self.progress.step % GOOD_STEPS == 0:
            now = _copied(self.state())
            self._good = (self._good[1] if self._good else now), now

    def _watch_over(self, guard: Guard, loss: float, tell: Callable[[str], None]) -> None:
        """Back to the last good state, at half the rate, where the loss says that it diverges; the order of the images
        goes on. Raises TrainingError where that does not help."""
        if not guard.diverges(loss):
            return
        assert self._good
        step, good = self.progress.step, self._good[0]
        if self.progress.rate_scale <= 0.5**MOST_HALVINGS:
            raise TrainingError(
                f"the loss is {loss:.4g} at step {step}, whatever the rate; look with python -m train.check"
            )
        self.progress.rate_scale /= 2
        self._take_over(_copied(good).parts)
        self._good = good, good
        self._optimiser.zero_grad(set_to_none=True)
        guard.go_on()
        tell(
            f"step {step}: the loss rose to {loss:.3g}, the learning rate is too high: back to the weights of step "
            f"{good.progress.step}, and on with half of it, {self.peak_rate * self.progress.rate_scale:.3g} at the most"
        )

    def _told(self, losses: dict[str, Tensor], batch: Batch) -> Losses:
        """The losses of all processes together. Raises TrainingError, in all of them, where they are no numbers."""
        values = self.team.mean(torch.stack(list(losses.values())).detach()).tolist()
        told = dict(zip(losses, values, strict=True))
        if not math.isfinite(told["loss"]) and not self._guard:
            names = ", ".join(map(str, batch.image_ids))
            raise TrainingError(
                f"the loss is {told['loss']} at step {self.progress.step + 1}, images {names}; try a lower "
                "learning rate, optimiser.clip_norm or fp32"
            )
        return told

    def rate(self, step: int) -> float:
        """The learning rate of `step`."""
        factor = rate_factor(self.recipe.schedule, step, self.order.steps_per_epoch)
        return self.peak_rate * self.progress.rate_scale * factor

    def may_stop_after(self, step: int) -> bool:
        """Whether no gradient is waiting to be added to."""
        steps_per_epoch = self.order.steps_per_epoch
        return (step % steps_per_epoch + 1) % self.recipe.optimiser.accumulate == 0 or self.ends_epoch(step)

    def ends_epoch(self, step: int) -> bool:
        return (step + 1) % self.order.steps_per_epoch == 0

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        device, precision = self.team.device, self.recipe.loop.precision
        targets = batch.targets.to(device, non_blocking=True)
        images_bchw = self._normalise(batch.images_bhwc.to(device, non_blocking=True))
        if self.recipe.loop.channels_last:
            images_bchw = images_bchw.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, PRECISIONS.get(precision), enabled=precision != "fp32"):
            outputs = self._module(images_bchw)
        return self._loss(outputs, targets, self.team.mean(targets.count()), parts=self.team.size)

    def _update(self) -> None:
        self._scaler.unscale_(self._optimiser)
        if (limit := self.recipe.optimiser.clip_norm) is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        self._optimiser.zero_grad(set_to_none=True)
        if self._average:
            self._average.update_parameters(self.network)

    # -- keeping

    def state(self) -> State:
        """All that `restore` needs."""
        self.progress.scaler = self._scaler.state_dict()
        parts = {
            "network": self.network.state_dict(),
            "optimiser": optimiser_tensors(self._optimiser),
            "random": {"torch": torch.get_rng_state()},
        }
        if self._average:
            parts["average"] = self._average.state_dict()
        if self._mean and self._mean.rounds:
            parts["mean"] = self._mean.network.state_dict()
        return State(self.progress, parts)

    def restore(self, state: State) -> None:
        """Raises TrainingError where the state is of another network or of other settings."""
        try:
            self._take_over(state.parts)
            if self._mean and "mean" in state.parts:
                self._mean.network.load_state_dict(state.parts["mean"])
                self._mean.rounds = state.progress.step // self._round_steps
        except (RuntimeError, KeyError, ValueError) as error:
            text = " ".join(str(error).split())[:200]
            raise TrainingError(f"the state to resume is of another network or recipe ({text})") from None
        if state.progress.scaler:
            self._scaler.load_state_dict(state.progress.scaler)
        recipe = self.progress.recipe
        self.progress = state.progress
        self.progress.recipe = recipe

    def _take_over(self, parts: Mapping[str, Tensors]) -> None:
        self.network.load_state_dict(parts["network"])
        restore_optimiser(self._optimiser, parts.get("optimiser", {}))
        if self._average:
            self._average.load_state_dict(parts["average"])
        torch.set_rng_state(parts["random"]["torch"])

    def save_weights(self, network: CenterNet, path: Path) -> None:
        """A checkpoint that the pipeline runs, of one of its networks. Raises OSError."""
        save_checkpoint(folded(network), path, self.network.spec)


def _copied(state: State) -> State:
    parts = {part: {name: value.clone() for name, value in named.items()} for part, named in state.parts.items()}
    return State(msgspec.structs.replace(state.progress), parts)


def loader_count(wanted: int | None) -> int:
    """Processes that load images."""
    return max(1, (os.cpu_count() or 1) - 1) if wanted is None else wanted


def _spread(network: nn.Module, team: Team, sync_batch_norm: bool) -> Any:
    if team.size == 1:
        return network
    if sync_batch_norm:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[team.device.index] if team.device.type == "cuda" else None)


def _optimiser(network: nn.Module, settings: OptimiserSettings) -> torch.optim.Optimizer:
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return KINDS[settings.kind](weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
