"""Curves as SVG for a page: axes, lines, a value at each point. Colours are the page's. Knows no training."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 350, 12, 180
# More points than pixels are only slow.
MOST_POINTS = 300
# From this ratio on a curve is read off powers of ten.
WIDE = 50.0


def chart(lines: Mapping[str, Sequence[Point]], x_name: str) -> str:
    """An SVG element of the named lines, (x, y) each, x rising; points that are not finite are left out.

    The axis of y holds 0, or is logarithmic where values are all above 0 and wide apart. Line i is of class `line{i}`.
    Empty where there is no point.
    """
    finite = {name: _thin([p for p in points if all(map(math.isfinite, p))]) for name, points in lines.items()}
    finite = {name: points for name, points in finite.items() if points}
    every = [point for points in finite.values() for point in points]
    if not every:
        return ""
    xs, ys = [x for x, _ in every], [y for _, y in every]
    logarithmic = min(ys) > 0 and max(ys) / min(ys) > WIDE
    x_axis = Axis(min(xs), max(xs), LEFT, RIGHT)
    y_axis = Axis(min(ys), max(ys), BOTTOM, TOP, True) if logarithmic else Axis(min(0, *ys), max(0, *ys), BOTTOM, TOP)
    drawn = [_line(i, name, points, x_axis, y_axis) for i, (name, points) in enumerate(finite.items())]
    return "".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(finite))} by {x_name}">',
            *_grid(x_axis, y_axis, x_name),
            *drawn,
            "</svg>",
        ]
    )


class Axis:
    """From values between `low` and `high` to pixels between `start` and `end`."""

    def __init__(self, low: float, high: float, start: int, end: int, logarithmic: bool = False) -> None:
        self._start, self._end, self._logarithmic = start, end, logarithmic
        low, high = self._scale(low), self._scale(high)
        room = (high - low) * 0.05 if high > low else abs(low) * 0.05 or 1.0
        self._low, self._high = low - room, high + room

    def _scale(self, value: float) -> float:
        return math.log10(value) if self._logarithmic else value

    def at(self, value: float) -> float:
        share = (self._scale(value) - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[float]:
        """Three to seven round values: 1, 2 or 5 times a power of ten apart; or powers of ten."""
        if self._logarithmic:
            exponents = range(math.ceil(self._low), math.floor(self._high) + 1)
            return [10.0**exponent for exponent in exponents[:: 1 + len(exponents) // 7]]
        step = _round_step((self._high - self._low) / 4)
        return [i * step for i in range(math.ceil(self._low / step), math.floor(self._high / step) + 1)]


def _round_step(wanted: float) -> float:
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted * 0.75)


def _thin(points: list[Point]) -> list[Point]:
    """At most `MOST_POINTS`, each the mean of its neighbourhood."""
    size = math.ceil(len(points) / MOST_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else [[point] for point in points]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]


def _grid(x_axis: Axis, y_axis: Axis, x_name: str) -> list[str]:
    across = [
        f'<path class="grid" d="M{LEFT} {y_axis.at(y)}H{RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y_axis.at(y) + 4}" text-anchor="end">{y:.4g}</text>'
        for y in y_axis.ticks()
    ]
    below = [
        f'<text x="{x_axis.at(x)}" y="{BOTTOM + 15}" text-anchor="middle">{x:.6g}</text>'
        for x in x_axis.ticks()
        if x == int(x)
    ]
    name = f'<text x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 2}" text-anchor="middle">{escape(x_name)}</text>'
    return [*across, f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>', *below, name]


def _line(place: int, name: str, points: list[Point], x_axis: Axis, y_axis: Axis) -> str:
    path = " ".join(f"{x_axis.at(x)},{y_axis.at(y)}" for x, y in points)
    dots = "".join(
        f'<circle cx="{x_axis.at(x)}" cy="{y_axis.at(y)}" r="{2.5 if len(points) < 60 else 1}">'
        f"<title>{escape(name)} {y:.5g} at {x:g}</title></circle>"
        for x, y in points
    )
    return f'<g class="line{place}"><polyline points="{path}"/>{dots}</g>'
