"""What zones and lines have to tell with a frame: what happened, and how many there are. Knows no picture and no shape.

An `Event` has the same shape in every output; as JSON it is `msgspec.json.encode(event)`.
"""

from typing import Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

EventKind = Literal["entered", "left", "dwelled", "crossed"]
Direction = Literal["forward", "backward"]


class Moment(NamedTuple):
    """A frame, as an event tells of it; `at_unix` is when it was captured."""

    source: str
    seq: int
    pts_seconds: float
    at_unix: float


class Event(msgspec.Struct, kw_only=True, frozen=True, rename={"class_name": "class"}):
    """Something that a tracked object did. What is `UNSET` has no key.

    event          "entered" and "left" a zone, "dwelled" in it for as long as is asked for, "crossed" a line
    source, seq, pts_seconds, at_unix  of the frame in which it was seen
    zone, line     the name of one of them
    direction      of "crossed"
    dwell_seconds  of "left" and "dwelled": from the first frame in which it was seen in the zone to the last
    lost           true of "left" where it was not seen to go: its track ended in the zone
    """

    event: EventKind
    source: str
    seq: int
    pts_seconds: float
    at_unix: float
    zone: str | UnsetType = UNSET
    line: str | UnsetType = UNSET
    track_id: int
    class_name: str
    direction: Direction | UnsetType = UNSET
    dwell_seconds: float | UnsetType = UNSET
    lost: bool | UnsetType = UNSET


class ZoneCount(msgspec.Struct, frozen=True):
    """How many are in it now, by class."""

    inside: dict[str, int]


class LineCount(msgspec.Struct, frozen=True):
    """How often it was crossed since the counting began, by class."""

    forward: dict[str, int]
    backward: dict[str, int]


class Counts(msgspec.Struct, frozen=True):
    """Of a frame that has a result; zones and lines by name."""

    events: tuple[Event, ...]
    zones: dict[str, ZoneCount]
    lines: dict[str, LineCount]
