"""What a URI means on this machine: which kind of source it names, and how FFmpeg is told. Opens nothing."""

import glob
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from configs.names import natural
from configs.uri import Network, Uri, shown_text
from pipeline.errors import SourceError
from pipeline.settings import SourceSettings

Kind = Literal["file", "rtsp", "http", "camera", "images", "pattern"]

IMAGE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_SCHEMES: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}
_USUAL_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_PATTERN = "lavfi:"
_ALLOWED = "a file, an image folder or glob, rtsp://, rtsps://, http://, https://, /dev/video0 or 0, or lavfi:testsrc2"


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is for FFmpeg only, it may hold a password; `shown` is for people; `host` and `port` of a
    server."""

    kind: Kind
    shown: str
    url: str = field(repr=False)
    image_paths: tuple[Path, ...] = field(default=(), repr=False)
    host: str = ""
    port: int = 0

    @property
    def may_block(self) -> bool:
        """Whether it is read from something that may keep silent for ever."""
        return self.kind in ("rtsp", "http", "camera")


def parse_address(uri: Uri) -> Address:
    """Raises SourceError for a path that leads to nothing and for a scheme that is not read."""
    text = uri.reveal()
    if not text.strip():
        raise SourceError(f"the source's uri is empty: give {_ALLOWED}")
    if text.isdecimal():
        text = f"/dev/video{text}"
    if text.startswith("/dev/video"):
        return Address("camera", f"camera {shown_text(text)}", text)
    try:
        if uri.network and not Path(text).exists():
            return _on_network(uri, uri.network)
        if text.startswith(_PATTERN) and not Path(text).exists():
            return Address("pattern", uri.shown, text.removeprefix(_PATTERN))
        return _on_disk(uri)
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be entered, a NUL
        raise SourceError(f"{uri.shown}: {getattr(error, 'strerror', None) or 'not a name a file can have'}") from None


def has_no_end(settings: SourceSettings) -> bool:
    """Whether the source is live as far as its address tells, so that a stop is how it is done. Opens nothing."""
    try:
        return settings.realtime or parse_address(settings.uri).may_block
    except SourceError:
        return False


def _on_network(uri: Uri, network: Network) -> Address:
    kind = _SCHEMES.get(network.scheme.lower())
    if kind is None:
        raise SourceError(
            f"{uri.shown}: no such file, and {network.scheme}: is not a source that is read: give {_ALLOWED}"
        )
    if network.problem:
        raise SourceError(f"{uri.shown} {network.problem}")
    port = int(network.port.lstrip(":")) if network.port.strip(":") else _USUAL_PORTS[network.scheme.lower()]
    return Address(kind, uri.shown, uri.for_ffmpeg(), host=network.host.strip("[]"), port=port)


def _on_disk(uri: Uri) -> Address:
    text = uri.reveal()
    path = Path(text)
    if path.is_dir():
        return _images(uri, path.iterdir())
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return _images(uri, [path])
        return Address("file", uri.shown, f"file:{text}")
    if glob.has_magic(text):
        return _images(uri, map(Path, glob.iglob(text, recursive=True)))  # noqa: PTH207 (patterns may be absolute)
    if path.exists():
        raise SourceError(f"{uri.shown} is neither a file nor a folder: give {_ALLOWED}")
    raise SourceError(f"{uri.shown}: no such file: give {_ALLOWED}")


def _images(uri: Uri, found: Iterable[Path]) -> Address:
    paths = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    if not paths:
        raise SourceError(f"{uri.shown}: no images there; looked for {' '.join(sorted(IMAGE_SUFFIXES))}")
    return Address("images", uri.shown, "", tuple(sorted(set(paths), key=lambda path: natural(str(path)))))
