"""Zones and lines as they are set: where they lie in the picture of a source, and whom they count. Exact geometry of
whole numbers. Knows no object, no pixels and no time.

Coordinates are fractions of the picture, x from its left edge and y from its top. For every question they are put on a
grid, of 2²⁰ steps across the picture (1/250 of a pixel at 4K): products of whole numbers of that size are exact in a
float, so what lies on a line is known to, and no question has two answers.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Annotated

from msgspec import Meta, Struct

GRID = 1 << 20
# Of a source, of each kind.
MOST_SHAPES = 32
MOST_CORNERS = 64

# On the grid.
Spot = tuple[float, float]

_A_POINT = "[x, y], fractions of the picture from 0 to 1, from its left and top edge"
Fraction = Annotated[float, Meta(ge=0.0, le=1.0, description="a fraction of the picture, from 0 to 1")]
Point = Annotated[tuple[Fraction, Fraction], Meta(description=_A_POINT)]
Corners = Annotated[
    tuple[Point, ...],
    Meta(min_length=3, max_length=MOST_CORNERS, description=f"a list of 3 to {MOST_CORNERS} corners, each {_A_POINT}"),
]
Ends = Annotated[tuple[Point, Point], Meta(description=f"a list of two points, each {_A_POINT}")]
# Longer than any stay.
DwellSeconds = Annotated[float, Meta(gt=0.0, le=31_536_000.0)]
SettleSeconds = Annotated[float, Meta(ge=0.0, le=3600.0)]


class Zone(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the picture; its edges belong to it. Raises ValueError unless it is one, with an area."""

    # Corners in the order of walking round; the last is joined to the first
    polygon: Corners
    # Only these class names; empty means all
    classes: tuple[str, ...] = ()
    # Whoever stays for so long is told of; None: nobody
    dwell_seconds: DwellSeconds | None = None
    # Whoever is seen outside for less has not left: at an edge boxes tremble
    settle_seconds: SettleSeconds = 0.0

    def __post_init__(self) -> None:
        corners = on_grid(self.polygon)
        if corners[0] == corners[-1]:
            raise ValueError("polygon ends with the corner that it begins with; leave the last one out, it is closed")
        sides = [(corners[i - 1], corners[i]) for i in range(len(corners))]  # side i ends at corner i
        for i, j in combinations(range(len(sides)), 2):
            if _meet(sides[i], sides[j], j - i == 1, j - i == len(sides) - 1):
                names = f"{_side_name(i, len(sides))} and {_side_name(j, len(sides))}"
                raise ValueError(f"polygon: its sides {names} meet; give its corners in the order of walking round")

    def spots(self) -> list[Spot]:
        return on_grid(self.polygon)


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """From a first point to a second, which both belong to it. Raises ValueError where they are one.

    Whoever crosses it from the left hand of that arrow to its right, as seen in the picture, goes forward.
    """

    points: Ends
    # Only these class names; empty means all
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        first, second = on_grid(self.points)
        if first == second:
            raise ValueError("points: the two are the same; a line goes from one to another")

    def spots(self) -> tuple[Spot, Spot]:
        first, second = on_grid(self.points)
        return first, second


class Layout(Struct, frozen=True):
    """The zones and lines of a source, by name."""

    zones: dict[str, Zone] = {}
    lines: dict[str, Line] = {}

    def __bool__(self) -> bool:
        return bool(self.zones or self.lines)


def on_grid(points: Sequence[tuple[float, float]]) -> list[Spot]:
    return [(float(round(x * GRID)), float(round(y * GRID))) for x, y in points]


def hand(first: Spot, second: Spot, spot: Spot) -> float:
    """On which hand of the arrow from `first` to `second` a spot lies, in a picture, whose y goes down: above 0 on the
    right, below on the left, 0 on the straight line through both."""
    return (second[0] - first[0]) * (spot[1] - first[1]) - (second[1] - first[1]) * (spot[0] - first[0])


def touch(a: Spot, b: Spot, c: Spot, d: Spot) -> bool:
    """Whether the way from a to b and that from c to d have a spot in common; their ends belong to them."""
    if max(a[0], b[0]) < min(c[0], d[0]) or max(c[0], d[0]) < min(a[0], b[0]):
        return False
    if max(a[1], b[1]) < min(c[1], d[1]) or max(c[1], d[1]) < min(a[1], b[1]):
        return False
    return hand(a, b, c) * hand(a, b, d) <= 0 and hand(c, d, a) * hand(c, d, b) <= 0


def _meet(one: tuple[Spot, Spot], other: tuple[Spot, Spot], follows: bool, precedes: bool) -> bool:
    """Whether two sides have more in common than the corner between them."""
    if follows:  # `other` begins where `one` ends: no further than that, unless it goes back
        return _turns_back(one[0], one[1], other[1])
    if precedes:
        return _turns_back(other[0], other[1], one[1])
    return touch(*one, *other)


def _turns_back(before: Spot, corner: Spot, after: Spot) -> bool:
    """Also where two corners are the same."""
    ahead = (corner[0] - before[0]) * (after[0] - corner[0]) + (corner[1] - before[1]) * (after[1] - corner[1])
    return hand(before, corner, after) == 0 and ahead <= 0


def _side_name(end: int, count: int) -> str:
    return f"{end or count}–{end + 1}"
