"""Where what can be made again is kept, and where instead when that cannot be written. Knows not what it is."""

from __future__ import annotations  # as in startup

import errno
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path


def cache_dir() -> Path:
    """`$CENTERSTREAM_CACHE`, or `centerstream` in the user's cache folder; where that cannot be written, a private
    folder of this user under the temporary folder. Raises OSError where that one cannot be had either.
    """
    usual = usual_cache_dir()
    return usual.absolute() if usual and _can_be_written(usual) else _private()


def forget(folder: str) -> bool:
    """Remove a folder of the cache with all that is in it; whether it was one, and not a place of the user's own."""
    path = Path(folder).absolute()
    with suppress(OSError):
        if cache_dir() in path.parents:
            shutil.rmtree(path, ignore_errors=True)
            return True
    return False


def home() -> Path | None:
    """The user's folder; None where there is no $HOME, and the system does not know the user."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def usual_cache_dir() -> Path | None:
    """Where the user, or the system for this user, wants it; None where nobody says."""
    if given := os.environ.get("CENTERSTREAM_CACHE"):
        return Path(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "centerstream"
    own = home()
    return own and own / ".cache" / "centerstream"


def _can_be_written(folder: Path) -> bool:
    """Whether files can be made in it, or it can be made first."""
    there = next((place for place in (folder, *folder.parents) if os.access(place, os.F_OK)), None)
    return there is not None and there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _private() -> Path:
    """Anyone may make folders there: what another user made or may write is not taken, for what is in it is run."""
    import tempfile  # slow, and seldom needed

    folder = Path(tempfile.gettempdir()) / f".centerstream-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        reason = "is not this user's alone; remove it, or set CENTERSTREAM_CACHE to a folder that can be written"
        raise PermissionError(errno.EPERM, reason, str(folder))
    return folder
