"""What a source sends, packet by packet: opened and read as in a run, heard for a while, and judged by nobody here.
Decodes no more than the first picture. Knows no stage.
"""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

import av
from av.packet import Packet

from pipeline.settings import SourceSettings
from pipeline.source_address import Kind, parse_address
from pipeline.sources.container import stamp_of
from pipeline.sources.late import KEY_FRAME_SECONDS
from pipeline.sources.live import LiveReader
from pipeline.sources.video import ENDED, FileReader, frames_per_second

# Of a file or a test pattern, which give what they have at once.
MOST_PACKETS = 3000


class Heard(NamedTuple):
    """A packet. Times in seconds: `arrived` since it was asked to open, `pts` and `dts` by the source's own clock, None
    where it has none; `sender_ahead` is by how much the sender's clock is ahead of ours, None where it is not told."""

    arrived: float
    pts: float | None
    dts: float | None
    is_key: bool
    size_bytes: int
    sender_ahead: float | None


@dataclass
class Survey:
    """All that was heard.

    comes_by_itself      a camera or a stream; else a file, which waits
    has_time_stamps      false where they are made up by the reader
    first_frame_seconds  from asking to open to the first picture; None: there was none
    delay_frames         how many pictures the stream says that a decoder has to hold back
    failure              why it ended before its time, one line without credentials
    """

    kind: Kind
    shown: str
    comes_by_itself: bool
    has_time_stamps: bool
    codec: str
    profile: str
    opened_seconds: float
    frames_per_second: float | None
    first_frame_seconds: float | None = None
    width: int = 0
    height: int = 0
    delay_frames: int = 0
    packets: list[Heard] = field(default_factory=list)
    failure: str | None = None


def survey(settings: SourceSettings, seconds: float, key_seconds: float) -> Survey:
    """Hears a source for `seconds`, and up to `key_seconds` for a second key frame. Not for images.

    Raises SourceError, one line without credentials, where it cannot be opened.
    """
    address = parse_address(settings.uri)
    began = time.monotonic()
    reader = LiveReader(address, settings, lambda: False) if address.may_block else FileReader(address, settings)
    try:
        stream = reader.stream
        stream.thread_type = "SLICE"  # the first picture comes as soon as it can
        found = Survey(
            kind=address.kind,
            shown=address.shown,
            comes_by_itself=reader.is_live,
            has_time_stamps=reader.has_time_stamps,
            codec=stream.codec_context.name,
            profile=stream.codec_context.profile or "",
            opened_seconds=time.monotonic() - began,
            frames_per_second=frames_per_second(stream),
        )
        went_on = _hear(reader, found, began, seconds, key_seconds)
        if found.first_frame_seconds is None and found.packets:  # a decoder may hold all that there is
            _decode_first(reader, None, found, began, True)
        found.failure = reader.failure or (ENDED if reader.is_live and not went_on else None)
        return found
    finally:
        reader.close()


def _hear(reader: LiveReader | FileReader, found: Survey, began: float, seconds: float, key_seconds: float) -> bool:
    """Whether it went on for as long as it was to be heard."""
    opened = time.monotonic()

    def enough() -> bool:
        heard = time.monotonic() - opened
        if found.first_frame_seconds is None:
            return heard > max(seconds, KEY_FRAME_SECONDS)
        if not reader.is_live:
            return heard > seconds or len(found.packets) >= MOST_PACKETS
        return heard > seconds and (heard > key_seconds or sum(each.is_key for each in found.packets) > 1)

    has_key = not reader.is_live
    for packet in reader.packets(enough):
        if packet is None:  # one that came too late for us
            continue
        now = time.monotonic()
        found.packets.append(_heard(packet, now - began))
        has_key = has_key or packet.is_keyframe
        if found.first_frame_seconds is None:
            _decode_first(reader, packet, found, began, has_key)
        if enough():
            return True
    return enough()


def _heard(packet: Packet, arrived: float) -> Heard:
    base, stamp = packet.time_base, stamp_of(packet)
    pts, dts = (None if ticks is None or base is None else float(ticks * base) for ticks in (packet.pts, packet.dts))
    ahead = None if stamp is None or stamp.sender_unix is None else stamp.sender_unix - stamp.captured_unix
    return Heard(arrived, pts, dts, packet.is_keyframe, packet.size, ahead)


def _decode_first(
    reader: LiveReader | FileReader, packet: Packet | None, found: Survey, began: float, has_key: bool
) -> None:
    """As in a run, what comes before the first key frame counts only where the decoder vouches for it."""
    codec = reader.stream.codec_context
    try:
        frames = list(reader.stream.decode(packet))
    except av.error.FFmpegError:
        return
    if frames and (has_key or codec.name == "h264"):
        found.first_frame_seconds = time.monotonic() - began
        found.width, found.height = frames[0].width, frames[0].height
        found.delay_frames = int(codec.has_b_frames)
