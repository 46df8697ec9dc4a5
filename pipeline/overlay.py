"""Draws the result of a frame onto its picture: zones and lines with their counts, boxes, labels, trails, an info line,
a banner after a failure.

Works in place on BGR pixels with OpenCV and blends only small regions, never the whole picture. Knows no stage, no
sink and no model.
"""

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.flow.results import FrameResult
from pipeline.shapes import Line, Point

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]  # blue, green, red
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are one past the end
TrailPoint = tuple[float, float, float]  # pts_seconds, x, y

TRAIL_SECONDS = 2.0
TRAIL_STEP_SECONDS = 0.2  # a trail is at most TRAIL_SECONDS / TRAIL_STEP_SECONDS + 2 points long
MAX_SOURCES = 64  # trails of the sources drawn last; a process may see many sources come and go
SMALLEST_SIDE_WITH_TEXT = 64

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
NEUTRAL: Colour = (205, 205, 205)
DARK: Colour = (24, 24, 24)
DARK_RED: Colour = (24, 24, 168)

# Bright enough for black text, neighbours far apart in hue.
_PALETTE: tuple[Colour, ...] = (
    (255, 150, 60),  # blue
    (40, 160, 255),  # orange
    (255, 110, 230),  # magenta
    (40, 235, 185),  # lime
    (80, 80, 255),  # red
    (255, 215, 30),  # cyan
    (40, 225, 255),  # yellow
    (255, 125, 155),  # violet
    (95, 205, 60),  # green
    (175, 110, 255),  # pink
    (195, 235, 60),  # teal
    (170, 195, 255),  # salmon
)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Overlay:
    """Draws frame after frame of any number of sources; remembers only where each track was of late."""

    def __init__(self) -> None:
        self._trails: dict[str, dict[int, list[TrailPoint]]] = {}

    def draw(self, image_bgr: Image, result: FrameResult) -> None:
        """Draw `result` onto `image_bgr`, contiguous (H, W, 3) uint8 of the source's size, in place."""
        style = _style(*image_bgr.shape[:2])
        if result.failure is not None:
            _draw_banner(image_bgr, f"no result: {result.failure}", style)
            _draw_info(image_bgr, result, "", style)
            return
        counts = _draw_layout(image_bgr, result, style)
        trails = self._trails_of(result)
        for track_id, trail in trails.items():
            _draw_trail(image_bgr, trail, result.pts_seconds, track_colour(track_id), style)
        visible = result.visible()
        labels = _draw_boxes(image_bgr, visible, result.class_names, style)
        info = _draw_info(image_bgr, result, f"{len(visible)} object{'s' * (len(visible) != 1)}", style)
        _draw_labels(image_bgr, counts + labels, [info], style)

    def forget(self, source_id: str) -> None:
        self._trails.pop(source_id, None)

    def without_signal(self, image_bgr: Image, cause: str, since_unix: float, lost_seconds: float) -> Image:
        """The last picture of a source whose signal is lost, as a new one: grey, dark, with a banner that says why
        and since when."""
        grey = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)
        still_bgr = cv2.cvtColor(cv2.convertScaleAbs(grey, alpha=0.5), cv2.COLOR_GRAY2BGR).astype(np.uint8, copy=False)
        since = time.strftime("%H:%M:%S", time.localtime(since_unix))
        _draw_banner(still_bgr, f"no signal since {since} ({lost_seconds:.0f} s): {cause}", _style(*grey.shape))
        return still_bgr

    def _trails_of(self, result: FrameResult) -> dict[int, list[TrailPoint]]:
        """The trails of this source with this frame's positions added and old points and tracks forgotten."""
        now = result.pts_seconds
        trails = {
            track_id: recent
            for track_id, trail in self._trails.pop(result.source_id, {}).items()
            if (recent := [point for point in trail if now - TRAIL_SECONDS <= point[0] < now])
        }
        tracked = result.tracked()
        for track_id, (left, _, right, bottom) in zip(
            tracked.track_ids.tolist(), tracked.boxes_xyxy.tolist(), strict=True
        ):
            _extend(trails.setdefault(track_id, []), (now, (left + right) / 2, bottom))
        self._trails[result.source_id] = trails
        if len(self._trails) > MAX_SOURCES:
            del self._trails[next(iter(self._trails))]
        return trails


def _extend(trail: list[TrailPoint], point: TrailPoint) -> None:
    """Append `point`; the last one, too young to be kept for itself, gives way to it."""
    if len(trail) >= 2 and trail[-1][0] - trail[-2][0] < TRAIL_STEP_SECONDS:
        trail.pop()
    trail.append(point)


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels that suit one picture."""

    line: int
    text_scale: float
    text_line: int
    text_height: int
    padding: int
    has_text: bool


@lru_cache(maxsize=64)
def _style(height: int, width: int) -> _Style:
    """Sizes from the picture's height; a narrow upright picture counts as no higher than it is wide."""
    side = min(height, width)
    capital_height = max(8.0, 3.6 + side * 0.0125)
    (_, unit_height), _ = cv2.getTextSize("H", _FONT, 1.0, 1)
    return _Style(
        line=max(1, round(0.7 + side / 450)),
        text_scale=capital_height / unit_height,
        text_line=max(1, round(capital_height / 12)),
        text_height=round(capital_height),
        padding=max(2, round(capital_height * 0.35)),
        has_text=side >= SMALLEST_SIDE_WITH_TEXT,
    )


def track_colour(track_id: int) -> Colour:
    """The colour (BGR) of a track, the same for ever; ids that follow each other differ most."""
    return _PALETTE[track_id % len(_PALETTE)]


def _text_colour(background: Colour) -> Colour:
    """Black or white, whichever stands out more (luma of ITU-R BT.601)."""
    blue, green, red = background
    return BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 125 else WHITE


def _draw_trail(image: Image, trail: list[TrailPoint], now: float, colour: Colour, style: _Style) -> None:
    """Lines that get thinner and closer to the picture's own colours the older they are."""
    height, width = image.shape[:2]
    points = [(seconds, int(x), int(y)) for seconds, x, y in trail if _is_near(x, y, width, height)]
    blue, green, red = colour
    for (seconds, x0, y0), (_, x1, y1) in pairwise(points):
        strength = max(0.0, 1 - (now - seconds) / TRAIL_SECONDS)
        under = image[min(max(y0, 0), height - 1), min(max(x0, 0), width - 1)].tolist()
        # Mixed with one pixel of the picture: looks like fading out and costs no blending.
        rest = 1 - strength
        faded = (
            strength * blue + rest * under[0],
            strength * green + rest * under[1],
            strength * red + rest * under[2],
        )
        cv2.line(image, (x0, y0), (x1, y1), faded, max(1, round(style.line * strength)), cv2.LINE_AA)


def _is_near(x: float, y: float, width: int, height: int) -> bool:
    """Whether a point is in or beside the picture (a NaN is not): OpenCV's coordinates must stay small."""
    return -width <= x <= 2 * width and -height <= y <= 2 * height


@dataclass(frozen=True, slots=True)
class _Label:
    text: str
    short_text: str  # where there is no room for all
    colour: Colour
    box: Rectangle


def _draw_layout(image: Image, result: FrameResult, style: _Style) -> list[_Label]:
    """All zones and lines; returns their labels, with how many are in each, or have crossed it."""
    labels: list[_Label] = []
    for name, zone in result.layout.zones.items():
        corners = _pixels(zone.polygon, image)
        _draw_path(image, corners, True, style)
        inside = result.zones[name].inside if name in result.zones else {}
        labels.append(_Label(f"{name}  {_by_class(inside)}", f"{name}  {sum(inside.values())}", DARK, _bounds(corners)))
    for name, line in result.layout.lines.items():
        ends = _draw_line(image, line, style)
        crossed = result.lines.get(name)
        forward, backward = (sum(crossed.forward.values()), sum(crossed.backward.values())) if crossed else (0, 0)
        text = f"{name}  {forward} forward  {backward} backward"
        labels.append(_Label(text, f"{name}  {forward} / {backward}", DARK, _bounds(ends)))
    return labels


def _by_class(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{count} {class_name}" for class_name, count in counts.items()) or "0"


def _pixels(points: Iterable[Point], image: Image) -> NDArray[np.int32]:
    """(N, 2): x, y in whole pixels of the picture."""
    height, width = image.shape[:2]
    return np.array([(round(x * (width - 1)), round(y * (height - 1))) for x, y in points], np.int32)


def _bounds(pixels: NDArray[np.int32]) -> Rectangle:
    left, top = pixels.min(axis=0).tolist()
    right, bottom = pixels.max(axis=0).tolist()
    return left, top, right, bottom


def _draw_path(image: Image, pixels: NDArray[np.int32], is_closed: bool, style: _Style) -> None:
    """White and thin, with a dark edge: seen on bright ground and on dark."""
    line = max(1, style.line // 2)
    cv2.polylines(image, [pixels], is_closed, DARK, line + 2, cv2.LINE_AA)
    cv2.polylines(image, [pixels], is_closed, WHITE, line, cv2.LINE_AA)


def _draw_line(image: Image, line: Line, style: _Style) -> NDArray[np.int32]:
    """With an arrow from its middle to the hand that is forward. Returns its ends."""
    ends = _pixels(line.points, image)
    _draw_path(image, ends, False, style)
    along = (ends[1] - ends[0]).astype(np.float64)
    ahead = np.array([-along[1], along[0]]) / max(1.0, float(np.hypot(*along)))
    middle, reach = ends.mean(axis=0), 2.0 * style.text_height
    tip, back, aside = middle + reach * ahead, reach / 3 * ahead, reach / 3 * np.array([-ahead[1], ahead[0]])
    for path in ([middle, tip], [tip - back + aside, tip, tip - back - aside]):
        _draw_path(image, np.round(path).astype(np.int32), False, style)
    return ends


def _draw_boxes(image: Image, shown: Detections, class_names: tuple[str, ...], style: _Style) -> list[_Label]:
    """All boxes; returns their labels, to be drawn above all boxes, best score first."""
    labels: list[_Label] = []
    for index in range(len(shown)):
        box = _drawable(shown.boxes_xyxy[index], image, 2 * style.line)
        if box is None:
            continue
        track_id = int(shown.track_ids[index])
        score = f"{shown.scores[index]:.2f}"
        text = f"{class_names[shown.class_ids[index]]} {score}"
        if track_id == NO_TRACK:
            _draw_untracked_box(image, box, style)
            labels.append(_Label(text, score, NEUTRAL, box))
        else:
            if shown.predicted[index]:
                _draw_dashed_box(image, box, track_colour(track_id), style)
            else:
                cv2.rectangle(image, box[:2], box[2:], track_colour(track_id), style.line)
            labels.append(_Label(f"#{track_id} {text}", f"#{track_id}", track_colour(track_id), box))
    return labels


def _drawable(box_xyxy: NDArray[np.float32], image: Image, margin: int) -> Rectangle | None:
    """The box in whole pixels, its far ends cut off `margin` outside the picture; None if nothing of it is inside."""
    height, width = image.shape[:2]
    left, top, right, bottom = box_xyxy.tolist()
    if not (left < width and top < height and right > 0 and bottom > 0):  # also if one is NaN
        return None
    return (
        round(max(left, -margin)),
        round(max(top, -margin)),
        round(min(right, width + margin)),
        round(min(bottom, height + margin)),
    )


def _draw_dashed_box(image: Image, box: Rectangle, colour: Colour, style: _Style) -> None:
    """Where something should be that was not found."""
    left, top, right, bottom = box
    dash, step = 4 * style.line, 8 * style.line
    for x in range(left, right + 1, step):
        for y in (top, bottom):
            cv2.line(image, (x, y), (min(x + dash, right), y), colour, style.line)
    for y in range(top, bottom + 1, step):
        for x in (left, right):
            cv2.line(image, (x, y), (x, min(y + dash, bottom)), colour, style.line)


def _draw_untracked_box(image: Image, box: Rectangle, style: _Style) -> None:
    """Thin and grey, with a dark edge: seen on bright ground and on dark."""
    left, top, right, bottom = box
    line = max(1, style.line // 2)
    cv2.rectangle(image, (left - line, top - line), (right + line, bottom + line), DARK, line)
    cv2.rectangle(image, (left, top), (right, bottom), NEUTRAL, line)


def _draw_labels(image: Image, labels: list[_Label], taken: list[Rectangle], style: _Style) -> None:
    """Labels beside their boxes, away from the `taken` places if that can be."""
    if not style.has_text:
        return
    taken = list(taken)
    for label in labels:
        text, place = _fit_label(image, label, taken, style)
        taken.append(place)
        _shade(image, place, label.colour)
        _write(image, text, place, _text_colour(label.colour), style)


def _fit_label(image: Image, label: _Label, taken: list[Rectangle], style: _Style) -> tuple[str, Rectangle]:
    """The full text if it covers no other label, else the short one, which may have to."""
    for text in (label.text, label.short_text):
        places = _label_places(image, _label_size(text, style), label.box)
        for place in places:
            if not any(_overlap(place, other) for other in taken):
                return text, place
    return text, places[0]


def _label_size(text: str, style: _Style) -> tuple[int, int]:
    """Width and height of `text` with padding."""
    (width, _), _ = cv2.getTextSize(text, _FONT, style.text_scale, style.text_line)
    return width + 2 * style.padding, style.text_height + 2 * style.padding


def _label_places(image: Image, size: tuple[int, int], box: Rectangle) -> list[Rectangle]:
    """Above the box, below it, inside it at the top, inside at the bottom: those that lie inside the picture."""
    height, width = image.shape[:2]
    label_width, label_height = size
    left = max(0, min(box[0], width - label_width))
    tops = (box[1] - label_height, box[3], box[1], box[3] - label_height)
    inside = [top for top in tops if 0 <= top <= height - label_height] or [0]
    return [(left, top, left + label_width, top + label_height) for top in inside]


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _shade(image: Image, place: Rectangle, colour: Colour) -> None:
    """Three quarters of `colour` and one of the picture."""
    left, top, right, bottom = place
    region = image[max(top, 0) : bottom, max(left, 0) : right]
    blue, green, red = colour
    cv2.add(region >> 2, (blue * 3 // 4, green * 3 // 4, red * 3 // 4, 0), dst=region)  # type: ignore[call-overload]


def _write(image: Image, text: str, place: Rectangle, colour: Colour, style: _Style) -> None:
    origin = place[0] + style.padding, place[1] + style.padding + style.text_height
    cv2.putText(image, text, origin, _FONT, style.text_scale, colour, style.text_line, cv2.LINE_AA)


def _draw_info(image: Image, result: FrameResult, objects: str, style: _Style) -> Rectangle:
    """Source, time, rate and number of objects, top left. Returns the place it takes."""
    if not style.has_text:
        return 0, 0, 0, 0
    rate = "" if result.frames_per_second is None else f"{result.frames_per_second:.1f} fps"
    parts = (result.source_id, clock(result.pts_seconds), rate, objects)
    text = _shortened("   ".join(filter(None, parts)), image.shape[1], style)
    place = (0, 0, *_label_size(text, style))
    _shade(image, place, DARK)
    _write(image, text, place, WHITE, style)
    return place


def _draw_banner(image: Image, text: str, style: _Style) -> None:
    """Full width, across the middle: must not be taken for an empty scene."""
    height, width = image.shape[:2]
    text = _shortened(text, width, style)
    text_width, text_height = _label_size(text, style)
    top = (height - text_height) // 2
    _shade(image, (0, top - style.padding, width, top + text_height + style.padding), DARK_RED)
    if style.has_text:
        left = (width - text_width) // 2
        _write(image, text, (left, top, left + text_width, top + text_height), WHITE, style)


def _shortened(text: str, width: int, style: _Style) -> str:
    """The longest beginning of `text` that fits into `width` pixels, with dots if anything is missing."""
    if _label_size(text, style)[0] <= width:
        return text
    while text and _label_size(text + "...", style)[0] > width:
        text = text[:-1]
    return text + "..."


def clock(pts_seconds: float) -> str:
    """`00:12.3`, from one hour on `1:00:12.3`; `--:--` for what is no time."""
    if not math.isfinite(pts_seconds):
        return "--:--"
    tenths = math.floor(abs(pts_seconds) * 10 + 1e-6)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if pts_seconds < 0 and tenths + minutes + hours else ""
    return f"{sign}{f'{hours}:' if hours else ''}{minutes:02}:{tenths // 10:02}.{tenths % 10}"
