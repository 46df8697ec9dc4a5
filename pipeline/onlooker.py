"""What a source's decoder shows to the page's process, past all other stages, while somebody looks: a camera's own
packets before they are decoded, and JPEGs of the frames that it has sent on.

A JPEG is made of the decoder's planes, no larger than it is wanted, while the network computes: nothing in full size
lies in shared memory for it, and it is ready when the frame's result is. Knows no result, and nobody who looks.
"""

from av.video.frame import VideoFrame

from pipeline.flow.topics import MOST_WIDTH, PACKETS, PacketHead, Wish, encode_head, granted, wishes_of
from pipeline.flow.transport import Publisher
from pipeline.sources import CodedPacket
from pipeline.sources.pixels import PixelConverter, turned

# A recording may come at ten times the rate of any screen.
MOST_PER_SECOND = 60
LEAST_APART_NS = 1_000_000_000 // MOST_PER_SECOND


class PageOnlooker:
    """Of one source; `pipeline.sources.Onlooker`. For one thread."""

    def __init__(self, endpoint: str, source_id: str) -> None:
        """`endpoint` is where the page's process is to be found, also one that is started anew."""
        self._publisher = Publisher(endpoint, comes=True)
        self._source_id, self._packets = source_id, PACKETS + source_id.encode()
        self._topics: frozenset[bytes] = frozenset()
        self._wishes: list[Wish] = []
        # One for each width, for it keeps what it needs for that.
        self._converters: dict[int, PixelConverter] = {}
        self._due_ns = 0

    # -- packets

    def looks(self) -> bool:
        return self._packets in self._publisher.subscriptions()

    def take(self, packet: CodedPacket) -> None:
        follows = None if packet.follows_ns is None else packet.follows_ns // 1000
        head = PacketHead(packet.codec, packet.is_key, packet.captured_ns // 1000, follows)
        self._publisher.send([self._packets, encode_head(head), packet.data])

    # -- pictures

    def wants_pictures(self) -> bool:
        topics = self._publisher.subscriptions()
        if topics is not self._topics:
            self._topics, self._converters = topics, {}
            self._wishes = [wish for wish in wishes_of(topics) if self._is_mine(wish)]
        return bool(self._wishes)

    def _is_mine(self, wish: Wish) -> bool:
        return wish.picture.source_id == self._source_id and not wish.picture.is_drawn

    def show(self, frame: VideoFrame, rotation_degrees: int, captured_ns: int) -> None:
        """One that was captured then, by the host's monotonic clock; not each, where they come too fast to be seen."""
        if not self.wants_pictures() or captured_ns < self._due_ns:
            return
        self._due_ns = max(self._due_ns + LEAST_APART_NS, captured_ns)
        from pipeline.jpeg import encode_jpeg  # OpenCV, for those who are looked at

        def make(width: int, is_drawn: bool) -> bytes:
            converter = self._converters.setdefault(width, PixelConverter())
            return encode_jpeg(converter.picture_bgr(frame, rotation_degrees, width))

        width, height = turned(frame.width, frame.height, rotation_degrees)
        full_width = max(1, min(width, MOST_WIDTH, MOST_WIDTH * width // height))
        for topic, jpeg in granted(self._wishes, full_width, make):
            self._publisher.send([topic, str(captured_ns).encode(), jpeg])

    def close(self) -> None:
        self._publisher.close()
