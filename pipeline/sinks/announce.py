"""An RTSP session that gives a server a stream: ANNOUNCE, SETUP and RECORD over TCP, or TLS for rtsps, then the
stream's packets on the same connection (RFC 2326).

FFmpeg's RTSP muxer does the same, but PyAV holds Python's lock while that waits for a server: one that is silent would
stop every thread of the process. Here opening waits for `ANSWER_SECONDS` at most, and what is sent waits for nothing.
Knows no picture and no codec.
"""

import re
import socket
import ssl
import time
from contextlib import suppress
from email.message import Message
from email.parser import BytesHeaderParser
from urllib.parse import quote, unquote

from configs.uri import Network
from pipeline.sinks import password

ANSWER_SECONDS = 5.0
STALL_SECONDS = 5.0  # a server that takes nothing for so long has hung
CLOSE_SECONDS = 1.0
_PORTS = {"rtsp": 554, "rtsps": 322}
# Of the system's own queue: what lies in it is late.
_SEND_BUFFER_BYTES = 1 << 19
_PIECE_BYTES = 1 << 16
_LONGEST_ANSWER_BYTES = 1 << 16
_WOULD_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_WORDS = {
    401: "refuses the user or password: put user:password@ before the host in the address",
    403: "is forbidden to this user",
    404: "does not exist: the server knows no such path",
    405: "takes no stream: the server only plays there",
    501: "takes no stream: the server only plays",
}


class SessionError(Exception):
    """Why there is no session, or none any longer; in words that hold nothing of the address."""


class Session:
    """A stream on its way to a server. One thread at a time.

    Raises SessionError where the server cannot be reached, does not answer in time, or refuses.
    """

    def __init__(self, network: Network, description: str) -> None:
        """`description` is of one stream, with the control name `streamid=0` (SDP, RFC 8866)."""
        self._network = network
        self._url = _url(network)
        user, _, secret = network.user_and_password.partition(":")
        self._user, self._password, self._challenge = unquote(user), unquote(secret), ""
        self._session_id, self._requests = "", 0
        self._received, self._pending = bytearray(), bytearray()
        self._moved_at = 0.0
        self._deadline = time.monotonic() + ANSWER_SECONDS
        try:
            self._socket = self._connect()
            self._begin(description)
        except TimeoutError:
            raise SessionError(f"did not answer within {ANSWER_SECONDS:g} s") from None
        except OSError as error:
            raise SessionError(f"cannot be reached: {_reason(error)}") from None
        except ValueError:  # a host that cannot be a name
            raise SessionError("names no host that can be looked up") from None

    # -- opening

    def _connect(self) -> socket.socket:
        host = unquote(self._network.host.strip("[]"))
        port = int(self._network.port[1:] or _PORTS[self._network.scheme])
        connection = socket.create_connection((host, port), self._remaining_seconds())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._network.scheme != "rtsps":
            return connection
        try:
            connection.settimeout(self._remaining_seconds())
            return ssl.create_default_context().wrap_socket(connection, server_hostname=host)
        except BaseException:
            connection.close()
            raise

    def _begin(self, description: str) -> None:
        try:
            self._ask("ANNOUNCE", self._url, {"Content-Type": "application/sdp"}, description)
            transport = {"Transport": "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"}
            answer = self._ask("SETUP", f"{self._url}/streamid=0", transport)
            self._session_id = answer.get("Session", "").partition(";")[0].strip()
            self._ask("RECORD", self._url, {"Range": "npt=0.000-"})
            self._socket.setblocking(False)
        except BaseException:
            self.abort()
            raise

    def _ask(self, method: str, url: str, headers: dict[str, str], body: str = "") -> Message:
        """The answer's header; asked again with the password where the server wants one."""
        for _ in range(2):
            self._socket.settimeout(self._remaining_seconds())
            self._socket.sendall(self._request(method, url, headers, body))
            status, answer = self._answer()
            if status != 401 or not self._user:
                break
            self._challenge = password.choose(answer.get_all("WWW-Authenticate", []))
        if not 200 <= status < 300:
            raise SessionError(_WORDS.get(status, f"refuses {method} with status {status}"))
        return answer

    def _request(self, method: str, url: str, headers: dict[str, str], body: str = "") -> bytes:
        self._requests += 1
        fields = {"CSeq": str(self._requests), "User-Agent": "CenterStream", **headers}
        if self._session_id:
            fields["Session"] = self._session_id
        if self._challenge:
            who = self._user, self._password, self._requests
            fields["Authorization"] = password.answer(self._challenge, method, url, *who)
        if body:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {url} RTSP/1.0", *(f"{name}: {value}" for name, value in fields.items()), "", body]
        return "\r\n".join(lines).encode()

    def _answer(self) -> tuple[int, Message]:
        """Status and header; the body is left out."""
        while b"\r\n\r\n" not in self._received and b"RTSP/".startswith(self._received[:5]):
            self._receive()
        header, _, rest = bytes(self._received).partition(b"\r\n\r\n")
        line, _, fields = header.partition(b"\r\n")
        status = re.fullmatch(rb"RTSP/\d\.\d (\d{3})\b.*", line)
        if not status:
            raise SessionError("is no RTSP server: it answers in another way")
        answer = BytesHeaderParser().parsebytes(fields)
        length = int(answer["Content-Length"]) if str(answer["Content-Length"]).isdecimal() else 0
        self._received[:] = rest
        while len(self._received) < length:
            self._receive()
        del self._received[:length]
        return int(status[1]), answer

    def _receive(self) -> None:
        self._socket.settimeout(self._remaining_seconds())
        data = self._socket.recv(_PIECE_BYTES)
        self._received += data
        if not data:
            raise SessionError("ended the connection in place of an answer")
        if len(self._received) > _LONGEST_ANSWER_BYTES:
            raise SessionError("is no RTSP server: its answer has no end")

    def _remaining_seconds(self) -> float:
        remaining_seconds = self._deadline - time.monotonic()
        if remaining_seconds <= 0:
            raise TimeoutError
        return remaining_seconds

    # -- while it lasts

    def is_ready(self) -> bool:
        """Whether all that was sent is on its way. Raises SessionError where the server ended it, or hangs."""
        try:
            self._read_away()
            self._push()
        except OSError as error:
            raise SessionError(f"was lost: {_reason(error)}") from None
        if self._pending and time.monotonic() - self._moved_at > STALL_SECONDS:
            raise SessionError(f"was lost: it has taken nothing for {STALL_SECONDS:g} s")
        return not self._pending

    def send(self, packets: bytes) -> None:
        """What the connection does not take now waits here. Raises as `is_ready`, which is to be true before."""
        self._moved_at = time.monotonic()
        self._pending += packets
        self.is_ready()

    def _read_away(self) -> None:
        """Reports on how the stream is received: left unread, they would stop the server."""
        with suppress(*_WOULD_WAIT):
            while self._socket.recv(_PIECE_BYTES):
                pass
            raise SessionError("was lost: the server ended the connection")

    def _push(self) -> None:
        with suppress(*_WOULD_WAIT):
            while self._pending:
                sent = self._socket.send(bytes(self._pending[:_PIECE_BYTES]))
                del self._pending[:sent]
                self._moved_at = time.monotonic()

    def close(self) -> None:
        """Says that the stream is over, and waits a moment for the server to hear it."""
        self._deadline = time.monotonic() + CLOSE_SECONDS
        with suppress(OSError):
            self._socket.settimeout(self._remaining_seconds())
            self._socket.sendall(bytes(self._pending) + self._request("TEARDOWN", self._url, {}))
            self._socket.shutdown(socket.SHUT_WR)
            while self._socket.recv(_PIECE_BYTES):
                self._socket.settimeout(self._remaining_seconds())
        self.abort()

    def abort(self) -> None:
        """At once; what was not sent never will be."""
        self._socket.close()


def _url(network: Network) -> str:
    """As requests have it: without user and password."""
    tail = quote(network.tail, safe="/?&=;:@%+,!$'()*~#")
    return f"{network.scheme}://{network.host}{network.port}{tail}".rstrip("/")


def _reason(error: OSError) -> str:
    match error:
        case ConnectionRefusedError():
            return "it refuses the connection; check host and port, and that the server runs"
        case socket.gaierror():
            return "no host of this name is known"
        case ssl.SSLCertVerificationError():
            how = "a file of certificates named by SSL_CERT_FILE in the environment is trusted, too"
            return f"its certificate is not trusted ({error.verify_message}); {how}"
        case ssl.SSLError():
            return f"TLS failed ({error.reason or 'the handshake was ended'})"
    return error.strerror or type(error).__name__
