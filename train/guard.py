"""Notices that a training diverges, by its losses. Knows no network and no rate."""

import math

# The loss at first, and now at a glance, are means of about so many steps, for a batch alone says little.
GLANCE_STEPS, LONG_STEPS = 10, 50
# Above what it was at first: a single loss, the mean at a glance, and over long, where not to have fallen is enough.
BURST, RISEN, NOT_FALLEN = 10.0, 1.5, 1.001


class _Mean:
    """Of the last steps, those long ago counting ever less."""

    def __init__(self, steps: int) -> None:
        self._keep, self._sum, self.weight = 1 - 1 / steps, 0.0, 0.0

    def add(self, value: float) -> float:
        self._sum = self._keep * self._sum + (1 - self._keep) * value
        self.weight = self._keep * self.weight + 1 - self._keep
        return self._sum / self.weight


class Guard:
    """Losses in, step by step. `first_loss` is what the loss was at first, None before that is known: for who goes on
    with the training later."""

    def __init__(self, first_loss: float | None = None) -> None:
        self.first_loss = first_loss
        self._very_first: float | None = None
        self.go_on()

    def go_on(self) -> None:
        """With other weights than those that diverged."""
        self._glance, self._long = _Mean(GLANCE_STEPS), _Mean(LONG_STEPS)

    def diverges(self, loss: float) -> bool:
        """Whether with this one it is clear: no number, or worse than at first."""
        self._very_first = loss if self._very_first is None else self._very_first
        if not math.isfinite(loss) or loss > BURST * (self.first_loss or self._very_first):
            return True
        glance, long = self._glance.add(loss), self._long.add(loss)
        if self._glance.weight < 0.5:
            return False
        if self.first_loss is None:
            self.first_loss = glance
        has_not_fallen = self._long.weight > 0.5 and long > NOT_FALLEN * self.first_loss
        return glance > RISEN * self.first_loss or has_not_fallen
