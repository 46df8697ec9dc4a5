"""A folder for what can be made again: exported networks, which engine measured best, what a start came to. Knows not
what it keeps.

A file's name ends in the checksum of what is in it: neither can be there without the other. What a power loss or a bad
disk has changed is not taken; it is made anew.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from configs.folders import cache_dir
from models.files import partial_file, put

# An exported network can have 800 MB: the oldest go.
MOST_FILES = 8
CHECKSUM_BYTES = 8
# What is still not complete after so long was left by a process that was killed.
ABANDONED_SECONDS = 3600.0


def cached_file(name: str, make: Callable[[Path], None]) -> Path:
    """A file for `name`, made by `make(path)` when there is none that is as it was made.

    The least lately used of its kind (suffix) go when there are more than `MOST_FILES`. Raises OSError where the folder
    cannot be written.
    """
    if found := kept_file(name):
        return found
    path = cache_dir() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(path) as partial:
        make(partial)
        path = _with_checksum(path, partial)
        put(partial, path)
    _prune(path)
    return path


def kept_file(name: str) -> Path | None:
    """The file for `name` that is there as it was made; one that is not goes. Raises OSError where it cannot go."""
    path = cache_dir() / name
    for found in _of_this_name(path):
        if found.is_dir():  # nobody's file: not ours to remove, and another checksum will be another name
            continue
        if found == _with_checksum(path, found):
            with suppress(OSError):  # another user's, in a folder for several
                found.touch()
            return found
        found.unlink(missing_ok=True)
    return None


def _of_this_name(path: Path) -> Iterator[Path]:
    return path.parent.glob(f"{path.stem}.{'[0-9a-f]' * 2 * CHECKSUM_BYTES}{path.suffix}")


def _with_checksum(path: Path, content: Path) -> Path:
    """`path` with the checksum of what is in `content`."""
    with content.open("rb") as file:
        checksum = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=CHECKSUM_BYTES)).hexdigest()
    return path.with_name(f"{path.stem}.{checksum}{path.suffix}")


def _prune(newest: Path) -> None:
    of_its_kind = {path: _used_at(path) for path in newest.parent.glob(f"*{newest.suffix}")}
    partials = [path for path in of_its_kind if ".partial" in path.suffixes]
    complete = sorted(of_its_kind.keys() - partials, key=of_its_kind.__getitem__, reverse=True)
    abandoned = [path for path in partials if of_its_kind[path] < time.time() - ABANDONED_SECONDS]
    for path in (*complete[MOST_FILES:], *abandoned):
        path.unlink(missing_ok=True)


def _used_at(path: Path) -> float:
    """In seconds since 1970; 0 where it has gone meanwhile."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
