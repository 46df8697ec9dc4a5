"""Files that are written whole or not at all, also for a power loss, and looked at before they are read. Knows not
what is in them."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path`, to be written; it becomes `path` when that went well, and goes when it did not.

    It has the suffix of `path`, and is this process's own.
    """
    with partial_file(path) as partial:
        yield partial
        put(partial, path)


@contextmanager
def partial_file(path: Path) -> Iterator[Path]:
    """The same for a file that gets its name later, by `put`; without one it goes."""
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def put(partial: Path, path: Path) -> None:
    """`partial` becomes `path`, and the disk has what is in it first: a name alone would be an empty file."""
    _to_disk(partial)
    partial.replace(path)
    with suppress(OSError):  # some file systems know no such thing for a folder
        _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_not_read(out: Path, read: Iterable[Path]) -> None:
    """Raises ValueError where `out` is one of the files that are `read`, by whatever name or link."""
    if out.exists() and any(path.exists() and out.samefile(path) for path in read):
        raise ValueError(f"{out}: is read by this command, and would be overwritten; give another file")


def check_is_file(path: Path) -> None:
    """Raises OSError for what is not there and what is no file: to open a pipe would wait for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
