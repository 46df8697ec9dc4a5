"""Where a source frame lies in the network's input. Knows no pixels and no model.

Coordinates are continuous: a frame W wide reaches from x = 0 (left edge of its first pixel) to x = W.
"""

from dataclasses import dataclass
from typing import Literal

Resize = Literal["stretch", "letterbox"]


@dataclass(frozen=True, slots=True)
class InputGeometry:
    """The rectangle of the input that the frame fills, in whole pixels, and the way back to the frame.

    `source = scale * input + shift` on each axis. The rest of the input, if any, is padding.
    """

    left: int
    top: int
    width: int
    height: int
    scale_x: float
    scale_y: float

    @property
    def shift_x(self) -> float:
        return -self.left * self.scale_x

    @property
    def shift_y(self) -> float:
        return -self.top * self.scale_y

    def cells(self, stride: int, columns: int, rows: int) -> tuple[int, int, int, int]:
        """Of a grid of `columns` × `rows` cells of `stride` input pixels: left, top, right and bottom of those that the
        frame touches; right and bottom are one past the end."""
        right, bottom = -(-(self.left + self.width) // stride), -(-(self.top + self.height) // stride)
        return self.left // stride, self.top // stride, min(columns, right), min(rows, bottom)

    @property
    def affine(self) -> tuple[float, float, float, float]:
        """(scale_x, scale_y, shift_x, shift_y)."""
        return self.scale_x, self.scale_y, self.shift_x, self.shift_y

    def to_source(self, left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
        """A rectangle of the input in pixels of the frame."""
        scale_x, scale_y, shift_x, shift_y = self.affine
        return scale_x * left + shift_x, scale_y * top + shift_y, scale_x * right + shift_x, scale_y * bottom + shift_y


def fit_input(
    source_width: int, source_height: int, input_width: int, input_height: int, resize: Resize
) -> InputGeometry:
    """`stretch` fills the input and lets the aspect ratio go; `letterbox` keeps it, centred between bars.

    A letterboxed side is rounded to whole pixels, so the two scales may differ in the last digits; each
    is exact for its axis. Raises ValueError for a size below 1 or another `resize`.
    """
    if min(source_width, source_height, input_width, input_height) < 1:
        raise ValueError(
            f"sizes must be at least 1x1, got {source_width}x{source_height} into {input_width}x{input_height}"
        )
    if resize == "stretch":
        width, height = input_width, input_height
    elif resize == "letterbox":
        factor = min(input_width / source_width, input_height / source_height)
        width = max(1, min(input_width, round(source_width * factor)))
        height = max(1, min(input_height, round(source_height * factor)))
    else:
        raise ValueError(f"resize must be 'stretch' or 'letterbox', got {resize!r}")
    return InputGeometry(
        left=(input_width - width) // 2,
        top=(input_height - height) // 2,
        width=width,
        height=height,
        scale_x=source_width / width,
        scale_y=source_height / height,
    )
