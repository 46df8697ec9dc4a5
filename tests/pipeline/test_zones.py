"""Zones and lines: who walks in, stays and leaves, and who crosses; told as stories, and held against slow geometry."""

import math
from collections import Counter
from itertools import count

import msgspec
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pipeline.flow.detections import NO_TRACK, Detections
from pipeline.flow.events import Event, LineCount, Moment, ZoneCount
from pipeline.shapes import Layout, Line, Zone
from pipeline.zones import ZoneCounter
from tests.kit import plain_zones as plain

PERSON, CAR = "person", "car"
NAMES = (PERSON, CAR)
YARD = Zone(((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)))
# An arrow straight up in the middle: forward is to the right.
GATE = Line(((0.5, 0.75), (0.5, 0.25)))
OUT, IN = (0.125, 0.5), (0.5, 0.5)
# Of the picture; what is drawn on eighths of it lies exactly where it should.
WIDTH, HEIGHT = 1024, 512

# track, (x, y), class
Person = tuple


class Scene:
    """A picture with zones and lines, in which objects are seen once a second, or whenever it is said."""

    def __init__(self, zones: dict[str, Zone] | None = None, lines: dict[str, Line] | None = None) -> None:
        self.counter = ZoneCounter(NAMES, Layout(zones or {}, lines or {}))
        self._seqs = count()
        self._followed: set[int] = set()
        self.seconds = -1.0

    def see(self, *people: Person, at: float | None = None, given_up: set[int] | None = None) -> list[str]:
        """A frame in which these stand there; what is told of it, in words."""
        return [told(event) for event in self.look(*people, at=at, given_up=given_up)]

    def look(self, *people: Person, at: float | None = None, given_up: set[int] | None = None) -> list[Event]:
        self.seconds = self.seconds + 1 if at is None else float(at)
        self._followed = (self._followed | {one[0] for one in people if one[0]}) - (given_up or set())
        moment = Moment("door", next(self._seqs), self.seconds, 1000 + self.seconds)
        return self.counter.update(moment, standing(*people), WIDTH, HEIGHT, frozenset(self._followed))

    def inside(self, zone: str = "yard") -> dict[str, int]:
        return self.counter.counts().zones[zone].inside

    def crossed(self, line: str = "gate") -> tuple[dict[str, int], dict[str, int]]:
        counts = self.counter.counts().lines[line]
        return counts.forward, counts.backward


def standing(*people: Person) -> Detections:
    rows = [(track, spot, *(rest or (PERSON,))) for track, spot, *rest in people]
    boxes = [(x * WIDTH - 8, y * HEIGHT - 32, x * WIDTH + 8, y * HEIGHT) for _, (x, y), _ in rows]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(rows), 0.9, np.float32),
        np.array([NAMES.index(name) for _, _, name in rows], np.int32),
        np.array([track for track, _, _ in rows], np.int32),
        np.zeros(len(rows), np.bool_),
    )


def told(event: Event) -> str:
    """`1 left yard after 3`, `1 crossed gate forward`."""
    where = event.zone if isinstance(event.zone, str) else event.line
    after = f" after {event.dwell_seconds:g}" if isinstance(event.dwell_seconds, float) else ""
    direction = f" {event.direction}" if isinstance(event.direction, str) else ""
    return f"{event.track_id} {event.event} {where}{direction}{after}{' lost' if event.lost is True else ''}"


# -- a zone


def test_where_nobody_is_nothing_happens() -> None:
    scene = Scene({"yard": YARD}, {"gate": GATE})
    assert scene.see() == [] and scene.inside() == {} and scene.crossed() == ({}, {})


def test_somebody_walks_in_stays_and_leaves() -> None:
    scene = Scene({"yard": YARD})
    assert scene.see((1, OUT)) == [] and scene.inside() == {}
    assert scene.see((1, IN)) == ["1 entered yard"] and scene.inside() == {PERSON: 1}
    assert scene.see((1, (0.6, 0.6))) == [] and scene.see((1, IN)) == []
    assert scene.see((1, OUT)) == ["1 left yard after 2"] and scene.inside() == {}


def test_an_event_says_who_when_and_where() -> None:
    scene = Scene({"yard": YARD}, {"gate": GATE})
    scene.see((7, (0.375, 0.5), CAR), at=3.1234567)
    (crossed,) = scene.look((7, (0.625, 0.5), CAR), at=4.1)
    assert msgspec.json.decode(msgspec.json.encode(crossed)) == {
        "event": "crossed", "source": "door", "seq": 1, "pts_seconds": 4.1, "at_unix": 1004.1, "line": "gate",
        "track_id": 7, "class": "car", "direction": "forward",
    }  # fmt: skip
    left, _ = scene.look((7, OUT, CAR), at=5.0)
    assert msgspec.json.decode(msgspec.json.encode(left)) == {
        "event": "left", "source": "door", "seq": 2, "pts_seconds": 5.0, "at_unix": 1005.0, "zone": "yard",
        "track_id": 7, "class": "car", "dwell_seconds": 0.976543,
    }  # fmt: skip


def test_who_is_there_from_the_first_has_entered_too() -> None:
    assert Scene({"yard": YARD}).see((1, IN), (2, IN)) == ["1 entered yard", "2 entered yard"]


def test_the_feet_count_not_the_head() -> None:
    """A box of 32 pixels of height, of which the lower edge is below the zone, and one of which it is inside."""
    scene = Scene({"yard": YARD})
    assert scene.see((1, (0.5, 0.7501)), (2, (0.5, 0.2501))) == ["2 entered yard"]


@pytest.mark.parametrize(
    "spot", [(0.25, 0.25), (0.75, 0.75), (0.5, 0.25), (0.25, 0.5), (0.75, 0.5), (0.5, 0.75)], ids=str
)
def test_the_edge_belongs_to_the_zone(spot: tuple[float, float]) -> None:
    assert Scene({"yard": YARD}).see((1, spot)) == ["1 entered yard"]


@pytest.mark.parametrize(
    "spot", [(0.25, 0.125), (0.75, 0.875), (0.125, 0.25), (0.875, 0.75), (0.25, 0.0), (1.0, 0.25)], ids=str
)
def test_beyond_its_end_an_edge_is_none(spot: tuple[float, float]) -> None:
    assert Scene({"yard": YARD}).see((1, spot)) == []


def test_only_confirmed_tracks_count() -> None:
    scene = Scene({"yard": YARD}, {"gate": GATE})
    assert scene.see((NO_TRACK, IN), (1, IN), (NO_TRACK, IN)) == ["1 entered yard"] and scene.inside() == {PERSON: 1}


def test_a_zone_counts_the_classes_that_it_names() -> None:
    both, cars = YARD, msgspec.structs.replace(YARD, classes=(CAR,))
    scene = Scene({"both": both, "cars": cars})
    assert scene.see((1, IN), (2, IN, CAR)) == ["1 entered both", "2 entered both", "2 entered cars"]
    assert scene.inside("both") == {CAR: 1, PERSON: 1} and scene.inside("cars") == {CAR: 1}


def test_two_zones_overlap_and_each_counts_for_itself() -> None:
    west = Zone(((0.0, 0.0), (0.625, 0.0), (0.625, 1.0), (0.0, 1.0)))
    east = Zone(((0.375, 0.0), (1.0, 0.0), (1.0, 1.0), (0.375, 1.0)))
    scene = Scene({"west": west, "east": east})
    assert scene.see((1, (0.25, 0.5))) == ["1 entered west"]
    assert scene.see((1, (0.5, 0.5))) == ["1 entered east"]
    assert (scene.inside("west"), scene.inside("east")) == ({PERSON: 1}, {PERSON: 1})
    assert scene.see((1, (0.75, 0.5))) == ["1 left west after 1"]


def test_whoever_stays_long_enough_is_told_of_once_a_stay() -> None:
    scene = Scene({"yard": msgspec.structs.replace(YARD, dwell_seconds=2.0)})
    assert scene.see((1, IN)) == ["1 entered yard"] and scene.see((1, IN)) == []
    assert scene.see((1, IN)) == ["1 dwelled yard after 2"] and scene.see((1, IN)) == []
    assert scene.see((1, OUT)) == ["1 left yard after 3"]
    assert [scene.see((1, IN)) for _ in range(3)] == [["1 entered yard"], [], ["1 dwelled yard after 2"]]


def test_a_stay_is_as_long_as_it_is_in_time_not_in_frames() -> None:
    scene = Scene({"yard": msgspec.structs.replace(YARD, dwell_seconds=0.3)})
    said = [scene.see((1, IN), at=100 + frame / 10) for frame in range(4)]  # 100.3 - 100 is less than 0.3
    assert said == [["1 entered yard"], [], [], ["1 dwelled yard after 0.3"]]


def test_who_trembles_at_the_edge_has_not_left_where_that_has_to_settle() -> None:
    scene = Scene({"yard": msgspec.structs.replace(YARD, settle_seconds=2.0, dwell_seconds=3.0)})
    scene.see((1, IN))
    assert scene.see((1, OUT)) == [] and scene.inside() == {PERSON: 1}
    assert scene.see((1, IN)) == [] and scene.see((1, IN)) == ["1 dwelled yard after 3"]
    assert scene.see((1, OUT)) == [] and scene.see((1, OUT)) == ["1 left yard after 3"]
    assert scene.see((1, OUT)) == [] and scene.inside() == {}


# -- who is not found


def test_who_is_not_found_for_a_while_is_still_there() -> None:
    scene = Scene({"yard": msgspec.structs.replace(YARD, dwell_seconds=3.0)})
    scene.see((1, IN))
    assert scene.see() == [] and scene.see() == [] and scene.inside() == {PERSON: 1}
    assert scene.see((1, IN)) == ["1 dwelled yard after 3"]


def test_who_is_lost_inside_leaves_when_the_track_is_given_up() -> None:
    scene = Scene({"yard": msgspec.structs.replace(YARD, dwell_seconds=2.0)})
    scene.see((1, IN))
    scene.see((1, IN))
    assert scene.see() == [] and scene.see() == [] and scene.inside() == {PERSON: 1}
    assert scene.see(given_up={1}) == ["1 left yard after 1 lost"], "until it was seen last"
    assert scene.inside() == {} and scene.see() == []


def test_who_comes_back_outside_has_left_then() -> None:
    scene = Scene({"yard": YARD})
    scene.see((1, IN))
    assert scene.see() == [] and scene.see((1, OUT)) == ["1 left yard after 0"]
    assert scene.see(given_up={1}) == []


def test_a_gap_is_no_leaving() -> None:
    """Frames that were dropped, or had no result, are no frames here; the next one comes minutes later."""
    scene = Scene({"yard": YARD}, {"gate": GATE})
    scene.see((1, (0.375, 0.5)), at=0)
    assert scene.see((1, (0.625, 0.5)), at=300) == ["1 crossed gate forward"]
    assert scene.see((1, OUT), at=301) == ["1 left yard after 300", "1 crossed gate backward"]


def test_of_who_has_gone_nothing_is_kept() -> None:
    scene = Scene({"yard": YARD}, {"gate": GATE})
    for number in range(1, 1000):
        scene.see((number, IN), (number + 1, (0.625, 0.5)), given_up={number - 1})
    (zone,), (line,) = scene.counter._zones.values(), scene.counter._lines.values()
    assert len(zone.stays) <= 2 and len(line._ways) <= 2 and len(scene.counter._known) <= 2


# -- a line


def test_the_two_directions() -> None:
    """Forward is from the left hand of the arrow to its right."""
    scene = Scene(lines={"up": GATE, "down": Line((GATE.points[1], GATE.points[0]))})
    assert scene.see((1, (0.375, 0.5))) == []
    assert scene.see((1, (0.625, 0.5))) == ["1 crossed up forward", "1 crossed down backward"]
    assert scene.see((1, (0.375, 0.5))) == ["1 crossed up backward", "1 crossed down forward"]
    assert scene.crossed("up") == ({PERSON: 1}, {PERSON: 1})


def test_whoever_goes_round_the_end_has_not_crossed() -> None:
    scene = Scene(lines={"gate": GATE})
    walk = [(0.375, 0.5), (0.375, 0.125), (0.625, 0.125), (0.625, 0.5)]
    assert [scene.see((1, spot)) for spot in walk] == [[], [], [], []]
    assert scene.see((1, (0.375, 0.5))) == ["1 crossed gate backward"]


@pytest.mark.parametrize("side", [0.375, 0.625])
def test_onto_the_line_and_back_is_no_crossing(side: float) -> None:
    scene = Scene(lines={"gate": GATE})
    walk = [(side, 0.5), (0.5, 0.5), (side, 0.5), (0.5, 0.375), (0.5, 0.625), (side, 0.625)]
    assert [scene.see((1, spot)) for spot in walk] == [[]] * 6


@pytest.mark.parametrize("stops", [[], [(0.5, 0.5)], [(0.5, 0.5), (0.5, 0.5), (0.5, 0.375)], [(0.5, 0.25)]], ids=str)
def test_through_is_one_crossing_wherever_it_is_stood_on(stops: list[tuple[float, float]]) -> None:
    scene = Scene(lines={"gate": GATE})
    there = [event for spot in [(0.375, 0.5), *stops, (0.625, 0.5)] for event in scene.see((1, spot))]
    back = [event for spot in [*reversed(stops), (0.375, 0.5)] for event in scene.see((1, spot))]
    assert (there, back) == (["1 crossed gate forward"], ["1 crossed gate backward"])


@pytest.mark.parametrize(("x", "y"), [(0.5, 0.25), (0.5, 0.75)])
def test_an_end_of_the_line_belongs_to_it(x: float, y: float) -> None:
    scene = Scene(lines={"gate": GATE})
    scene.see((1, (x - 0.125, y)))
    assert scene.see((1, (x + 0.125, y))) == ["1 crossed gate forward"]


def test_who_begins_on_the_line_has_not_crossed_it() -> None:
    scene = Scene(lines={"gate": GATE})
    assert scene.see((1, IN)) == [] and scene.see((1, (0.625, 0.5))) == [] and scene.see((1, IN)) == []
    assert scene.see((1, (0.375, 0.5))) == ["1 crossed gate backward"]


def test_a_line_counts_the_classes_that_it_names() -> None:
    scene = Scene(lines={"gate": msgspec.structs.replace(GATE, classes=(CAR,))})
    scene.see((1, (0.375, 0.5)), (2, (0.375, 0.5), CAR))
    assert scene.see((1, (0.625, 0.5)), (2, (0.625, 0.5), CAR)) == ["2 crossed gate forward"]
    assert scene.crossed() == ({CAR: 1}, {})


def test_another_track_does_not_go_on_where_one_was_lost() -> None:
    scene = Scene(lines={"gate": GATE})
    scene.see((1, (0.375, 0.5)))
    assert scene.see((2, (0.625, 0.5)), given_up={1}) == []


# -- changes while it goes on


def test_a_zone_is_moved_while_somebody_is_inside() -> None:
    west = Zone(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))
    scene = Scene({"yard": YARD})
    scene.see((1, (0.375, 0.5)), (2, (0.625, 0.5)), (3, OUT))
    scene.counter.change(Layout({"yard": west}))
    assert scene.see((1, (0.375, 0.5)), (2, (0.625, 0.5)), (3, OUT)) == ["2 left yard after 0", "3 entered yard"]
    assert scene.see((1, (0.625, 0.5))) == ["1 left yard after 1"], "it was in the zone all the time"


def test_a_shorter_stay_is_asked_for_of_who_is_inside() -> None:
    scene = Scene({"yard": YARD})
    scene.see((1, IN))
    scene.counter.change(Layout({"yard": msgspec.structs.replace(YARD, dwell_seconds=1.0)}))
    assert scene.see((1, IN)) == ["1 dwelled yard after 1"]


def test_who_is_not_counted_any_more_leaves() -> None:
    scene = Scene({"yard": YARD})
    scene.see((1, IN), (2, IN, CAR))
    scene.counter.change(Layout({"yard": msgspec.structs.replace(YARD, classes=(CAR,))}))
    assert scene.see((1, IN), (2, IN, CAR)) == ["1 left yard after 0"] and scene.inside() == {CAR: 1}


def test_a_zone_that_is_no_more_is_left_by_all() -> None:
    scene = Scene({"yard": YARD})
    scene.see((1, IN), (2, IN))
    scene.counter.change(Layout())
    assert not scene.counter.is_over and scene.counter.counts().zones == {}
    assert scene.see((1, IN)) == ["1 left yard after 0", "2 left yard after 0"]
    assert scene.counter.is_over and scene.see((1, IN)) == []


def test_a_line_begins_anew_when_it_changes_and_only_then() -> None:
    scene = Scene(lines={"gate": GATE, "door": GATE})
    scene.see((1, (0.375, 0.5)))
    scene.see((1, (0.625, 0.5)))
    moved = Line(((0.75, 0.75), (0.75, 0.25)))
    scene.counter.change(Layout(YARDS, {"gate": moved, "door": GATE}))
    assert scene.crossed("gate") == ({}, {}) and scene.crossed("door") == ({PERSON: 1}, {})
    assert scene.see((1, (0.875, 0.5))) == []  # where it was when the line was moved counts for nothing
    assert scene.see((1, (0.625, 0.5))) == ["1 crossed gate backward"]
    assert scene.see((1, (0.375, 0.5))) == ["1 crossed door backward"]


YARDS = {"far": Zone(((0.0, 0.0), (0.125, 0.0), (0.125, 0.125)))}


# -- held against slow geometry

EIGHTHS = st.integers(0, 8).map(lambda eighth: eighth / 8)
COARSE = st.tuples(EIGHTHS, EIGHTHS)
# Where nothing lies on anything by chance.
FINE = st.tuples(st.integers(0, WIDTH).map(lambda x: x / WIDTH), st.integers(0, HEIGHT).map(lambda y: y / HEIGHT))
SPOTS = st.lists(COARSE, max_size=12) | st.lists(FINE, max_size=12)


@st.composite
def polygons(draw: st.DrawFn) -> tuple[tuple[float, float], ...]:
    """Corners around a middle, at any distance from it: any star; or any corners at all that make a polygon."""
    if draw(st.booleans()):
        corners = tuple(draw(st.lists(COARSE, min_size=3, max_size=6, unique=True)))
    else:
        turns = sorted(draw(st.lists(st.integers(0, 63), min_size=3, max_size=12, unique=True)))
        reaches = [draw(st.integers(1, 64)) / 128 for _ in turns]
        corners = tuple(
            (round((0.5 + r * math.cos(t * math.pi / 32)) * WIDTH) / WIDTH,
             round((0.5 + r * math.sin(t * math.pi / 32)) * HEIGHT) / HEIGHT)
            for r, t in zip(reaches, turns, strict=True)
        )  # fmt: skip
    assume(plain.is_simple(plain.exact(corners)))
    return corners


@given(st.lists(COARSE, min_size=3, max_size=7))
@example([(0, 0), (1, 0), (0.5, 0.5)])
@example([(0, 0), (1, 0), (0.5, 0)])  # there and back again
@example([(0, 0), (1, 0), (1, 1), (0.5, 0)])  # a corner on a side
@example([(0, 0), (1, 1), (1, 0), (0, 1)])
@example([(0, 0), (0, 0), (1, 0), (0, 1)])
@example([(0, 0), (0.5, 0), (1, 0), (0, 1)])  # a corner that turns nowhere
def test_a_polygon_is_one_or_is_refused(corners: list[tuple[float, float]]) -> None:
    if plain.is_simple(plain.exact(corners)):
        Zone(tuple(corners))
    else:
        with pytest.raises(ValueError, match="polygon"):
            Zone(tuple(corners))


@given(polygons(), SPOTS)
def test_in_a_zone_are_those_in_its_polygon(corners: tuple, walk: list) -> None:
    scene = Scene({"yard": Zone(corners)})
    exact_corners = plain.exact(corners)
    was_inside = False
    for spot, exact_spot in zip(walk, plain.exact(walk), strict=True):
        said = scene.see((1, spot))
        is_inside = plain.is_inside(exact_spot, exact_corners)
        assert scene.inside() == ({PERSON: 1} if is_inside else {})
        assert bool(said) == (is_inside != was_inside)
        was_inside = is_inside


@given(st.lists(polygons(), max_size=3), st.lists(COARSE, max_size=5))
def test_many_zones_and_objects_are_each_as_alone(all_corners: list, spots: list) -> None:
    scene = Scene({str(number): Zone(corners) for number, corners in enumerate(all_corners)})
    scene.see(*enumerate(spots, 1))
    for number, corners in enumerate(all_corners):
        inside = sum(plain.is_inside(spot, plain.exact(corners)) for spot in plain.exact(spots))
        assert scene.inside(str(number)) == ({PERSON: inside} if inside else {})


def crossed(line: tuple, walk: list) -> list[tuple[int, str]]:
    scene = Scene(lines={"gate": Line(line)})
    return [(number, event.direction) for number, spot in enumerate(walk) for event in scene.look((1, spot))]


@given(st.tuples(COARSE, COARSE) | st.tuples(FINE, FINE), SPOTS)
@example(((0.5, 0.75), (0.5, 0.25)), [(0.375, 0.5), (0.5, 0.125), (0.5, 0.5), (0.625, 0.5)])  # along it and through
@example(((0.5, 0.75), (0.5, 0.25)), [(0.375, 0.5), (0.5, 0.5), (0.5, 0.125), (0.625, 0.125)])  # onto it and along
@example(((0.5, 0.75), (0.5, 0.25)), [(0.375, 0.125), (0.5, 0.125), (0.5, 0.0), (0.625, 0.0)])  # never on it
def test_a_walk_crosses_where_slow_geometry_says_so(line: tuple, walk: list) -> None:
    assume(line[0] != line[1])
    assert crossed(line, walk) == plain.crossings(plain.exact(walk), plain.exact(line))


@given(st.tuples(COARSE, COARSE), SPOTS)
def test_a_walk_backwards_crosses_as_often_the_other_way(line: tuple, walk: list) -> None:
    assume(line[0] != line[1])
    there, back = (Counter(direction for _, direction in crossed(line, steps)) for steps in (walk, walk[::-1]))
    assert (there["forward"], there["backward"]) == (back["backward"], back["forward"])


@given(polygons(), st.lists(st.tuples(st.sampled_from([1, 2, 3]), COARSE, st.booleans()), max_size=20))
def test_whoever_entered_leaves_or_is_inside(corners: tuple, steps: list) -> None:
    """Whatever is seen and given up: each stay has one beginning and at most one end, and the sum is right."""
    scene, now = Scene({"yard": Zone(corners)}), 0
    for track, spot, ends in steps:
        for event in scene.look((track, spot), given_up={track} if ends else None):
            now += {"entered": 1, "left": -1}[event.event]
        assert sum(scene.inside().values()) == now >= 0


def test_counts_are_told_with_their_events() -> None:
    scene = Scene({"yard": YARD}, {"gate": GATE})
    events = scene.look((1, IN))
    counts = scene.counter.counts(events)
    assert counts.events == tuple(events) and len(events) == 1
    assert counts.zones == {"yard": ZoneCount({PERSON: 1})} and counts.lines == {"gate": LineCount({}, {})}
