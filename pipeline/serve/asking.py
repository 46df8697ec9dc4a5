"""What the run says of itself, asked by its socket, no more often than somebody looks. Knows no request and no page."""

import asyncio
import time
from pathlib import Path

import msgspec

from pipeline.control import words
from pipeline.control.words import Add, Done, Look, View
from pipeline.errors import UsageError

# Whoever asks sooner again is told what was said before.
FRESH_SECONDS = 0.5


class Asking:
    """The run behind the socket `run`. Raises UsageError for what it refuses, StageError when it says nothing."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = asyncio.Lock()
        self._view: View | None = None
        self._at = 0.0

    async def view(self) -> View:
        async with self._lock:
            if self._view is None or time.monotonic() - self._at > FRESH_SECONDS:
                answer = await asyncio.to_thread(words.tell, self._run, Look())
                assert isinstance(answer, View)
                self._view, self._at = answer, time.monotonic()
            return self._view

    async def change(self, body: bytes) -> str:
        """A control word as JSON; what was done."""
        try:
            word = words.decode_change(body)
        except msgspec.DecodeError as error:
            raise UsageError(f"that is no control word: {error}") from None
        if isinstance(word, Add) and "${" in word.source.uri.reveal():
            raise UsageError("names as ${NAME} are filled in on the command line and in files, not for who asks here")
        answer = await asyncio.to_thread(words.tell, self._run, word)
        self._at = 0.0
        assert isinstance(answer, Done)
        return answer.text
