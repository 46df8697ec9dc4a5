"""What a source's decoder shows to the page's process, past all other stages, while somebody looks: a camera's own
packets before they are decoded, and JPEGs of the frames that it has sent on.

A JPEG is made of the decoder's planes, no larger than it is wanted, while the network computes: nothing in full size
lies in shared memory for it, and it is ready when the frame's result is. A thread of its own makes it, for decoding
waits for nobody who looks. Knows no result, and nobody who looks.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from av.video.frame import VideoFrame

from pipeline.errors import SourceError
from pipeline.flow.topics import MOST_WIDTH, PACKETS, PacketHead, Wish, encode_head, granted, wishes_of
from pipeline.flow.transport import Publisher
from pipeline.sources import CodedPacket
from pipeline.sources.pixels import PixelConverter, turned

# A recording may come at ten times the rate of any screen.
MOST_PER_SECOND = 60
LEAST_APART_NS = 1_000_000_000 // MOST_PER_SECOND


class PageOnlooker:
    """Of one source; `pipeline.sources.Onlooker`. For one thread.

    `warn` is told, by another one, why there is no picture.
    """

    def __init__(self, endpoint: str, source_id: str, warn: Callable[[str], None]) -> None:
        """`endpoint` is where the page's process is to be found, also one that is started anew."""
        self._publisher = Publisher(endpoint, comes=True)
        self._publishing = threading.Lock()  # two threads, one after the other, may have a socket
        self._source_id, self._packets = source_id, PACKETS + source_id.encode()
        self._topics: frozenset[bytes] = frozenset()
        self._wishes: list[Wish] = []
        self._due_ns = 0
        self._warn = warn
        self._painter: _Painter | None = None

    def _subscriptions(self) -> frozenset[bytes]:
        with self._publishing:
            return self._publisher.subscriptions()

    def _publish(self, topic: bytes, *parts: bytes) -> None:
        with self._publishing:
            self._publisher.send([topic, *parts])

    # -- packets

    def looks(self) -> bool:
        return self._packets in self._subscriptions()

    def take(self, packet: CodedPacket) -> None:
        follows = None if packet.follows_ns is None else packet.follows_ns // 1000
        head = PacketHead(packet.codec, packet.is_key, packet.captured_ns // 1000, follows)
        self._publish(self._packets, encode_head(head), packet.data)

    # -- pictures

    def wants_pictures(self) -> bool:
        topics = self._subscriptions()
        if topics is not self._topics:
            self._topics = topics
            self._wishes = [wish for wish in wishes_of(topics) if self._is_mine(wish)]
        return bool(self._wishes)

    def _is_mine(self, wish: Wish) -> bool:
        return wish.picture.source_id == self._source_id and not wish.picture.is_drawn

    def show(self, frame: VideoFrame, rotation_degrees: int, captured_ns: int) -> None:
        """One that was captured then, by the host's monotonic clock; not each, where they come too fast to be seen or
        to be made a picture of."""
        if not self.wants_pictures() or captured_ns < self._due_ns:
            return
        self._due_ns = max(self._due_ns + LEAST_APART_NS, captured_ns)
        self._painter = self._painter or _Painter(self._publish, self._warn)
        self._painter.begin(_Shown(frame, rotation_degrees, captured_ns, self._wishes))

    def close(self) -> None:
        if self._painter:
            self._painter.close()
        self._publisher.close()


class _Shown(NamedTuple):
    """A frame, and what is asked for of it."""

    frame: VideoFrame
    rotation_degrees: int
    captured_ns: int
    wishes: list[Wish]


class _Painter:
    """Makes pictures, and hands each to `publish`. Of the frames that come meanwhile the newest waits."""

    def __init__(self, publish: Callable[..., None], warn: Callable[[str], None]) -> None:
        self._publish, self._warn = publish, warn
        self._next: queue.Queue[_Shown | None] = queue.Queue(1)
        # One for each width, for it keeps what it needs for that.
        self._converters: dict[int, PixelConverter] = {}
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()

    def begin(self, shown: _Shown | None) -> None:
        with suppress(queue.Empty):
            self._next.get_nowait()
        self._next.put_nowait(shown)

    def close(self) -> None:
        self.begin(None)
        self._thread.join()

    def _run(self) -> None:
        wishes: list[Wish] = []
        while (shown := self._next.get()) is not None:
            if shown.wishes is not wishes:
                wishes, self._converters = shown.wishes, {}
            try:
                self._paint(shown)
            except (SourceError, ValueError, MemoryError) as error:
                self._warn(f"no picture for the page: {error}")

    def _paint(self, shown: _Shown) -> None:
        from pipeline.jpeg import encode_jpeg  # OpenCV, for those who are looked at

        frame, rotation_degrees, captured_ns, wishes = shown

        def make(width: int, is_drawn: bool) -> bytes:
            converter = self._converters.setdefault(width, PixelConverter())
            return encode_jpeg(converter.picture_bgr(frame, rotation_degrees, width))

        width, height = turned(frame.width, frame.height, rotation_degrees)
        full_width = max(1, min(width, MOST_WIDTH, MOST_WIDTH * width // height))
        for topic, jpeg in granted(wishes, full_width, make):
            self._publish(topic, str(captured_ns).encode(), jpeg)
