"""Which H.264 encoder writes a video, and with which options: libx264, or a hardware encoder that works here.

That FFmpeg knows one says little: each needs its device and driver, and has a smallest picture and a largest number of
users. So `auto` tries it with a few pictures of the wanted size before it takes it. Knows no file and no picture.
"""

from dataclasses import dataclass
from fractions import Fraction

import av
import av.error
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from pipeline.errors import UsageError
from pipeline.settings import EncoderSettings

SOFTWARE = "libx264"
TIME_BASE = Fraction(1, 90_000)
# A second thread costs 3 % more CPU and one frame of delay, and keeps up at 1080p.
_THREADS = 2
_CHECKED_SIDES = 640, 480


@dataclass(frozen=True, slots=True)
class Encoder:
    """FFmpeg's name of an encoder, what it takes, and `words` for the summary."""

    name: str
    pixel_format: str
    options: dict[str, str]
    words: str

    def prepare(self, codec: VideoCodecContext, width: int, height: int) -> None:
        """Before it is opened; both sides are even."""
        codec.width, codec.height, codec.pix_fmt = width, height, self.pixel_format
        codec.time_base = TIME_BASE
        if self.name == SOFTWARE:
            codec.thread_count = _THREADS


def choose(settings: EncoderSettings, width: int, height: int) -> Encoder:
    """For pictures of one size; what was asked for by name is not tried here."""
    for encoder in _hardware(settings):
        if settings.codec == encoder.name or _problem(encoder, width, height) is None:
            return encoder
    return _software(settings, " (no hardware encoder works here)" * (settings.codec == "auto"))


def check(settings: EncoderSettings) -> None:
    """Raises UsageError when the encoder that was asked for by name does not work here."""
    for encoder in _hardware(settings):
        if settings.codec == encoder.name and (problem := _problem(encoder, *_CHECKED_SIDES)):
            allowed = f"take auto, or {SOFTWARE}, which works everywhere"
            raise UsageError(f"deliver.encoder.codec: {encoder.name} does not work here ({problem}); {allowed}")


def tried() -> dict[str, str | None]:
    """What is wrong with each hardware encoder that can be asked for, when it is tried here; None: it works."""
    return {encoder.name: _problem(encoder, *_CHECKED_SIDES) for encoder in _hardware(EncoderSettings(codec="auto"))}


def _software(settings: EncoderSettings, why: str) -> Encoder:
    """No B-frames and no lookahead: a frame reaches the disk soon after it came."""
    latency = {"bf": "0", "rc-lookahead": "0", "forced-idr": "1"}
    quality = {"preset": settings.preset, "crf": str(settings.quality)}
    return Encoder(SOFTWARE, "yuv420p", quality | latency, f"by {SOFTWARE}{why}")


def _hardware(settings: EncoderSettings) -> list[Encoder]:
    """Those that take pictures from memory, in the order in which they are tried."""
    quality = str(settings.quality)
    nvenc = {"preset": "p4", "tune": "ll", "rc": "vbr", "cq": quality, "b": "0", "bf": "0", "delay": "0"}
    qsv = {"preset": "fast", "global_quality": quality, "bf": "0", "async_depth": "1"}
    encoders = [
        Encoder("h264_nvenc", "yuv420p", nvenc | {"forced-idr": "1"}, "by h264_nvenc"),
        Encoder("h264_qsv", "nv12", qsv | {"forced_idr": "1"}, "by h264_qsv"),
    ]
    return [encoder for encoder in encoders if settings.codec in ("auto", encoder.name)]


def _problem(encoder: Encoder, width: int, height: int) -> str | None:
    """What is wrong with it: it must give a picture for each, at once, and a key frame where one is asked for."""
    try:
        codec = VideoCodecContext.create(encoder.name, "w")
        assert isinstance(codec, VideoCodecContext)
        encoder.prepare(codec, width, height)
        codec.options = encoder.options
        for number, kind in enumerate((PictureType.I, PictureType.NONE, PictureType.I)):
            frame = av.VideoFrame(width, height, encoder.pixel_format)
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            frame.pts, frame.time_base, frame.pict_type = number * 3600, TIME_BASE, kind
            packets = codec.encode(frame)
            if len(packets) != 1 or packets[0].is_keyframe != (kind == PictureType.I):
                return "it gives pictures late, or no key frames"
    except (OSError, ValueError, av.error.FFmpegError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None
