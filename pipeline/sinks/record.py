"""Recordings of one source: MP4 files of its pictures with what is drawn on them, of all that happens or only while
certain objects are seen, and a line about each file in `events.jsonl`.

Pictures are encoded as they come. What came last waits as packets in memory, so that a file begins some seconds before
an object was seen, at a key frame. Knows no stage; `shelf` knows which files are to go.
"""

import errno
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import av.error
import msgspec
from av.packet import Packet

from configs.uri import shown_text
from pipeline.errors import OutputError
from pipeline.flow.results import FrameResult
from pipeline.settings import EncoderSettings, RecordSettings
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.h264 import TICKS_PER_SECOND, PictureEncoder, check_encoder, give_back_freed_memory
from pipeline.sinks.lines import LineFile
from pipeline.sinks.shelf import Shelf, new_path
from pipeline.sinks.videofile import VideoFile, failed, longest_step_ticks

__all__ = ["EventLine", "RecordSink", "check_encoder", "open_sink"]

SCHEMA = 1
EVENTS = "events.jsonl"
TIDY_SECONDS = 60.0


class EventLine(msgspec.Struct):
    """One file, once it is complete.

    source      whose pictures it has
    start_unix  when the first of the objects was seen that it was recorded for, and `end_unix` the last; where there
                were none, when its first and last pictures were taken. By this machine's clock
    classes     of the objects seen, with the most at a time
    file        beside this one
    """

    schema: int
    source: str
    start_unix: float
    end_unix: float
    classes: dict[str, int]
    file: str


class Piece(NamedTuple):
    """A packet, and when its picture was taken."""

    packet: Packet
    taken_unix: float

    @property
    def ticks(self) -> int:
        return self.packet.pts or 0


def open_sink(target: Target) -> Sink:
    return RecordSink(target.path, target.record, target.frames_per_second, target.encoder, target.warn)


class RecordSink(Sink):
    """Writes into `folder`, and a line about each file into the folder that this one lies in. An object counts once it
    is tracked. A frame without result says nothing: what was seen before it still is.

    Raises OutputError when a folder or a file cannot be written.
    """

    def __init__(
        self,
        folder: str,
        settings: RecordSettings,
        frames_per_second: float | None = None,
        encoder_settings: EncoderSettings | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`frames_per_second` is only a hint for the encoder and the files' headers."""
        self._folder, self._settings = Path(folder), settings
        self._frames_per_second, self._encoder_settings = frames_per_second, encoder_settings or EncoderSettings()
        self._shelf, self._tidied_at = Shelf(self._folder.parent, settings, warn), 0.0
        self._encoder: PictureEncoder | None = None
        self._taken_unix: deque[float] = deque()  # of the pictures that the encoder still has
        self._last = LastPieces(_ticks(settings.pre_seconds) if settings.classes else 0)
        self._seen: Counter[str] = Counter()
        self._wanted_ticks: int | None = None
        self._recording: Recording | None = None
        self._files = 0
        self._make_folder()

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {shown_text(str(self._folder))}: {error.strerror}") from error

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        if image_bgr is None:
            return
        if frame.failure is None:
            tracked = frame.tracked().class_ids.tolist()
            self._seen = Counter(frame.class_names[class_id] for class_id in tracked)
        # By our clock: a camera's may be wrong by years, and what is old is deleted.
        taken_unix = time.time() - (time.monotonic_ns() - frame.captured_ns) / 1e9
        self._take(frame.source_id, image_bgr, frame.pts_seconds, taken_unix)

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        self._seen = Counter()
        self._take(source_id, image_bgr, pts_seconds, time.time())

    def _take(self, source_id: str, image_bgr: Image, pts_seconds: float, taken_unix: float) -> None:
        for piece in self._encoded(image_bgr, pts_seconds, taken_unix):
            self._keep(source_id, piece)
        is_wanted = any(name in self._seen for name in self._settings.classes or self._seen)
        is_on = self._is_on(is_wanted)
        if is_on and not self._recording and self._last.pieces():
            self._begin(source_id, self._last.pieces())
        if self._recording:
            self._recording.note(self._seen, taken_unix if is_wanted else None)
        if not is_on:
            self._end()
        if time.monotonic() - self._tidied_at > TIDY_SECONDS:
            self._tidy()

    def _is_on(self, is_wanted: bool) -> bool:
        assert self._encoder
        now_ticks = self._encoder.now_ticks
        if is_wanted:
            self._wanted_ticks = now_ticks
        if not self._settings.classes:
            return True
        return self._wanted_ticks is not None and now_ticks - self._wanted_ticks <= _ticks(self._settings.post_seconds)

    def _encoded(self, image_bgr: Image, pts_seconds: float, taken_unix: float) -> list[Piece]:
        try:
            if self._encoder is None:
                self._encoder = self._open(*image_bgr.shape[:2])
                self._tell_way()
            self._taken_unix.append(taken_unix)
            return self._pieces(self._encoder.encode(image_bgr, pts_seconds))
        except (OSError, av.error.FFmpegError) as error:
            raise failed(str(self._folder), error) from error

    def _open(self, height: int, width: int) -> PictureEncoder:
        longest = longest_step_ticks(".mp4")
        return PictureEncoder(self._encoder_settings, self._frames_per_second, height, width, longest)

    def _pieces(self, packets: Iterable[Packet]) -> list[Piece]:
        return [Piece(packet, self._taken_unix.popleft()) for packet in packets]

    def _keep(self, source_id: str, piece: Piece) -> None:
        self._last.add(piece)
        if not self._recording:
            return
        is_full = self._recording.ticks_until(piece) >= _ticks(60 * self._settings.segment_minutes)
        if piece.packet.is_keyframe and is_full:
            self._end()
            self._begin(source_id, [piece])
        else:
            self._recording.add([piece])

    def _begin(self, source_id: str, pieces: list[Piece]) -> None:
        assert self._encoder
        self._tidy()
        self._make_folder()
        path = new_path(self._folder, pieces[0].taken_unix)
        self._recording = Recording(path, source_id, self._encoder)
        self._files += 1
        self._tell_way()
        self._recording.add(pieces)

    def _end(self) -> None:
        recording, self._recording = self._recording, None
        if recording:
            line = LineFile(str(self._folder.parent / EVENTS), goes_on=True)
            try:
                line.append(msgspec.json.encode(recording.close()) + b"\n")
            finally:
                line.close()

    def _tidy(self) -> None:
        self._tidied_at = time.monotonic()
        self._shelf.tidy()

    def _tell_way(self) -> None:
        assert self._encoder
        self.way = f"in {self._files} file{'s' * (self._files != 1)}, {self._encoder.words}"

    def close(self) -> None:
        encoder, self._encoder = self._encoder, None
        if encoder is None:
            return
        try:
            rest = self._pieces(encoder.flush())
            if self._recording:
                self._recording.add(rest)
        except av.error.FFmpegError as error:
            raise failed(str(self._folder), error) from error
        finally:
            self._end()
        del encoder
        give_back_freed_memory()


class LastPieces:
    """The last `ticks` and what comes before them up to a key frame."""

    def __init__(self, ticks: int) -> None:
        self._ticks = ticks
        self._groups: deque[list[Piece]] = deque()  # each from a key frame up to the next

    def add(self, piece: Piece) -> None:
        if piece.packet.is_keyframe:
            self._groups.append([])
        if self._groups:
            self._groups[-1].append(piece)
        while len(self._groups) > 1 and piece.ticks - self._groups[1][0].ticks >= self._ticks:
            self._groups.popleft()

    def pieces(self) -> list[Piece]:
        return [piece for group in self._groups for piece in group]


class Recording:
    """A file on its way, and what is to be said of it. Each second of it is on the disk before the next comes.

    Raises OutputError when it cannot be written.
    """

    def __init__(self, path: Path, source_id: str, encoder: PictureEncoder) -> None:
        self._path, self._source_id = path, source_id
        self._file = VideoFile(str(path), encoder.stream)
        self._first: Piece | None = None
        self._last_unix = 0.0
        self._most: Counter[str] = Counter()
        self._wanted_unix: list[float] = []
        try:
            self._descriptors = [os.open(each, os.O_RDONLY) for each in (path, path.parent)]
        except OSError as error:
            raise failed(str(path), error) from error

    def add(self, pieces: list[Piece]) -> None:
        self._file.add(piece.packet for piece in pieces)
        for piece in pieces:
            self._first = self._first or piece
            self._last_unix = piece.taken_unix
        if any(piece.packet.is_keyframe for piece in pieces):
            self._to_disk()

    def note(self, seen: Counter[str], wanted_unix: float | None) -> None:
        """What is seen in a picture; when it was taken, if that is what the recording is for."""
        self._most |= seen
        if wanted_unix is not None:
            self._wanted_unix = [*self._wanted_unix[:1], wanted_unix]

    def ticks_until(self, piece: Piece) -> int:
        return piece.ticks - self._first.ticks if self._first else 0

    def close(self) -> EventLine:
        try:
            self._file.close()
            self._to_disk()
        finally:
            while self._descriptors:
                os.close(self._descriptors.pop())
        first_unix = self._first.taken_unix if self._first else self._last_unix
        noted_unix = self._wanted_unix or [first_unix, self._last_unix]
        start_unix, end_unix = round(noted_unix[0], 3), round(noted_unix[-1], 3)
        file = f"{self._path.parent.name}/{self._path.name}"
        return EventLine(SCHEMA, self._source_id, start_unix, end_unix, dict(sorted(self._most.items())), file)

    def _to_disk(self) -> None:
        """What the system still has of the file, and its name, in case that the power fails."""
        try:
            for descriptor in self._descriptors:
                os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems' answer for a folder
                raise failed(str(self._path), error) from error


def _ticks(seconds: float) -> int:
    return round(seconds * TICKS_PER_SECOND)
