"""One training from its recipe to its report: reads the data, makes the network, watches, evaluates, keeps.

In the folder `out`: recipe.yaml, metrics.csv, last.safetensors and best.safetensors (for the pipeline),
state.safetensors (to go on), pictures/, tensorboard/, scores.json, report.html.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import msgspec
import torch

from models import load_model, save_checkpoint
from models.centernet import CenterNet
from train.average_precision import Scores, with_intervals
from train.coco import CocoData, read_coco, same_classes
from train.evaluate import best_threshold_line, evaluate
from train.loop import Losses, Trainer, TrainingError
from train.pictures import epoch_pictures
from train.recipe import DataSettings, Recipe
from train.report import PRECISIONS, write_report
from train.start import start_network
from train.state import load_state, save_state
from train.team import Team
from train.watch import Watch

INTERRUPTED = 130
LAST, BEST = "last.safetensors", "best.safetensors"
# Validation whose AP is told to less than this (the width of its interval) is one to choose by.
UNSURE = 0.1


@dataclass
class Tally:
    """What an epoch adds up to."""

    started: float = field(default_factory=time.monotonic)
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    batches: int = 0
    images: int = 0
    waited: float = 0.0

    def add(self, losses: Losses, waited: float, images: int) -> None:
        for name, value in losses.items():
            self.sums[name] += value
        self.batches += 1
        self.images += images
        self.waited += waited

    def row(self) -> dict[str, float]:
        seconds = time.monotonic() - self.started
        means = {name: total / self.batches for name, total in self.sums.items()}
        return {
            **means,
            "seconds": round(seconds, 3),
            "images_per_second": self.images / seconds,
            "loader_wait_share": self.waited / seconds,
        }


class Run:
    """Raises ValueError (bad data, a bad checkpoint), or OSError where `out` cannot be written.

    No epoch is begun that would not end by the moment `until` of the monotonic clock, and none goes on after it.
    """

    def __init__(self, recipe: Recipe, team: Team, resume: Path | None, until: float = math.inf) -> None:
        self._until, self._epoch_seconds = until, 0.0
        self._evaluated_step = 0
        self._recipe, self._team = recipe, team
        self._folder = Path(recipe.out)
        self._prepare_folder(resume)
        self._train, self._val, self._test = read_data(recipe.data)
        self._notes: list[str] = []
        torch.manual_seed(recipe.loop.seed)  # of the weights that are drawn anew
        network = start_network(recipe.model, self._train, self._notes.append)
        self._trainer = Trainer(recipe, network, self._train, team)
        if resume:
            self._trainer.restore(load_state(resume))
        if team.leads:
            (self._folder / "recipe.yaml").write_bytes(msgspec.yaml.encode(recipe))

    def _prepare_folder(self, resume: Path | None) -> None:
        if self._team.leads:
            if not resume:
                check_is_free(self._folder)
            self._folder.mkdir(parents=True, exist_ok=True)

    def go(self, stop: Callable[[], bool]) -> int:
        """Trains to the end, or until `stop()`; the exit code. Raises TrainingError."""
        try:
            return self._go(stop)
        except RuntimeError as error:
            # DataLoader says so wherever we are, when one was killed: for want of memory, most often.
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(f"a process that loads images ended: {str(error).splitlines()[0]}") from None

    def _go(self, stop: Callable[[], bool]) -> int:
        trainer, progress = self._trainer, self._trainer.progress
        per_epoch = trainer.order.steps_per_epoch
        with Watch(self._folder, trainer.steps, progress.step, per_epoch, silent=not self._team.leads) as watch:
            self._introduce(watch)
            tally = Tally()
            for losses, waited, images in trainer.steps_made(watch.tell):
                made = progress.step - 1
                watch.step(progress.step, losses, trainer.rate(made))
                tally.add(losses, waited, images)
                is_over = time.monotonic() > self._until and trainer.may_stop_after(made)
                if trainer.ends_epoch(made) or is_over:
                    self._end_epoch(watch, tally)
                    self._epoch_seconds = max(self._epoch_seconds, time.monotonic() - tally.started)
                    tally = Tally()
                    if self._is_over():
                        watch.tell(f"the time is over after step {progress.step}: this machine became slower")
                        self._keep_begun_round(watch)
                        break
                if trainer.may_stop_after(made) and self._team.any(stop()):
                    self._keep_state()
                    watch.tell(f"stopped after step {progress.step}; go on with --resume")
                    return INTERRUPTED
            self._finish(watch)
        return 0

    def _introduce(self, watch: Watch) -> None:
        trainer, recipe = self._trainer, self._recipe
        images = trainer.order.images_per_step * recipe.optimiser.accumulate
        for note in (*self._notes, *self._train.remarks):
            watch.tell(note)
        watch.tell(
            f"{len(self._train.images)} images, {len(self._train.class_names)} classes; {images} images a step on "
            f"{self._team.size} x {self._team.device}; learning rate {trainer.peak_rate:.3g}"
            + (
                f" = {recipe.optimiser.learning_rate:g} x {images}/{recipe.optimiser.for_batch}"
                if recipe.optimiser.for_batch
                else ""
            )
        )

    def _is_over(self) -> bool:
        is_last = self._trainer.progress.step >= self._trainer.steps
        return not is_last and time.monotonic() + self._epoch_seconds > self._until

    @property
    def _epoch(self) -> int:
        return self._trainer.progress.step // self._trainer.order.steps_per_epoch

    # -- at the end of an epoch

    def _end_epoch(self, watch: Watch, tally: Tally) -> None:
        if self._team.leads:
            epoch = self._epoch
            row = tally.row()
            scores = self._scores(epoch)
            self._keep(epoch, scores)
            watch.epoch(self._row(epoch, row, scores))
            self._show(watch, epoch)
        self._team.wait()

    def _row(self, epoch: int, tallied: Mapping[str, float], scores: Scores | None) -> dict[str, Any]:
        step = self._trainer.progress.step
        rate = self._trainer.rate(step - 1)
        found = {"ap": scores.ap, "ap50": scores.ap50, "ap75": scores.ap75} if scores else {}
        return {"epoch": epoch, "step": step, "learning_rate": rate, **tallied, **found}

    def _scores(self, epoch: int) -> Scores | None:
        due = epoch % self._recipe.loop.evaluate_every == 0 or epoch == self._recipe.schedule.all_epochs
        if not (self._val and due):
            return None
        self._evaluated_step = self._trainer.progress.step
        return self._evaluate(self._trainer.result, self._val)

    def _evaluate(self, network: CenterNet, data: CocoData, flip: bool = False) -> Scores:
        return evaluate(network, data, device=self._team.device, flip=flip, batch=self._recipe.loop.batch)

    def _keep(self, epoch: int, scores: Scores | None) -> None:
        """The weights, the best so far, and the state. Raises TrainingError where the disk does not take them."""
        network = self._trainer.result
        self._save(network, LAST)
        if not self._val or _ap(scores) > self._trainer.progress.best or not (self._folder / BEST).exists():
            self._keep_best(network, epoch, scores)
        self._keep_state()

    def _keep_begun_round(self, watch: Watch) -> None:
        """Nothing is lost of a round that the time cut off, where the validation images say that it helps."""
        if not (self._val and self._team.leads):
            return
        network = self._trainer.with_begun_round()
        if network is self._trainer.result and self._evaluated_step == self._trainer.progress.step:
            return
        scores = self._evaluate(network, self._val)
        if _ap(scores) > self._trainer.progress.best:
            watch.tell(f"what was learnt since the last evaluation is kept: {_precisions(scores)} on validation images")
            self._keep_best(network, self._epoch, scores)
            self._keep_state()

    def _keep_best(self, network: CenterNet, epoch: int, scores: Scores | None) -> None:
        progress = self._trainer.progress
        progress.best, progress.best_epoch = _ap(scores), epoch
        self._save(network, BEST)

    def _save(self, network: CenterNet, name: str) -> None:
        try:
            self._trainer.save_weights(network, self._folder / name)
        except OSError as error:
            raise self._not_kept(error) from None

    def _keep_state(self) -> None:
        if self._team.leads:
            try:
                save_state(self._trainer.state(), self._folder / "state.safetensors")
            except OSError as error:
                raise self._not_kept(error) from None

    def _not_kept(self, error: OSError) -> TrainingError:
        return TrainingError(f"{self._folder}: cannot be written ({error}); what was kept before is still there")

    def _show(self, watch: Watch, epoch: int) -> None:
        count = self._recipe.loop.pictures
        if count:
            picture = epoch_pictures(self._trainer.result, self._val or self._train, self._recipe.targets, count)
            folder = self._folder / "pictures"
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"epoch_{epoch:03}.jpg"), picture[:, :, ::-1])
            watch.picture(picture, self._trainer.progress.step)

    # -- at the end

    def _finish(self, watch: Watch) -> None:
        if not self._team.leads:
            return
        best = self._folder / BEST
        network = load_model(self._recipe.model.name, best)
        data = self._test or self._val or self._train
        scores, flipped = with_intervals(self._evaluate(network, data)), self._evaluate(network, data, flip=True)
        name = "test" if self._test else "validation" if self._val else "training"
        watch.tell(
            f"best epoch {self._trainer.progress.best_epoch}; on {len(data.images)} {name} images: "
            f"{_precisions(scores)}{_sure(scores)}; averaged with the mirrored image: {_precisions(flipped)}"
        )
        if scores.threshold:
            watch.tell(best_threshold_line(scores))
        if self._val:
            on_val = scores if data is self._val else with_intervals(self._evaluate(network, self._val))
            self._warn_of_few(watch, on_val)
            self._write_threshold(network, best, on_val)
        figures = scores.figures() | {"with_flip": {each: getattr(flipped, each) for each in PRECISIONS}}
        (self._folder / "scores.json").write_bytes(msgspec.json.format(msgspec.json.encode(figures), indent=2))
        write_report(self._folder, self._recipe, data, scores, name, flipped)
        watch.tell(
            f"wrote {best} and {self._folder / 'report.html'}; to run it: ./run_pipeline.py SOURCE --weights {best}"
        )

    def _write_threshold(self, network: CenterNet, best: Path, on_val: Scores) -> None:
        """Into the checkpoint: the pipeline's usual score for it. Of validation, for on the test images it is told how
        good it is."""
        if on_val.threshold:
            spec = replace(network.spec, score_threshold=round(on_val.threshold.score, 3), weights_file=None)
            save_checkpoint(network.state_dict(), best, spec)

    def _warn_of_few(self, watch: Watch, scores: Scores) -> None:
        """Where which epoch is best may be chance."""
        assert scores.intervals
        low, high = scores.intervals.ap
        if not high - low <= UNSURE:
            watch.tell(
                f"{scores.images} validation images are few to choose an epoch by{_sure(scores)}: "
                "one that is better by less than that may be so by chance"
            )


def check_is_free(folder: Path) -> None:
    """Raises ValueError for one that holds a training."""
    if (folder / "state.safetensors").exists():
        raise ValueError(f"{folder} holds a training already: go on with --resume, or give another out")


def _ap(scores: Scores | None) -> float:
    """-1 where there is none."""
    return scores.ap if scores and not math.isnan(scores.ap) else -1.0


def _precisions(scores: Scores) -> str:
    return f"AP {scores.ap:.4f}  AP50 {scores.ap50:.4f}  AP75 {scores.ap75:.4f}"


def _sure(scores: Scores) -> str:
    if not scores.intervals or math.isnan(scores.intervals.ap.low):
        return ""
    low, high = scores.intervals.ap
    return f" (95 of 100 draws of them: AP {low:.3f} to {high:.3f})"


def read_data(settings: DataSettings) -> tuple[CocoData, CocoData | None, CocoData | None]:
    """Images to train on, to choose by and to report on. Raises DataError."""
    train = read_coco(settings.train_json, settings.train_images)
    others = []
    for json_path, folder in ((settings.val_json, settings.val_images), (settings.test_json, settings.test_images)):
        data = read_coco(json_path, folder) if json_path else None
        if data:
            same_classes(train, data)
        others.append(data)
    return train, others[0], others[1]
