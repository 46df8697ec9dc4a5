"""Which losses are those of a training that diverges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.guard import Guard


def noticed_after(losses: list[float]) -> int | None:
    guard = Guard()
    return next((place for place, loss in enumerate(losses) if guard.diverges(loss)), None)


FALLING = [2.5 * 0.98**step + 0.3 for step in range(400)]


def test_no_losses_are_no_divergence() -> None:
    assert noticed_after([]) is None


@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        (FALLING, None),
        ([loss * (1.6 if step % 3 == 0 else 0.7) for step, loss in enumerate(FALLING)], None),
        ([*FALLING, *[2.0] * 400], None),  # worse than it was, better than at first
        ([2.0, 2.0, math.nan], 0),
        ([math.inf], 0),
        ([*FALLING[:100], *[6.0] * 20], 15),
        ([2.0, 30.0], 0),
        ([2.0, *[6.0] * 4, 0.1], None),  # of so few steps there is no mean
        ([2.0] * 20 + [2.0 * 1.05**step for step in range(100)], 50),  # as large objects' sizes did
        ([2.0] * 10 + [2.2] * 100, 60),  # no better in the long run
    ],
    ids=[
        "falls",
        "falls with noise",
        "rises a little",
        "nan",
        "infinity",
        "rises",
        "bursts",
        "swings",
        "climbs",
        "stays",
    ],
)
def test_what_is_noticed_and_how_soon(losses: list[float], steps: int | None) -> None:
    noticed = noticed_after(losses)
    if steps is None:
        assert noticed is None
        return
    begin = next(place for place, loss in enumerate(losses) if not loss <= losses[0] + 1e-9 or not math.isfinite(loss))
    assert noticed is not None and noticed - begin <= steps


def test_who_goes_on_is_measured_by_the_same_begin() -> None:
    guard = Guard()
    assert not any(guard.diverges(loss) for loss in FALLING)
    again = Guard(guard.first_loss)
    assert not any(again.diverges(FALLING[-1] * factor) for factor in (1.0, 2.0) * 100)
    again.go_on()
    assert any(again.diverges(5.0) for _ in range(10))
    again.go_on()
    assert again.diverges(100.0)


@given(st.lists(st.floats(0.1, 10.0), min_size=30, max_size=60), st.integers(-20, 20).map(lambda power: 2.0**power))
def test_the_scale_of_the_losses_does_not_matter(losses: list[float], scale: float) -> None:
    assert noticed_after(losses) == noticed_after([loss * scale for loss in losses])
