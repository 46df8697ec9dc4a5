"""A folder or glob of pictures as a source of one frame per second. Pictures may differ in size."""

import io
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import av
from av.video.frame import VideoFrame

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.sources.address import Address
from pipeline.sources.base import CapturedFrame, Source, SourceInfo, Stopped

FRAMES_PER_SECOND = 1.0


class ImageSource(Source):
    """Reads pictures in natural order; one that cannot be read is counted, keeps its second, and is left out."""

    def __init__(self, address: Address, settings: SourceSettings, source_id: str) -> None:
        """Raises SourceError when none of the pictures can be read."""
        super().__init__(settings)
        self._paths = address.image_paths
        self._damaged: list[str] = []
        self._frames = self._read_all()
        self._first = next(self._frames, None)
        if self._first is None:
            raise SourceError(f"{address.shown}: none of its {len(self._paths)} images can be read")
        self.info = SourceInfo(
            source_id=source_id,
            kind=address.kind,
            is_live=settings.realtime,
            width=self._first.width,
            height=self._first.height,
            frames_per_second=FRAMES_PER_SECOND,
            frame_count=len(self._paths),
            duration_seconds=len(self._paths) / FRAMES_PER_SECOND,
        )

    def close(self) -> None:
        self._frames.close()

    def _decoded(self, stopped: Stopped) -> Iterator[CapturedFrame]:
        if self._first is not None and not stopped():
            first, self._first = self._first, None
            yield first
        while not stopped() and (frame := next(self._frames, None)) is not None:
            yield frame
        if self._damaged:
            self.failure = f"{len(self._damaged)} of {len(self._paths)} images cannot be read, first {self._damaged[0]}"

    def _read_all(self) -> Generator[CapturedFrame, None, None]:
        for index, path in enumerate(self._paths):
            captured_ns, captured_unix = time.monotonic_ns(), time.time()
            try:
                yield CapturedFrame.of(read_image(path), index / FRAMES_PER_SECOND, captured_ns, captured_unix)
            except (av.error.FFmpegError, OSError):
                self.decode_errors += 1
                self._damaged.append(path.name)


def read_image(path: Path) -> VideoFrame:
    """The picture in a file. Raises FFmpegError or OSError when there is none that can be read."""
    # From memory: given a name, FFmpeg would read "%03d" and "*" in it as a pattern.
    with av.open(io.BytesIO(path.read_bytes()), "r") as container:
        return next(container.decode(video=0))
