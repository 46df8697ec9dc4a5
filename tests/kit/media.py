"""Makes the odd videos of the tests with PyAV (any codec, size, format, time stamps, rotation), damages them, and
counts their pictures."""

import itertools
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

# One for each picture in turn, so that one lost or doubled shows.
COLOURS_BGR = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (200, 200, 200)]
IDENTITY = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
TURNS_CLOCKWISE = {
    90: (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000),
    180: (-0x10000, 0, 0, 0, -0x10000, 0, 0, 0, 0x40000000),
    270: (0, -0x10000, 0, 0x10000, 0, 0, 0, 0, 0x40000000),
}


def noise(count: int, width: int, height: int) -> list[NDArray[np.uint8]]:
    """Pictures that do not compress, so that a cut or a damaged byte is felt."""
    return list(np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def grey_steps(count: int, width: int, height: int, step: int = 10) -> list[NDArray[np.uint8]]:
    """Picture i is all of the grey level `i * step`, which tells it from the others."""
    return [np.full((height, width, 3), i * step, np.uint8) for i in range(count)]


def red_corner(width: int, height: int) -> NDArray[np.uint8]:
    """White with a red top left quarter, which shows how it was turned."""
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[: height // 2, : width // 2] = (255, 0, 0)
    return picture


def picture(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """All of one colour."""
    return np.full((height, width, 3), COLOURS_BGR[number % len(COLOURS_BGR)], np.uint8)


def assert_shows(image: NDArray[np.uint8], number: int) -> None:
    """H.264 keeps flat colours to a few levels; a wrong matrix or range would be off by tens."""
    assert np.abs(image[0, 0].astype(int) - COLOURS_BGR[number % len(COLOURS_BGR)]).max() <= 6


def opened(jpeg: bytes) -> NDArray[np.uint8]:
    """Its pixels, BGR."""
    image_bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image_bgr is not None, "this is no JPEG"
    return image_bgr.astype(np.uint8, copy=False)


def write_video(
    path: Path,
    pictures_rgb: Iterable[NDArray[np.uint8]],
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 10),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    container_format: str | None = None,
) -> Path:
    """`pictures_rgb` (H, W, 3), one each `time_base` unless `pts` says when."""
    pictures = iter(pictures_rgb)
    first = next(pictures)
    height, width = first.shape[:2]
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=1 / time_base, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = time_base
        for moment, picture in zip(
            pts or itertools.count(), itertools.chain([first], pictures), strict=pts is not None
        ):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = moment, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A second of silence, and no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_picture(path: Path, picture_rgb: NDArray[np.uint8]) -> Path:
    """A PNG or JPEG, as the suffix says."""
    codec, pixel_format = ("png", "rgb24") if path.suffix == ".png" else ("mjpeg", "yuvj420p")
    return write_video(path, [picture_rgb], codec, pixel_format, container_format="image2pipe")


def count_pictures(path: Path) -> int:
    """Of a video that can be read to its end."""
    with av.open(str(path)) as video:
        return sum(1 for _ in video.decode(video=0))


def readable_frames(path: Path) -> int:
    """Frames before the end or the place where the file is cut."""
    count = 0
    with av.open(str(path)) as container, suppress(av.error.InvalidDataError):
        for _ in container.decode(video=0):
            count += 1
    return count


def turn(path: Path, degrees_clockwise: int) -> Path:
    """Write the display matrix of an MP4's track header so that players turn the picture (ISO 14496-12, 8.3.2)."""
    data = path.read_bytes()
    before = b"".join(value.to_bytes(4, "big", signed=True) for value in IDENTITY)
    after = b"".join(value.to_bytes(4, "big", signed=True) for value in TURNS_CLOCKWISE[degrees_clockwise])
    track_header = data.index(b"tkhd")
    at = data.index(before, track_header)
    path.write_bytes(data[:at] + after + data[at + len(after) :])
    return path


def join(path: Path, *parts: Path) -> Path:
    """One file after the other, as `cat` does it."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def stand_still(path: Path, source: Path) -> Path:
    """The video of `source` with all its time stamps 0."""
    with av.open(str(source)) as whole, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, 0, 0
                container.mux(packet)
    return path


def claim_size(path: Path, width: int, height: int) -> Path:
    """Let a PNG say that it has another size."""
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def cut(path: Path, fraction: float) -> Path:
    """The first part of a file, as after a full disk or a broken download."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def damage(path: Path, start: float, end: float) -> Path:
    """Overwrite the bytes between two fractions of a file."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * end)
    data[first:last] = bytes(last - first)
    path.write_bytes(data)
    return path
