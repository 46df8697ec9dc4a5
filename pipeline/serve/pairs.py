"""What was found in a source's frames, and their pictures, which come by another way: each waits for the other, by the
moment that both were captured. Knows no viewer, and nothing of what either says.
"""

from pipeline.flow.frame import Parts

# More than a source can have on their way; what is older has lost its other half.
MOST_WAITING = 64


class Pairs:
    """Of one source. A pair is a picture's topic and its parts, `[line, captured, jpeg]`, as deliver publishes them."""

    def __init__(self) -> None:
        self._lines: dict[bytes, bytes] = {}
        self._pictures: dict[bytes, dict[bytes, bytes]] = {}

    def look_at(self, topics: set[bytes]) -> None:
        """At these from now on, and at no others."""
        self._pictures = {topic: self._pictures.get(topic, {}) for topic in topics}

    def hear(self, captured: bytes, line: bytes) -> list[tuple[bytes, Parts]]:
        """A frame's line; the pairs that it makes. One that is to be shown with none must not come here."""
        self._lines[captured] = line
        _trim(self._lines)
        return [pair for topic in self._pictures if (pair := self._pair(topic, captured))]

    def see(self, topic: bytes, captured: bytes, jpeg: bytes) -> list[tuple[bytes, Parts]]:
        """A picture of that topic; the pair that it makes."""
        if (pictures := self._pictures.get(topic)) is None:
            return []
        pictures[captured] = jpeg
        _trim(pictures)
        return [pair] if (pair := self._pair(topic, captured)) else []

    def _pair(self, topic: bytes, captured: bytes) -> tuple[bytes, Parts] | None:
        line, pictures = self._lines.get(captured), self._pictures[topic]
        if line is None or captured not in pictures:
            return None
        jpeg = pictures[captured]
        for earlier in list(pictures):  # lines come in order: those before it get none any more
            del pictures[earlier]
            if earlier == captured:
                break
        return topic, [line, captured, jpeg]


def _trim(waiting: dict[bytes, bytes]) -> None:
    if len(waiting) > MOST_WAITING:
        del waiting[next(iter(waiting))]
