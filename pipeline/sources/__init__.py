"""Where frames come from: files, RTSP and HTTP streams, cameras, image folders and test patterns, all read alike.

    with open_source(settings, "door") as source:
        for frame in source.frames(stopped):
            ...
        if source.failure: ...

Knows no stage, no shared memory and no model. `address` tells what a URI means, `base` what every source gives,
`video` decodes containers, `live` reads what may block, `images` reads pictures, `clock` makes time stamps sound,
`late` says what is left out.
"""

from collections.abc import Callable

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.sources.address import parse_address
from pipeline.sources.base import CapturedFrame, OpeningStopped, Source, SourceInfo
from pipeline.sources.images import ImageSource
from pipeline.sources.late import LeftOut
from pipeline.sources.video import VideoSource

__all__ = [
    "CapturedFrame",
    "LeftOut",
    "OpeningStopped",
    "Source",
    "SourceInfo",
    "SourceSettings",
    "has_no_end",
    "open_source",
    "parse_address",
]


def open_source(settings: SourceSettings, source_id: str, stopped: Callable[[], bool] = lambda: False) -> Source:
    """Open `settings.uri` and decode its first frame; the source is good once this returns.

    Raises SourceError, one line without credentials, when nothing can be read: no such file, no images, not a video,
    no video in it, nothing that decodes, a server that refuses, does not know the path or the password, or does not
    answer within `open_timeout_seconds`; and OpeningStopped, a SourceError, when `stopped()` came true meanwhile.
    """
    address = parse_address(settings.uri)
    if address.kind == "images":
        return ImageSource(address, settings, source_id)
    return VideoSource(address, settings, source_id, stopped)


def has_no_end(settings: SourceSettings) -> bool:
    """Whether the source is live as far as its address tells, so that a stop is how it is done. Opens nothing."""
    try:
        return settings.realtime or parse_address(settings.uri).may_block
    except SourceError:
        return False
