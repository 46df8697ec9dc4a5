"""What video needs: decoders, encoders, a window. Each is really tried with a picture of its own. Knows no source."""

from collections.abc import Iterator

from pipeline.doctor.finding import Finding, Question, note, ok, problem
from pipeline.errors import CenterStreamError, UsageError
from pipeline.sinks import encoder as encoders_here  # before av: see pipeline/sinks/window.py
from pipeline.sinks.window import check_screen

import av  # isort: skip
from av.video.codeccontext import VideoCodecContext  # isort: skip

# What cameras send, and the encoder that makes a picture to try it with.
DECODERS = {"H.264": ("h264", "libx264"), "HEVC": ("hevc", "libx265")}
SIDES = 320, 240
REINSTALL = "put PyAV's own wheel in its place: pip install --force-reinstall 'av>=18,<19'"


def decoders(question: Question) -> Iterator[Finding]:
    whose = f"FFmpeg {av.ffmpeg_version_info} of PyAV {av.__version__}"
    failed = {name: why for name, pair in DECODERS.items() if (why := _decoding_fails(*pair))}
    for name, why in failed.items():
        yield problem("decoders", f"{name} is not decoded: {why} ({whose})", REINSTALL)
    if not failed:
        yield ok("decoders", f"{' and '.join(DECODERS)} are decoded ({whose})")


def encoders(question: Question) -> Iterator[Finding]:
    settings, software = question.settings.deliver.encoder, encoders_here.SOFTWARE
    if why := _decoding_fails("h264", software):
        yield problem("encoders", f"{software} does not work: {why}", REINSTALL)
    else:
        yield ok("encoders", f"H.264 by {software}")
    tried = encoders_here.tried()
    if working := [name for name, why in tried.items() if why is None]:
        yield ok("encoders", f"H.264 by {' and '.join(working)}, for which --set deliver.encoder.codec=auto asks")
    else:
        told = "; ".join(f"{name}: {why}" for name, why in tried.items())
        yield note("encoders", f"no hardware encoder works here ({told})", f"nothing to do: {software} is the default")
    try:
        encoders_here.check(settings)
    except UsageError as error:
        yield problem("encoders", str(error))


def window(question: Question) -> Iterator[Finding]:
    """Opens one only where the run would."""
    wanted = question.settings.deliver.show
    try:
        check_screen()
        if wanted:
            _open_window()
    except CenterStreamError as error:
        if wanted:
            yield problem("window", str(error))
        else:
            yield note("window", f"none for --show: {str(error).removeprefix('no window can be shown: ')}")
    else:
        yield ok("window", "--show can open one" if not wanted else "one was opened")


def _open_window() -> None:
    import cv2

    cv2.namedWindow("CenterStream", cv2.WINDOW_NORMAL)
    cv2.pollKey()
    cv2.destroyAllWindows()


def _decoding_fails(decoder: str, encoder: str) -> str | None:
    """Why a picture of ours does not come back."""
    try:
        packets = _coded(encoder)
        codec = av.CodecContext.create(decoder, "r")
        assert isinstance(codec, VideoCodecContext)
        frames = [frame for packet in (*packets, None) for frame in codec.decode(packet)]
    except (OSError, ValueError, av.error.FFmpegError) as error:
        return getattr(error, "strerror", None) or type(error).__name__
    sizes = [(frame.width, frame.height) for frame in frames]
    return None if sizes == [SIDES] else f"of 1 picture {len(sizes)} came back"


def _coded(encoder: str) -> list[av.Packet]:
    codec = av.CodecContext.create(encoder, "w")
    assert isinstance(codec, VideoCodecContext)
    codec.width, codec.height = SIDES
    codec.pix_fmt, codec.time_base = "yuv420p", encoders_here.TIME_BASE
    frame = av.VideoFrame(*SIDES, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes([128]) * plane.buffer_size)
    frame.pts, frame.time_base = 0, encoders_here.TIME_BASE
    return [*codec.encode(frame), *codec.encode(None)]
