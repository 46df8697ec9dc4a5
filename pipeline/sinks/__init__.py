"""Where results go: what every sink can do. Each sink is a module beside this one; none knows a stage."""

from typing import Protocol

import cv2  # noqa: F401  # before any sink imports av, or opening a window hangs: see sinks/window.py
import numpy as np
from numpy.typing import NDArray

from pipeline.results import FrameResult


class Sink(Protocol):
    """Takes the frames of one source in order.

    Raises `pipeline.errors.OutputError` with one line when it cannot write.
    """

    def write(self, frame: FrameResult, image_bgr: NDArray[np.uint8] | None) -> None:
        """Deliver `frame`; `image_bgr` (H, W, 3) is its picture with the overlay, None if nobody asked for pixels."""

    def close(self) -> None:
        """Finish and free what is held; a second call does nothing."""
