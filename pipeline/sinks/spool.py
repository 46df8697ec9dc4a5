"""Lines on a disk that wait for whoever sends them: in order, of a bounded size, there again after `kill -9`. Knows not
where they are sent, and how.

    SPOOL/NAME/lines.0, lines.117 …   named after their first line; each at most a sixteenth of the whole
    SPOOL/NAME/place                  whose this is, and how far the lines were sent and confirmed

Each line has a number, counted from the first that was ever put here. What may have been sent is written down before it
is: so after a kill it is known what may come a second time, and batches are put together as they were.
"""

import fcntl
import os
import secrets
import threading
from collections import deque
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from shutil import rmtree
from typing import BinaryIO

import msgspec

from configs.folders import cache_dir
from configs.uri import shown_text
from pipeline.errors import OutputError
from pipeline.settings import SpoolSettings
from pipeline.sinks.lines import LineFile

SEGMENTS = 16
_PLACE_BYTES = 512


class _Place(msgspec.Struct):
    """token  random: names this spool and no other · `of`: what the spool is for, not to be read from it
    done, sent  so many lines from the first were confirmed, and may have been sent"""

    token: str
    of: str
    done: int = 0
    sent: int = 0


@dataclass(slots=True)
class _Segment:
    """Lines `first` to `end` (excluded) in a file."""

    path: Path
    first: int
    end: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines `first` to `end` (excluded), without newlines; `repeated`: they may have been sent before."""

    first: int
    end: int
    lines: list[bytes]
    repeated: bool


class Spool:
    """One thread appends, another takes and confirms.

    token      names this spool and no other that was or will be, also after a restart
    last_line  that an earlier process put here; empty where nothing of it is left
    lost       lines that were given up because too many waited
    """

    def __init__(self, settings: SpoolSettings, name: str, identity: str) -> None:
        """The spool of that `identity` that nobody else has in use: as it was left, or a new one. Only `name` is in the
        names of files.

        Raises OutputError.
        """
        self._most_bytes = round(settings.megabytes * 1e6)
        self._changed = threading.Condition()
        self.lost = 0
        self._is_closed = False
        try:
            root = Path(settings.folder) if settings.folder else cache_dir() / "spool"
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder, self._descriptor, self._place = _enter(root, name, identity)
            self._segments, self.last_line = _segments(self.folder)
        except OSError as error:
            what = shown_text(settings.folder) if settings.folder else "the cache"
            raise OutputError(f"cannot spool in {what}: {error.strerror}; set deliver.spool.folder") from error
        self.token = self._place.token
        self._file: LineFile | None = None
        self._reader: tuple[_Segment, BinaryIO, int] | None = None
        # After a power cut the lines may end before what was noted of them.
        self._end = max(self._place.sent, self._segments[-1].end if self._segments else 0)
        self._given = self._place.done  # up to here to whoever sends
        self._forget_done()

    # -- who appends

    def append(self, line: bytes) -> None:
        """A line without newline. Where there is no room, the oldest that were never sent give way to it."""
        with self._changed:
            self._make_room(len(line) + 1)
            try:
                self._segment_for(line).append(line + b"\n")
            except OutputError:  # no room on the disk
                self.lost += 1
                return
            self._segments[-1].end = self._end = self._end + 1
            self._segments[-1].size_bytes += len(line) + 1
            self._changed.notify_all()

    def _segment_for(self, line: bytes) -> LineFile:
        last = self._segments[-1] if self._segments else None
        if self._file is None or last is None or last.size_bytes + len(line) >= self._most_bytes // SEGMENTS:
            self._close_file()
            path = self.folder / f"lines.{self._end}"
            self._file = LineFile(str(path))
            self._segments.append(_Segment(path, self._end, self._end, 0))
        return self._file

    def _make_room(self, line_bytes: int) -> None:
        while self._segments and self.size_bytes + line_bytes > self._most_bytes:
            # What may have been sent stays, for it to be known as sent; and what is being written.
            oldest = next((each for each in list(self._segments)[:-1] if each.first >= self._place.sent), None)
            if oldest is None:
                return
            self._remove(oldest)
            self.lost += oldest.end - oldest.first

    # -- who sends

    def wait(self, seconds: float) -> None:
        """Until there may be something to take, at most so long."""
        with self._changed:
            if not self._is_closed and self._given >= self._end:
                self._changed.wait(seconds)

    def take(self, most: int) -> Batch | None:
        """The next lines, `most` of them or fewer; None where there are none. What was cut off by a kill comes again as
        it was taken before."""
        with self._changed:
            segment = next((each for each in self._segments if each.end > self._given), None)
            if self._is_closed or segment is None:
                return None
            first = max(self._given, segment.first)
            end = min(segment.end, first + most)
            is_repeated = first < self._place.sent
            if is_repeated:
                end = min(segment.end, self._place.sent, first + most)
            lines = self._read(segment, first, end)
            self._given = end
            if end > self._place.sent:
                self._place.sent = end
                self._note()
            return Batch(first, end, lines, is_repeated)

    def done(self, end: int) -> None:
        """All lines before `end` were confirmed, or are given up by whoever sends."""
        with self._changed:
            if end > self._place.done and not self._is_closed:
                self._place.done = end
                self._note()
                self._forget_done()

    def again(self) -> None:
        """What was taken and not confirmed is to be taken again."""
        with self._changed:
            self._given = self._place.done

    @property
    def waiting(self) -> int:
        """Lines that are not confirmed."""
        with self._changed:
            return sum(each.end - max(each.first, self._place.done) for each in self._segments)

    @property
    def size_bytes(self) -> int:
        return sum(each.size_bytes for each in self._segments)

    def close(self) -> None:
        """What waits stays; a spool in which nothing waits is removed."""
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            self._changed.notify_all()
            self._close_file()
            self._close_reader()
            if not any(each.end > self._place.done for each in self._segments):
                rmtree(self.folder, ignore_errors=True)
            os.close(self._descriptor)

    # -- files

    def _read(self, segment: _Segment, first: int, end: int) -> list[bytes]:
        """Mostly from where the last reading ended."""
        if self._reader is None or self._reader[0] is not segment or self._reader[2] > first:
            self._close_reader()
            self._reader = (segment, segment.path.open("rb"), segment.first)
        _, file, at = self._reader
        lines = [file.readline().removesuffix(b"\n") for _ in range(at, end)]
        self._reader = (segment, file, end)
        return lines[first - at :]

    def _forget_done(self) -> None:
        while self._segments and self._segments[0].end <= self._place.done:
            is_open = len(self._segments) == 1 and self._file is not None
            if is_open and self._segments[0].size_bytes < self._most_bytes // SEGMENTS // 2:
                return  # a file for each line would be much work
            if is_open:
                self._close_file()
            self._remove(self._segments[0])

    def _remove(self, segment: _Segment) -> None:
        if self._reader and self._reader[0] is segment:
            self._close_reader()
        self._segments.remove(segment)
        segment.path.unlink(missing_ok=True)

    def _note(self) -> None:
        _write_place(self._descriptor, self._place)

    def _close_file(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def _close_reader(self) -> None:
        if self._reader:
            self._reader[1].close()
            self._reader = None


def _enter(root: Path, name: str, identity: str) -> tuple[Path, int, _Place]:
    """The folder, its place locked, and what that says. Another process has its own."""
    for number in count():
        folder = root / (f"{name}.{number}" if number else name)
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder / "place", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if place := _own(folder, descriptor, identity):
            return folder, descriptor, place
        os.close(descriptor)
    raise AssertionError


def _own(folder: Path, descriptor: int, identity: str) -> _Place | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(descriptor), (folder / "place").stat())  # else it was just removed
    except (BlockingIOError, FileNotFoundError):
        return None
    text = os.pread(descriptor, _PLACE_BYTES, 0)
    if is_there and not text and not any(folder.glob("lines.*")):
        token = secrets.token_hex(8)
        _write_place(descriptor, _Place(token, _digest(token, identity)))
        text = os.pread(descriptor, _PLACE_BYTES, 0)
    try:
        place = msgspec.json.decode(text, type=_Place)
    except msgspec.DecodeError:  # cut off by a loss of power: nobody knows whose lines these are
        return None
    return place if is_there and place.of == _digest(place.token, identity) else None


def _digest(token: str, identity: str) -> str:
    return sha256(f"{token} {identity}".encode()).hexdigest()[:32]


def _write_place(descriptor: int, place: _Place) -> None:
    """In one call, and always as long: it is whole whenever this process is killed."""
    os.pwrite(descriptor, msgspec.json.encode(place).ljust(_PLACE_BYTES), 0)


def _segments(folder: Path) -> tuple[deque[_Segment], bytes]:
    """Those that an earlier process left, whole lines only, and the last line of all."""
    found: deque[_Segment] = deque()
    line = b""
    for path in sorted(folder.glob("lines.*"), key=lambda path: int(path.suffix[1:])):
        LineFile(str(path), goes_on=True).close()
        first, lines, size_bytes = int(path.suffix[1:]), 0, 0
        with path.open("rb") as file:
            for line in file:
                lines += 1
                size_bytes += len(line)
        if lines:
            found.append(_Segment(path, first, first + lines, size_bytes))
        else:
            path.unlink()
    return found, line.removesuffix(b"\n")
