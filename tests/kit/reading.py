"""What tests read with: all frames of a source and their brightness, and pictures that a server plays."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.sources import CapturedFrame, LeftOut, Source, SourceSettings, open_source
from pipeline.sources.base import Stopped
from tests.kit.harness import wait_until


def never() -> bool:
    return False


def decoded(taken: object) -> CapturedFrame:
    """A frame where none may have been left out."""
    assert isinstance(taken, CapturedFrame), taken
    return taken


def frames_of(source: Source, stopped: Stopped = never) -> Iterator[CapturedFrame | LeftOut]:
    """The frames of a source, and those left out, without what it says of itself."""
    return (item for item in source.frames(stopped) if isinstance(item, CapturedFrame | LeftOut))


def read(uri: object, **settings: object) -> tuple[list[CapturedFrame], str | None]:
    """All frames of a source and how it ended."""
    with open_source(SourceSettings(uri=str(uri), **settings), "test") as source:  # type: ignore[arg-type]
        return [decoded(taken) for taken in frames_of(source)], source.failure


def luma(frame: CapturedFrame) -> bytes:
    return bytes(frame.video_frame.planes[0])


class Shown(NamedTuple):
    """A picture that a server has played, its time since the first in seconds."""

    seconds: float
    is_key: bool
    image_bgr: NDArray[np.uint8]


def from_server(url: str, count: int) -> list[Shown]:
    """So many pictures of a stream, from a key frame on, as soon as it is played."""
    shown: list[Shown] = []
    wait_until(lambda: len(shown) >= count or shown.extend(_played(url, count)), what=f"{count} pictures")
    return shown[:count]


def _played(url: str, count: int) -> list[Shown]:
    try:
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=5) as container:
            frames = list(islice(container.decode(video=0), count))
    except av.error.FFmpegError:
        return []
    first = frames[0].pts or 0
    times_seconds = [float(((frame.pts or first) - first) * frame.time_base) for frame in frames]
    return [
        Shown(seconds, frame.key_frame, frame.to_ndarray(format="bgr24"))
        for seconds, frame in zip(times_seconds, frames, strict=True)
    ]
