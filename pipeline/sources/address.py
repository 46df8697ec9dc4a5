"""What a URI means: which kind of source it names, how FFmpeg is told, and how it may be shown. Opens nothing."""

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.errors import SourceError, redact

Kind = Literal["file", "rtsp", "http", "camera", "images", "pattern"]

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")
_ALLOWED = "a file, an image folder or glob, rtsp://, rtsps://, http://, https://, /dev/video0 or 0, or lavfi:testsrc2"


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is for FFmpeg only, it may hold a password; `shown` is for people."""

    kind: Kind
    shown: str
    url: str = field(repr=False)
    image_paths: tuple[Path, ...] = field(default=(), repr=False)

    @property
    def may_block(self) -> bool:
        """Whether it is read from something that may keep silent for ever."""
        return self.kind in ("rtsp", "http", "camera")


def parse_address(uri: str) -> Address:
    """Raises SourceError for a path that leads to nothing and for a scheme that is not read."""
    if not uri.strip():
        raise SourceError(f"the source's uri is empty: give {_ALLOWED}")
    if uri.isdecimal():
        return Address("camera", f"camera /dev/video{uri}", f"/dev/video{uri}")
    if uri.startswith("/dev/video"):
        return Address("camera", f"camera {uri}", uri)
    scheme = _SCHEME.match(uri)
    if scheme and not Path(uri).exists():
        return _with_scheme(uri, scheme[1].lower())
    return _on_disk(uri)


def _with_scheme(uri: str, scheme: str) -> Address:
    if scheme == "lavfi":
        return Address("pattern", uri, uri.removeprefix("lavfi:"))
    # A query may hold a password or token too.
    shown = re.sub(r"\?.*", "?…", redact(uri))
    if scheme in ("rtsp", "rtsps"):
        return Address("rtsp", shown, uri)
    if scheme in ("http", "https"):
        return Address("http", shown, uri)
    raise SourceError(f"{shown}: no such file, and {scheme}: is not a source that is read: give {_ALLOWED}")


def _on_disk(uri: str) -> Address:
    path = Path(uri)
    if path.is_dir():
        return _images(uri, path.iterdir())
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return _images(uri, [path])
        return Address("file", uri, f"file:{uri}")
    if glob.has_magic(uri):
        return _images(uri, map(Path, glob.iglob(uri, recursive=True)))  # noqa: PTH207 (patterns may be absolute)
    if path.exists():
        raise SourceError(f"{uri} is neither a file nor a folder: give {_ALLOWED}")
    raise SourceError(f"{uri}: no such file: give {_ALLOWED}")


def _images(uri: str, found: Iterable[Path]) -> Address:
    paths = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        raise SourceError(f"{uri}: no images there; looked for {' '.join(sorted(IMAGE_SUFFIXES))}")
    return Address("images", uri, "", tuple(sorted(paths, key=_natural)))


def _natural(path: Path) -> list[tuple[int, str]]:
    """frame2 before frame10: runs of digits compare as numbers."""
    return [(int(run), run) if run.isdecimal() else (-1, run) for run in re.split(r"(\d+)", str(path))]
