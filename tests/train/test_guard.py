"""Which losses are those of a training that diverges."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.guard import Guard


def noticed_after(losses: list[float]) -> int | None:
    guard = Guard(losses[0] if losses and math.isfinite(losses[0]) else 1.0)
    return next((place for place, loss in enumerate(losses) if guard.diverges(loss)), None)


FALLING = [2.5 * 0.98**step + 0.3 for step in range(400)]


def test_no_losses_are_no_divergence() -> None:
    assert noticed_after([]) is None


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        (FALLING, None),
        ([loss * (1.6 if step % 3 == 0 else 0.7) for step, loss in enumerate(FALLING)], None),
        ([*FALLING, *[FALLING[-1] * 1.2] * 400], None),
        ([*FALLING[:200], *[1.2] * 100], 20),  # torn: worse than it was, and yet better than at first
        ([2.0, 2.0, math.nan], 0),
        ([math.inf], 0),
        ([*FALLING[:100], *[6.0] * 20], 15),
        ([2.0, 30.0], 0),
        ([2.0, *[6.0] * 4, 0.1], None),  # of so few steps there is no mean
        ([2.0] * 20 + [2.0 * 1.05**step for step in range(100)], 50),  # as large objects' sizes did
        ([2.0] * 400, None),  # a rate at which nothing is learnt is not too high
        ([2.0 + 0.7 * (-1) ** (step // 9) for step in range(400)], None),  # nor when batches differ
    ],
    ids=[
        "falls",
        "falls with noise",
        "rises a little",
        "torn",
        "nan",
        "infinity",
        "rises",
        "bursts",
        "swings",
        "climbs",
        "stays",
        "stays with noise",
    ],
)
def test_what_is_noticed_and_how_soon(losses: list[float], steps: int | None) -> None:
    noticed = noticed_after(losses)
    if steps is None:
        assert noticed is None
        return
    pairs = pairwise([losses[0], *losses])
    begin = next(place for place, (before, loss) in enumerate(pairs) if loss > before or not math.isfinite(loss))
    assert noticed is not None and noticed - begin <= steps


def test_who_goes_on_is_measured_by_the_same_begin_and_by_what_it_reaches_itself() -> None:
    guard = Guard(FALLING[0])
    assert not any(guard.diverges(loss) for loss in FALLING)
    assert any(guard.diverges(FALLING[0]) for _ in range(50))
    guard.go_on()
    assert not any(guard.diverges(FALLING[0]) for _ in range(50))  # sent back to where it began
    guard.go_on()
    assert any(guard.diverges(2 * FALLING[0]) for _ in range(10))
    guard.go_on()
    assert guard.diverges(100.0)


@given(st.lists(st.floats(0.1, 10.0), min_size=30, max_size=60), st.integers(-20, 20).map(lambda power: 2.0**power))
def test_the_scale_of_the_losses_does_not_matter(losses: list[float], scale: float) -> None:
    assert noticed_after(losses) == noticed_after([loss * scale for loss in losses])
