"""Where results go: what every sink can do. Each kind of sink is a module beside this
one with a function `open_sink(target)`, and a line in `pipeline.kinds`; none knows a stage.
"""

from dataclasses import dataclass, field

import cv2  # noqa: F401  # before any sink imports av, or opening a window hangs: see sinks/window.py
import numpy as np
from numpy.typing import NDArray

from pipeline.flow.messages import SignalChange
from pipeline.flow.results import FrameResult
from pipeline.settings import EncoderSettings

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a sink is to write.

    path               "-" is standard output; "" for a kind without
    frames_per_second  of the source, None when unknown
    goes_on            an earlier process of the same run wrote there: nothing of that may be lost
    segment_seconds    a file of pictures is to end after so long, and another to follow; None: never
    encoder            how pictures are encoded
    """

    path: str
    frames_per_second: float | None = None
    goes_on: bool = False
    segment_seconds: float | None = None
    encoder: EncoderSettings = field(default_factory=EncoderSettings)


class Sink:
    """Takes the frames of its sources, those of each in order. One thread at a time.

    path  the file that it writes, where that is not what it was asked for: the next segment
    way   how it does it, in words for the summary: the encoder

    Raises `pipeline.errors.OutputError` with one line when it cannot write.
    """

    path: str | None = None
    way: str = ""

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        """Deliver `frame`; `image_bgr` (H, W, 3) is its picture with the overlay, None if nobody asked for pixels, or
        if the frame was dropped."""
        raise NotImplementedError

    def record(self, signal: SignalChange) -> None:
        """What a source sends has changed: lost, back, frozen. Sinks without a place for it leave it out."""

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        """A picture that is no frame, of a source whose signal is lost. Sinks without pictures leave it out."""

    def close(self) -> None:
        """Finish and free what is held; a second call does nothing."""
