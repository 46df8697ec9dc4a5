#!/usr/bin/python3
"""Debian's gst-rtsp-server as a test server: an H.264 file, in a loop or once, over TCP or UDP, not transcoded.

    /usr/bin/python3 tests/kit/rtsp/gst_server.py --file clip.mp4 --loop --user cam --password s3cret --auth digest
    ready rtsp://127.0.0.1:41873/clip

All viewers share one clock, as with a camera; who joins late waits for the next key frame. Needs the packages that
`tests/kit/servers.py` names. Takes the same options as `play_server.py`.
"""

import argparse
import signal
import sys
from dataclasses import dataclass

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstApp, GstRtsp, GstRtspServer  # noqa: E402, F401  (GstApp gives appsink its methods)

BYTE_STREAM = "video/x-h264,stream-format=byte-stream,alignment=au"


@dataclass(frozen=True)
class AccessUnit:
    """One coded picture; times in nanoseconds from the first."""

    pts: int
    dts: int
    duration: int
    is_key: bool
    data: bytes


def read_units(path: str) -> list[AccessUnit]:
    pipeline = Gst.parse_launch(
        f"filesrc name=file ! parsebin ! h264parse config-interval=-1 ! {BYTE_STREAM} ! appsink name=sink sync=false"
    )
    pipeline.get_by_name("file").set_property("location", path)
    sink = pipeline.get_by_name("sink")
    pipeline.set_state(Gst.State.PLAYING)
    buffers = []
    while sample := sink.try_pull_sample(5 * Gst.SECOND):
        buffers.append(sample.get_buffer())
    start = min(min(b.pts, b.dts) for b in buffers)
    units = [
        AccessUnit(
            pts=b.pts - start,
            dts=(b.pts if b.dts == Gst.CLOCK_TIME_NONE else b.dts) - start,
            duration=b.duration,
            is_key=not b.has_flags(Gst.BufferFlags.DELTA_UNIT),
            data=b.extract_dup(0, b.get_size()),
        )
        for b in buffers
    ]
    pipeline.set_state(Gst.State.NULL)
    return units


class ClipFactory(GstRtspServer.RTSPMediaFactory):
    """Feeds the units to every stream that is set up; one stream is shared by all viewers."""

    def __init__(self, units: list[AccessUnit], loop: bool, speed: float) -> None:
        super().__init__()
        self._units = units
        self._loop = loop
        self._speed = speed
        self._length = max(u.pts + u.duration for u in units)
        source = f'appsrc name=source is-live=true format=time caps="{BYTE_STREAM}"'
        self.set_launch(f"( {source} ! h264parse ! rtph264pay name=pay0 pt=96 )")
        self.set_shared(True)
        self.connect("media-configure", self._configure)

    def _configure(self, _factory, media):
        state = {"sent": 0}

        def push_next(source, _length):
            laps, index = divmod(state["sent"], len(self._units))
            if laps and not self._loop:
                source.emit("end-of-stream")
                return
            state["sent"] += 1
            source.emit("push-buffer", self._buffer(self._units[index], laps * self._length))

        media.get_element().get_child_by_name("source").connect("need-data", push_next)

    def _buffer(self, unit, shift):
        buffer = Gst.Buffer.new_wrapped(unit.data)
        buffer.pts = int((unit.pts + shift) / self._speed)
        buffer.dts = int((unit.dts + shift) / self._speed)
        buffer.duration = int(unit.duration / self._speed)
        if not unit.is_key:
            buffer.set_flags(Gst.BufferFlags.DELTA_UNIT)
        return buffer


def require_password(server, factory, options) -> None:
    auth, token = GstRtspServer.RTSPAuth(), viewer()
    if options.auth == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(options.user, options.password, token)
    else:
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.BASIC)
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
    server.set_auth(auth)
    let_viewers_in(factory)


def viewer() -> "GstRtspServer.RTSPToken":
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    return token


def let_viewers_in(factory) -> None:
    rights = "viewer,media.factory.access=(boolean)true,media.factory.construct=(boolean)true"
    factory.add_role_from_structure(Gst.Structure.from_string(rights)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="0")
    parser.add_argument("--name", default="clip")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--auth", choices=["basic", "digest"], default="digest")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(options.host)
    server.set_service(options.port)
    # The default of one thread would let a DESCRIBE that waits for its first buffer block everybody else.
    server.get_thread_pool().set_max_threads(-1)
    factory = ClipFactory(read_units(options.file), options.loop, options.speed)
    server.get_mount_points().add_factory(f"/{options.name}", factory)
    if options.user:
        require_password(server, factory, options)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on {options.host}:{options.port}")
    print(f"ready rtsp://{options.host}:{server.get_bound_port()}/{options.name}", flush=True)
    loop = GLib.MainLoop()
    GLib.timeout_add_seconds(2, lambda: (server.get_session_pool().cleanup(), True)[1])
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, loop.quit)
    loop.run()


if __name__ == "__main__":
    main()
