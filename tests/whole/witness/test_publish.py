"""A site of cameras, seen by FFmpeg: what the pictures say of themselves, and what can be done to a camera."""

import time
from itertools import pairwise

import av
import pytest

from tests.whole.witness import barcode
from tests.whole.witness.site import Site, running_site

FAST = {"probesize": "32", "analyzeduration": "0"}


@pytest.fixture
def site(tmp_path):
    with running_site(tmp_path / "sent.jsonl", "--cameras", 2, "--rate", 20) as site:
        yield site


def watch(url: str, count: int, transport: str = "tcp") -> list[av.VideoFrame]:
    """The next frames; fewer when the camera hangs up."""
    frames: list[av.VideoFrame] = []
    with av.open(url, options={"rtsp_transport": transport, **FAST}, timeout=(5, 5)) as camera:
        for frame in camera.decode(video=0):
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


def numbers(frames: list[av.VideoFrame], source: int = 1) -> list[int]:
    codes = [barcode.read(frame.to_ndarray(format="bgr24")) for frame in frames]
    assert all(code is not None and code.source == source for code in codes), codes
    return [code.number for code in codes if code is not None]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_each_picture_says_when_it_was_made(site: Site, transport: str) -> None:
    seen = numbers(watch(site.url_of(1), 5, transport))
    assert all(later > earlier and (later - earlier) % 50 == 0 for earlier, later in pairwise(seen))
    assert abs(time.time() * 1000 % 2**32 - seen[-1]) < 60_000
    assert set(seen) <= set(site.numbers(1))


def test_a_site_that_was_killed_goes_on_where_time_is(site: Site) -> None:
    [before] = numbers(watch(site.url_of(1), 1))
    url = site.url_of(1)
    site.kill()
    site.begin()
    assert site.url_of(1) == url
    [after] = numbers(watch(url, 1))
    assert after > before


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_another_size_comes_in_mid_stream(site: Site, codec: str) -> None:
    site.tell(f"cam1 codec {codec}")
    with av.open(site.url_of(1), options={"rtsp_transport": "tcp", **FAST}, timeout=(5, 5)) as camera:
        frames = camera.decode(video=0)
        first = next(frames)
        site.tell("cam1 size 640x480")
        other = next(frame for frame in frames if frame.width != first.width)
    assert first.width == 320 and (other.width, other.height) == (640, 480)
    assert numbers([other]) > numbers([first])


def test_another_codec_hangs_up_and_is_there_for_the_next(site: Site) -> None:
    with av.open(site.url_of(1), options={"rtsp_transport": "tcp", **FAST}, timeout=(5, 5)) as camera:
        frames = camera.decode(video=0)
        next(frames)
        site.tell("cam1 codec h265")
        assert len(list(frames)) < 20  # it ends
    with av.open(site.url_of(1), options={"rtsp_transport": "tcp", **FAST}, timeout=(5, 5)) as camera:
        assert camera.streams.video[0].codec.name == "hevc"
        assert numbers([next(camera.decode(video=0))])


def test_a_password_is_asked_for_from_now_on(site: Site) -> None:
    assert watch(site.url_of(1), 1)
    site.tell("* password s3cret")
    with pytest.raises(av.error.HTTPUnauthorizedError):
        watch(site.url_of(1), 1)
    assert watch(site.url_of(1).replace("//", "//cam:s3cret@"), 1)
    site.tell("* password off")
    assert watch(site.url_of(1), 1)


def test_a_frozen_camera_shows_one_picture(site: Site) -> None:
    site.tell("cam1 frozen on")
    assert len(set(numbers(watch(site.url_of(1), 5)))) == 1
    assert len(set(numbers(watch(site.url_of(0), 5), source=0))) == 5


@pytest.mark.parametrize("leap", ["86400", "-100", "wrap"])
def test_time_stamps_leap(site: Site, leap: str) -> None:
    with av.open(site.url_of(1), options={"rtsp_transport": "tcp", **FAST}, timeout=(5, 5)) as camera:
        frames = camera.decode(video=0)
        times = [next(frames).time for _ in range(3)][1:]  # the first may have none
        site.tell(f"cam1 stamps {leap}")
        times += [next(frames).time for _ in range(10)]
    assert max(abs(later - earlier) for earlier, later in pairwise(times)) > 50


def test_what_is_no_command_is_refused_in_one_line(site: Site) -> None:
    for command in ("cam1 rate fast", "cam9 rate 1", "cam1", "cam1 codec vp9"):
        with pytest.raises(AssertionError, match="refused: "):
            site.tell(command)
    assert watch(site.url_of(1), 1)
