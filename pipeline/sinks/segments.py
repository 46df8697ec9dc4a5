"""The files of an output that goes on in a next one: `out.mp4`, `out.1.mp4`, `out.2.mp4` … Knows no format."""

import re
from contextlib import suppress
from pathlib import Path

from configs.uri import shown_text
from pipeline.errors import OutputError
from pipeline.sinks.lines import LineFile


def segments(path: str) -> dict[int, Path]:
    """Those that are there, by their numbers; 0 is the one at `path`."""
    first = Path(path)
    name = re.compile(rf"{re.escape(first.stem)}\.([1-9][0-9]*){re.escape(first.suffix)}")
    found: dict[int, Path] = {}
    with suppress(OSError):  # no such folder
        numbers = {int(match[1]) for each in first.parent.iterdir() if (match := name.fullmatch(each.name))}
        found = {number: _named(first, number) for number in numbers}
    return found | ({0: first} if first.exists() else {})


def next_segment(path: str) -> str:
    """`out.1.mp4` for `out.mp4`, or the name after the last that there is: what was written is left alone."""
    return str(_named(Path(path), max(segments(path), default=0) + 1))


def newest_segment(path: str) -> str:
    """The one that was written last; `path` where there is none."""
    found = _by_age(path)
    return str(found[-1]) if found else path


def _named(first: Path, number: int) -> Path:
    return first.with_name(f"{first.stem}.{number}{first.suffix}")


def _by_age(path: str) -> list[Path]:
    """The oldest first. Not by number: the first file of a run may have taken the place of an earlier run's."""
    ages = []
    for number, segment in segments(path).items():
        with suppress(OSError):  # gone meanwhile
            ages.append((segment.stat().st_mtime_ns, number, segment))
    return [segment for _, _, segment in sorted(ages)]


class SegmentedFile:
    """A `LineFile` that goes on in a next one with the line that would make it larger than `most_bytes`; of all its
    files only the newest `keep_files` stay. None: never.

    Each begins with `head`. What is no file on a disk (a pipe, standard output) has no segments.

    path  of the file that is being written

    Raises OutputError as `LineFile` does.
    """

    def __init__(
        self,
        path: str,
        goes_on: bool = False,
        most_bytes: int | None = None,
        keep_files: int | None = None,
        head: bytes = b"",
    ) -> None:
        """`goes_on`: after what is there already, in the file that was written last."""
        self._first_path, self._head = path, head
        self._most_bytes, self._keep_files = most_bytes, keep_files
        self._begin(newest_segment(path) if goes_on and most_bytes else path, goes_on)

    def _begin(self, path: str, goes_on: bool) -> None:
        self.path = path
        self._file = LineFile(path, goes_on)
        if self._head and not (goes_on and self._file.size_bytes):
            self._file.append(self._head)
        self._forget_old()

    def append(self, lines: bytes) -> None:
        """Whole lines, which stay together."""
        is_begun = self._file.is_file and self._file.size_bytes > len(self._head)
        if self._most_bytes and is_begun and self._file.size_bytes + len(lines) > self._most_bytes:
            self._file.close()
            self._begin(next_segment(self._first_path), goes_on=False)
        self._file.append(lines)

    def check(self) -> None:
        self._file.check()

    def close(self) -> None:
        self._file.close()

    def _forget_old(self) -> None:
        if self._keep_files is None:
            return
        others = [segment for segment in _by_age(self._first_path) if str(segment) != self.path]
        for segment in others[: max(0, len(others) + 1 - self._keep_files)]:
            try:
                segment.unlink(missing_ok=True)
            except OSError as error:
                what = shown_text(str(segment))
                raise OutputError(f"cannot remove {what}, the oldest file of this output: {error.strerror}") from error
