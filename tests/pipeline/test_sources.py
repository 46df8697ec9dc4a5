"""Every kind of source: what can be opened, what comes out, how it ends, and what a person is told when it cannot."""

import itertools
import os
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
from pipeline.flow.messages import EndOfStream, encode
from pipeline.sources import CapturedFrame, LeftOut, SourceSettings, images, late, open_source, video
from pipeline.sources.pixels import PixelConverter
from tests.kit import media
from tests.kit.reading import frames_of, luma, read

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
    "a folder of damaged pictures": (
        damaged_picture,
        "none of its 1 images can be read, first a.jpg: it is cut off, damaged or no picture",
    ),
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
    frames, failure = read(media.join(tmp_path / "both.h264", *parts))
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


def stream_from(path: Path, start: int) -> Path:
    """50 frames at 10 a second, of which the first has the time stamp `start` tenths of a second."""
    pts = range(start, start + 50)
    options = {"mpegts_copyts": "1"}  # else the muxer would count from 0
    return media.write_video(path, media.noise(50, 64, 48), pts=pts, options={"bf": "0"}, container_options=options)


LEAPS = {
    "forwards": (0, 300),
    "a day forwards": (0, 953_000),
    "backwards by half a second": (0, 45),
    "backwards by two seconds": (0, 30),
    "to the same times": (0, 0),
    "to 0, which FFmpeg takes for a counter that ran over": (1000, 0),
}


@pytest.mark.parametrize(("first", "second"), LEAPS.values(), ids=LEAPS)
def test_joined_streams_go_on_where_the_first_ended(first: int, second: int, tmp_path: Path) -> None:
    parts = [stream_from(tmp_path / f"{n}.ts", start) for n, start in enumerate((first, second))]
    with open_source(SourceSettings(uri=str(media.join(tmp_path / "both.ts", *parts))), "test") as source:
        seconds = [frame.pts_seconds for frame in frames_of(source)]
    assert len(seconds) == 100
    assert all(0 < after - before < 0.15 for before, after in itertools.pairwise(seconds))
    assert 9.5 < seconds[-1] < 9.95
    assert 1 <= source.health.repaired_times <= 2
    assert "it ends at" not in (source.failure or "")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_time_stamps_that_stand_still_are_one_period_apart(name: str, tmp_path: Path) -> None:
    whole = media.write_video(tmp_path / "whole.mkv", media.noise(12, 64, 48), options={"bf": "0"})
    with open_source(SourceSettings(uri=str(media.stand_still(tmp_path / name, whole))), "test") as source:
        period_seconds = 1 / (source.info.frames_per_second or 25)
        seconds = [frame.pts_seconds for frame in frames_of(source)]
    assert len(set(seconds)) == 12
    assert seconds[-1] == pytest.approx(10 * period_seconds, abs=0.002)
    assert source.health.repaired_times == 11


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_frame_a_minute_is_no_leap(name: str, tmp_path: Path) -> None:
    path = media.write_video(tmp_path / name, media.noise(5, 64, 48), time_base=Fraction(60), options={"bf": "0"})
    with open_source(SourceSettings(uri=str(path)), "test") as source:
        assert [frame.pts_seconds for frame in frames_of(source)] == [0, 60, 120, 180, 240]
    assert source.health.repaired_times == 0


def test_what_the_demuxer_doubts_is_delivered_and_told_so(tmp_path: Path) -> None:
    parts = [stream_from(tmp_path / f"{n}.ts", 0) for n in range(2)]  # the packet counter leaps where they meet
    frames, failure = read(media.join(tmp_path / "both.ts", *parts))
    assert len(frames) == 100
    assert failure == "1 frames were delivered although their data are damaged"


def test_what_does_not_decode_is_told_apart(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mov", media.noise(9, 64, 48), "png", "rgb24")
    frames, failure = read(media.damage(path, 0.5, 0.55))
    assert len(frames) == 8
    assert failure == "1 packets did not decode"


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
        seen.extend(frames_of(source, lambda: len(seen) >= 3))
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
        frames = list(frames_of(source))
    assert source.health.damaged_frames + source.health.undecoded_packets > 0
    assert source.failure is not None
    assert 20 <= len(frames) <= 40
    assert frames[-1].pts_seconds == pytest.approx(3.9)


def test_realtime_gives_no_frame_before_it_is_due(clip: Path) -> None:
    with open_source(SourceSettings(uri=str(clip), realtime=True, max_frames=8), "test") as source:
        assert source.info.is_live
        frames = []
        for frame in frames_of(source):
            assert time.monotonic_ns() >= frame.captured_ns
            frames.append(frame)
    assert len(frames) == 8
    for frame in frames:
        assert (frame.captured_ns - frames[0].captured_ns) / 1e9 == pytest.approx(frame.pts_seconds, abs=1e-8)


def slowly(source, seconds: float) -> list[tuple[CapturedFrame | LeftOut, float]]:
    """All that a source gives to one who takes his time, with the age at which it was given."""
    taken = []
    for frame in frames_of(source):
        captured_ns = frame.captured_ns if isinstance(frame, CapturedFrame) else time.monotonic_ns()
        taken.append((frame, (time.monotonic_ns() - captured_ns) / 1e9))
        time.sleep(0.0 if isinstance(frame, LeftOut) else seconds)
    return taken


def test_realtime_leaves_out_what_is_late_up_to_a_key_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    options = {"g": "10", "keyint_min": "10", "sc_threshold": "0", "bf": "2"}
    path = media.write_video(tmp_path / "a.mkv", media.noise(120, 64, 48), time_base=Fraction(1, 60), options=options)
    with open_source(SourceSettings(uri=str(path), realtime=True), "test") as source:
        taken = slowly(source, 0.05)  # three times too slow
    assert source.failure is None
    assert len(taken) == 120
    seconds = [frame.pts_seconds for frame, _ in taken if isinstance(frame, CapturedFrame)]
    assert 10 < len(seconds) < 110
    assert all(
        after.video_frame.key_frame
        for (before, _), (after, _) in itertools.pairwise(taken)
        if isinstance(before, LeftOut) and isinstance(after, CapturedFrame)
    )
    # Without a limit the last would be 4 seconds old.
    assert taken[-1][1] < 2 and max(age for _, age in taken) < 2


def test_what_realtime_leaves_out_is_no_leap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(video, "JUMP_SECONDS", 0.3)
    options = {"g": "40", "keyint_min": "40", "sc_threshold": "0", "bf": "0"}
    path = media.write_video(tmp_path / "a.ts", media.noise(120, 64, 48), time_base=Fraction(1, 60), options=options)
    with open_source(SourceSettings(uri=str(path), realtime=True), "test") as source:
        taken = slowly(source, 0.05)
    assert any(isinstance(frame, LeftOut) for frame, _ in taken)
    for number, (frame, _) in enumerate(taken):
        assert frame.pts_seconds == pytest.approx(number / 60, abs=0.02)
    assert source.health.repaired_times == 0


def test_realtime_goes_on_at_last_where_no_key_frame_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(late, "KEY_FRAME_SECONDS", 0.5)
    path = media.write_video(
        tmp_path / "a.mkv", media.noise(90, 64, 48), time_base=Fraction(1, 60), options={"g": "999", "bf": "0"}
    )
    with open_source(SourceSettings(uri=str(path), realtime=True), "test") as source:
        taken = slowly(source, 0.05)
    left_out = [isinstance(frame, LeftOut) for frame, _ in taken]
    assert not all(left_out[left_out.index(True) :])


def test_realtime_pictures_that_are_late_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    monkeypatch.setattr(images, "FRAMES_PER_SECOND", 20.0)
    for number in range(30):
        media.write_picture(tmp_path / f"{number}.png", media.noise(1, 8, 6)[0])
    with open_source(SourceSettings(uri=str(tmp_path), realtime=True), "test") as source:
        taken = slowly(source, 0.15)
    assert [frame.pts_seconds for frame, _ in taken] == pytest.approx([n / 20 for n in range(30)])
    assert 5 <= sum(isinstance(frame, CapturedFrame) for frame, _ in taken) < 25
    assert max(age for _, age in taken) < 2


def test_realtime_sleeps_are_broken_by_a_stop(tmp_path: Path) -> None:
    pictures = media.grey_steps(2, 64, 48)
    path = media.write_video(tmp_path / "a.mkv", pictures, pts=[0, 3_600_000], time_base=Fraction(1, 1000))
    stop = threading.Event()
    with open_source(SourceSettings(uri=str(path), realtime=True), "test") as source:
        frames = frames_of(source, stop.is_set)
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
    assert failure == "1 of 3 images cannot be read, first frame2.jpg: it is cut off, damaged or no picture"


def too_large(path: Path) -> None:
    media.claim_size(media.write_picture(path, media.noise(1, 8, 6)[0]), 20000, 20000)


def a_sound(path: Path) -> None:
    media.write_audio(path.with_suffix(".wav")).rename(path)


def a_video_without_a_frame(path: Path) -> None:
    video = media.write_video(path.with_suffix(".avi"), media.noise(1, 64, 48), "mjpeg", "yuvj420p")
    media.damage(video, 0.2, 0.9).rename(path)


UNREADABLE = {
    "too large": (too_large, "20000x20000 pixels are too many, at most 16000x16000 can be read"),
    "empty": (Path.touch, "it is empty"),
    "a sound": (a_sound, "no picture"),
    "a video without a frame": (a_video_without_a_frame, "no picture"),
    "a link to nothing that can be read": (lambda path: path.symlink_to("/proc/self/mem"), "Input/output error"),
}


@pytest.mark.parametrize(("make", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_it_is_said_why_a_picture_cannot_be_read(make: Callable[[Path], object], why: str, folder: Path) -> None:
    make(folder / "frame11.png")
    frames, failure = read(folder)
    assert len(frames) == 3
    assert failure is not None and failure.startswith("1 of 4 images cannot be read, first frame11.png: ")
    assert why in failure


def test_a_jpeg_that_is_too_large_is_told_by_its_size(folder: Path) -> None:
    jpeg = (folder / "frame2.jpg").read_bytes()
    at = jpeg.index(b"\xff\xc0") + 5
    (folder / "frame2.jpg").write_bytes(jpeg[:at] + (30000).to_bytes(2, "big") * 2 + jpeg[at + 4 :])
    _, failure = read(folder)
    assert failure is not None and "30000x30000 pixels are too many" in failure


def test_a_name_that_is_no_text_is_shown_as_bytes(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/caf\xe9.jpg")).write_bytes(b"damaged")
    _, failure = read(folder)
    assert failure is not None and "first caf\\xe9.jpg: " in failure
    encode(EndOfStream("test", 3, failure))


@pytest.mark.parametrize("name", ["100%.png", "a%03d.png", "[1].png", "a:b.png", "a*b?.png"])
def test_odd_file_names_are_names(name: str, tmp_path: Path) -> None:
    media.write_picture(tmp_path / "plain.png", media.grey_steps(1, 8, 6)[0]).rename(tmp_path / name)
    assert len(read(tmp_path / name)[0]) == 1


@pytest.mark.parametrize(("suffix", "is_live"), [("", False), (",realtime", True)])
def test_a_test_pattern_is_a_source(suffix: str, is_live: bool) -> None:
    uri = f"lavfi:testsrc2=size=64x36:rate=100{suffix}"
    with open_source(SourceSettings(uri=uri, max_frames=5), "test") as source:
        info, frames = source.info, list(frames_of(source))
    assert (info.kind, info.is_live, info.width, info.height) == ("pattern", is_live, 64, 36)
    assert [f.pts_seconds for f in frames] == pytest.approx([0, 0.01, 0.02, 0.03, 0.04])


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_realtime_shows_pictures_again_after_a_gap_where_h264_has_one_key_frame(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoder kept them all to itself, and the rest of the file was in no column of the ledger."""
    monkeypatch.setattr(late, "LATE_SECONDS", 0.5)
    monkeypatch.setattr(late, "KEY_FRAME_SECONDS", 0.5)
    pictures = [np.roll(media.noise(1, 176, 144)[0], shift, 1) for shift in range(100)]
    one_key = {"g": "99999", "keyint_min": "99999", "sc_threshold": "0"}
    path = media.write_video(tmp_path / name, pictures, time_base=Fraction(1, 20), options=one_key)
    with open_source(SourceSettings(uri=str(path), realtime=True), "test") as source:
        frames = frames_of(source)
        seen = [next(frames) for _ in range(10)]
        time.sleep(1.5)
        seen += frames
    assert len(seen) >= 95  # a decoder that recovers may keep a picture or two
    gap = [index for index, frame in enumerate(seen) if isinstance(frame, late.LeftOut)]
    assert gap and any(isinstance(frame, CapturedFrame) for frame in seen[gap[-1] :])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_decoder_has_the_threads_it_is_given(threads: int, tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.noise(3, 64, 48))
    with open_source(SourceSettings(uri=str(path), decoder_threads=threads), "door") as source:
        assert source._reader.stream.codec_context.thread_count == threads
        assert len(list(frames_of(source))) == 3
