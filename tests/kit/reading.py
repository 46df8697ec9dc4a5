"""What the tests of sources read with: all frames of a source, and their brightness."""

from pipeline.sources import CapturedFrame, SourceSettings, open_source


def never() -> bool:
    return False


def decoded(taken: object) -> CapturedFrame:
    """A frame where none may have been left out."""
    assert isinstance(taken, CapturedFrame), taken
    return taken


def read(uri: object, **settings: object) -> tuple[list[CapturedFrame], str | None]:
    """All frames of a source and how it ended."""
    with open_source(SourceSettings(uri=str(uri), **settings), "test") as source:  # type: ignore[arg-type]
        return [decoded(taken) for taken in source.frames(never)], source.failure


def luma(frame: CapturedFrame) -> bytes:
    return bytes(frame.video_frame.planes[0])
