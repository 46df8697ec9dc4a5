"""Notices that a training diverges, by its losses. Knows no network and no rate."""

import math

# The loss now, at a glance and over long, is a mean of about so many steps, for a batch alone says little.
GLANCE_STEPS, LONG_STEPS = 10, 50
# Above what it was before anything was learnt: a single loss, and the mean at a glance. Above the lowest it has been
# over long: a network that was torn apart after it had learnt may well be better than it was at first.
BURST, RISEN, RISEN_AGAIN = 10.0, 1.5, 1.3


class _Mean:
    """Of the last steps, those long ago counting ever less."""

    def __init__(self, steps: int) -> None:
        self._keep, self._sum, self.weight = 1 - 1 / steps, 0.0, 0.0

    def add(self, value: float) -> float:
        self._sum = self._keep * self._sum + (1 - self._keep) * value
        self.weight = self._keep * self.weight + 1 - self._keep
        return self._sum / self.weight


class Guard:
    """Losses in, step by step; `first_loss` is what the loss was before anything was learnt."""

    def __init__(self, first_loss: float) -> None:
        self._first_loss = first_loss
        self.go_on()

    def go_on(self) -> None:
        """With other weights than those that diverged."""
        self._glance, self._long = _Mean(GLANCE_STEPS), _Mean(LONG_STEPS)
        self._lowest = math.inf

    def diverges(self, loss: float) -> bool:
        """Whether with this one it is clear: no number, worse than at first, or much worse than it had been."""
        if not math.isfinite(loss) or loss > BURST * self._first_loss:
            return True
        glance, long = self._glance.add(loss), self._long.add(loss)
        if self._long.weight > 0.5:
            self._lowest = min(self._lowest, long)
        return (self._glance.weight > 0.5 and glance > RISEN * self._first_loss) or long > RISEN_AGAIN * self._lowest
