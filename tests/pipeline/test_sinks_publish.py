"""Published pictures: in which sizes they come, over a real socket, and how like the frame they are."""

import tempfile
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.flow.messages import WantPixels
from pipeline.flow.topics import granted, picture_wanted, wishes_of
from pipeline.sinks import Target
from pipeline.sinks.publish import open_sink, shrunk
from tests.kit.harness import wait_until
from tests.kit.media import opened
from tests.kit.results import result

SHADES = np.add.outer(np.arange(720), np.arange(1280))
PICTURE = np.stack([SHADES // 16, 255 - SHADES // 16, SHADES // 8], -1).astype(np.uint8)


class Looker:
    """A sink that publishes, and one who subscribes to these topics of it."""

    def __init__(self, *topics: bytes) -> None:
        self._folder = tempfile.TemporaryDirectory(dir="/tmp")
        self.wanted: list[WantPixels] = []
        path = f"ipc://{self._folder.name}/p"
        self.sink = open_sink(Target(path, want=self.wanted.append))
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.connect(path)
        for topic in topics:
            self._socket.subscribe(topic)
        wait_until(lambda: self.sink.look() or self.sink.is_heard, what="who subscribes")
        self.sink.look()

    def show(self, image_bgr: NDArray[np.uint8], source_id: str = "gate") -> dict[bytes, bytes]:
        """The JPEG of each topic."""
        self.sink.write(result(source_id=source_id), image_bgr)
        came = {}
        while self._socket.poll(500):
            topic, *_, last = self._socket.recv_multipart()
            came[topic] = last
        return came

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()
        self.sink.close()
        self._folder.cleanup()


@pytest.fixture
def looker(request: pytest.FixtureRequest) -> Iterator[Looker]:
    looker = Looker(*request.param)
    yield looker
    looker.close()


WIDTHS = {
    b"wide/480/gate": 480,
    b"wide/1/gate": 1,
    b"wide/481/gate": 481,
    b"wide/960/gate": 960,
    b"wide/1280/gate": 1280,
    b"wide/9999/gate": 1280,
    b"full/gate": 1280,
    b"drawn/gate": 1280,
}


@pytest.mark.parametrize("looker", [tuple(WIDTHS)], indirect=True)
def test_a_picture_is_at_most_so_wide_as_it_is_asked_for(looker: Looker) -> None:
    assert looker.wanted[-1] == WantPixels(frozenset({"gate"}))
    came = looker.show(PICTURE)
    assert {topic: opened(jpeg).shape for topic, jpeg in came.items()} == {
        topic: (max(1, round(width * 720 / 1280)), width, 3) for topic, width in WIDTHS.items()
    }
    assert came[b"wide/1280/gate"] == came[b"wide/9999/gate"] == came[b"full/gate"]
    assert not looker.show(PICTURE, source_id="yard")


NO_PICTURES = (b"frame/gate", b"wide/", b"wide/gate", b"wide//gate", b"wide/0/gate", b"wide/-9/gate", b"wide/\xff/gate")


def test_a_picture_that_many_want_is_made_once() -> None:
    made = []

    def make(width: int, is_drawn: bool) -> bytes:
        made.append((width, is_drawn))
        return b"%d" % len(made)

    assert dict(granted(wishes_of([]), 1280, make)) == {}
    came = dict(granted(wishes_of([*WIDTHS, *NO_PICTURES]), 1280, make))
    assert came.keys() == WIDTHS.keys() and len({*made}) == len(made)
    assert {*made} == {(480, False), (1, False), (481, False), (960, False), (1280, False), (1280, True)}
    assert came[b"wide/1280/gate"] == came[b"wide/9999/gate"] == came[b"full/gate"]


def test_a_width_of_thousands_of_digits_is_none() -> None:
    assert picture_wanted(b"wide/" + b"9" * 5000 + b"/gate") is None


@pytest.mark.parametrize("looker", [NO_PICTURES], indirect=True)
def test_what_asks_for_no_width_gets_no_picture(looker: Looker) -> None:
    assert looker.wanted[-1] == WantPixels()
    assert looker.show(PICTURE).keys() == {b"frame/gate"}


@pytest.mark.parametrize(
    ("sides", "to_width", "expected"),
    [
        ((1, 1), 1, (1, 1)),
        ((500, 1), 3, (500, 1)),
        ((500, 3), 1, (167, 1)),
        ((1, 700), 3, (1, 3)),
        ((2160, 3840), 480, (270, 480)),
        ((481, 641), 320, (240, 320)),
    ],
)
def test_a_smaller_picture_keeps_its_shape(sides: tuple[int, int], to_width: int, expected: tuple[int, int]) -> None:
    assert shrunk(np.zeros((*sides, 3), np.uint8), to_width).shape == (*expected, 3)


@given(st.integers(64, 700), st.integers(64, 500), st.integers(48, 700), st.integers(0, 99))
def test_a_smaller_picture_looks_as_the_larger_one(width: int, height: int, to_width: int, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    image_bgr = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    small = shrunk(image_bgr, to_width)
    mean = cv2.resize(image_bgr, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    # Of an odd number of lines the last is left out: what is below it moves by half a pixel.
    assert np.abs(small.astype(int) - mean).mean() < 3 + 192 / min(small.shape[:2])


@given(st.integers(64, 400), st.integers(2, 9), st.integers(0, 9))
def test_fine_lines_become_grey_and_no_other_lines(to_width: int, times: int, more: int) -> None:
    lines = np.zeros((300, times * to_width + more, 3), np.uint8)
    lines[:, ::2] = 254
    assert np.abs(shrunk(lines, to_width).astype(int) - 127).max() < 3
