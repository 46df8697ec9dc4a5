"""Frames of each source in order, each once, however they come: side by side from several lanes, dropped headers on a
shorter way, and with some missing after a worker was lost. What is said of a source, its start above all, goes past
the network on a way of its own, and before that is open frames come first. Knows no socket, no clock and no stage.
"""

from collections.abc import Iterator
from typing import Protocol

from pipeline.flow.fates import UNHEARD
from pipeline.flow.frame import Frame, Message
from pipeline.flow.messages import EndOfStream, FrameHeader, SourceWord, StreamStart

# So long a frame that is missed is waited for, once no slot holds it: its dropped header may still be on its way. And
# so long frames wait for the start of their source: it may be lost with a worker, and would be told again later.
# What comes later than that has had its fate.
PATIENCE_SECONDS = 0.5


class Progress(Protocol):
    """What outlives this process: how far a source has come here, and which frames there are."""

    def next_seq(self, place: int) -> int: ...
    def passed_on(self, place: int) -> int: ...
    def arrive(self, place: int, next_seq: int) -> None: ...
    def is_alive(self, place: int, seq: int) -> bool: ...


class InOrder:
    """All messages of one stage in, those that are next in their source out.

    A frame that comes again, or comes after it was given up, goes nowhere. Only what the supervisor reclaimed is passed
    on late: nobody else tells of it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: dict[str, _Line] = {}

    def taken(self, frame: Frame) -> None:
        """It is about to be worked on: whoever comes after us waits for the next one."""
        self._progress.arrive(frame.header.place, frame.header.seq + 1)

    def put(self, message: Message) -> list[Message]:
        header = message.header if isinstance(message, Frame) else message
        line = self._lines.get(header.source_id) or _Line(header.source_id, header.place, self._progress)
        ready = line.frame(message) if isinstance(message, Frame) else line.word(message)
        return self._remembered(header.source_id, line, ready)

    def look(self, now_seconds: float) -> list[Message]:
        """What becomes free because a frame that is missed was given up; call it a few times a second."""
        lines = list(self._lines.items())
        return [message for name, line in lines for message in self._remembered(name, line, line.look(now_seconds))]

    def _remembered(self, source_id: str, line: "_Line", ready: list[Message]) -> list[Message]:
        """Nothing follows the end of a source but what was reclaimed, and another source may have its name next."""
        self._lines[source_id] = line
        if line.is_over:
            del self._lines[source_id]
        return ready

    @property
    def depth(self) -> int:
        """Frames that wait for one before them."""
        return sum(len(line.frames) for line in self._lines.values())


class _Line:
    """One source: what waits for its turn."""

    def __init__(self, source_id: str, place: int, progress: Progress) -> None:
        self.frames: dict[int, Frame] = {}
        self._words: list[SourceWord] = []
        self._last_words: dict[type, SourceWord] = {}
        self._source_id, self._place, self._progress = source_id, place, progress
        self._next_seq = progress.next_seq(place)
        # What the stage before had passed on by now is on its way to us, or was lost with who was here before: it is
        # missed from now on, not only when a frame comes behind it. So stages that were lost together wait together.
        self._passed_on = progress.passed_on(place)
        self._gone_since: dict[int, float] = {}
        self._has_started = False
        self._waits_since: float | None = None
        self.is_over = False

    def frame(self, frame: Frame) -> list[Message]:
        seq = frame.header.seq
        if seq < self._next_seq and frame.header.reclaimed:
            self.is_over = not self.frames and not self._last_words  # nothing else was ever heard of it
            return [frame]
        if seq < self._next_seq or seq in self.frames:
            frame.give_back()
            return []
        self.frames[seq] = frame
        return list(self._ready())

    def word(self, word: SourceWord) -> list[Message]:
        if self._last_words.get(type(word)) == word:  # told again, for somebody else was restarted
            return []
        self._last_words[type(word)] = word
        self._has_started |= isinstance(word, StreamStart)
        self._words.append(word)
        self._words.sort(key=lambda word: (word.seq, isinstance(word, EndOfStream)))
        return list(self._ready())

    def _ready(self) -> Iterator[Message]:
        while True:
            while self._words and self._words[0].seq <= self._next_seq:
                self.is_over = isinstance(self._words[0], EndOfStream)
                yield self._words.pop(0)
            if not self._has_started or (frame := self.frames.pop(self._next_seq, None)) is None:
                return
            self._advance()
            yield frame

    def _advance(self) -> None:
        self._next_seq += 1

    def look(self, now_seconds: float) -> list[Message]:
        if not self._has_started:
            return self._miss_start(now_seconds)
        known = [self._passed_on, *self.frames, *(word.seq for word in self._words)]
        missing = (seq for seq in range(self._next_seq, max(known)) if seq not in self.frames)
        gone = [seq for seq in missing if not self._progress.is_alive(self._place, seq)]
        self._gone_since = {seq: self._gone_since.get(seq, now_seconds) for seq in gone}
        return list(self._give_up(now_seconds))

    def _miss_start(self, now_seconds: float) -> list[Message]:
        if not (self.frames or self._words):
            return []
        self._waits_since = now_seconds if self._waits_since is None else self._waits_since
        self._has_started = now_seconds - self._waits_since >= PATIENCE_SECONDS
        return list(self._ready())

    def _give_up(self, now_seconds: float) -> Iterator[Message]:
        """Those that have been gone for long, and what waited for them."""
        while now_seconds - self._gone_since.get(self._next_seq, now_seconds) >= PATIENCE_SECONDS:
            header = FrameHeader(self._source_id, self._place, self._next_seq, 0.0, 0, 0.0, 0, 0, dropped=UNHEARD)
            self._advance()
            yield Frame(header, {})
            yield from self._ready()
