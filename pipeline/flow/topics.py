"""What is published, by the first part of each message. Knows nothing of who publishes it, or why.

By deliver: `signal/SOURCE` has one more part: a line as `docs/json-lines.md` has it; `frame/SOURCE` has two: the
frame's line, and when it was captured (nanoseconds of the host's monotonic clock, as text). `wide/WIDTH/SOURCE`,
`full/SOURCE` and `drawn/SOURCE` have its picture after those, as a JPEG: at most so many pixels wide, in full size, in
full size with the overlay.

`heat/SOURCE/CLASS` has three: a line that says where its plane lies, when the frame was captured, and the plane: what
the network says of that class, a byte a cell, row by row.

By a source's decoder, to the page's process alone: `packets/SOURCE` has two, a `PacketHead`, and the camera's own H.264
as Annex B. It is captured at the same moment as the frame that is decoded of it. Pictures without the overlay have the
same topics as by deliver and no line, for there is none yet: when the frame was captured, and the JPEG.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

FRAME, SIGNAL = b"frame/", b"signal/"
WIDE, FULL, DRAWN = b"wide/", b"full/", b"drawn/"
PICTURES = (WIDE, FULL, DRAWN)
# Wider is no JPEG, and higher neither.
MOST_WIDTH = 65_500
HEAT = b"heat/"
PACKETS = b"packets/"


class PictureWanted(NamedTuple):
    """`most_width` in pixels, None: as it is."""

    source_id: str
    most_width: int | None
    is_drawn: bool


def wide_topic(source_id: str, most_width: int) -> bytes:
    return WIDE + f"{most_width}/{source_id}".encode()


def picture_wanted(topic: bytes) -> PictureWanted | None:
    """None where the topic is no picture's."""
    kind = next((kind for kind in PICTURES if topic.startswith(kind)), None)
    if kind is None:
        return None
    source_id, width = topic.removeprefix(kind).decode(errors="replace"), None
    if kind == WIDE:
        text, _, source_id = source_id.partition("/")
        # Whoever can subscribe may ask for anything, and int() refuses what is too long.
        width = int(text) if text.isdecimal() and len(text) <= len(str(MOST_WIDTH)) else 0
    return None if width == 0 else PictureWanted(source_id, width, kind == DRAWN)


class Wish(NamedTuple):
    """A topic that somebody has subscribed to, and the picture that it asks for."""

    topic: bytes
    picture: PictureWanted


def wishes_of(topics: Iterable[bytes]) -> list[Wish]:
    """What is not a picture's is left out."""
    return [Wish(topic, picture) for topic in sorted(topics) if (picture := picture_wanted(topic))]


def granted(
    wishes: Iterable[Wish], full_width: int, make: Callable[[int, bool], bytes]
) -> Iterator[tuple[bytes, bytes]]:
    """Each topic with its JPEG of a picture that is `full_width` across: `make(width, is_drawn)` is called once for
    each that differs, for to ask for more than the picture has is to ask for all of it."""
    made: dict[tuple[int, bool], bytes] = {}
    for topic, (_, most_width, is_drawn) in wishes:
        kind = min(most_width or full_width, full_width), is_drawn
        if kind not in made:
            made[kind] = make(*kind)
        yield topic, made[kind]


def heat_topic(source_id: str, class_name: str) -> bytes:
    return HEAT + f"{source_id}/{class_name}".encode()


def heat_wanted(topic: bytes) -> tuple[str, str]:
    """The source and the class of a topic that begins with `HEAT`."""
    source_id, _, class_name = topic.removeprefix(HEAT).decode(errors="replace").partition("/")
    return source_id, class_name


class PacketHead(msgspec.Struct, frozen=True):
    """What must be known of a packet before it is decoded.

    codec     as browsers call it, "avc1.64001F"
    is_key    it begins anew, with its parameter sets: no packet before it is needed
    captured  when it came, microseconds of the host's monotonic clock
    follows   the packet before it, by the same clock; None where some were left out: it is of no use then, unless
              `is_key`
    """

    codec: str
    is_key: bool
    captured: int
    follows: int | None


encode_head = msgspec.json.Encoder().encode
decode_head = msgspec.json.Decoder(PacketHead).decode
