"""Fixtures that more than one test file uses: the clip, RTSP servers that run as processes of their own, a browser."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.kit.browser import chromium, require_browser
from tests.kit.harness import end_since
from tests.kit.places import CLIP
from tests.kit.servers import GST_PYTHON, RtspServer, StartServer, require_gst, running

# No test judges how long a thing takes: the machine may be busy.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """What was compiled is kept between sessions, but not in the user's own cache. And threads that wait for each other
    sleep: two that spin would take the cores from all that runs beside."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if getattr(config, "cache", None):  # not with -p no:cacheprovider
        os.environ.setdefault("NUMBA_CACHE_DIR", str(config.cache.mkdir("numba")))
        if sys.dont_write_bytecode:  # where it may be, it is kept beside the sources
            os.environ.setdefault("PYTHONPYCACHEPREFIX", str(config.cache.mkdir("python")))


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs of this session measure and export; the user's own cache is left alone."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CENTERSTREAM_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def no_run_outlives_its_test() -> Iterator[None]:
    """One that failed would take the cores from all that follow."""
    with end_since():
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch on one thread, here and in processes: two that wait for each other on a busy machine take many times as
    long."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture
def clip() -> Path:
    """130 frames of 768×576 at 10 fps, H.264, a key frame each second."""
    return CLIP


@pytest.fixture
def play_server() -> Iterator[StartServer]:
    """`start(file=CLIP, port=…, speed=…, loop=…, user=…, password=…, …)`: the server that needs nothing installed."""
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(
            running(sys.executable, "play_server.py", {"file": CLIP} | options)
        )


@pytest.fixture
def gst_server() -> Iterator[StartServer]:
    """The same with Debian's gst-rtsp-server; skips where it is missing, unless CENTERSTREAM_REQUIRE_RTSP=1."""
    require_gst()
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(running(GST_PYTHON, "gst_server.py", {"file": CLIP} | options))


@pytest.fixture
def gst_relay() -> Iterator[StartServer]:
    """`start(port=…, name=…, user=…, password=…, certificate=…)`: a server to publish to, and to read from by
    `live_url`; skips as `gst_server`."""
    require_gst()
    with ExitStack() as servers:
        yield lambda **options: servers.enter_context(running(GST_PYTHON, "gst_relay.py", options))


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspServer]:
    """One that plays the clip for ever."""
    with running(sys.executable, "play_server.py", {"file": CLIP, "loop": True}) as camera:
        yield camera


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Skips as `require_browser`."""
    require_browser()
    with chromium() as browser:
        yield browser


@pytest.fixture(params=["play_server", "gst_server"])
def rtsp_server(request: pytest.FixtureRequest) -> StartServer:
    """Each of the two in turn."""
    start: StartServer = request.getfixturevalue(request.param)
    return start


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
