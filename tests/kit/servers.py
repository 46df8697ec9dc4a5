"""RTSP servers that run as processes of their own, for tests to freeze and kill: `play_server.py` needs nothing
installed, `gst_server.py` and `gst_relay.py` are Debian's gst-rtsp-server.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.places import ROOT

GST_PYTHON = "/usr/bin/python3"
GST_PROBE = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
used = "appsink", "appsrc", "parsebin", "h264parse", "rtph264pay", "rtph264depay", "udpsink"
assert all(Gst.ElementFactory.find(name) for name in used)
"""
GST_MISSING = (
    "install: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
)


@dataclass
class RtspServer:
    """A server process that a test may freeze and kill; `url` holds no password."""

    process: "subprocess.Popen[str]"
    url: str

    @property
    def port(self) -> int:
        """For another server, in the place of one that was killed."""
        return int(self.url.split(":")[2].partition("/")[0])

    @property
    def live_url(self) -> str:
        """Where a relay plays what is published at `url`."""
        place, _, name = self.url.rpartition("/")
        return f"{place}/live/{name}"

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


@contextmanager
def running(python: str, script: str, options: dict[str, object]) -> Iterator[RtspServer]:
    arguments = ["--loop"] if options.pop("loop", False) else []
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", str(value)]
    command = [python, str(ROOT / "tests" / "kit" / "rtsp" / script), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready, _, url = process.stdout.readline().strip().partition(" ")
            assert ready == "ready", f"{script} did not start"
            yield RtspServer(process, url)
        finally:
            process.kill()  # a frozen process too


def require_gst() -> None:
    found = (
        Path(GST_PYTHON).exists() and not subprocess.run([GST_PYTHON, "-c", GST_PROBE], capture_output=True).returncode
    )
    if not found and os.environ.get("CENTERSTREAM_REQUIRE_RTSP") == "1":
        pytest.fail(GST_MISSING)
    if not found:
        pytest.skip(GST_MISSING)
