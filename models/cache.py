"""A folder for what can be made again: exported networks, and which engine measured best. Knows not what it keeps."""

import os
from collections.abc import Callable
from pathlib import Path

from models.files import whole_file

# An exported network can have 800 MB: the oldest go.
MOST_FILES = 8


def cache_dir() -> Path:
    """`$CENTERSTREAM_CACHE`, or `centerstream` in the user's cache folder."""
    if given := os.environ.get("CENTERSTREAM_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "centerstream"


def cached_file(name: str, make: Callable[[Path], None]) -> Path:
    """The file `name` of the cache, made by `make(path)` when it is not there; complete or absent.

    The least lately used of its kind (suffix) go when there are more than `MOST_FILES`. Raises OSError where the folder
    cannot be written.
    """
    path = cache_dir() / name
    if path.exists():
        path.touch()
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        make(partial)
    _prune(path)
    return path


def _prune(newest: Path) -> None:
    by_age = sorted(newest.parent.glob(f"*{newest.suffix}*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[MOST_FILES:]:
        path.unlink(missing_ok=True)
