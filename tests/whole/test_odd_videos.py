"""Odd videos through the whole command: every frame comes out, in the size that it had, into a video that plays."""

import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from tests.kit.harness import json_lines, run_here
from tests.kit.media import claim_size, grey_steps, turn, write_picture, write_video

pytestmark = pytest.mark.thorough


def tiny(folder: Path) -> Path:
    return write_video(folder / "v.mkv", grey_steps(3, 1, 1), "ffv1", "gray")


def odd(folder: Path) -> Path:
    return write_video(folder / "v.mkv", grey_steps(3, 7, 5), "ffv1", "yuv420p10le")


def alpha(folder: Path) -> Path:
    return write_video(folder / "v.mkv", grey_steps(3, 33, 17), "ffv1", "yuva420p")


def huge(folder: Path) -> Path:
    return write_video(folder / "v.mkv", grey_steps(2, 7680, 4320), "mjpeg", "yuvj420p")


def turned(folder: Path) -> Path:
    return turn(write_video(folder / "v.mp4", grey_steps(3, 64, 48)), 90)


def variable_rate(folder: Path) -> Path:
    return write_video(folder / "v.mkv", grey_steps(3, 64, 48), pts=[0, 1, 30])


def leaping(folder: Path) -> Path:
    """Its clock leaps 25 hours ahead, as where recordings were joined, and more than MP4 can count."""
    moments = [0, 1, 2, 900_000, 900_001, 900_002]
    return write_video(folder / "v.ts", grey_steps(6, 64, 48), pts=moments, options={"bf": "0"})


def slow(folder: Path) -> Path:
    """Its frames are seven hours apart."""
    return write_video(folder / "v.mkv", grey_steps(3, 64, 48), time_base=Fraction(7 * 3600))


def changing_size(folder: Path) -> Path:
    (folder / "frames").mkdir()
    for number, (width, height) in enumerate([(64, 48), (31, 77), (200, 10)]):
        write_picture(folder / "frames" / f"{number}.png", grey_steps(1, width, height)[0])
    return folder / "frames"


# video → sizes of its frames, size of the overlay video (H.264 needs even sides; the first frame decides)
ODD = {
    tiny: ([(1, 1)] * 3, (2, 2)),
    odd: ([(7, 5)] * 3, (8, 6)),
    alpha: ([(33, 17)] * 3, (34, 18)),
    huge: ([(7680, 4320)] * 2, (7680, 4320)),
    turned: ([(48, 64)] * 3, (48, 64)),
    variable_rate: ([(64, 48)] * 3, (64, 48)),
    leaping: ([(64, 48)] * 6, (64, 48)),
    changing_size: ([(64, 48), (31, 77), (200, 10)], (64, 48)),
}


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_every_frame_comes_out(make, tmp_path) -> None:
    sizes, video_size = ODD[make]
    done = run_here(make(tmp_path), "--jsonl", tmp_path / "o.jsonl", "--out", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    lines = json_lines(tmp_path / "o.jsonl")
    assert [(line["width"], line["height"]) for line in lines] == sizes
    with av.open(str(tmp_path / "o.mp4")) as video:
        frames = list(video.decode(video=0))
    assert [(frame.width, frame.height) for frame in frames] == [video_size] * len(sizes)
    seconds = [line["pts_seconds"] for line in lines]
    assert [frame.time - frames[0].time for frame in frames] == pytest.approx(seconds, abs=0.002)


def test_repaired_time_stamps_are_told(tmp_path) -> None:
    done = run_here(leaping(tmp_path), "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert "warning: v: 1 time stamps were repaired" in done.stderr
    assert json_lines(tmp_path / "o.jsonl")[-1]["pts_seconds"] == pytest.approx(0.5)


def test_hours_between_frames_are_shortened_only_where_the_container_must(tmp_path) -> None:
    done = run_here(slow(tmp_path), "--jsonl", tmp_path / "o.jsonl", "--out", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    assert [line["pts_seconds"] for line in json_lines(tmp_path / "o.jsonl")] == [0, 7 * 3600, 14 * 3600]
    with av.open(str(tmp_path / "o.mp4")) as video:
        assert [frame.time for frame in video.decode(video=0)] == [0, 6 * 3600, 12 * 3600]


def test_a_frame_beyond_every_limit_is_one_clear_line(tmp_path) -> None:
    path = write_video(tmp_path / "v.mkv", grey_steps(1, 10000, 8000), "mjpeg", "yuvj420p")
    done = run_here(path, "--out", tmp_path / "o.mp4")
    assert done.returncode == 3 and "10000x8000" in done.stderr and "Traceback" not in done.stderr
    assert "80.0 million pixels, a video or window can take 7" in done.stderr and "run without" in done.stderr


def test_a_frame_too_large_to_be_shown_is_looked_at_all_the_same(tmp_path) -> None:
    path = write_video(tmp_path / "v.mkv", grey_steps(1, 10000, 8000), "mjpeg", "yuvj420p")
    done = run_here(path, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert [(line["width"], line["height"]) for line in json_lines(tmp_path / "o.jsonl")] == [(10000, 8000)]


def test_why_a_picture_cannot_be_read_reaches_the_user_whatever_its_name(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in" / "1.png", grey_steps(1, 64, 48)[0])
    name = os.fsdecode(b"caf\xe9.png")
    claim_size(write_picture(tmp_path / "in" / "2.png", grey_steps(1, 8, 6)[0]), 20000, 20000).rename(
        tmp_path / "in" / name
    )
    done = run_here(tmp_path / "in", "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 3 and len(json_lines(tmp_path / "o.jsonl")) == 1
    assert "first caf\\xe9.png: 20000x20000 pixels are too many, at most 16000x16000" in done.stderr
