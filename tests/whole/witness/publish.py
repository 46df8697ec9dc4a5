"""A site of cameras in one process: an RTSP server whose pictures carry the moment they were made as a bar code.

    python -m tests.whole.witness.publish --port 8554 --cameras 8 --rate 10 --sent out/sent.jsonl
    ready rtsp://127.0.0.1:8554                     # and then …/cam0 to …/cam7, TCP and UDP

A picture of camera i has source i and as its number the milliseconds since 1970 when it was due, modulo 2³². So numbers
follow the wall clock: a site that was stopped or killed and begun again goes on where time is. `--sent` appends a line
for each picture made: {"source":0,"number":…}. Behind the code people walk, so that detection has work.

A line on standard input changes one camera, or all with `*`, and is answered by `done` or `refused: …`:

    cam0 rate 200        frames a second, 0.01 to 500
    cam0 gop 100         frames from one key frame to the next
    cam0 size 640x480    in mid-stream, as new parameter sets before a key frame
    cam0 codec h265      or h264; all viewers are hung up on, as by a camera that was set anew
    cam0 frozen on       the same picture again and again, number and all; or off
    cam0 stamps 86400    time stamps leap by so many seconds, from now on; `wrap` lets them pass 2³² in 3 seconds
    * password s3cret    for user `cam`, from now on, or off; all viewers are hung up on
    * hangup now         nothing but that

The end of standard input ends the site. CPU on one core of 2026: 1 ms a frame of 320x240 in H.264, 4 ms in H.265.
"""

import argparse
import base64
import contextlib
import functools
import os
import queue
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from tests.kit.places import CLIP
from tests.kit.rtsp.play_server import CLOCK_HZ, PAYLOAD_BYTES, Connection, _split_nals, rtp_payloads
from tests.whole.witness import barcode

USER = "cam"
VIEWER_UNITS = 64  # what a viewer may be behind before it misses pictures up to a key frame
WRAP_SECONDS = 3.0
LATE_SECONDS = 0.5  # a picture is made so late at most
SCENE_PICTURES = 40
STREET = slice(100, 460), slice(150, 630)  # of the clip's 576 rows and 768 columns: where people are
SETS = {"h264": {7: "sps", 8: "pps"}, "h265": {32: "vps", 33: "sps", 34: "pps"}}
ENCODERS = {
    "h264": ("libx264", "x264-params", "scenecut=0:repeat-headers=1:sliced-threads=0"),
    "h265": ("libx265", "x265-params", "scenecut=0:repeat-headers=1:log-level=none"),
}


@dataclass(frozen=True)
class Look:
    """What a camera is set to."""

    rate: float = 10.0
    gop: int = 10
    width: int = 320
    height: int = 240
    codec: str = "h264"
    frozen: bool = False
    stamps: float = 0.0  # seconds added to the time stamps

    @property
    def form(self) -> tuple[object, ...]:
        """What an encoder cannot change."""
        return self.codec, self.width, self.height, self.gop


@dataclass(frozen=True)
class Unit:
    """One coded picture."""

    nals: list[bytes]
    is_key: bool
    stamp_seconds: float
    codec: str


@functools.lru_cache
def scene(width: int, height: int) -> list[NDArray[np.uint8]]:
    """People on a street, (height, width, 3) BGR."""
    with av.open(str(CLIP)) as clip:
        frames = [frame for i, frame in enumerate(clip.decode(video=0)) if i < 2 * SCENE_PICTURES and i % 2 == 0]
    streets = [frame.to_ndarray(format="bgr24")[STREET] for frame in frames]
    return [cv2.resize(street, (width, height), interpolation=cv2.INTER_AREA) for street in streets]


class Encoder:
    """Pictures to coded units; one for each codec, size and GOP."""

    def __init__(self, look: Look) -> None:
        name, key, parameters = ENCODERS[look.codec]
        self._codec = av.CodecContext.create(name, "w")
        self._codec.width, self._codec.height, self._codec.pix_fmt = look.width, look.height, "yuv420p"
        self._codec.time_base, self._codec.framerate = Fraction(1, 1000), Fraction(25)
        self._codec.thread_count, self._codec.gop_size = 1, look.gop
        # The least distance of key frames as well, or x264 would begin a GOP of its own.
        parameters += f":keyint={look.gop}:min-keyint={look.gop}"
        self._codec.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "28", key: parameters}
        self._count = 0

    def encode(self, picture_bgr: NDArray[np.uint8]) -> tuple[list[bytes], bool]:
        """NAL units, and whether it is a key frame."""
        frame = av.VideoFrame.from_ndarray(picture_bgr, "bgr24").reformat(format="yuv420p")
        frame.pts, frame.time_base = 40 * self._count, Fraction(1, 1000)
        self._count += 1
        packets = self._codec.encode(frame)
        return _split_nals(b"".join(map(bytes, packets))), any(packet.is_keyframe for packet in packets)


class Viewer:
    """What is on its way to one client; one that is too slow misses pictures up to the next key frame."""

    def __init__(self) -> None:
        self._units: queue.Queue[Unit | None] = queue.Queue(VIEWER_UNITS)
        self._misses = False

    def offer(self, unit: Unit) -> None:
        if self._misses and not unit.is_key:
            return
        try:
            self._units.put_nowait(unit)
            self._misses = False
        except queue.Full:
            self._misses = True

    def hang_up(self) -> None:
        with self._units.mutex:
            self._units.queue.clear()
        self._units.put(None)

    def next(self) -> Unit | None:
        """Raises queue.Empty when there is nothing for a while; None is the end."""
        return self._units.get(timeout=0.2)


class Camera(threading.Thread):
    """Makes pictures at their time, whether or not somebody looks."""

    def __init__(self, source: int, look: Look, sent: int | None) -> None:
        super().__init__(name=f"cam{source}", daemon=True)
        self.look = look
        self._changed = threading.Event()
        self._encoded: Look | None = None
        self._source = source
        self._sent = sent
        self._viewers: frozenset[Viewer] = frozenset()
        self._frozen_number = 0
        self._follow(look)

    def run(self) -> None:
        last = 0.0
        while True:
            look = self.look
            self._follow(look)
            due = next_due(look.rate, last)
            self._changed.wait(max(0.0, due - time.time()))
            self._changed.clear()
            if look == self.look:
                last = due
                self._make(look, round(due * 1000))

    def set(self, look: Look) -> None:
        """Returns when who comes now sees the new look."""
        self.look = look
        self._changed.set()
        while self._encoded != look:
            time.sleep(0.002)

    def join_viewer(self) -> Viewer:
        viewer = Viewer()
        self._viewers = self._viewers | {viewer}
        return viewer

    def leave_viewer(self, viewer: Viewer) -> None:
        self._viewers = self._viewers - {viewer}

    def hang_up(self) -> None:
        for viewer in self._viewers:
            viewer.hang_up()

    def sdp(self) -> list[str]:
        """The lines that describe the stream."""
        assert self._encoded is not None
        codec = self._encoded.codec
        coded = {name: base64.b64encode(nal).decode() for name, nal in self._sets.items()}
        if codec == "h264":
            format = f"packetization-mode=1;sprop-parameter-sets={coded['sps']},{coded['pps']}"
        else:
            format = ";".join(f"sprop-{name}={text}" for name, text in coded.items())
        return [
            "m=video 0 RTP/AVP 96",
            f"a=rtpmap:96 {codec.upper()}/{CLOCK_HZ}",
            f"a=fmtp:96 {format}",
            f"a=framerate:{self.look.rate:g}",
        ]

    def _make(self, look: Look, number: int) -> None:
        if not look.frozen:
            self._frozen_number = number
        shown = self._frozen_number
        pictures = scene(look.width, look.height)
        picture = pictures[shown // 100 % len(pictures)].copy()
        barcode.draw(picture, self._source, shown % 2**32)
        nals, is_key = self._encoder.encode(picture)
        if self._sent is not None:
            os.write(self._sent, b'{"source":%d,"number":%d}\n' % (self._source, shown % 2**32))
        unit = Unit(nals, is_key, number / 1000 + look.stamps, look.codec)
        for viewer in self._viewers:
            viewer.offer(unit)

    def _follow(self, look: Look) -> None:
        """Another encoder where the pictures are to have another form."""
        before = self._encoded
        if before is None or before.form != look.form:
            scene(look.width, look.height)  # made here, where cameras come one after the other
            self._sets = parameter_sets(look)
            self._encoder = Encoder(look)
        if before is not None and before.codec != look.codec:
            self.hang_up()
        self._encoded = look


def next_due(rate: float, last: float) -> float:
    """The moment on the grid of `rate` that comes after `last` (Unix seconds); what was slept through is left out."""
    now = time.time()
    newest = int(now * rate)
    if now - newest / rate > LATE_SECONDS:
        newest += 1
    return max(int(last * rate + 1e-3) + 1, newest) / rate


def parameter_sets(look: Look) -> dict[str, bytes]:
    """What a player must know before the first picture."""
    kinds = SETS[look.codec]
    nals, _ = Encoder(look).encode(np.zeros((look.height, look.width, 3), np.uint8))
    return {kinds[kind]: nal for nal in nals if (kind := nal_kind(nal, look.codec)) in kinds}


def nal_kind(nal: bytes, codec: str) -> int:
    return nal[0] & 31 if codec == "h264" else nal[0] >> 1 & 63


def h265_payloads(nal: bytes) -> Iterator[bytes]:
    """The NAL unit whole, or in fragments (RFC 7798, section 4.4.3)."""
    if len(nal) <= PAYLOAD_BYTES:
        yield nal
        return
    header, kind, body = bytes([nal[0] & 0x81 | 49 << 1, nal[1]]), nal[0] >> 1 & 63, nal[2:]
    pieces = [body[i : i + PAYLOAD_BYTES - 3] for i in range(0, len(body), PAYLOAD_BYTES - 3)]
    for i, piece in enumerate(pieces):
        start, end = i == 0, i == len(pieces) - 1
        yield header + bytes([start << 7 | end << 6 | kind]) + piece


class Site(socketserver.ThreadingTCPServer):
    """All cameras behind one port; `options` is what a `Connection` asks of its server."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__((options.host, options.port), CameraConnection)
        self.options = options
        sent = os.open(options.sent, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if options.sent else None
        look = changed(Look(rate=options.rate, gop=options.gop), "size", options.size)
        self.cameras = {f"cam{i}": Camera(i, look, sent) for i in range(options.cameras)}

    def obey(self, line: str) -> None:
        """Raises ValueError with one line for what is no command."""
        words = line.split()
        if len(words) != 3:
            raise ValueError(f"got {line.strip()!r}; give CAMERA WORD VALUE")
        name, word, value = words
        if name != "*" and name not in self.cameras:
            raise ValueError(f"there is no camera {name}; there are {', '.join(self.cameras)}, and *")
        for camera in self.cameras.values() if name == "*" else [self.cameras[name]]:
            if word == "password":
                self.options.user, self.options.password = (None, None) if value == "off" else (USER, value)
            if word in ("password", "hangup"):
                camera.hang_up()
            else:
                camera.set(changed(camera.look, word, value))


def changed(look: Look, word: str, value: str) -> Look:
    """`look` with one thing changed. Raises ValueError."""
    match word:
        case "rate" if 0.01 <= float(value) <= 500:
            return replace(look, rate=float(value))
        case "gop" if int(value) > 0:
            return replace(look, gop=int(value))
        case "size":
            width, height = map(int, value.split("x"))
            return replace(look, width=width, height=height)
        case "codec" if value in ENCODERS:
            return replace(look, codec=value)
        case "frozen" if value in ("on", "off"):
            return replace(look, frozen=value == "on")
        case "stamps":
            return replace(look, stamps=seconds_to_wrap(look) if value == "wrap" else look.stamps + float(value))
    raise ValueError(f"got {word} {value}; allowed are rate, gop, size, codec, frozen, stamps, password, hangup")


def seconds_to_wrap(look: Look) -> float:
    """What to add to the time stamps so that they pass 2³² ticks in WRAP_SECONDS."""
    lap = 2**32 / CLOCK_HZ
    return lap - (time.time() + WRAP_SECONDS) % lap


class CameraConnection(Connection):
    """One client of one camera."""

    server: Site  # type: ignore[assignment]

    def setup(self) -> None:
        super().setup()
        self._sequence = int.from_bytes(os.urandom(2), "big")
        self._ssrc = int.from_bytes(os.urandom(4), "big")

    def _serves(self, path: str) -> bool:
        self._camera = self.server.cameras.get(path)
        return self._camera is not None

    def _beginning(self, url: str) -> dict[str, str]:
        return {"Range": "npt=now-"}

    def _sdp(self) -> str:
        head = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=site", "c=IN IP4 0.0.0.0", "t=0 0"]
        return "\r\n".join([*head, *self._camera.sdp(), "a=control:track1"]) + "\r\n"

    def _play(self) -> None:
        viewer = self._camera.join_viewer()
        try:
            while not self._gone.is_set():
                try:
                    unit = viewer.next()
                except queue.Empty:
                    continue
                if unit is None:
                    self._hang_up()
                    return
                self._send_unit(unit)
        finally:
            self._camera.leave_viewer(viewer)

    def _send(self, packet: bytes, control: bool) -> None:
        with contextlib.suppress(PermissionError):  # dropped by a firewall here: lost, as on a wire
            super()._send(packet, control)

    def _send_unit(self, unit: Unit) -> None:
        cut = rtp_payloads if unit.codec == "h264" else h265_payloads
        payloads = [payload for nal in unit.nals for payload in cut(nal)]
        for i, payload in enumerate(payloads):
            self._send_rtp(payload, unit.stamp_seconds, marker=i == len(payloads) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cameras", type=int, default=1)
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--gop", type=int, default=10)
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--sent", help="append what was sent to this file")
    options = parser.parse_args()
    options.user = options.password = None
    options.auth = "digest"
    with Site(options) as site:
        for camera in site.cameras.values():
            camera.start()
        threading.Thread(target=site.serve_forever, daemon=True).start()
        print(f"ready rtsp://{options.host}:{site.server_address[1]}", flush=True)
        for line in sys.stdin:
            try:
                site.obey(line)
                print("done", flush=True)
            except ValueError as error:
                print(f"refused: {error}", flush=True)
        os._exit(0)  # threads in the middle of a write to a client that stands still are not waited for


if __name__ == "__main__":
    main()
