"""Where results go: what every sink can do. Each kind of sink is a module beside this
one with a function `open_sink(target)`, and a line in `pipeline.kinds`; none knows a stage.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2  # noqa: F401  # before any sink imports av, or opening a window hangs: see sinks/window.py
import numpy as np
from numpy.typing import NDArray

from pipeline.flow.messages import SignalChange, WantPixels
from pipeline.flow.results import FrameResult
from pipeline.settings import EncoderSettings, RecordSettings, SpoolSettings

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a sink is to write.

    path               "-" is standard output; "" for a kind without
    frames_per_second  of the source, None when unknown
    goes_on            an earlier process of the same run wrote there: nothing of that may be lost
    segment_seconds    a file of pictures is to end after so long, and another to follow; None: never
    encoder            how pictures are encoded
    record             what recordings keep
    want               asks for these pictures and heat maps and no others, from now on (`pipeline.kinds`: on_demand)
    rotate_bytes       a file of lines is to end before it is larger, and another to follow; None: never
    keep_files         so many of those are kept, the newest; None: all
    spool              where and how much may wait for who is not there (kinds that are reached over a network)
    classes            the class names that can be found; empty means all of the network's
    warn               tells the user a line; the same one is told once
    """

    path: str
    frames_per_second: float | None = None
    goes_on: bool = False
    segment_seconds: float | None = None
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    record: RecordSettings = field(default_factory=RecordSettings)
    want: Callable[[WantPixels], None] = lambda wanted: None
    rotate_bytes: int | None = None
    keep_files: int | None = None
    spool: SpoolSettings = field(default_factory=SpoolSettings)
    classes: tuple[str, ...] = ()
    warn: Callable[[str], None] = lambda line: None


class Missed(Exception):
    """A sink could not take this frame, and goes on: its server is away, or too slow."""


class Sink:
    """Takes the frames of its sources, those of each in order. One thread at a time.

    path      the file that it writes, where that is not what it was asked for: the next segment
    way       how it does it, in words for the summary: the encoder
    lost      frames that it took, and that then could not be passed on
    is_heard  whether anybody takes what it gives, by its last `look`: it is given no frames else (on demand)

    Raises `pipeline.errors.OutputError` with one line when it cannot write.
    """

    path: str | None = None
    way: str = ""
    lost: int = 0
    is_heard: bool = True

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        """Deliver `frame`; `image_bgr` (H, W, 3) is its picture with the overlay, None if nobody asked for pixels, or
        if the frame was dropped. Raises Missed where it is counted as missed."""
        raise NotImplementedError

    def record(self, signal: SignalChange) -> None:
        """What a source sends has changed: lost, back, frozen. Sinks without a place for it leave it out."""

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        """A picture that is no frame, of a source whose signal is lost. Sinks without pictures leave it out."""

    def end(self, source_id: str) -> None:
        """Nothing more comes of this source, for now. For sinks that tell how a source is."""

    def look(self) -> None:
        """A few times a second, for sinks on demand: who looks at them may have changed."""

    def close(self) -> None:
        """Finish and free what is held; a second call does nothing."""
