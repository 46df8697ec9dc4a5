"""What is published, by the first part of each message. Knows nothing of who publishes it, or why.

`signal/SOURCE` has one more part: a line as `docs/json-lines.md` has it; `frame/SOURCE` has two: the frame's line, and
when it was captured (nanoseconds of the host's monotonic clock, as text). `tile/SOURCE`, `wide/WIDTH/SOURCE`,
`full/SOURCE` and `drawn/SOURCE` have its picture after those, as a JPEG: small, at most so many pixels wide, in full
size, in full size with the overlay.

`heat/SOURCE/CLASS` has three: a line that says where its plane lies, when the frame was captured, and the plane: what
the network says of that class, a byte a cell, row by row.

`packets/SOURCE` goes from a source's decoder to the page's process alone, and has two: a `PacketHead`, and the camera's
own H.264 as Annex B. It is captured at the same moment as the frame that is decoded of it.
"""

from typing import NamedTuple

import msgspec

FRAME, SIGNAL = b"frame/", b"signal/"
TILE, WIDE, FULL, DRAWN = b"tile/", b"wide/", b"full/", b"drawn/"
PICTURES = (TILE, WIDE, FULL, DRAWN)
TILE_WIDTH = 480
# No JPEG is wider.
MOST_WIDTH = 65_535
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
    source_id, width = topic.removeprefix(kind).decode(errors="replace"), TILE_WIDTH if kind == TILE else None
    if kind == WIDE:
        text, _, source_id = source_id.partition("/")
        # Whoever can subscribe may ask for anything, and int() refuses what is too long.
        width = int(text) if text.isdecimal() and len(text) <= len(str(MOST_WIDTH)) else 0
    return None if width == 0 else PictureWanted(source_id, width, kind == DRAWN)


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
