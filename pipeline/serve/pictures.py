"""Who looks at what: what the run publishes, shared out among viewers; nothing is asked for that nobody wants.

Lines come from deliver, pictures without the overlay from decoders.
A viewer has credits: so many pictures of a topic are on their way to it, and of what comes meanwhile the newest waits.
Of a source's own packets each needs those before it: where there is no credit for one, none goes before the next key
frame. So a slow one skips frames, and neither the others nor the run notice. Knows no request and no picture's format.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable
from itertools import count

import msgspec

from pipeline.flow.frame import Parts
from pipeline.flow.metrics import Durations, Tally
from pipeline.flow.topics import FRAME, HEAT, PACKETS, PICTURES, SIGNAL, PacketHead, decode_head, picture_wanted
from pipeline.flow.transport import Subscriber
from pipeline.serve.pairs import Pairs

# One is on its way or shown while the next is made ready.
CREDITS = 2
# So many may be on a long way; what a browser does with them afterwards is its own affair.
PACKET_CREDITS = 32
MOST_WORDS = 64
# Of these only the newest is of use.
PICTURED = (*PICTURES, HEAT)


class _Fate(msgspec.Struct):
    """Of a frame's line."""

    status: str


_decode_fate = msgspec.json.Decoder(_Fate).decode


class KeyGate:
    """Which packets of a source are of use to one who decodes them: from a key frame on, as long as none is missing."""

    def __init__(self) -> None:
        self._last: int | None = None

    def admits(self, head: PacketHead, has_credit: bool) -> bool:
        joins = head.is_key or (head.follows is not None and head.follows == self._last)
        self._last = head.captured if joins and has_credit else None
        return self._last is not None


class Viewer:
    """One who looks. `next` and `sent` are for one task, `shown` and `taken` for another."""

    def __init__(self, number: int, credits: int | None = CREDITS) -> None:
        """`credits` None: nobody says what was shown; whoever takes pictures takes them as fast as it can."""
        self.number = number
        self.ages, self.age_tally = Durations(), Tally()
        self._credits = credits
        self._topics: frozenset[bytes] = frozenset()
        self._waiting: dict[bytes, deque[Parts]] = {}
        self._gates: dict[bytes, KeyGate] = {}
        self._on_their_way: dict[bytes, deque[tuple[int, int]]] = {}
        self._words: deque[bytes] = deque(maxlen=MOST_WORDS)
        self._changed = asyncio.Event()

    @property
    def hears(self) -> bool:
        """Words, too."""
        return self._credits is not None

    @property
    def topics(self) -> frozenset[bytes]:
        return self._topics

    def look_at(self, topics: Iterable[bytes]) -> None:
        """At these from now on, and at no others."""
        self._topics = frozenset(topics)
        for kept in (self._waiting, self._on_their_way, self._gates):
            for topic in kept.keys() - self._topics:
                del kept[topic]

    def offer(self, topic: bytes, parts: Parts) -> None:
        if topic not in self._waiting:
            self._waiting[topic] = deque(maxlen=1 if topic.startswith(PICTURED) else MOST_WORDS)
        if topic.startswith(PACKETS) and not self._admits(topic, decode_head(parts[0])):
            return
        self._waiting[topic].append(parts)
        self._changed.set()

    def _admits(self, topic: bytes, head: PacketHead) -> bool:
        ahead = len(self._waiting[topic]) + len(self._on_their_way.get(topic, ()))
        return self._gates.setdefault(topic, KeyGate()).admits(head, ahead < PACKET_CREDITS)

    def say(self, word: bytes) -> None:
        self._words.append(word)
        self._changed.set()

    def shown(self, topic: bytes, seq: int) -> None:
        """It says that this picture, and with it each before, is on its screen."""
        pictures = self._on_their_way.get(topic)
        while pictures and pictures[0][0] <= seq:
            sent_seq, captured_ns = pictures.popleft()
            if sent_seq == seq and not topic.startswith(HEAT):  # which is shown with a picture
                age_ns = time.monotonic_ns() - captured_ns
                self.ages.add(age_ns)
                self.age_tally.add(age_ns)
        self._changed.set()

    def taken(self, topic: bytes, captured: int) -> None:
        """It has this packet, and with it each before: they are on their way no longer."""
        packets = self._on_their_way.get(topic)
        while packets and packets[0][0] <= captured:
            packets.popleft()

    def sent(self, topic: bytes, seq: int, captured_ns: int) -> None:
        """`seq` of a packet is when it was captured."""
        if self._credits is not None and topic in self._topics:
            self._on_their_way.setdefault(topic, deque(maxlen=MOST_WORDS)).append((seq, captured_ns))

    def take(self) -> tuple[bytes | None, Parts] | None:
        """A word (None, [text]), or a topic and what is next of it that there is credit for; None: nothing now."""
        if self._words:
            return None, [self._words.popleft()]
        for topic, waiting in self._waiting.items():
            if waiting and self._has_credit(topic):
                return topic, waiting.popleft()
        return None

    def _has_credit(self, topic: bytes) -> bool:
        """Lines need none, and packets had theirs before they were let in."""
        if self._credits is None or not topic.startswith(PICTURED):
            return True
        return len(self._on_their_way.get(topic, ())) < self._credits

    async def next(self) -> tuple[bytes | None, Parts]:
        """The same, waited for."""
        while (taken := self.take()) is None:
            self._changed.clear()
            await self._changed.wait()
        return taken


class Gallery:
    """All viewers, and what they look at."""

    def __init__(self, published: str, shown: str) -> None:
        """`published` is the endpoint of what deliver publishes, `shown` the one that decoders come to."""
        self._deliver, self._decoders = Subscriber(published), Subscriber(shown, come=True)
        self._pairs: dict[bytes, Pairs] = {}
        self._numbers = count(1)
        self.viewers: set[Viewer] = set()

    def enter(self, topics: Iterable[bytes] = (), credits: int | None = CREDITS) -> Viewer:
        viewer = Viewer(next(self._numbers), credits)
        self.viewers.add(viewer)
        self.look_at(viewer, topics)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        self.viewers.discard(viewer)
        self._subscribe()

    def look_at(self, viewer: Viewer, topics: Iterable[bytes]) -> None:
        viewer.look_at(topics)
        self._subscribe()

    def _subscribe(self) -> None:
        wanted = {topic for viewer in self.viewers for topic in viewer.topics}
        words = {SIGNAL} if any(viewer.hears for viewer in self.viewers) else set()
        lines = {topic: line for topic in wanted if (line := _line_of(topic))}
        self._pairs = {line: self._pairs.get(line, Pairs()) for line in lines.values()}
        for line, pairs in self._pairs.items():
            pairs.look_at({topic for topic in lines if lines[topic] == line})
        from_decoders = {topic for topic in wanted if topic in lines or topic.startswith(PACKETS)}
        self._decoders.subscribe(from_decoders)
        self._deliver.subscribe(wanted - from_decoders | self._pairs.keys() | words)

    async def share_out(self) -> None:
        """What comes, without end."""
        await asyncio.gather(self._hear_deliver(), self._hear_decoders())

    async def _hear_deliver(self) -> None:
        while True:
            topic, *parts = map(bytes, await self._deliver.receive())
            if topic.startswith(SIGNAL):
                self.say(parts[0])
                continue
            self._offer(topic, parts)
            if (pairs := self._pairs.get(topic)) and _decode_fate(parts[0]).status != "dropped":
                line, captured = parts
                for pair in pairs.hear(captured, line):
                    self._offer(*pair)

    async def _hear_decoders(self) -> None:
        while True:
            topic, *parts = map(bytes, await self._decoders.receive())
            if topic.startswith(PACKETS):
                self._offer(topic, parts)
            elif pairs := self._pairs.get(_line_of(topic) or b""):
                captured, jpeg = parts
                for pair in pairs.see(topic, captured, jpeg):
                    self._offer(*pair)

    def _offer(self, topic: bytes, parts: Parts) -> None:
        for viewer in self.viewers:
            if topic in viewer.topics:
                viewer.offer(topic, parts)

    def say(self, word: bytes) -> None:
        """To all who hear words."""
        for viewer in self.viewers:
            if viewer.hears:
                viewer.say(word)

    def close(self) -> None:
        self._deliver.close()
        self._decoders.close()


def _line_of(topic: bytes) -> bytes | None:
    """The topic of the lines that a decoder's pictures of this one belong to; None where it is no such picture's."""
    wanted = picture_wanted(topic)
    return FRAME + wanted.source_id.encode() if wanted and not wanted.is_drawn else None
