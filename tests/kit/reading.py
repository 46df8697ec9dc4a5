"""What the tests of sources read with: all frames of a source, and their brightness."""

from collections.abc import Iterator

from pipeline.sources import CapturedFrame, LeftOut, Source, SourceSettings, open_source
from pipeline.sources.base import Stopped


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
