#!/usr/bin/python3
"""Debian's gst-rtsp-server as a server to publish to: what is recorded at /NAME is played at /live/NAME as it came.

    /usr/bin/python3 tests/kit/rtsp/gst_relay.py --name gate --user cam --password s3cret --auth digest
    ready rtsp://127.0.0.1:41873/gate

With --certificate it speaks TLS, and the address begins with rtsps. Needs what `tests/kit/servers.py` names.
"""

import argparse
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstApp, GstRtspServer  # noqa: E402, F401  (GstApp gives appsink its methods)

sys.path.insert(0, __file__.rpartition("/")[0])
from gst_server import BYTE_STREAM, let_viewers_in, require_password, viewer  # noqa: E402


class Relay:
    """Access units from who publishes to the pipeline that plays, from a key frame on."""

    def __init__(self) -> None:
        self._source = None
        self._shift = None

    def play_to(self, _factory, media) -> None:
        self._source, self._shift = media.get_element().get_child_by_name("source"), None
        media.connect("unprepared", self._stop)

    def _stop(self, _media) -> None:
        self._source = None

    def take_from(self, _factory, media) -> None:
        media.get_element().get_parent().connect("deep-element-added", self._keep_times)
        media.get_element().get_child_by_name("sink").connect("new-sample", self._relay)

    def _keep_times(self, _pipeline, _bin, element) -> None:
        """As they were sent, whenever the packets came: on a busy machine the jitter buffer would move them."""
        if element.get_factory().get_name() == "rtpbin":
            element.set_property("buffer-mode", 0)

    def _relay(self, sink) -> Gst.FlowReturn:
        taken = sink.emit("pull-sample").get_buffer()
        source = self._source
        is_key = not taken.has_flags(Gst.BufferFlags.DELTA_UNIT)
        if source is None or (self._shift is None and not is_key):
            return Gst.FlowReturn.OK
        if self._shift is None:
            self._shift = source.get_current_running_time() - taken.pts
        given = Gst.Buffer.new_wrapped(taken.extract_dup(0, taken.get_size()))
        given.pts = given.dts = max(0, taken.pts + self._shift)
        if not is_key:
            given.set_flags(Gst.BufferFlags.DELTA_UNIT)
        source.emit("push-buffer", given)
        return Gst.FlowReturn.OK


def factories(relay: Relay) -> "list[GstRtspServer.RTSPMediaFactory]":
    """Who takes and who plays."""
    taker, player = GstRtspServer.RTSPMediaFactory(), GstRtspServer.RTSPMediaFactory()
    taker.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    parsed = f"rtph264depay name=depay0 ! h264parse config-interval=-1 ! {BYTE_STREAM}"
    taker.set_launch(f"( {parsed} ! appsink name=sink sync=false emit-signals=true )")
    taker.connect("media-configure", relay.take_from)
    source = f'appsrc name=source is-live=true format=time caps="{BYTE_STREAM}"'
    player.set_launch(f"( {source} ! h264parse ! rtph264pay name=pay0 pt=96 )")
    player.set_shared(True)
    player.connect("media-configure", relay.play_to)
    return [taker, player]


def speak_tls(server, options) -> None:
    auth = server.get_auth() or GstRtspServer.RTSPAuth()
    auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(options.certificate))
    if not options.user:
        auth.set_default_token(viewer())
    server.set_auth(auth)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="0")
    parser.add_argument("--name", default="clip")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--auth", choices=["basic", "digest"], default="digest")
    parser.add_argument("--certificate", help="a PEM file with a certificate and its key")
    options = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(options.host)
    server.set_service(options.port)
    server.get_thread_pool().set_max_threads(-1)
    for path, factory in zip((f"/{options.name}", f"/live/{options.name}"), factories(Relay()), strict=True):
        server.get_mount_points().add_factory(path, factory)
        if options.user:
            require_password(server, factory, options)
        elif options.certificate:
            let_viewers_in(factory)
    if options.certificate:
        speak_tls(server, options)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on {options.host}:{options.port}")
    scheme = "rtsps" if options.certificate else "rtsp"
    print(f"ready {scheme}://{options.host}:{server.get_bound_port()}/{options.name}", flush=True)
    loop = GLib.MainLoop()
    GLib.timeout_add_seconds(2, lambda: (server.get_session_pool().cleanup(), True)[1])
    for number in (signal.SIGINT, signal.SIGTERM):
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, number, loop.quit)
    loop.run()


if __name__ == "__main__":
    main()
