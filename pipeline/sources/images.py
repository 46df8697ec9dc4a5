"""A folder or glob of pictures as a source of one frame per second. Pictures may differ in size."""

import io
import struct
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import av
from av.video.frame import VideoFrame

from configs.uri import shown_text
from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.source_address import Address
from pipeline.sources.base import CapturedFrame, Source, SourceInfo, Stopped
from pipeline.sources.container import reason
from pipeline.sources.late import LeftOut, is_late

FRAMES_PER_SECOND = 1.0
LARGEST_SIDE = 16000
# FFmpeg's own limit for any picture: (width + 128) × (height + 128) × 8 must stay below 2^31.
_MOST_PIXELS, _MARGIN = 1 << 28, 128
_HEAD_BYTES = 1 << 20  # a photograph may begin with its own thumbnail


class ImageSource(Source):
    """Reads pictures in natural order. One that cannot be read is counted, keeps its second, and is passed over."""

    def __init__(self, address: Address, settings: SourceSettings, source_id: str) -> None:
        """Raises SourceError when none of the pictures can be read."""
        super().__init__(settings)
        self._paths = address.image_paths
        self._damaged: list[str] = []
        self._frames = self._read_all()
        first = next(self._frames, None)
        if not isinstance(first, CapturedFrame):
            why = f"none of its {len(self._paths)} images can be read, first {self._damaged[0]}"
            raise SourceError(f"{address.shown}: {why}")
        self._first: CapturedFrame | None = first
        self.info = SourceInfo(
            source_id=source_id,
            kind=address.kind,
            is_live=settings.realtime,
            width=first.width,
            height=first.height,
            frames_per_second=FRAMES_PER_SECOND,
            frame_count=len(self._paths),
            duration_seconds=len(self._paths) / FRAMES_PER_SECOND,
        )

    def close(self) -> None:
        self._frames.close()

    def decoded(self, stopped: Stopped) -> Iterator[CapturedFrame | LeftOut]:
        if self._first is not None and not stopped():
            first, self._first = self._first, None
            yield first
        while not stopped() and (frame := next(self._frames, None)) is not None:
            yield frame
        if self._damaged:
            self.failure = f"{len(self._damaged)} of {len(self._paths)} images cannot be read, first {self._damaged[0]}"

    def _read_all(self) -> Generator[CapturedFrame | LeftOut, None, None]:
        for index, path in enumerate(self._paths):
            seconds = index / FRAMES_PER_SECOND
            # No picture needs another: those after a late one are not left out with it.
            if is_late(self._pace.behind_seconds(seconds)):
                yield LeftOut(seconds)
                continue
            captured_ns, captured_unix = time.monotonic_ns(), time.time()
            try:
                yield CapturedFrame.of(read_image(path), seconds, captured_ns, captured_unix)
            except (av.error.FFmpegError, OSError, EOFError) as error:
                self._damaged.append(f"{shown_text(path.name)}: {_why(path, error)}")


def read_image(path: Path) -> VideoFrame:
    """The picture in a file. Raises FFmpegError, OSError or EOFError when there is none that can be read."""
    # From memory: given a name, FFmpeg would read "%03d" and "*" in it as a pattern.
    with av.open(io.BytesIO(path.read_bytes()), "r") as container:
        picture = next(container.decode(video=0), None) if container.streams.video else None
    if picture is None:
        raise EOFError
    return picture


def _why(path: Path, error: Exception) -> str:
    """Why a picture could not be read, where FFmpeg only says that its data are invalid."""
    if isinstance(error, OSError) and not isinstance(error, av.error.FFmpegError):
        return reason(error)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    width, height = _declared_size(head)
    if (width + _MARGIN) * (height + _MARGIN) >= _MOST_PIXELS:
        return f"{width}x{height} pixels are too many, at most {LARGEST_SIDE}x{LARGEST_SIDE} can be read"
    return "it is cut off, damaged or no picture" if head else "it is empty"


def _declared_size(head: bytes) -> tuple[int, int]:
    """Width and height that the first bytes of a PNG, BMP or JPEG tell; (0, 0) where they tell none."""
    if head.startswith(b"\x89PNG") and len(head) >= 24:
        return struct.unpack(">II", head[16:24])
    if head.startswith(b"BM") and len(head) >= 26:
        width, height = struct.unpack("<ii", head[18:26])
        return width, abs(height)
    at = 2 if head.startswith(b"\xff\xd8") else len(head)
    while at + 9 <= len(head):
        marker, size_bytes, height, width = struct.unpack(">xBHxHH", head[at : at + 9])
        if 0xC0 <= marker <= 0xC3:  # a start of frame; before it come tables and comments
            return width, height
        at += 2 + size_bytes
    return 0, 0
