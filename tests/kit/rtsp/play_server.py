"""A small RTSP server for tests that needs nothing but Python and PyAV.

Every PLAY sends one H.264 file from its first frame to its last (or for ever with --loop), then says BYE and hangs up.
TCP and UDP (RFC 2326), H.264 over RTP (RFC 6184: single NAL units and FU-A), basic and digest passwords (RFC 2617).

    python tests/kit/rtsp/play_server.py --file clip.mp4 --user cam --password s3cret --auth digest
    ready rtsp://127.0.0.1:41873/clip
"""

import argparse
import base64
import contextlib
import hashlib
import itertools
import re
import signal
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import cast

import av
from av.bitstream import BitStreamFilterContext
from av.video.stream import VideoStream

PAYLOAD_BYTES = 1400  # of an RTP packet, so that it fits an Ethernet frame
CLOCK_HZ = 90_000
LINGER_SECONDS = 0.3
REALM, NONCE = "tests", "0123456789abcdef"
SPS, PPS, FU_A = 7, 8, 28
NTP_OF_1970 = 2_208_988_800
EVER = 1 << 60


@dataclass(frozen=True)
class Clip:
    """The access units of a file as (dts_seconds, pts_seconds, NAL units)."""

    units: list[tuple[float, float, list[bytes]]]
    parameter_sets: list[bytes]
    frames_per_second: float

    @classmethod
    def read(cls, path: str) -> "Clip":
        units = []
        with av.open(path) as container:
            stream = container.streams.video[0]
            for packet in _annex_b_packets(container, stream):
                dts, pts = (float((stamp or 0) * stream.time_base) for stamp in (packet.dts, packet.pts))
                units.append((dts, pts, _split_nals(bytes(packet))))
            rate = float(stream.average_rate or 25)
        first = units[0][2]
        sets = [nal for kind in (SPS, PPS) for nal in first if nal[0] & 31 == kind]
        start = units[0][0]
        return cls([(dts - start, pts - start, nals) for dts, pts, nals in units], sets, rate)


def _annex_b_packets(container: av.container.InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    to_annex_b = BitStreamFilterContext("h264_mp4toannexb", stream)
    for packet in container.demux(stream):
        if packet.size:
            yield from to_annex_b.filter(packet)


def _split_nals(annex_b: bytes) -> list[bytes]:
    return [nal for nal in re.split(rb"\x00{2,3}\x01", annex_b) if nal]


def rtp_payloads(nal: bytes) -> Iterator[bytes]:
    """The NAL unit whole, or in fragments (RFC 6184, section 5.8)."""
    if len(nal) <= PAYLOAD_BYTES:
        yield nal
        return
    indicator, kind, body = nal[0] & 0xE0 | FU_A, nal[0] & 31, nal[1:]
    pieces = [body[i : i + PAYLOAD_BYTES - 2] for i in range(0, len(body), PAYLOAD_BYTES - 2)]
    for i, piece in enumerate(pieces):
        start, end = i == 0, i == len(pieces) - 1
        yield bytes([indicator, start << 7 | end << 6 | kind]) + piece


class Server(socketserver.ThreadingTCPServer):
    """Holds what every connection needs."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__((options.host, options.port), Connection)
        self.options = options
        self.clip = Clip.read(options.file)


class Connection(socketserver.StreamRequestHandler):
    """One client: requests are answered here while a thread plays."""

    server: Server

    def setup(self) -> None:
        super().setup()
        self._write_lock = threading.Lock()
        self._gone = threading.Event()
        self._ssrc = 0x5EED
        self._sequence = 0
        self._udp: socket.socket | None = None
        self._channel = 0

    def handle(self) -> None:
        while request := self._read_request():
            method, url, headers = request
            if not self._answer(method, url, headers):
                break
        self._gone.set()

    def _read_request(self) -> tuple[str, str, dict[str, str]] | None:
        """Also skips the RTCP reports that a TCP client sends between its requests."""
        try:
            while (first := self.rfile.read(1)) == b"$":
                self.rfile.read(struct.unpack("!xH", self.rfile.read(3))[0])
            line = (first + self.rfile.readline()).decode()
            if not line.strip():
                return None
            headers = {}
            while header := self.rfile.readline().decode().strip():
                name, _, value = header.partition(":")
                headers[name.lower()] = value.strip()
        except (OSError, struct.error):
            return None
        method, url, _ = line.split()
        return method, url, headers

    def _answer(self, method: str, url: str, headers: dict[str, str]) -> bool:
        """Reply; false when the connection is to end."""
        sequence = headers.get("cseq", "0")
        path = url.split("/", 3)[-1].rstrip("/").removesuffix("/track1")
        if not self._may_enter(method, headers):
            self._reply(sequence, "401 Unauthorized", {"WWW-Authenticate": self._challenge()})
        elif method == "OPTIONS":
            self._reply(sequence, "200 OK", {"Public": "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER"})
        elif not self._serves(path):
            self._reply(sequence, "404 Not Found", {})
        elif method == "DESCRIBE":
            self._reply(sequence, "200 OK", {"Content-Base": url + "/", "Content-Type": "application/sdp"}, self._sdp())
        elif method == "SETUP":
            transport = self._set_up(headers["transport"])
            self._reply(sequence, "200 OK", {"Transport": transport, "Session": "1"})
        elif method == "PLAY":
            self._reply(sequence, "200 OK", {"Session": "1", **self._beginning(url)})
            threading.Thread(target=self._play, daemon=True).start()
        else:
            self._reply(sequence, "200 OK", {"Session": "1"})
        return method != "TEARDOWN"

    def _serves(self, path: str) -> bool:
        return path == self.server.options.name

    def _beginning(self, url: str) -> dict[str, str]:
        return {"Range": "npt=0-", "RTP-Info": f"url={url.rstrip('/')}/track1;seq=0;rtptime=0"}

    def _reply(self, sequence: str, status: str, headers: dict[str, str], body: str = "") -> None:
        fields = {"CSeq": sequence, **headers, "Content-Length": str(len(body))}
        lines = [f"RTSP/1.0 {status}", *(f"{name}: {value}" for name, value in fields.items()), "", body]
        self._write("\r\n".join(lines).encode())

    def _write(self, data: bytes) -> None:
        with self._write_lock:
            try:
                self.wfile.write(data)
            except OSError:
                self._gone.set()

    def _challenge(self) -> str:
        if self.server.options.auth == "basic":
            return f'Basic realm="{REALM}"'
        return f'Digest realm="{REALM}", nonce="{NONCE}"'

    def _may_enter(self, method: str, headers: dict[str, str]) -> bool:
        options = self.server.options
        if not options.user or method == "OPTIONS":
            return True
        scheme, _, rest = headers.get("authorization", "").partition(" ")
        if options.auth == "basic":
            return scheme == "Basic" and base64.b64decode(rest).decode() == f"{options.user}:{options.password}"
        given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        secret = _md5(f"{options.user}:{REALM}:{options.password}")
        return given.get("response") == _md5(f"{secret}:{NONCE}:{_md5(method + ':' + given.get('uri', ''))}")

    def _sdp(self) -> str:
        sets = ",".join(base64.b64encode(nal).decode() for nal in self.server.clip.parameter_sets)
        lines = [
            "v=0",
            "o=- 0 0 IN IP4 127.0.0.1",
            "s=test clip",
            "c=IN IP4 0.0.0.0",
            "t=0 0",
            "m=video 0 RTP/AVP 96",
            f"a=rtpmap:96 H264/{CLOCK_HZ}",
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}",
            f"a=framerate:{self.server.clip.frames_per_second:g}",
            "a=control:track1",
        ]
        return "\r\n".join(lines) + "\r\n"

    def _set_up(self, transport: str) -> str:
        if "TCP" in transport:
            self._channel = int(cast("re.Match[str]", re.search(r"interleaved=(\d+)", transport))[1])
            return f"RTP/AVP/TCP;unicast;interleaved={self._channel}-{self._channel + 1}"
        client_port = int(cast("re.Match[str]", re.search(r"client_port=(\d+)", transport))[1])
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((self.server.options.host, 0))
        self._client = self.client_address[0], client_port
        port = self._udp.getsockname()[1]
        return f"RTP/AVP;unicast;client_port={client_port}-{client_port + 1};server_port={port}-{port + 1}"

    def _play(self) -> None:
        start = time.monotonic()
        for number, (dts_seconds, pts_seconds, nals) in enumerate(self._units()):
            wait = start + dts_seconds / self.server.options.speed - time.monotonic()
            if self._gone.wait(max(0.0, wait)):
                return
            if self.server.options.clock_ahead is not None:
                self._report(pts_seconds)
            if number >= self.server.options.sound_frames:
                nals = [nal[:1] + bytes(len(nal) - 1) for nal in nals]
            payloads = [payload for nal in nals for payload in rtp_payloads(nal)]
            for i, payload in enumerate(payloads):
                self._send_rtp(payload, pts_seconds, marker=i == len(payloads) - 1)
        self._hang_up()

    def _units(self) -> Iterator[tuple[float, float, list[bytes]]]:
        clip = self.server.clip
        for lap in itertools.count() if self.server.options.loop else [0]:
            shift = lap * len(clip.units) / clip.frames_per_second
            for dts_seconds, pts_seconds, nals in clip.units:
                yield dts_seconds + shift, pts_seconds + shift, nals

    def _send_rtp(self, payload: bytes, pts_seconds: float, marker: bool) -> None:
        stamp = round(pts_seconds * CLOCK_HZ) & 0xFFFFFFFF
        header = struct.pack("!BBHII", 0x80, marker << 7 | 96, self._sequence & 0xFFFF, stamp, self._ssrc)
        self._sequence += 1
        self._send(header + payload, control=False)

    def _report(self, pts_seconds: float) -> None:
        """RTCP sender report (RFC 3550, section 6.4.1): the time now, by a clock that may be wrong."""
        ntp = round((time.time() + self.server.options.clock_ahead + NTP_OF_1970) * 2**32)
        stamp = round(pts_seconds * CLOCK_HZ) & 0xFFFFFFFF
        self._send(struct.pack("!BBHIQIII", 0x80, 200, 6, self._ssrc, ntp, stamp, 0, 0), control=True)

    def _send(self, packet: bytes, control: bool) -> None:
        if self._udp is None:
            self._write(struct.pack("!cBH", b"$", self._channel + control, len(packet)) + packet)
        else:
            self._udp.sendto(packet, (self._client[0], self._client[1] + control))

    def _hang_up(self) -> None:
        """RTCP receiver report and BYE (RFC 3550, section 6.6), then the end of the connection."""
        self._gone.wait(LINGER_SECONDS)  # over UDP, BYE must not overtake the last frame
        report = struct.pack("!BBHI", 0x80, 201, 1, self._ssrc)
        self._send(report + struct.pack("!BBHI", 0x81, 203, 1, self._ssrc), control=True)
        self._gone.wait(LINGER_SECONDS)
        with contextlib.suppress(OSError):  # the client was quicker
            self.request.shutdown(socket.SHUT_RDWR)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="clip")
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--loop", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--auth", choices=["basic", "digest"], default="digest")
    parser.add_argument("--clock-ahead", type=float, help="tell the time, so many seconds wrong")
    parser.add_argument("--sound-frames", type=int, default=EVER, help="what comes after them is no video")
    with Server(parser.parse_args()) as server:
        signal.signal(signal.SIGTERM, _stop)
        print(f"ready rtsp://{server.options.host}:{server.server_address[1]}/{server.options.name}", flush=True)
        server.serve_forever()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
