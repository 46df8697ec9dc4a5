"""Pictures of one source become H.264 packets, each at its presentation time, with a key frame about every second and
no B-frames. Knows neither files nor networks, and draws nothing.
"""

import ctypes
import os
import re
from fractions import Fraction

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.packet import Packet
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from pipeline.settings import EncoderSettings
from pipeline.sinks import Image, encoder
from pipeline.sinks.encoder import TIME_BASE

TICKS_PER_SECOND = TIME_BASE.denominator
_SHORTEST_STEP = 90  # 1 ms: Matroska counts in milliseconds
_DEFAULT_RATE = 25
_LOWEST_RATE = 0.01


def check_encoder(settings: EncoderSettings) -> None:
    """Raises UsageError when the encoder that was asked for does not work here."""
    encoder.check(settings)


class PictureEncoder:
    """Encodes the pictures of one source, in the size of the first one. A packet's time is in ticks since the first.

    H.264 with 4:2:0 colour needs even sizes: an odd one is made even by repeating the last column or row. A picture of
    another size later on is scaled into the first size with black bars. A presentation time that does not grow (the
    source started anew) goes on one frame after the last one.

    stream  its parameters, for the containers that take its packets
    words   for the summary: which encoder it is

    Raises FFmpegError or OSError when the encoder fails.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        frames_per_second: float | None,
        height: int,
        width: int,
        longest_step_ticks: int | None = None,
    ) -> None:
        """`frames_per_second` is only a hint; None when unknown. A gap is shortened to `longest_step_ticks`."""
        rate = Fraction(max(frames_per_second or _DEFAULT_RATE, _LOWEST_RATE)).limit_denominator(1001)
        sides = width + width % 2, height + height % 2
        chosen = encoder.choose(settings, *sides)
        self.words = chosen.words
        # In a container that goes nowhere: only from a stream can another container take the parameters.
        self._nowhere = av.open(os.devnull, "w", format="null")
        stream = self._nowhere.add_stream(chosen.name, rate=rate, options=dict(chosen.options))
        assert isinstance(stream, VideoStream)
        chosen.prepare(stream.codec_context, *sides)
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.flags |= Flags.global_header
        self._nowhere.start_encoding()
        self.stream = stream
        self._clock = _Clock(round(TICKS_PER_SECOND / rate), longest_step_ticks)
        self._next_key_ticks = 0

    @property
    def now_ticks(self) -> int:
        """When the last picture is shown, since the first; -1 before that one."""
        return self._clock.last_ticks

    @property
    def parameter_sets(self) -> bytes:
        """What a decoder must know beforehand, between start codes: H.264's SPS and PPS."""
        return self.stream.codec_context.extradata or b""

    def encode(self, image_bgr: Image, pts_seconds: float) -> list[Packet]:
        """The packets that are ready, in order, of this picture (H, W, 3) or of one before it."""
        planes = to_yuv420p(_fitted(image_bgr, self.stream.height, self.stream.width))
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p").reformat(format=self.stream.pix_fmt)
        frame.pts, frame.time_base = self._clock.ticks(pts_seconds), TIME_BASE
        if frame.pts >= self._next_key_ticks:  # by time, not by count: right at any rate, also a varying one
            frame.pict_type = PictureType.I
            self._next_key_ticks = frame.pts + TICKS_PER_SECOND
        return list(self.stream.encode(frame))

    def ask_key(self) -> None:
        """The next picture is to be decoded without those before it."""
        self._next_key_ticks = 0

    def flush(self) -> list[Packet]:
        """The last packets; after them there are no more, and the encoder goes with this object."""
        packets = list(self.stream.encode(None))
        self._nowhere.close()  # it and its stream hold each other, and the encoder's memory with them
        return packets


class _Clock:
    """Turns presentation times into ticks from 0 that always grow."""

    def __init__(self, step_ticks: int, longest_step_ticks: int | None) -> None:
        self._step_ticks = step_ticks
        self._longest_step_ticks = longest_step_ticks
        self.last_ticks = -1
        self._origin_seconds = 0.0

    def ticks(self, pts_seconds: float) -> int:
        """Ticks since the first frame; after a time that did not grow or leapt, a step on and counted from there."""
        ticks = round((pts_seconds - self._origin_seconds) * TICKS_PER_SECOND)
        if self.last_ticks < 0:
            ticks, self._origin_seconds = 0, pts_seconds
        elif ticks <= self.last_ticks:
            ticks = self.last_ticks + self._step_ticks
            self._origin_seconds = pts_seconds - ticks / TICKS_PER_SECOND
        elif ticks < self.last_ticks + _SHORTEST_STEP:
            ticks = self.last_ticks + _SHORTEST_STEP
        elif self._longest_step_ticks is not None and ticks > self.last_ticks + self._longest_step_ticks:
            ticks = self.last_ticks + self._longest_step_ticks
            self._origin_seconds = pts_seconds - ticks / TICKS_PER_SECOND
        self.last_ticks = ticks
        return ticks


def copied(packet: Packet, origin_ticks: int, before: bytes = b"") -> Packet:
    """With its time from `origin_ticks` on, and `before` its data: each container changes the packets that it takes."""
    copy = Packet(before + bytes(packet))
    assert packet.pts is not None
    copy.pts = copy.dts = packet.pts - origin_ticks
    copy.time_base, copy.is_keyframe = TIME_BASE, packet.is_keyframe
    return copy


def split_units(annex_b: bytes) -> list[bytes]:
    """The NAL units between the start codes (ITU-T H.264, annex B)."""
    return [unit for unit in re.split(rb"\x00{2,3}\x01", annex_b) if unit]


def _fitted(image: Image, height: int, width: int) -> Image:
    """`image` itself, with its last row or column repeated to an even size, or scaled between black bars."""
    below, right = height - image.shape[0], width - image.shape[1]
    if (below, right) == (0, 0):
        return image
    if below in (0, 1) and right in (0, 1):
        return np.pad(image, ((0, below), (0, right), (0, 0)), mode="edge")
    scale = min(height / image.shape[0], width / image.shape[1])
    scaled_height, scaled_width = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    top, left = (height - scaled_height) // 2, (width - scaled_width) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + scaled_height, left : left + scaled_width] = cv2.resize(
        image, (scaled_width, scaled_height), interpolation=cv2.INTER_AREA
    )
    return canvas


def to_yuv420p(image_bgr: Image) -> Image:
    """(H × 3/2, W): the planes one below the other, in BT.601's limited range, which is what OpenCV knows. It takes a
    third of the time of swscale, and rounds where that cuts off, which makes a picture darker."""
    return cv2.cvtColor(image_bgr, cv2.COLOR_BGR2YUV_I420).astype(np.uint8, copy=False)


def give_back_freed_memory() -> None:
    """What an encoder leaves behind lies scattered over glibc's arenas, and the next one, made by other threads, often
    takes new memory beside it: eight cameras' files took 15 MB more until that settled. Where malloc is not glibc's,
    nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
