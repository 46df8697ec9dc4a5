"""A live source's own H.264, for whoever decodes it elsewhere: each packet as it came, without its container.

Packets in the order of decoding alone: a stream with B-frames is not shown so. Knows no network and nobody who looks.
"""

import re
from dataclasses import dataclass
from typing import Protocol

from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.sources.container import stamp_of

IDR, SPS = 5, 7
_NAL = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CodedPacket:
    """One picture, coded.

    codec        as browsers call it, "avc1.64001F": profile, constraints and level of its parameter sets
    is_key       nothing before it is needed: an IDR picture behind its parameter sets
    captured_ns  as that of the frame that is decoded of it
    follows_ns   of the packet before it; None where that was damaged or left out, or there was none
    data         Annex B
    """

    codec: str
    is_key: bool
    captured_ns: int
    follows_ns: int | None
    data: bytes


class Onlooker(Protocol):
    """Who may want packets."""

    def looks(self) -> bool:
        """Asked for each packet: what nobody wants costs nothing."""

    def take(self, packet: CodedPacket) -> None: ...


class CodedPackets:
    """Of one connection, whose codec is H.264."""

    def __init__(self, stream: VideoStream, onlooker: Onlooker) -> None:
        self._context, self._onlooker = stream.codec_context, onlooker
        extradata = stream.codec_context.extradata or b""
        # As in MP4, where lengths stand in the place of start codes; of a camera the sets of its SDP.
        is_avcc = extradata[:1] == b"\x01"
        self._to_annex_b = BitStreamFilterContext("h264_mp4toannexb", stream) if is_avcc else None
        self._sets = b"" if is_avcc else extradata
        self._codec: str | None = None
        self._last_ns: int | None = None

    def offer(self, packet: Packet) -> None:
        """The next one, before it is decoded here."""
        stamp = stamp_of(packet)
        assert stamp is not None
        follows_ns, self._last_ns = self._last_ns, None if stamp.is_damaged else stamp.captured_ns
        if stamp.is_damaged or self._context.has_b_frames or not self._onlooker.looks():
            self._codec = None  # and begins with a key frame again
            return
        data = self._annex_b(packet)
        kinds = {match[1][0] & 31 for match in _NAL.finditer(data)}
        if is_key := IDR in kinds:
            data = data if SPS in kinds else self._sets + data
            self._codec = codec_of(data)
        if self._codec:
            self._onlooker.take(CodedPacket(self._codec, is_key, stamp.captured_ns, follows_ns, data))

    def miss(self) -> None:
        """One was left out."""
        self._last_ns = None

    def _annex_b(self, packet: Packet) -> bytes:
        if self._to_annex_b is None:
            return bytes(packet)
        return b"".join(bytes(part) for part in self._to_annex_b.filter(Packet(bytes(packet))))


def codec_of(data: bytes) -> str | None:
    """By the first parameter set; None where there is none."""
    for match in _NAL.finditer(data):
        if match[1][0] & 31 == SPS:
            return f"avc1.{data[match.end() : match.end() + 3].hex().upper()}"
    return None
