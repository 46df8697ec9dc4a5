"""Reads a container on a thread of its own, because a network, a name server or a camera driver may block for ever.

The thread opens and demuxes; whoever wants packets waits in short steps, looks at a stop flag, and decides alone when
the source is lost. A thread that hangs in a dead connection is left behind, and lets go when its read gives up.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat

from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.source_address import Address
from pipeline.sources.base import OpeningStopped
from pipeline.sources.clock import Arrivals
from pipeline.sources.container import (
    duration_seconds,
    has_time_stamps,
    may_begin_anew,
    no_answer,
    open_container,
    read_failure,
    read_packets,
    stamp_of,
)
from pipeline.sources.late import Lateness, is_late

WAIT_SECONDS = 0.1
AHEAD_PACKETS = 64  # of a file on a server, which can wait


class LiveReader:
    """An open container whose packets arrive by themselves. While the thread lives, only it touches the container."""

    stream: VideoStream
    duration_seconds: float | None
    has_time_stamps: bool
    may_begin_anew: bool

    def __init__(self, address: Address, settings: SourceSettings, stopped: Callable[[], bool]) -> None:
        """Raises SourceError, at the latest `open_timeout_seconds` and a little later."""
        self.failure: str | None = None
        self.is_live = True
        self._address = address
        self._settings = settings
        self._changed = threading.Condition()
        self._waiting: deque[Packet] = deque()
        self._left_out = 0  # packets, all of them before those that wait
        self._late = Lateness()
        self._heard_at = 0.0
        self._opened = False
        self._ended = False
        self._closing = False
        self._refused: Exception | None = None
        self._container: InputContainer | None = None
        self._thread = threading.Thread(target=self._run, name="source reader", daemon=True)
        self._thread.start()
        self._wait_open(stopped)

    def packets(self, stopped: Callable[[], bool]) -> Iterator[Packet | None]:
        """Packets as they come, None for one that was left out, until the source ends or is lost (`failure`), or
        `stopped()`."""
        while not stopped():
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._left_out or self._ended, WAIT_SECONDS)
                left_out, self._left_out = self._left_out, 0
                packet = self._waiting.popleft() if self._waiting else None
                self._changed.notify_all()
            yield from repeat(None, left_out)
            if packet is not None:
                yield packet
            elif left_out:
                continue
            elif self._ended:
                return
            elif time.monotonic() - self._heard_at > self._settings.read_timeout_seconds:
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
                if stopped():
                    self._closing = True
                    raise OpeningStopped(self._address)
                if time.monotonic() > deadline:
                    self._closing = True
                    raise SourceError(f"{self._address.shown} {no_answer(self._settings)}")
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
            self.may_begin_anew = self.is_live or may_begin_anew(container)
            self._heard_at = time.monotonic()
            self._opened = True
            self._changed.notify_all()
        self._read(container, stream)
        with self._changed:
            if self._closing:
                container.close()

    def _read(self, container: InputContainer, stream: VideoStream) -> None:
        failure = None
        arrivals = Arrivals() if self.is_live and self.has_time_stamps else None
        try:
            for packet in read_packets(container, stream, arrivals):
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
            # What was held back came long ago: the silence has lasted since then.
            self._heard_at = self._came_at(packet) if self.is_live else time.monotonic()
            if self.is_live and self._is_late(packet):
                self._left_out += 1
            else:
                self._waiting.append(packet)
            self._changed.notify_all()

    def _is_late(self, packet: Packet) -> bool:
        """Whether to leave out `packet`; when the oldest has waited too long, those before it are left out too."""
        now = time.monotonic()
        if self._waiting and is_late(now - self._came_at(self._waiting[0])):
            self._left_out += len(self._waiting)
            self._waiting.clear()
            self._late.fall_behind()
        return self._late.leaves_out(now - self._came_at(packet), packet.is_keyframe)

    @staticmethod
    def _came_at(packet: Packet) -> float:
        stamp = stamp_of(packet)
        assert stamp is not None
        return stamp.captured_ns / 1e9
