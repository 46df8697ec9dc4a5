"""Counts the tracked objects of one source in its zones and across its lines. Knows no stage, no message but what it
tells, and no pixels.

An object is where it stands: at the bottom centre of its box. Only frames in which somebody looked count, and of their
objects those that were found; between two of them an object is taken to have gone straight. One that is not found for
a while stays where it was, until its track is given up.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.flow.events import Counts, Direction, Event, EventKind, LineCount, Moment, ZoneCount
from pipeline.shapes import GRID, Layout, Line, Spot, Zone, hand, touch

# Times are told to a microsecond, and compared so.
DECIMALS = 6


class ZoneCounter:
    """The zones and lines of one source, as they are set now."""

    def __init__(self, class_names: tuple[str, ...], layout: Layout) -> None:
        self._class_names = class_names
        self._zones: dict[str, _Zone] = {}
        self._lines: dict[str, _Line] = {}
        self._removed: list[_Zone] = []
        self._known: Set[int] = frozenset()
        self.change(layout)

    def change(self, layout: Layout) -> None:
        """From the next frame on.

        A zone of the same name is moved: whose stay is not ended by that goes on with it. One that is no more is left
        by all. A line that differs in any way begins anew, with its counts.
        """
        self._removed += [zone for name, zone in self._zones.items() if name not in layout.zones]
        stays = {name: zone.stays for name, zone in self._zones.items()}
        self._zones = {name: _Zone(name, zone, stays.get(name, {})) for name, zone in layout.zones.items()}
        lines = {name: line for name, line in self._lines.items() if line.shape == layout.lines.get(name)}
        self._lines = {name: lines.get(name) or _Line(name, line) for name, line in layout.lines.items()}
        self._edges = _Edges([zone.spots() for zone in layout.zones.values()])

    @property
    def is_over(self) -> bool:
        """There is nothing to count, and nothing left to tell."""
        return not (self._zones or self._lines or self._removed)

    def update(self, moment: Moment, found: Detections, width: int, height: int, followed: Set[int]) -> list[Event]:
        """What happened since the last frame that has a result.

        `found` are this one's detections, in a picture of `width` × `height` pixels; `followed` are the tracks that the
        tracker has not given up. Events come zone by zone, then line by line, in the order of the settings.
        """
        seen = self._seen(found, width, height)
        lost = self._known - followed
        self._known = followed
        told = _Told(moment)
        for zone in self._removed:
            zone.end(told)
        self._removed = []
        for zone, flags in zip(self._zones.values(), self._edges.hold([one.spot for one in seen]), strict=True):
            zone.update(told, lost, seen, flags)
        for line in self._lines.values():
            line.update(told, lost, seen)
        return told.events

    def _seen(self, found: Detections, width: int, height: int) -> "list[_Seen]":
        """All that have a track."""
        left, _, right, bottom = found.boxes_xyxy.astype(np.float64).T
        x, y = np.rint((left + right) * (GRID / 2 / width)), np.rint(bottom * (GRID / height))
        columns = zip(found.track_ids.tolist(), found.class_ids.tolist(), x.tolist(), y.tolist(), strict=True)
        names = self._class_names
        return [_Seen(track, names[class_id], (x, y)) for track, class_id, x, y in columns if track != NO_TRACK]

    def counts(self, events: Iterable[Event] = ()) -> Counts:
        """As they are now, with these events."""
        return Counts(
            tuple(events),
            {name: zone.count() for name, zone in self._zones.items()},
            {name: line.count() for name, line in self._lines.items()},
        )


class _Seen(NamedTuple):
    """An object that was found in a frame, and where it stands."""

    track_id: int
    class_name: str
    spot: Spot


class _Told:
    """What is told with one frame."""

    def __init__(self, moment: Moment) -> None:
        self.events: list[Event] = []
        self.seconds = round(moment.pts_seconds, DECIMALS)
        self._moment = moment._replace(pts_seconds=self.seconds, at_unix=round(moment.at_unix, DECIMALS))

    def tell(self, event: EventKind, track_id: int, class_name: str, **more: Any) -> None:
        facts: dict[str, Any] = self._moment._asdict() | more
        self.events.append(Event(event=event, track_id=track_id, class_name=class_name, **facts))


@dataclass(slots=True)
class _Stay:
    """Of one object in a zone: when it was seen there first and last."""

    class_name: str
    first_seconds: float
    last_seconds: float
    has_dwelled: bool = False

    @property
    def seconds(self) -> float:
        return round(self.last_seconds - self.first_seconds, DECIMALS)


class _Zone:
    """Who is in it, by track."""

    def __init__(self, name: str, shape: Zone, stays: dict[int, _Stay]) -> None:
        self.stays = stays
        self._name, self._shape = name, shape

    def update(self, told: _Told, lost: Set[int], seen: list[_Seen], flags: list[bool]) -> None:
        for track_id in sorted(lost & self.stays.keys()):
            self._leave(told, track_id, lost=True)
        for one, is_inside in zip(seen, flags, strict=True):
            is_counted = not self._shape.classes or one.class_name in self._shape.classes
            if is_inside and is_counted:
                self._stay(told, one)
            elif one.track_id in self.stays and (not is_counted or self._is_settled(told, one.track_id)):
                self._leave(told, one.track_id)

    def _stay(self, told: _Told, one: _Seen) -> None:
        stay = self.stays.get(one.track_id)
        if stay is None:
            stay = self.stays[one.track_id] = _Stay(one.class_name, told.seconds, told.seconds)
            told.tell("entered", one.track_id, one.class_name, zone=self._name)
        stay.last_seconds = told.seconds
        wanted_seconds = self._shape.dwell_seconds
        if wanted_seconds is not None and not stay.has_dwelled and stay.seconds >= wanted_seconds:
            stay.has_dwelled = True
            told.tell("dwelled", one.track_id, one.class_name, zone=self._name, dwell_seconds=stay.seconds)

    def _is_settled(self, told: _Told, track_id: int) -> bool:
        """Whether it has been outside for long enough to have left."""
        return round(told.seconds - self.stays[track_id].last_seconds, DECIMALS) >= self._shape.settle_seconds

    def _leave(self, told: _Told, track_id: int, **how: bool) -> None:
        stay = self.stays.pop(track_id)
        told.tell("left", track_id, stay.class_name, zone=self._name, dwell_seconds=stay.seconds, **how)

    def end(self, told: _Told) -> None:
        """It is no more."""
        for track_id in list(self.stays):
            self._leave(told, track_id)

    def count(self) -> ZoneCount:
        return ZoneCount(_sorted(Counter(stay.class_name for stay in self.stays.values())))


@dataclass(slots=True)
class _Way:
    """Of one object, beside a line: where it was last, on which hand (0: on neither yet), and whether it has touched
    the line since it was there."""

    spot: Spot
    hand: float
    has_touched: bool = False


class _Line:
    """How often it was crossed, and by whom it may be next.

    A spot on the straight line through its points is on the hand from which it was reached. So whoever comes onto the
    line and goes back has not crossed it, and who goes on to the other hand has, once.
    """

    def __init__(self, name: str, shape: Line) -> None:
        self.shape = shape
        self._name, self._ends = name, shape.spots()
        self._ways: dict[int, _Way] = {}
        self._crossed: dict[Direction, Counter[str]] = {"forward": Counter(), "backward": Counter()}

    def update(self, told: _Told, lost: Set[int], seen: list[_Seen]) -> None:
        for track_id in lost & self._ways.keys():
            del self._ways[track_id]
        for one in seen:
            if not self.shape.classes or one.class_name in self.shape.classes:
                self._step(told, one)

    def _step(self, told: _Told, one: _Seen) -> None:
        now = hand(*self._ends, one.spot)
        way = self._ways.get(one.track_id)
        if way is None:
            self._ways[one.track_id] = _Way(one.spot, now)
            return
        is_on_it, changes = now == 0, way.hand * now < 0
        if is_on_it or changes:
            way.has_touched = way.has_touched or touch(way.spot, one.spot, *self._ends)
        if changes and way.has_touched:
            self._cross(told, one, "forward" if now > 0 else "backward")
        way.spot = one.spot
        if not is_on_it:
            way.hand, way.has_touched = now, False

    def _cross(self, told: _Told, one: _Seen, direction: Direction) -> None:
        self._crossed[direction][one.class_name] += 1
        told.tell("crossed", one.track_id, one.class_name, line=self._name, direction=direction)

    def count(self) -> LineCount:
        return LineCount(**{direction: _sorted(crossed) for direction, crossed in self._crossed.items()})


class _Edges:
    """The sides of several polygons, to look up many spots at once.

    NumPy takes 20 µs for ten objects and two zones; compiled it would be 4, and each start would wait for it.
    """

    def __init__(self, polygons: Sequence[Sequence[Spot]]) -> None:
        sides = [(*corners[i - 1], *corners[i]) for corners in polygons for i in range(len(corners))]
        self._x1, self._y1, self._x2, self._y2 = np.array(sides, np.float64).reshape(-1, 4).T[..., np.newaxis]
        self._starts = np.cumsum([0, *(len(corners) for corners in polygons)])[:-1]

    def hold(self, spots: Sequence[Spot]) -> list[list[bool]]:
        """For each polygon, which of the `spots` are in it or on its edge: those from where a ray to the right passes
        an odd number of sides."""
        if not len(self._starts):
            return []
        x, y = np.array(spots, np.float64).reshape(-1, 2).T
        to_x1, to_y1, to_x2, to_y2 = self._x1 - x, self._y1 - y, self._x2 - x, self._y2 - y
        turn = to_x1 * to_y2 - to_y1 * to_x2
        is_passed = ((to_y1 > 0) != (to_y2 > 0)) & ((turn > 0) == (to_y1 < to_y2))
        is_edge = (turn == 0) & (to_x1 * to_x2 <= 0) & (to_y1 * to_y2 <= 0)
        is_within = np.logical_xor.reduceat(is_passed, self._starts) | np.logical_or.reduceat(is_edge, self._starts)
        inside: list[list[bool]] = is_within.tolist()
        return inside


def _sorted(by_class: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(by_class.items()))
