"""What sinks share that send over a network: results wait in a spool on the disk, and a thread of the sink's own sends
them, so that no frame waits for a network. Knows no protocol.
"""

import http.client
import socket
import ssl
import threading
import time
from typing import Generic

import msgspec

from configs.uri import shown_text
from pipeline.addresses import FrameOptions, O, Place
from pipeline.backoff import Backoff
from pipeline.errors import place_of
from pipeline.flow.fates import LOST
from pipeline.flow.messages import SignalChange
from pipeline.flow.results import FrameResult
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.jsonl import frame_line, signal_line
from pipeline.sinks.spool import Spool

ANSWER_SECONDS = 10.0
# How long a sink that is closed may go on sending what waits, where the other side takes it, and where it does not.
CLOSE_SECONDS, AWAY_CLOSE_SECONDS = 10.0, 3.0


class AwayError(Exception):
    """Who takes the results is not there, or takes none for now: why, in one line without secrets. Not to be tried
    again for `after_seconds`."""

    def __init__(self, why: str, after_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.after_seconds = after_seconds


class Whose(msgspec.Struct, frozen=True):
    """Of a line: what it is of."""

    kind: str
    source: str
    seq: int


decode_whose = msgspec.json.Decoder(Whose).decode


class Picked:
    """Which frames are sent, by the options of an address."""

    def __init__(self, options: FrameOptions) -> None:
        self._options = options
        self._last_seconds: dict[str, float] = {}

    def takes(self, frame: FrameResult) -> bool:
        """Each frame is asked for once. A frame without a result is none without objects, so it is sent as well."""
        if self._options.frames == "objects" and (frame.dropped or not (frame.failure or len(frame.objects()))):
            return False
        return is_due(self._last_seconds, frame, self._options.every)

    def forget(self, source_id: str) -> None:
        self._last_seconds.pop(source_id, None)


def is_due(last_seconds: dict[str, float], frame: FrameResult, every_seconds: float) -> bool:
    """Whether so long has passed in the source's own time since the last frame that was due."""
    last = last_seconds.get(frame.source_id)
    if last is not None and last <= frame.pts_seconds < last + every_seconds:
        return False
    last_seconds[frame.source_id] = frame.pts_seconds
    return True


class NetworkSink(Sink, Generic[O]):
    """Puts lines into a spool; `_converse`, on a thread of its own, sends them. Raises OutputError where nothing can be
    spooled; whatever becomes of the network is a warning and a count."""

    def __init__(self, target: Target, place: Place[O], name: str) -> None:
        """`name`: of the spool's folder; no secret."""
        self.place, self._warn = place, target.warn
        self.spool = Spool(target.spool, name, place.identity)
        last_line = self.spool.last_line if target.goes_on else b""
        self._before = decode_whose(last_line) if last_line else None
        self._picked = Picked(place.options)
        self.sent = self._refused = 0
        self._well_since: float | None = None
        self._closing = threading.Event()
        self.until = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"send {name}", daemon=True)

    # -- the output's thread

    def write(self, frame: FrameResult, image_bgr: Image | None = None) -> None:
        if not self._was_told_of(frame) and self._picked.takes(frame):
            self._put(frame_line(frame))
        self._tell()

    def _was_told_of(self, frame: FrameResult) -> bool:
        """Whether an earlier process had put its line here, and was lost before it said so: one line is enough."""
        return frame.dropped == LOST["deliver"] and Whose("frame", frame.source_id, frame.seq) == self._before

    def record(self, signal: SignalChange) -> None:
        self._put(signal_line(signal))

    def end(self, source_id: str) -> None:
        self._picked.forget(source_id)

    def close(self) -> None:
        """What waits is sent if it is taken at once, else left in the spool."""
        if self._closing.is_set():
            return
        seconds = AWAY_CLOSE_SECONDS if self._well_since is None else CLOSE_SECONDS
        self.until = time.monotonic() + seconds
        self._closing.set()
        self._wake()
        self._thread.join(seconds + 1.0)
        left = self.spool.waiting
        self.spool.close()
        self._tell()
        if left:
            where = f"wait in {shown_text(str(self.spool.folder))}, and a run with this address sends them"
            self._warn(f"{self.place.shown}: {left} lines that were not taken {where}")

    def _put(self, line: bytes) -> None:
        self.spool.append(line)
        self._wake()

    def _tell(self) -> None:
        """Of what became of the lines."""
        if self.spool.lost:
            why = "more waits than deliver.spool.megabytes or the disk allows"
            self._warn(f"{self.place.shown}: {why}; the oldest is given up, and counted as missed")
        self.lost = self.spool.lost + self._refused
        counts = {"waiting to be sent": self.spool.waiting, "refused": self._refused}
        self.way = ", ".join(f"{count} lines {what}" for what, count in counts.items() if count)

    def _wake(self) -> None:
        """Whoever sends is to look at the spool."""

    # -- the thread that sends

    def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                self._converse()
                return
            except AwayError as error:
                away = error
            except Exception as error:  # of a library: nothing would be sent any more
                away = AwayError(f"it could not be spoken to ({place_of(error)})")
            self.spool.again()
            self._warn(f"{self.place.shown}: {away}; what is to be sent waits in the spool")
            if self._well_since is not None:
                backoff.went_well_for(time.monotonic() - self._well_since)
                self._well_since = None
            if self._closing.is_set():
                return
            self._closing.wait(max(backoff.next_seconds(time.monotonic()), away.after_seconds))

    def _converse(self) -> None:
        """Send what is in the spool, until the sink is closed. Raises AwayError."""
        raise NotImplementedError

    def goes_well(self) -> None:
        """The other side takes what is sent, from now on."""
        if self._well_since is None:
            self._well_since = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be sent."""
        is_late = time.monotonic() > self.until
        return self._closing.is_set() and (is_late or not self.spool.waiting)


def why(error: Exception) -> str:
    """What went wrong on a network, in words that hold nothing of an address."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message})"
        case ssl.SSLError():
            return f"no TLS with it ({(error.reason or 'failed').lower().replace('_', ' ')})"
        case TimeoutError():
            return "no answer in time"
        case http.client.RemoteDisconnected() | ConnectionResetError() | BrokenPipeError():
            return "it closed the connection"
        case http.client.HTTPException():
            return "its answer is no HTTP"
        case socket.gaierror():
            return "a host of that name is not known"
    return getattr(error, "strerror", None) or "it cannot be reached"
