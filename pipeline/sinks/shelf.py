"""A folder of recordings, one folder in it for each source: how files are called, and which of them are to go.

A file's name says when it began, in UTC, so that names sort by time: `2026-11-29T02-12-24.123Z.mp4`. Nothing that is
called otherwise is ever deleted. Knows no video.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from configs.uri import shown_text
from pipeline.settings import RecordSettings

# What was written to a moment ago may still be, by another source or another run.
BUSY_SECONDS = 60.0
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z\.mp4", re.ASCII)
_FORM = "%Y-%m-%dT%H-%M-%S.%f"
_BYTES_IN_GIGABYTE = 10**9
_SECONDS_IN_DAY = 86_400


class _Kept(NamedTuple):
    began_unix: float
    path: str
    size_bytes: int
    changed_unix: float


def new_path(folder: Path, began_unix: float) -> Path:
    """A name in `folder` that is free: a millisecond later where two would be the same."""
    began = datetime.fromtimestamp(began_unix, UTC)
    while (path := folder / f"{began.strftime(_FORM)[:-3]}Z.mp4").exists():
        began += timedelta(milliseconds=1)
    return path


def began_unix(name: str) -> float | None:
    """None for a name that is no recording's."""
    if not _NAME.fullmatch(name):
        return None
    try:
        return datetime.strptime(name.removesuffix("Z.mp4"), _FORM).replace(tzinfo=UTC).timestamp()
    except ValueError:  # the 30th of February
        return None


class Shelf:
    """All recordings in `folder`, of all sources, within the limits of `settings`."""

    def __init__(self, folder: Path, settings: RecordSettings, warn: Callable[[str], None]) -> None:
        """`warn` is told of files that cannot be deleted."""
        self._folder, self._warn = folder, warn
        self._keep_seconds = None if settings.keep_days is None else settings.keep_days * _SECONDS_IN_DAY
        self._keep_bytes = None if settings.keep_gigabytes is None else settings.keep_gigabytes * _BYTES_IN_GIGABYTE

    def tidy(self) -> None:
        """Delete the oldest, as long as they are too old or all take too much; not those that are being written."""
        if self._keep_seconds is None and self._keep_bytes is None:
            return
        now_unix = time.time()
        kept = sorted(self._all())
        taken_bytes = sum(each.size_bytes for each in kept)
        for each in kept:
            is_old = self._keep_seconds is not None and now_unix - each.began_unix > self._keep_seconds
            is_much = self._keep_bytes is not None and taken_bytes > self._keep_bytes
            if not (is_old or is_much):
                return
            if now_unix - each.changed_unix > BUSY_SECONDS and self._delete(each):
                taken_bytes -= each.size_bytes

    def _delete(self, kept: _Kept) -> bool:
        try:
            Path(kept.path).unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"cannot delete old recordings in {shown_text(str(self._folder))}: {error.strerror}")
            return False
        return True

    def _all(self) -> Iterator[_Kept]:
        for folder in self._entries(self._folder):
            if folder.is_dir(follow_symlinks=False):
                for entry in self._entries(folder.path):
                    began = began_unix(entry.name)
                    if began is not None and entry.is_file(follow_symlinks=False):
                        yield from self._kept(began, entry)

    def _kept(self, began: float, entry: "os.DirEntry[str]") -> Iterator[_Kept]:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # another source has just deleted it
            return
        yield _Kept(began, entry.path, status.st_size, status.st_mtime)

    def _entries(self, folder: Path | str) -> "list[os.DirEntry[str]]":
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            self._warn(f"cannot look for old recordings in {shown_text(str(folder))}: {error.strerror}")
            return []
