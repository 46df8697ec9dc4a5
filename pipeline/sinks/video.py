"""A video file of one source: H.264 in MP4, MOV or Matroska, in real time, readable even after `kill -9`.

Every frame keeps its presentation time, so a variable frame rate and dropped frames leave the clock right. While it
grows, an MP4 is a row of fragments of one frame each; a clean close turns it into an ordinary MP4 (FFmpeg's
`hybrid_fragmented`). Matroska is written a cluster a frame. Until a file is closed its index stays in memory, so that a
recording without end is one of segments. Knows no stage and draws nothing.
"""

import ctypes
import os
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
import av.error
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from configs.uri import shown_text
from pipeline.errors import OutputError, UsageError
from pipeline.flow.results import FrameResult
from pipeline.settings import EncoderSettings
from pipeline.sinks import Image, Sink, Target, encoder
from pipeline.sinks.encoder import TIME_BASE

TICKS_PER_SECOND = TIME_BASE.denominator
_SHORTEST_STEP = 90  # 1 ms: Matroska counts in milliseconds
# MP4 has 31 bits, 6.6 hours, for how long a frame is shown; beyond, the times of all that follow would be lost.
_LONGEST_FRAGMENT_STEP = 6 * 3600 * TICKS_PER_SECOND
_DEFAULT_RATE = 25
_LOWEST_RATE = 0.01

_FRAGMENTS = {"movflags": "hybrid_fragmented+frag_every_frame+empty_moov+default_base_moof"}
_CONTAINER_OPTIONS: dict[str, dict[str, str]] = {
    ".mp4": _FRAGMENTS,
    ".m4v": _FRAGMENTS,
    ".mov": _FRAGMENTS,
    ".mkv": {"cluster_time_limit": "1"},
}


def open_sink(target: Target) -> Sink:
    path = next_segment(target.path) if target.goes_on else target.path
    return VideoSink(path, target.frames_per_second, target.segment_seconds, target.path, target.encoder)


def check_encoder(settings: EncoderSettings) -> None:
    """Raises UsageError when the encoder that was asked for does not work here."""
    encoder.check(settings)


def next_segment(path: str) -> str:
    """`out.1.mp4` for `out.mp4`, or the first such name that is free: a file that was cut off is not written on."""
    first = Path(path)
    segments = (first.with_name(f"{first.stem}.{number}{first.suffix}") for number in count(1))
    return str(next(segment for segment in segments if not segment.exists()))


class VideoSink(Sink):
    """Writes the pictures it is given, in the size of the first one.

    H.264 with 4:2:0 colour needs even sizes: an odd one is made even by repeating the last column or row. A picture of
    another size later on is scaled into the first size with black bars. A presentation time that does not grow (the
    source started anew) goes on one frame after the last one; all but Matroska shorten a gap of more than 6 hours.

    Every container keeps an index in memory until it is closed (Matroska 40 bytes a key frame, the others 110 bytes a
    frame), and one that is cut off has none. So a recording without end is one of segments: each begins at 0, in the
    size of its own first picture.

    Raises UsageError for a suffix that is not one of .mp4, .m4v, .mov, .mkv, OutputError when the folder is missing or
    the file cannot be written.
    """

    path: str

    def __init__(
        self,
        path: str,
        frames_per_second: float | None = None,
        segment_seconds: float | None = None,
        first_path: str | None = None,
        encoder_settings: EncoderSettings | None = None,
    ) -> None:
        """`frames_per_second` is only a hint for the encoder and the file's header; None when unknown. Segments are
        named after `first_path`, which is `path` when None."""
        self._first_path = first_path or path
        self._encoder_settings = encoder_settings or EncoderSettings()
        if Path(path).suffix.lower() not in _CONTAINER_OPTIONS:
            allowed = ", ".join(_CONTAINER_OPTIONS)
            raise UsageError(f"cannot write video to {shown_text(str(path))}: its name must end in one of {allowed}")
        _check_writable(Path(path))
        self._rate = Fraction(max(frames_per_second or _DEFAULT_RATE, _LOWEST_RATE)).limit_denominator(1001)
        self._segment_ticks = None if segment_seconds is None else round(segment_seconds * TICKS_PER_SECOND)
        self._begin(path)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None

    def _begin(self, path: str) -> None:
        """A file, whose time is from its own first picture."""
        self.path = path
        longest_step = None if Path(path).suffix.lower() == ".mkv" else _LONGEST_FRAGMENT_STEP
        self._clock = _Clock(round(TICKS_PER_SECOND / self._rate), longest_step)
        self._next_key_ticks = 0

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        """Encode one picture, also that of a frame without result; without a picture there is nothing to do."""
        if image_bgr is not None:
            self._encode(image_bgr, frame.pts_seconds)

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        self._encode(image_bgr, pts_seconds)

    def _encode(self, image_bgr: Image, pts_seconds: float) -> None:
        if self._segment_ticks is not None and self._clock.last_ticks >= self._segment_ticks:
            self._next_segment()
        try:
            if self._container is None or self._stream is None:
                self._container, self._stream = self._open(*image_bgr.shape[:2])
            self._container.mux(self._stream.encode(self._video_frame(self._stream, image_bgr, pts_seconds)))
        except (OSError, av.error.FFmpegError) as error:
            raise self._cannot_write(error) from error

    def _next_segment(self) -> None:
        self.close()
        self._begin(next_segment(self._first_path))

    def close(self) -> None:
        """Finish the file. Raises OutputError when the rest cannot be written; the file stays as it is then."""
        container, stream = self._container, self._stream
        self._container = self._stream = None
        if container is None or stream is None:
            return
        try:
            container.mux(stream.encode(None))
            container.close()
        except (OSError, av.error.FFmpegError) as error:
            raise self._cannot_write(error) from error
        del container, stream  # the encoder goes with them
        _give_back_freed_memory()

    def _open(self, height: int, width: int) -> tuple[OutputContainer, VideoStream]:
        sides = width + width % 2, height + height % 2
        chosen = encoder.choose(self._encoder_settings, *sides)
        self.way = chosen.words
        options = {"flush_packets": "1", **_CONTAINER_OPTIONS[Path(self.path).suffix.lower()]}
        # "file:" before it, or FFmpeg would take what a name has before a colon for a protocol.
        container = av.open(f"file:{self.path}", "w", options=options)
        stream = container.add_stream(chosen.name, rate=self._rate, options=dict(chosen.options))
        assert isinstance(stream, VideoStream)
        chosen.prepare(stream.codec_context, *sides)
        stream.codec_context.colorspace = Colorspace.ITU601
        stream.codec_context.color_range = ColorRange.MPEG
        container.start_encoding()  # the header goes to the disk now
        return container, stream

    def _video_frame(self, stream: VideoStream, image_bgr: Image, pts_seconds: float) -> av.VideoFrame:
        planes = to_yuv420p(_fitted(image_bgr, stream.height, stream.width))
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p").reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = self._clock.ticks(pts_seconds), TIME_BASE
        if frame.pts >= self._next_key_ticks:  # by time, not by count: right at any rate, also a varying one
            frame.pict_type = PictureType.I
            self._next_key_ticks = frame.pts + TICKS_PER_SECOND
        return frame

    def _cannot_write(self, error: Exception) -> OutputError:
        return OutputError(
            f"cannot write video to {shown_text(self.path)}: {getattr(error, 'strerror', None) or error}"
        )


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


def _give_back_freed_memory() -> None:
    """What an encoder leaves behind lies scattered over glibc's arenas, and the next one, made by other threads, often
    takes new memory beside it: eight cameras' files took 15 MB more until that settled. Where malloc is not glibc's,
    nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)


def _check_writable(path: Path) -> None:
    """Raise OutputError now for what would only come up with the first frame."""
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(
            f"cannot write video to {shown_text(str(path))}: the folder {shown_text(str(folder))} does not exist"
        )
    if path.is_dir():
        raise OutputError(f"cannot write video to {shown_text(str(path))}: it is a folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise OutputError(f"cannot write video to {shown_text(str(path))}: no permission")
