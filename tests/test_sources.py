"""Every kind of source: what can be opened, what comes out, how it ends, and what a person is told when it cannot."""

import itertools
import socket
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.pixels import PixelConverter
from pipeline.sources import CapturedFrame, SourceSettings, open_source
from tests import media
from tests.reading import luma, never, read

ROOT = Path(__file__).parents[1]
SECRET = "pa55w0rd"
Maker = Callable[[Path], str]


def written(name: str, content: bytes) -> Maker:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def damaged_picture(folder: Path) -> str:
    (folder / "a.jpg").write_bytes(b"not a picture")
    return str(folder)


def folder_without_pictures(folder: Path) -> str:
    (folder / "notes.txt").write_text("no pictures")
    return str(folder)


def without_frames(folder: Path) -> str:
    path = media.write_video(folder / "a.avi", media.noise(3, 64, 48), "mjpeg", "yuvj420p")
    return str(media.damage(path, 0.2, 0.9))


BAD_SOURCES: dict[str, tuple[Maker, str]] = {
    "nothing given": (lambda _: "", "is empty: give a file"),
    "no such file": (lambda folder: str(folder / "none.mp4"), "no such file"),
    "an empty folder": (str, "no images there"),
    "a folder without pictures": (folder_without_pictures, "no images there"),
    "a glob that matches nothing": (lambda folder: str(folder / "*.jpg"), "no images there"),
    "a folder of damaged pictures": (damaged_picture, "none of its 1 images can be read"),
    "zero bytes": (written("a.mp4", b""), "is not a video that can be read"),
    "a text named .mp4": (written("a.mp4", b"hello, I am a text\n" * 99), "is not a video that can be read"),
    "the start of an MP4 and no more": (
        written("a.mp4", b"\x00\x00\x00\x18ftypisom"),
        "is not a video that can be read",
    ),
    "an MP4 without its index": (
        lambda folder: str(media.cut(media.write_video(folder / "a.mp4", media.noise(9, 64, 48)), 0.5)),
        "is not a video that can be read",
    ),
    "frames of which none decodes": (without_frames, "holds no frame that decodes"),
    "only audio": (
        lambda folder: str(media.write_audio(folder / "a.wav")),
        "has no video that can be decoded, only audio",
    ),
    "a device that is no camera": (lambda _: "/dev/null", "neither a file nor a folder"),
    "a camera that is not there": (lambda _: "/dev/video97", "is it plugged in?"),
    "a camera number that is not there": (lambda _: "97", "camera /dev/video97 does not exist"),
    "a scheme that is not read": (lambda _: f"ftp://cam:{SECRET}@host/a.mp4", "ftp: is not a source that is read"),
    "an unknown test pattern": (lambda _: "lavfi:nosuchpattern", "cannot be opened"),
    "RTSP refused": (lambda _: f"rtsp://cam:{SECRET}@127.0.0.1:{closed_port()}/a", "refuses the connection"),
    "HTTP refused": (lambda _: f"http://127.0.0.1:{closed_port()}/a?token={SECRET}", "refuses the connection"),
    "a host that does not exist": (lambda _: f"rtsp://cam:{SECRET}@nowhere.invalid/a", "rtsp://***@nowhere.invalid/…"),
}


@pytest.mark.parametrize(("make", "expected"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_a_source_that_cannot_be_opened_is_one_line_that_teaches(make: Maker, expected: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as raised:
        open_source(SourceSettings(uri=make(tmp_path), open_timeout_seconds=1), "test")
    message = str(raised.value)
    assert expected in message
    assert "\n" not in message
    assert SECRET not in message


# ---------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "width", "height"),
    [
        ("a.mkv", "ffv1", "bgr0", 1, 1),
        ("a.avi", "rawvideo", "rgb24", 7, 5),
        ("a.mkv", "ffv1", "gray", 33, 2),
        ("a.mkv", "ffv1", "yuv420p10le", 31, 17),
        ("a.mkv", "ffv1", "yuva420p", 16, 16),
        ("a.mov", "png", "rgba", 5, 3),
        ("a.mp4", "libx264", "yuv444p", 17, 19),
        ("a.avi", "mjpeg", "yuvj420p", 7680, 4320),
    ],
)
def test_every_size_and_pixel_format_gives_pixels(
    name: str, codec: str, pixel_format: str, width: int, height: int, tmp_path: Path
) -> None:
    grey = [np.full((height, width, 3), 128, np.uint8)]
    frames, failure = read(media.write_video(tmp_path / name, grey, codec, pixel_format))
    assert (len(frames), failure) == (1, None)
    assert (frames[0].width, frames[0].height) == (width, height)
    pixels_hwc = np.zeros((height, width, 3), np.uint8)
    PixelConverter().write_bgr(frames[0].video_frame, 0, pixels_hwc)
    assert 126 <= pixels_hwc.min() <= pixels_hwc.max() <= 130


def test_info_tells_what_the_container_knows(clip: Path) -> None:
    with open_source(SourceSettings(uri=str(clip)), "door") as source:
        info = source.info
    assert (info.source_id, info.kind, info.is_live, info.width, info.height) == ("door", "file", False, 768, 576)
    assert (info.frames_per_second, info.frame_count, info.duration_seconds) == (10.0, 130, 13.0)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_set_upright(degrees: int, tmp_path: Path) -> None:
    upright = media.red_corner(64, 32)
    stored = np.ascontiguousarray(np.rot90(upright, degrees // 90))  # counterclockwise: the player turns it back
    path = media.turn(media.write_video(tmp_path / "a.mp4", [stored], options={"qp": "10"}), degrees)
    frame = read(path)[0][0]
    assert (frame.width, frame.height, frame.rotation_degrees) == (64, 32, degrees)
    pixels_hwc = np.zeros((32, 64, 3), np.uint8)
    PixelConverter().write_bgr(frame.video_frame, frame.rotation_degrees, pixels_hwc)
    corners_bgr = pixels_hwc[[4, 4, -4, -4], [4, -4, 4, -4]]
    np.testing.assert_allclose(corners_bgr[0], (0, 0, 255), atol=25)
    np.testing.assert_allclose(corners_bgr[1:], 255, atol=25)


def test_frames_carry_their_own_size_when_it_changes(tmp_path: Path) -> None:
    sizes = [(64, 48), (96, 80)]
    parts = [media.write_video(tmp_path / f"{w}.h264", media.noise(5, w, h)) for w, h in sizes]
    both = tmp_path / "both.h264"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, failure = read(both)
    assert [(f.width, f.height) for f in frames] == [sizes[0]] * 5 + [sizes[1]] * 5
    assert failure is None


def test_time_stamps_of_a_variable_frame_rate_are_kept(tmp_path: Path) -> None:
    milliseconds = [0, 40, 50, 333, 1000, 1001, 5000]
    pictures = media.grey_steps(7, 64, 48)
    path = media.write_video(tmp_path / "a.mkv", pictures, pts=milliseconds, time_base=Fraction(1, 1000))
    assert [frame.pts_seconds for frame in read(path)[0]] == [m / 1000 for m in milliseconds]


@pytest.mark.parametrize("name", ["a.h264", "a.ts", "a.avi", "a.mp4"])
def test_time_starts_at_zero_and_never_decreases(name: str, tmp_path: Path) -> None:
    seconds = [f.pts_seconds for f in read(media.write_video(tmp_path / name, media.noise(20, 64, 48)))[0]]
    assert 0 <= seconds[0] <= 0.2  # AVI counts from the first frame coded, which need not be the first shown
    assert len(seconds) == 20
    assert all(before < after for before, after in itertools.pairwise(seconds))


def test_time_goes_on_where_the_file_starts_its_clock_again(tmp_path: Path) -> None:
    part = media.write_video(tmp_path / "part.ts", media.noise(30, 64, 48), options={"bf": "0"})
    twice = tmp_path / "twice.ts"
    twice.write_bytes(part.read_bytes() * 2)
    seconds = [frame.pts_seconds for frame in read(twice)[0]]
    assert len(seconds) == 60
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(5.9)


def test_each_frame_knows_when_its_own_packet_came(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.grey_steps(20, 64, 48), options={"bf": "2"})
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        order = [float(p.pts * stream.time_base) for p in container.demux(stream) if p.pts is not None]
    before_ns = time.monotonic_ns()
    frames = read(path)[0]
    by_capture = sorted(frames, key=lambda frame: frame.captured_ns)
    assert order != sorted(order)
    assert [frame.pts_seconds for frame in by_capture] == pytest.approx(order)
    assert all(before_ns < frame.captured_ns < time.monotonic_ns() for frame in frames)
    assert all(abs(frame.captured_unix - time.time()) < 60 for frame in frames)


@pytest.mark.parametrize("max_frames", [1, 7])
def test_max_frames_is_a_clean_end(max_frames: int, clip: Path) -> None:
    frames, failure = read(clip, max_frames=max_frames)
    assert (len(frames), failure) == (max_frames, None)


def test_a_stop_ends_a_file_without_a_failure(clip: Path) -> None:
    seen: list[CapturedFrame] = []
    with open_source(SourceSettings(uri=str(clip)), "test") as source:
        seen.extend(source.frames(lambda: len(seen) >= 3))
    assert (len(seen), source.failure) == (3, None)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", {"movflags": "faststart"}), ("a.ts", {}), ("a.avi", {}), ("a.mkv", {})],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_cut_in_half_gives_its_first_half_and_says_so(
    name: str, options: dict[str, str], tmp_path: Path
) -> None:
    pictures = media.noise(60, 160, 120)
    path = media.write_video(tmp_path / name, pictures, options={"bf": "0"}, container_options=options)
    whole, clean = read(path)
    frames, failure = read(media.cut(path, 0.5))
    assert clean is None
    assert failure is not None
    assert 20 <= len(frames) < 40
    assert [luma(f) for f in frames[:20]] == [luma(f) for f in whole[:20]]


def test_damage_in_the_middle_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.noise(40, 64, 48), "mjpeg", "yuvj420p")
    with open_source(SourceSettings(uri=str(media.damage(path, 0.4, 0.5))), "test") as source:
        frames = list(source.frames(never))
    assert source.decode_errors > 0
    assert source.failure is not None
    assert 20 <= len(frames) <= 40
    assert frames[-1].pts_seconds == pytest.approx(3.9)


def test_realtime_gives_no_frame_before_it_is_due(clip: Path) -> None:
    with open_source(SourceSettings(uri=str(clip), realtime=True, max_frames=8), "test") as source:
        assert source.info.is_live
        frames = []
        for frame in source.frames(never):
            assert time.monotonic_ns() >= frame.captured_ns
            frames.append(frame)
    assert len(frames) == 8
    for frame in frames:
        assert (frame.captured_ns - frames[0].captured_ns) / 1e9 == pytest.approx(frame.pts_seconds, abs=1e-8)


def test_realtime_sleeps_are_broken_by_a_stop(tmp_path: Path) -> None:
    pictures = media.grey_steps(2, 64, 48)
    path = media.write_video(tmp_path / "a.mkv", pictures, pts=[0, 3_600_000], time_base=Fraction(1, 1000))
    stop = threading.Event()
    with open_source(SourceSettings(uri=str(path), realtime=True), "test") as source:
        frames = source.frames(stop.is_set)
        assert next(frames).pts_seconds == 0
        threading.Timer(0.2, stop.set).start()
        assert list(frames) == []
    assert source.failure is None


# ------------------------------------------------------------------------------------------- pictures and patterns


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures 1, 2 and 10 of different sizes, and a text."""
    for number, suffix in ((10, "png"), (2, "jpg"), (1, "png")):
        picture = np.full((20 + number, 30 + number, 3), number * 10, np.uint8)
        media.write_picture(tmp_path / f"frame{number}.{suffix}", picture)
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize(("pattern", "numbers"), [("", [1, 2, 10]), ("frame*.png", [1, 10]), ("frame2.jpg", [2])])
def test_pictures_come_in_natural_order_one_a_second(pattern: str, numbers: list[int], folder: Path) -> None:
    frames, failure = read(folder / pattern)
    assert [(f.width, f.height) for f in frames] == [(30 + n, 20 + n) for n in numbers]
    assert [f.pts_seconds for f in frames] == list(range(len(numbers)))
    assert failure is None


def test_a_damaged_picture_keeps_its_second_and_is_named(folder: Path) -> None:
    (folder / "frame2.jpg").write_bytes(b"damaged")
    frames, failure = read(folder)
    assert [f.pts_seconds for f in frames] == [0, 2]
    assert failure == "1 of 3 images cannot be read, first frame2.jpg"


@pytest.mark.parametrize("name", ["100%.png", "a%03d.png", "[1].png", "a:b.png", "a*b?.png"])
def test_odd_file_names_are_names(name: str, tmp_path: Path) -> None:
    media.write_picture(tmp_path / "plain.png", media.grey_steps(1, 8, 6)[0]).rename(tmp_path / name)
    assert len(read(tmp_path / name)[0]) == 1


@pytest.mark.parametrize(("suffix", "is_live"), [("", False), (",realtime", True)])
def test_a_test_pattern_is_a_source(suffix: str, is_live: bool) -> None:
    uri = f"lavfi:testsrc2=size=64x36:rate=100{suffix}"
    with open_source(SourceSettings(uri=uri, max_frames=5), "test") as source:
        info, frames = source.info, list(source.frames(never))
    assert (info.kind, info.is_live, info.width, info.height) == ("pattern", is_live, 64, 36)
    assert [f.pts_seconds for f in frames] == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])
