"""What a decoder shows to the page's process, over a real socket: its own frames, as they are asked for."""

import tempfile
import threading
import time
from collections.abc import Iterator

import av
import numpy as np
import pytest
import zmq

from pipeline.jpeg import encode_jpeg
from pipeline.onlooker import LEAST_APART_NS, MOST_PER_SECOND, PageOnlooker
from pipeline.sources import CodedPacket
from tests.kit.harness import wait_until
from tests.kit.media import opened, red_corner

CORNER = av.VideoFrame.from_ndarray(red_corner(1280, 720), "rgb24").reformat(format="yuv420p")
CORNER.colorspace = 5  # BT.601, which it was made by: untagged it would be taken for BT.709


class Page:
    """An onlooker of "gate", and who asks it for these topics."""

    def __init__(self, *topics: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(dir="/tmp")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.bind(f"ipc://{self._folder.name}/p")
        self._captured_ns = 0
        self.warnings: list[str] = []
        self.onlooker = PageOnlooker(f"ipc://{self._folder.name}/p", "gate", self.warnings.append)
        # The last that is asked for, so that when it is there, all are.
        for topic in (*topics, b"packets/gate"):
            self._socket.subscribe(topic)
        # Its own socket says what it subscribes to only when it is asked for something.
        wait_until(lambda: self._socket.poll(1) or self.onlooker.looks(), 20, what="who subscribes")

    def forget(self, topic: bytes) -> None:
        self._socket.unsubscribe(topic)

    def sees(self, frame: av.VideoFrame, count: int, rotation_degrees: int = 0) -> dict[bytes, bytes]:
        """The JPEG of each of so many topics."""
        self._captured_ns += LEAST_APART_NS
        self.onlooker.show(frame, rotation_degrees, self._captured_ns)
        came = {}
        for topic, captured_ns, jpeg in self.pictures(count):
            assert captured_ns == self._captured_ns and topic not in came
            came[topic] = jpeg
        return came

    def pictures(self, count: int) -> list[tuple[bytes, int, bytes]]:
        """Topic, moment of capture and JPEG of so many, and no more."""
        came = []
        while self._socket.poll(20_000 if len(came) < count else 100):
            topic, head, body = self._socket.recv_multipart()
            came.append((topic, int(head) if head.isdigit() else 0, body))
        assert len(came) == count
        return came

    def count_waiting(self, most_ms: int) -> int:
        count = 0
        while self._socket.poll(most_ms):
            self._socket.recv_multipart()
            count += 1
        return count

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
        self.onlooker.close()
        self._folder.cleanup()


@pytest.fixture
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    page = Page(*request.param)
    yield page
    page.close()


def looked_at(*topics: bytes) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", [topics], indirect=True)


def opened_rgb(jpeg: bytes) -> np.ndarray:
    return opened(jpeg)[..., ::-1]


@looked_at()
def test_nothing_is_made_while_nobody_looks(page: Page) -> None:
    assert not page.onlooker.wants_pictures() and page.sees(CORNER, 0) == {}


# Another source's, and those that deliver makes.
@looked_at(
    b"wide/480/yard",
    b"wide/480/gate2",
    b"wide/480/gat",
    b"drawn/gate",
    b"wide/0/gate",
    b"heat/gate/person",
    b"frame/gate",
)
def test_what_is_not_its_own_is_left_to_others(page: Page) -> None:
    assert not page.onlooker.wants_pictures() and page.sees(CORNER, 0) == {}


WIDTHS = {b"wide/480/gate": 480, b"wide/1/gate": 1, b"wide/961/gate": 961, b"wide/9999/gate": 1280, b"full/gate": 1280}


@looked_at(*WIDTHS)
def test_a_picture_is_at_most_so_wide_as_it_is_asked_for(page: Page) -> None:
    assert page.onlooker.wants_pictures()
    came = page.sees(CORNER, len(WIDTHS))
    shapes = {topic: opened_rgb(jpeg).shape for topic, jpeg in came.items()}
    assert shapes == {topic: (max(1, round(width * 720 / 1280)), width, 3) for topic, width in WIDTHS.items()}
    assert came[b"wide/9999/gate"] == came[b"full/gate"]
    for topic in came.keys() - {b"wide/1/gate"}:
        image_rgb = opened_rgb(came[topic])
        height, width = image_rgb.shape[:2]
        assert np.abs(image_rgb.astype(int) - red_corner(width, height)).mean() < 2, topic


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@looked_at(b"full/gate", b"wide/480/gate")
def test_a_turned_frame_is_upright(page: Page, degrees: int) -> None:
    stored = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(red_corner(960, 640), degrees // 90)), "rgb24")
    came = page.sees(stored, 2, degrees)
    assert {topic: opened_rgb(jpeg).shape for topic, jpeg in came.items()} == {
        b"full/gate": (640, 960, 3), b"wide/480/gate": (320, 480, 3)
    }  # fmt: skip
    for jpeg in came.values():
        image_rgb = opened_rgb(jpeg)
        height, width = image_rgb.shape[:2]
        assert np.abs(image_rgb.astype(int) - red_corner(width, height)).mean() < 3


@looked_at(b"wide/480/gate", b"wide/960/gate")
def test_who_looks_elsewhere_is_heard(page: Page) -> None:
    assert page.sees(CORNER, 2).keys() == {b"wide/480/gate", b"wide/960/gate"}
    page.forget(b"wide/960/gate")
    time.sleep(0.2)  # what is no longer asked for is left out on either side
    assert page.sees(CORNER, 1).keys() == {b"wide/480/gate"}
    page.forget(b"wide/480/gate")
    wait_until(lambda: not page.onlooker.wants_pictures(), 20, what="nobody who looks")
    assert page.sees(CORNER, 0) == {}


# A JPEG has at most 65,500 pixels a side.
SIZES = {(7, 5): (7, 5), (5, 7): (5, 7), (1, 1): (1, 1), (2, 65_600): (1, 32_800), (65_600, 2): (65_500, 2)}


@pytest.mark.parametrize("size", SIZES)
@looked_at(b"full/gate")
def test_a_frame_of_any_size_is_shown(page: Page, size: tuple[int, int]) -> None:
    width, height = size
    (jpeg,) = page.sees(av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), "rgb24"), 1).values()
    assert opened_rgb(jpeg).shape[1::-1] == SIZES[size]
    assert np.abs(opened_rgb(jpeg).astype(int) - 90).max() <= 3


@looked_at(b"wide/480/gate")
def test_what_comes_too_fast_to_be_seen_is_left_out(page: Page) -> None:
    """A fifth of a second of a recording that is read at ten times its rate."""
    small, count = CORNER.reformat(64, 48), 0
    for number in range(50):
        page.onlooker.show(small, 0, number * 4_000_000)
        count += page.count_waiting(most_ms=30)  # for one that is not made in time makes room for the next
    assert count + page.count_waiting(most_ms=200) == pytest.approx(MOST_PER_SECOND / 5, abs=2)


@looked_at(b"wide/480/gate")
def test_each_of_a_camera_is_shown_however_unevenly_they_come(page: Page) -> None:
    """At 25 a second, now late and now early."""
    small = CORNER.reformat(64, 48)
    for number, late_ms in enumerate([0, 30, 0, 20, 24, 0] * 4):
        page.onlooker.show(small, 0, (number * 40 + late_ms) * 1_000_000)
        page.pictures(1)


@looked_at(b"wide/480/gate")
def test_nobody_waits_for_a_picture_that_takes_long_and_the_newest_is_the_next(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_slow, has_begun = threading.Event(), threading.Event()

    def slowly(image_bgr: np.ndarray) -> bytes:
        has_begun.set()
        assert is_slow.wait(20)
        return encode_jpeg(image_bgr)

    monkeypatch.setattr("pipeline.jpeg.encode_jpeg", slowly)
    for number in range(9):
        page.onlooker.show(CORNER, 0, number * LEAST_APART_NS)
        assert has_begun.wait(20)
    page.onlooker.take(CodedPacket("avc1.64001F", True, 1000, None, b"packet"))
    assert page.pictures(1)[0][0] == b"packets/gate"
    is_slow.set()
    assert [captured_ns // LEAST_APART_NS for _, captured_ns, _ in page.pictures(2)] == [0, 8]


@looked_at(b"wide/480/gate")
def test_a_picture_that_cannot_be_made_is_told_of_and_the_next_is_made(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(image_bgr: np.ndarray) -> bytes:
        raise ValueError("cannot make a JPEG")

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.jpeg.encode_jpeg", fails)
        page.onlooker.show(CORNER, 0, 0)
        wait_until(lambda: bool(page.warnings), 20, what="a warning")
    assert page.warnings == ["no picture for the page: cannot make a JPEG"]
    assert page.sees(CORNER, 1)
