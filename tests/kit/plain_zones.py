"""Zones and lines, slowly: in fractions, one spot and one step at a time, as the documentation words it."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

Spot = tuple[Fraction, Fraction]


def exact(points: Sequence[Sequence[float]]) -> list[Spot]:
    return [(Fraction(x), Fraction(y)) for x, y in points]


def meeting(a: Spot, b: Spot, c: Spot, d: Spot) -> list[Spot]:
    """What the ways a–b and c–d have in common: nothing, a spot, or the two ends of a way (also where it is a spot)."""
    (ax, ay), (cx, cy) = a, c
    along, other = (b[0] - ax, b[1] - ay), (d[0] - cx, d[1] - cy)
    between = (cx - ax, cy - ay)
    scale = along[0] * other[1] - along[1] * other[0]
    if scale:
        at = (between[0] * other[1] - between[1] * other[0]) / scale
        at_other = (between[0] * along[1] - between[1] * along[0]) / scale
        return [(ax + at * along[0], ay + at * along[1])] if 0 <= at <= 1 and 0 <= at_other <= 1 else []
    return sorted({spot for spot in (a, b) if is_on(spot, c, d)} | {spot for spot in (c, d) if is_on(spot, a, b)})


def is_on(spot: Spot, a: Spot, b: Spot) -> bool:
    """Whether it is one of the weighted means of the two ends."""
    length = max(abs(b[0] - a[0]), abs(b[1] - a[1]))
    if not length:
        return spot == a
    axis = 0 if abs(b[0] - a[0]) == length else 1
    at = (spot[axis] - a[axis]) / (b[axis] - a[axis])
    return 0 <= at <= 1 and all(spot[k] == a[k] + at * (b[k] - a[k]) for k in (0, 1))


def is_simple(corners: Sequence[Spot]) -> bool:
    """Whether sides have nothing in common but the corner between neighbours."""
    count = len(corners)
    sides = [(corners[k], corners[(k + 1) % count]) for k in range(count)]
    if any(a == b for a, b in sides):
        return False
    for i in range(count):
        for j in range(i):
            shared = set(sides[i]) & set(sides[j]) if i - j in (1, count - 1) else set()
            if set(meeting(*sides[i], *sides[j])) - shared:
                return False
    return True


def is_inside(spot: Spot, corners: Sequence[Spot]) -> bool:
    """On the edge, or with an odd number of sides straight above it."""
    sides = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    if any(is_on(spot, *side) for side in sides):
        return True
    above = 0
    for (x0, y0), (x1, y1) in sides:
        if (x0 <= spot[0]) != (x1 <= spot[0]):
            above += y0 + (spot[0] - x0) / (x1 - x0) * (y1 - y0) < spot[1]
    return above % 2 == 1


def right_hand(spot: Spot, line: Sequence[Spot]) -> int:
    """1 where it is on the right hand of the arrow, -1 on the left, 0 on the straight line through it; y goes down."""
    (x0, y0), (x1, y1) = line
    if x0 == x1:
        return _sign(spot[0] - x0) * (1 if y1 < y0 else -1)
    slope = (y1 - y0) / (x1 - x0)
    return _sign(spot[1] - (y0 + slope * (spot[0] - x0))) * (1 if x1 > x0 else -1)


def _sign(value: Fraction) -> int:
    return (value > 0) - (value < 0)


def crossings(walk: Sequence[Spot], line: Sequence[Spot]) -> list[tuple[int, str]]:
    """The number of the spot with which each crossing is done, and its direction: from a spot on one hand to the next
    one that is on the other, over the line itself."""
    found = []
    hands = [(number, hand) for number, spot in enumerate(walk) if (hand := right_hand(spot, line))]
    for (before, first), (after, then) in pairwise(hands):
        if first != then and any(meeting(*step, *line) for step in pairwise(walk[before : after + 1])):
            found.append((after, "forward" if then > 0 else "backward"))
    return found
