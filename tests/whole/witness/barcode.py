"""A number drawn into a picture as large blocks, and read from it again after two encoders and under an overlay.

A picture has the code three times, in strips over its whole width, each with the bits in another place, so that a label
or a box hides different bits in each. A strip is read alone, or all by majority; without the right checksum nothing is
read. Magenta and green ends tell a picture in colour from one that was turned grey.

    2 × 36 cells of payload: source (8 bits), number (32), CRC-32 of both; between two cells of colour on either side

Everything is a share of the picture's width and height, so a scaled picture reads the same. Knows no file and no video.
"""

import struct
import zlib
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

COLUMNS, ROWS = 40, 30  # cells of a picture
STRIP_ROWS = (3, 18, 27)  # not where an overlay has its line of text (top) and its banner (middle)
ENDS = 2  # cells of colour at either end
BITS = 2 * (COLUMNS - 2 * ENDS)
TURN = BITS // len(STRIP_ROWS)
DARK, LIGHT = 24, 232
MAGENTA, GREEN = (230, 25, 230), (25, 230, 25)
FULL_COLOUR = 410.0  # what `_colour` gives for the two above
LEAST_LABEL_COLOUR = 70  # between the channels of a cell; the cells of the code are black and white
_PAYLOAD = struct.Struct(">BI")
_CELL = 4  # pixels of a cell when it is read; its inner 2 × 2 count


class Code(NamedTuple):
    """What a picture says of itself."""

    source: int  # 0 to 255
    number: int  # 0 to 2³² - 1


def draw(picture_bgr: Image, source: int, number: int) -> None:
    """Into `picture_bgr` (H, W, 3), in place; at least 160 × 120."""
    height, width = picture_bgr.shape[:2]
    for strip, row in enumerate(STRIP_ROWS):
        cells = np.empty((2, COLUMNS, 3), np.uint8)
        levels = np.where(np.roll(_bits(source, number), strip * TURN), LIGHT, DARK).astype(np.uint8)
        cells[:, ENDS:-ENDS] = levels.reshape(2, -1, 1)
        cells[:, :ENDS], cells[:, -ENDS:] = MAGENTA, GREEN
        top, bottom = _span(row, height)
        picture_bgr[top:bottom] = cv2.resize(cells, (width, bottom - top), interpolation=cv2.INTER_NEAREST)


def read(picture: Image) -> Code | None:
    """The code of `picture`, BGR (H, W, 3) or grey (H, W); None in doubt."""
    bgr = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    strips = [np.roll(_levels(bgr, row), -strip * TURN) for strip, row in enumerate(STRIP_ROWS)]
    votes = sum(np.sign(strip) for strip in strips)
    return next((code for levels in [*strips, votes, sum(strips)] if (code := _decoded(levels > 0))), None)


def is_grey(picture_bgr: Image) -> bool:
    """Whether no strip has the colours of its ends any more: a picture shown grey, or none of ours."""
    return max(_colour(picture_bgr, row) for row in STRIP_ROWS) < FULL_COLOUR / 2


def _bits(source: int, number: int) -> NDArray[np.bool_]:
    payload = _PAYLOAD.pack(source, number)
    return np.unpackbits(np.frombuffer(payload + _checksum(payload), np.uint8)).astype(bool)


def _checksum(payload: bytes) -> bytes:
    return zlib.crc32(payload).to_bytes(4, "big")


def _decoded(bits: NDArray[np.bool_]) -> Code | None:
    data = np.packbits(bits).tobytes()
    payload, checksum = data[: _PAYLOAD.size], data[_PAYLOAD.size :]
    return Code(*_PAYLOAD.unpack(payload)) if checksum == _checksum(payload) else None


def _span(row: int, height: int) -> tuple[int, int]:
    """First pixel row of the strip that begins at cell row `row`, and one past its last."""
    return round(row * height / ROWS), round((row + 2) * height / ROWS)


def _levels(picture_bgr: Image, row: int) -> NDArray[np.float32]:
    """How light each bit of a strip is, from -128 to 127, in the strip's own order; 0 where a label of colour is."""
    cells = _inner(picture_bgr, row)[:, ENDS:-ENDS].reshape(-1, 3)
    is_plain = np.ptp(cells, axis=1) < LEAST_LABEL_COLOUR
    return np.where(is_plain, cells.mean(axis=1) - 128, 0)


def _colour(picture_bgr: Image, row: int) -> float:
    """Magenta at the left and green at the right, from 0 (grey) to FULL_COLOUR."""
    cells = _inner(picture_bgr, row)
    left, right = (cells[:, ends].reshape(-1, 3).mean(axis=0) for ends in (slice(None, ENDS), slice(-ENDS, None)))
    return float(((left[0] + left[2]) / 2 - left[1]) + (right[1] - (right[0] + right[2]) / 2))


def _inner(picture_bgr: Image, row: int) -> NDArray[np.float32]:
    """The mean of the inside of each cell, (2, COLUMNS, 3)."""
    top, bottom = _span(row, picture_bgr.shape[0])
    strip = cv2.resize(picture_bgr[top:bottom], (COLUMNS * _CELL, 2 * _CELL), interpolation=cv2.INTER_AREA)
    return strip.reshape(2, _CELL, COLUMNS, _CELL, 3)[:, 1:-1, :, 1:-1].astype(np.float32).mean(axis=(1, 3))
