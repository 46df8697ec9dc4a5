"""Where frames come from: files, RTSP and HTTP streams, cameras, image folders and test patterns, all read alike.

    with open_source(settings, "door") as source:
        for item in source.frames(stopped):  # CapturedFrame, LeftOut, SourceInfo or Signal
            ...
        if source.failure: ...

Knows no stage, no shared memory and no model. `pipeline.source_address` tells what a URI means, `base` what every
source gives, `video` decodes containers, `live` reads what may block, `images` reads pictures, `clock` makes time
stamps sound, `late` says what is left out. A live address that was lost is opened again by `returning`:
`pipeline.backoff` says when, `watch` looks whether its picture lives, `signals` are what it says of that. `coded`: its
own packets, for an onlooker.
"""

from collections.abc import Callable

from pipeline.settings import SourceSettings
from pipeline.source_address import parse_address
from pipeline.sources.base import CapturedFrame, Item, OpeningStopped, Source, SourceInfo
from pipeline.sources.coded import CodedPacket, Onlooker
from pipeline.sources.images import ImageSource
from pipeline.sources.late import LeftOut
from pipeline.sources.returning import ReturningSource
from pipeline.sources.signals import Health, Outage, Signal
from pipeline.sources.video import VideoSource

__all__ = [
    "CapturedFrame",
    "CodedPacket",
    "Health",
    "Item",
    "LeftOut",
    "Onlooker",
    "OpeningStopped",
    "Outage",
    "Signal",
    "Source",
    "SourceInfo",
    "SourceSettings",
    "open_source",
]


def open_source(
    settings: SourceSettings,
    source_id: str,
    stopped: Callable[[], bool] = lambda: False,
    *,
    patiently: bool = False,
    onlooker: Onlooker | None = None,
) -> Source:
    """Open `settings.uri` and decode its first frame; the source is good once this returns.

    Opened `patiently`, a live address is opened by `frames`, and waited for as if it had been lost: only then is its
    `info` known. Its packets are for an `onlooker`, too, where they are H.264.

    Raises SourceError, one line without credentials, when nothing can be read: no such file, no images, not a video,
    no video in it, nothing that decodes, a server that refuses, does not know the path or the password, or does not
    answer within `open_timeout_seconds`; and OpeningStopped, a SourceError, when `stopped()` came true meanwhile.
    """
    address = parse_address(settings.uri)
    if address.kind == "images":
        return ImageSource(address, settings, source_id)
    if not address.may_block:
        return VideoSource(address, settings, source_id, stopped)
    source = ReturningSource(address, settings, source_id, onlooker)
    if not patiently:
        source.open(stopped)
    return source
