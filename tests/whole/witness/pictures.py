"""Reads the pictures of overlay videos: what each says of itself by its bar code. Knows no JSON line.

A picture whose bar code has lost its colours is a greyed one, shown during an outage: it is no frame, whether or not
its code can still be read. A picture in colour without a code that can be read is a frame that cannot be checked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import av.error

from tests.whole.witness import barcode
from tests.whole.witness.barcode import Code


@dataclass(frozen=True)
class Picture:
    """One picture of a video file."""

    file: int  # which of the files
    index: int  # in its file
    pts_seconds: float
    code: Code | None
    is_grey: bool

    def __str__(self) -> str:
        return f"picture {self.index} of file {self.file}"


def read_pictures(paths: Sequence[Path]) -> tuple[list[Picture], list[str]]:
    """All pictures of the files in their order, and which files cannot be read."""
    pictures: list[Picture] = []
    problems = []
    for file, path in enumerate(paths):
        try:
            pictures.extend(_pictures_of(file, path))
        except (OSError, av.error.FFmpegError) as error:
            problems.append(f"{path.name} cannot be read as a video: {error}")
    return pictures, problems


def _pictures_of(file: int, path: Path) -> Iterator[Picture]:
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            image_bgr = frame.to_ndarray(format="bgr24")
            yield Picture(file, index, frame.time or 0.0, barcode.read(image_bgr), barcode.is_grey(image_bgr))
