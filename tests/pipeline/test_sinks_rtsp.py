"""What is published can be read back from a real server, in order and at the source's rate; a server that is away,
gone, frozen or refuses holds up nobody, is told of, and is published to again.
"""

import http.server
import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from configs.uri import Uri
from pipeline.sinks import Missed, announce
from pipeline.sinks.rtsp import RtspSink
from tests.kit.harness import free_port, wait_until
from tests.kit.media import COLOURS_BGR, assert_shows, picture
from tests.kit.reading import from_server
from tests.kit.results import result
from tests.kit.servers import RtspServer

RATE = 10
SECRET = "pa55w0rd"


class Publisher:
    """A source that publishes ten pictures a second, as time passes.

    missed  the numbers of the frames that were
    warned  what the user was told
    """

    def __init__(self, url: str, make: Callable[[int], np.ndarray] = picture) -> None:
        self.warned: list[str] = []
        self.missed: list[int] = []
        self.count = 0
        self.sink = RtspSink(Uri(url), RATE, warn=self.warned.append)
        self._make, self._ends = make, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
        self.sink.close()
        self.sink.close()

    def _run(self) -> None:
        start = time.monotonic()
        for number in itertools.count():
            if self._ends.wait(max(0.0, start + number / RATE - time.monotonic())):
                return
            try:
                self.sink.write(result(seq=number, seconds=number / RATE), self._make(number))
            except Missed:
                self.missed.append(number)
            self.count += 1

    def sent(self) -> int:
        return self.count - len(self.missed)

    def wait_for(self, more: int) -> None:
        """Until so many more frames were sent."""
        before = self.sent()
        wait_until(lambda: self.sent() >= before + more, what="frames on their way")

    def waits_for_warning(self, words: str) -> None:
        wait_until(lambda: any(words in line for line in self.warned), what=words)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent, or takes nothing, is given up sooner."""
    monkeypatch.setattr(announce, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(announce, "STALL_SECONDS", 0.5)


def assert_comes_through(server: RtspServer, url: str | None = None, frames: int = 25) -> None:
    """All pictures from some moment on, each once, in order and at their times, with a key frame a second."""
    shown = from_server(url or server.live_url, frames)
    first = next(n for n, colour in enumerate(COLOURS_BGR) if np.abs(shown[0].image_bgr[0, 0] - colour).max() <= 6)
    for number, frame in enumerate(shown):
        assert frame.image_bgr.shape == (48, 64, 3)
        assert_shows(frame.image_bgr, first + number)
    steps = np.diff([frame.seconds for frame in shown])
    assert steps == pytest.approx(np.full(len(steps), 1 / RATE), abs=0.002)
    keys = [number for number, frame in enumerate(shown) if frame.is_key]
    assert len(keys) > 1 and set(np.diff(keys)) == {RATE}


# --- what comes through ----------------------------------------------------------------------------------------------


def test_pictures_come_through_in_order_at_their_times(gst_relay) -> None:
    server = gst_relay()
    with Publisher(server.url) as publisher:
        assert_comes_through(server)
        publisher.wait_for(5)
    assert publisher.warned == [] and publisher.missed == list(range(len(publisher.missed)))
    assert publisher.sink.way == "in 1 session, by libx264"


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_a_server_that_asks_for_a_password_gets_it(auth: str, gst_relay) -> None:
    server = gst_relay(user="cam", password=SECRET, auth=auth)
    with Publisher(server.url_for("cam", SECRET)) as publisher:
        publisher.wait_for(10)
    assert publisher.warned == []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Of 127.0.0.1, signed by itself, with its key."""
    path = tmp_path / "own.pem"
    ask = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    place = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", f"{path}.crt"]
    try:
        subprocess.run(ask + place, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl: apt-get install openssl")
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def test_by_tls_a_certificate_has_to_be_trusted(gst_relay, certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    server = gst_relay(certificate=certificate)
    assert server.url.startswith("rtsps://")
    with Publisher(server.url) as publisher:
        publisher.waits_for_warning("its certificate is not trusted (self-signed certificate); a file of")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        publisher.wait_for(10)
        assert_comes_through(server)


# --- a server that is away -------------------------------------------------------------------------------------------


def test_a_server_that_comes_later_gets_what_comes_from_then_on(gst_relay) -> None:
    port = free_port()
    with Publisher(f"rtsp://cam:{SECRET}@127.0.0.1:{port}/clip") as publisher:
        publisher.waits_for_warning("refuses the connection")
        wait_until(lambda: publisher.count > RATE)
        server = gst_relay(port=port)
        assert_comes_through(server)
    assert publisher.missed[: RATE + 1] == list(range(RATE + 1)) and publisher.sent() < publisher.count
    assert set(publisher.warned) == {
        f"rtsp://***@127.0.0.1:{port}/… cannot be reached: it refuses the connection; check host and port, and that "
        "the server runs; it is tried again, and misses what comes meanwhile"
    }


def test_a_server_that_is_started_anew_is_published_to_again(gst_relay) -> None:
    server = gst_relay()
    with Publisher(server.url) as publisher:
        assert_comes_through(server)
        server.kill()
        publisher.waits_for_warning("was lost")
        assert_comes_through(gst_relay(port=server.port))
    assert publisher.sink.way == "in 2 sessions, by libx264"


def noise(number: int) -> np.ndarray:
    """What no socket takes for long while nobody reads."""
    return np.random.default_rng(number).integers(0, 255, (480, 640, 3), np.uint8)


def test_a_frozen_server_holds_up_nobody_and_is_noticed(gst_relay, soon) -> None:
    server = gst_relay()
    with Publisher(server.url, noise) as publisher:
        publisher.wait_for(5)
        server.freeze()
        publisher.waits_for_warning("was lost: it has taken nothing for 0.5 s")
        publisher.waits_for_warning("did not answer within 0.5 s")
        before = publisher.count
        wait_until(lambda: publisher.count > before + 5)
        server.thaw()
        publisher.wait_for(5)
    assert publisher.missed


def test_the_end_does_not_wait_for_a_frozen_server(gst_relay) -> None:
    server = gst_relay()
    with Publisher(server.url, noise) as publisher:
        publisher.wait_for(5)
        server.freeze()
        wait_until(lambda: publisher.missed and publisher.missed[-1] > publisher.count - 3)


# --- a server that wants nothing -------------------------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/a"


@contextmanager
def web_server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"rtsp://127.0.0.1:{server.server_port}/a"
        server.shutdown()


def told_by(url: str, words: str) -> None:
    with Publisher(url) as publisher:
        publisher.waits_for_warning(words)
        wait_until(lambda: len(publisher.missed) > 5)
    assert publisher.sent() == 0 and all(SECRET not in line for line in publisher.warned)


def test_a_silent_server_is_told_of(silent, soon) -> None:
    told_by(silent, "did not answer within 0.5 s")


def test_what_is_no_rtsp_server_is_told_of() -> None:
    with web_server() as url:
        told_by(url, "is no RTSP server")


def test_tls_to_a_server_without_it_is_told_of(gst_relay) -> None:
    told_by(gst_relay().url.replace("rtsp://", "rtsps://"), "cannot be reached: TLS failed")


@pytest.mark.parametrize("user", ["", f"cam:wr0ng-{SECRET}@"])
def test_a_wrong_password_is_told_of(user: str, gst_relay) -> None:
    url = gst_relay(user="cam", password=SECRET).url
    told_by(url.replace("//", f"//{user}"), "refuses the user or password")


def test_an_unknown_path_is_told_of(gst_relay) -> None:
    told_by(gst_relay().url.replace("/clip", f"/{SECRET}"), "does not exist: the server knows no such path")


def test_a_server_that_only_plays_is_told_of(gst_server) -> None:
    told_by(gst_server().url, "takes no stream")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
def test_a_host_that_is_not_known_is_told_of(host: str) -> None:
    with Publisher(f"rtsp://{host}/a") as publisher:
        wait_until(lambda: publisher.warned)
    assert "host" in publisher.warned[0]


def test_frames_without_pictures_are_not_missed() -> None:
    sink = RtspSink(Uri("rtsp://127.0.0.1:1/a"))
    sink.write(result(), None)
    sink.close()
