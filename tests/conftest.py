"""Fixtures that more than one test file uses: the clip, and RTSP servers that run as processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CLIP = TESTS / "data" / "pets09_excerpt.mp4"
GST_PYTHON = "/usr/bin/python3"
GST_PROBE = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("appsrc", "parsebin", "h264parse", "rtph264pay", "udpsink"))
"""
GST_MISSING = (
    "install: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)


def pytest_configure(config: pytest.Config) -> None:
    """Compiled kernels are kept between sessions, but not in the user's own cache."""
    if config.cache:
        os.environ.setdefault("NUMBA_CACHE_DIR", str(config.cache.mkdir("numba")))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs of this session measure and export; the user's own cache is left alone."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CENTERSTREAM_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread: two that wait for each other on a busy machine take thirty times as long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class RtspServer:
    """A server process that a test may freeze and kill; `url` holds no password."""

    process: "subprocess.Popen[str]"
    url: str

    def url_for(self, user: str, password: str) -> str:
        return self.url.replace("//", f"//{user}:{password}@")

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


StartServer = Callable[..., RtspServer]


@pytest.fixture
def clip() -> Path:
    """130 frames of 768×576 at 10 fps, H.264, a key frame each second."""
    return CLIP


@pytest.fixture
def play_server() -> Iterator[StartServer]:
    """`start(file=CLIP, speed=…, loop=…, user=…, password=…, auth=…)`: the server that needs nothing installed."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(_running(sys.executable, "play_server.py", options))


@pytest.fixture
def gst_server() -> Iterator[StartServer]:
    """The same with Debian's gst-rtsp-server; skips where it is missing, unless CENTERSTREAM_REQUIRE_RTSP=1."""
    _require_gst()
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(_running(GST_PYTHON, "gst_server.py", options))


@pytest.fixture(params=["play_server", "gst_server"])
def rtsp_server(request: pytest.FixtureRequest) -> StartServer:
    """Each of the two in turn."""
    start: StartServer = request.getfixturevalue(request.param)
    return start


@contextmanager
def _running(python: str, script: str, options: dict[str, object]) -> Iterator[RtspServer]:
    arguments = ["--loop"] if options.pop("loop", False) else []
    for name, value in ({"file": CLIP} | options).items():
        arguments += [f"--{name}", str(value)]
    command = [python, str(TESTS / "rtsp" / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready, _, url = process.stdout.readline().strip().partition(" ")
            assert ready == "ready", f"{script} did not start"
            yield RtspServer(process, url)
        finally:
            process.kill()  # a frozen process too


def _require_gst() -> None:
    found = (
        Path(GST_PYTHON).exists() and not subprocess.run([GST_PYTHON, "-c", GST_PROBE], capture_output=True).returncode
    )
    if not found and os.environ.get("CENTERSTREAM_REQUIRE_RTSP") == "1":
        pytest.fail(GST_MISSING)
    if not found:
        pytest.skip(GST_MISSING)
