"""Reads a container on a thread of its own, because a network, a name server or a camera driver may block for ever.

The thread opens and demuxes; whoever wants packets waits in short steps, looks at a stop flag, and decides alone when
the source is lost. A thread that hangs in a dead connection is left behind, and lets go when its read gives up.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.sources.address import Address
from pipeline.sources.container import (
    duration_seconds,
    has_time_stamps,
    no_answer,
    open_container,
    read_failure,
    read_packets,
    stamp_of,
)

WAIT_SECONDS = 0.1
LATE_SECONDS = 2.0  # packets that waited longer are left out, up to a key frame: age must not grow
KEY_FRAME_SECONDS = 20.0  # no camera is waited for longer than this to send one
AHEAD_PACKETS = 64  # of a file on a server, which can wait


class LiveReader:
    """An open container whose packets arrive by themselves. While the thread lives, only it touches the container."""

    stream: VideoStream
    duration_seconds: float | None
    has_time_stamps: bool

    def __init__(self, address: Address, settings: SourceSettings, stopped: Callable[[], bool]) -> None:
        """Raises SourceError, at the latest `open_timeout_seconds` and a little later."""
        self.failure: str | None = None
        self.skipped_packets = 0
        self.is_live = True
        self._address = address
        self._settings = settings
        self._changed = threading.Condition()
        self._waiting: deque[Packet] = deque()
        self._opened = False
        self._ended = False
        self._closing = False
        self._refused: Exception | None = None
        self._container: InputContainer | None = None
        self._key_frame_deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="source reader", daemon=True)
        self._thread.start()
        self._wait_open(stopped)

    def packets(self, stopped: Callable[[], bool]) -> Iterator[Packet]:
        """Packets as they come, until the source ends or is lost (`failure`), or `stopped()`."""
        silent_since = time.monotonic()
        while not stopped():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended, WAIT_SECONDS)
                packet = self._waiting.popleft() if self._waiting else None
                self._changed.notify_all()
            if packet is not None:
                yield packet
                silent_since = time.monotonic()
            elif self._ended:
                return
            elif time.monotonic() - silent_since > self._settings.read_timeout_seconds:
                self.failure = f"no data for {self._settings.read_timeout_seconds:g} s"
                return

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join(timeout=WAIT_SECONDS)
        if self._container is not None and not self._thread.is_alive():
            self._container.close()

    def _wait_open(self, stopped: Callable[[], bool]) -> None:
        # FFmpeg gives up a little earlier, unless it is stuck in a name server or a driver.
        deadline = time.monotonic() + self._settings.open_timeout_seconds + 5 * WAIT_SECONDS
        with self._changed:
            while not (self._opened or self._ended):
                if stopped() or time.monotonic() > deadline:
                    self._closing = True
                    why = "was being opened when the run stopped" if stopped() else no_answer(self._settings)
                    raise SourceError(f"{self._address.shown} {why}")
                self._changed.wait(WAIT_SECONDS)
        if self._refused is not None:
            raise self._refused

    def _run(self) -> None:
        try:
            container, stream = open_container(self._address, self._settings)
        except Exception as error:  # handed to the thread that waits for it
            self._end(refused=error)
            return
        with self._changed:
            self._container, self.stream = container, stream
            self.duration_seconds = duration_seconds(container)
            self.has_time_stamps = has_time_stamps(container)
            # A file on a server has a length, and waits; a stream has none.
            self.is_live = self._address.kind != "http" or self.duration_seconds is None
            self._opened = True
            self._changed.notify_all()
        self._read(container, stream)
        with self._changed:
            if self._closing:
                container.close()

    def _read(self, container: InputContainer, stream: VideoStream) -> None:
        failure = None
        try:
            for packet in read_packets(container, stream):
                self._keep(packet)
                if self._closing:
                    break
        except FFmpegError as error:
            failure = read_failure(error, self._settings)
        self._end(failure=failure)

    def _end(self, failure: str | None = None, refused: Exception | None = None) -> None:
        with self._changed:
            self.failure = self.failure or failure
            self._refused = refused
            self._ended = True
            self._changed.notify_all()

    def _keep(self, packet: Packet) -> None:
        with self._changed:
            if not self.is_live:
                self._changed.wait_for(lambda: len(self._waiting) < AHEAD_PACKETS or self._closing)
            elif self._is_late(packet):
                self.skipped_packets += 1
                return
            self._waiting.append(packet)
            self._changed.notify_all()

    def _is_late(self, packet: Packet) -> bool:
        """Whether to leave out `packet`; when the oldest has waited too long, those before it are left out too."""
        now = time.monotonic()
        oldest = stamp_of(self._waiting[0]) if self._waiting else None
        if oldest and now - oldest[0] / 1e9 > LATE_SECONDS:
            self.skipped_packets += len(self._waiting)
            self._waiting.clear()
            self._key_frame_deadline = now + KEY_FRAME_SECONDS
        if self._key_frame_deadline is None or packet.is_keyframe or now > self._key_frame_deadline:
            self._key_frame_deadline = None
            return False
        return True
