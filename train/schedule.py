"""The learning rate of every step, as a function of the step alone: nothing to keep, nothing to restore."""

import math

from train.recipe import OptimiserSettings, ScheduleSettings

# One cycle (Smith 2018, arXiv 1803.09820): up from a 25th for three tenths of the steps, then down to nearly nothing.
ONE_CYCLE_START, ONE_CYCLE_RISE, ONE_CYCLE_END = 1 / 25, 0.3, 1e-4


def peak_rate(settings: OptimiserSettings, images_per_step: int) -> float:
    """The recipe's rate, in proportion to the images of a step (Goyal et al. 2017, arXiv 1706.02677, section 2.1)."""
    return settings.learning_rate * images_per_step / (settings.for_batch or images_per_step)


def rate_factor(settings: ScheduleSettings, step: int, steps_per_epoch: int) -> float:
    """What the peak rate is multiplied by at `step`, counted from 0 over the whole training; in each round the same."""
    steps = settings.epochs * steps_per_epoch
    step %= steps
    warm_up = min(1.0, (step + 1) / (settings.warm_up_steps + 1))
    if settings.kind == "one_cycle":
        return warm_up * _one_cycle(step / max(1, steps - 1))
    if settings.kind == "cosine":
        return warm_up * _between(1.0, 0.0, step / steps)
    return warm_up * 0.1 ** sum(step >= drop * steps_per_epoch for drop in settings.drops)


def _one_cycle(done: float) -> float:
    if done < ONE_CYCLE_RISE:
        return _between(ONE_CYCLE_START, 1.0, done / ONE_CYCLE_RISE)
    return _between(1.0, ONE_CYCLE_END, (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


def _between(start: float, end: float, done: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
