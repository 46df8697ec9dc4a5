"""Heat maps that somebody looks at, on their way with a frame's results: small planes, of a class each.

Knows no network, and nothing of who looks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.flow.frame import Frame

_PREFIX, _BOX = "heat/", "heat_box_xyxy"


@dataclass(frozen=True, slots=True)
class HeatMap:
    """What the network says of one class, cell by cell.

    plane_hw  (rows, columns) uint8: 255 times the score
    box_xyxy  where the plane lies in pixels of the source frame; its cells are of equal size, and may reach beyond it
    """

    plane_hw: NDArray[np.uint8]
    box_xyxy: tuple[float, float, float, float]


def put_heat(frame: Frame, maps: dict[str, HeatMap]) -> None:
    """By class name; all lie at the same place."""
    for name, heat in maps.items():
        frame.put(_PREFIX + name, heat.plane_hw)
        if _BOX not in frame:
            frame.put(_BOX, np.array(heat.box_xyxy, np.float32))


def heat_of(frame: Frame) -> dict[str, HeatMap]:
    names = [ref.name for ref in frame.header.arrays if ref.name.startswith(_PREFIX)]
    if not names:
        return {}
    left, top, right, bottom = frame.array(_BOX).tolist()
    box_xyxy = (left, top, right, bottom)
    return {name.removeprefix(_PREFIX): HeatMap(frame.array(name), box_xyxy) for name in names}
