"""What an address names instead of saying it: `${CAM_PASSWORD}` of the environment, `${file:/run/secrets/cam}` a file's
first line. Shows no value: an error names the variable or the file.

Names stand for a user, a password, a part of a path or query, or for a whole address on a network; never for a host or
a scheme, for these are shown. As a part of an address values are percent-encoded: any letter is allowed in them. What
was taken from the environment is no longer there, so neither this process nor one started later shows it.
"""

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from configs.uri import Uri, shown_text

LARGEST_FILE_BYTES = 1 << 16

_PLACE = re.compile(r"\$\{([^{}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_FILE = "file:"
_ADDRESS = re.compile(r"(rtsps?|https?)://", re.IGNORECASE)
_ODD = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ALLOWED = "${NAME} (capital letters, digits and _) or ${file:PATH}"

# Variables that were read, for a configuration that is read again.
_taken: dict[str, str] = {}


class SecretError(ValueError):
    """What an address names is not there, or it names nothing that can be; one line, without any value."""


def filled(uri: Uri) -> Uri:
    """`uri` with all that it names in its place. Raises SecretError."""
    template = uri.reveal()
    if "${" not in template:
        return uri
    if whole := _PLACE.fullmatch(template):
        text = _value(whole)
        if not _ADDRESS.match(text):
            raise SecretError("what it names is no address on a network: rtsp://, rtsps://, http:// or https://")
    else:
        _check_places(template)
        text = _PLACE.sub(lambda place: quote(_value(place), safe="", errors="surrogateescape"), template)
    if odd := _ODD.search(text):
        raise SecretError(f"what it names holds the character U+{ord(odd[0]):04X}; leave it out, or encode it")
    return Uri(text)


def value_of(text: str) -> str:
    """`text`, or what it names if it is one name and nothing else. Raises SecretError."""
    whole = _PLACE.fullmatch(text)
    return _value(whole) if whole else text


def _check_places(template: str) -> None:
    """Names may stand before the @ or after the host. Raises SecretError."""
    plain = _PLACE.sub(lambda place: "x" * len(place[0]), template)
    network = Uri(plain).network
    host = "" if network is None else f"{network.host}{network.port}{network.tail}"
    before_host, after_host = len(plain) - len(host), len(plain) - len(network.tail if network else "")
    names = [place.start() for place in _PLACE.finditer(template)]
    if network is None or plain.find("://") > min(names) or any(before_host <= at < after_host for at in names):
        raise SecretError(
            "names may stand in the user, the password, the path and the query of scheme://user:password@host/path"
        )


def _value(place: re.Match[str]) -> str:
    name, closed = place[1], place[2]
    if closed and name.startswith(_FILE):
        return _first_line(name.removeprefix(_FILE))
    if not closed or not _VARIABLE.fullmatch(name):
        raise SecretError(f"${{ begins a name, and this one cannot be read: give {_ALLOWED}")
    if name in os.environ:
        _taken[name] = os.environ.pop(name)
        _wipe(name)
    if name not in _taken:
        raise SecretError(f"the environment has no {name}; set it, or give {_ALLOWED}")
    return _taken[name]


def _wipe(name: str) -> None:
    """The kernel goes on showing what a process was started with (/proc/PID/environ), from the process's own memory."""
    with suppress(OSError, ValueError, IndexError):  # not Linux
        start, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[47:49])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            block = memory.read(end - start)
            for entry in re.finditer(rb"(?:^|(?<=\0))%s=[^\0]*" % name.encode(), block):
                memory.seek(start + entry.start())
                memory.write(bytes(len(entry[0])))


def _first_line(path: str) -> str:
    try:
        if not Path(path).is_file():  # to open a pipe would wait for ever
            raise SecretError(f"{shown_text(path)}: no such file")
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES)
    except (OSError, ValueError) as error:
        if isinstance(error, SecretError):
            raise
        raise SecretError(f"{shown_text(path)}: {getattr(error, 'strerror', None) or 'not a name'}") from None
    return content.split(b"\n")[0].removesuffix(b"\r").decode("utf-8", "surrogateescape")
