"""What an address names instead of saying it: `${CAM_PASSWORD}` of the environment, `${file:/run/secrets/cam}` a file's
first line. Shows no value: an error names the variable or the file.

Only an address on a network may: of it no more than scheme, host and port is ever shown, whatever was put in. Where a
letter could end its part of the address too early values are percent-encoded, so that any letter is allowed in them.
What was taken from the environment is no longer in it, so that no process started later has it.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote

from configs.uri import Uri, shown_text

LARGEST_FILE_BYTES = 1 << 16

_PLACE = re.compile(r"\$\{([^{}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_FILE = "file:"
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
    text = _PLACE.sub(lambda place: _encoded(_value(place), template, place.start()), template)
    if odd := re.search("[\x00-\x1f\x7f\ud800-\udfff]", text):
        raise SecretError(f"what it names holds the character U+{ord(odd[0]):04X}; leave it out")
    whole = Uri(text)
    if whole.network is None:
        raise SecretError("with what it names in its place it is no address on a network, scheme://host/…; give one")
    return whole


def are_taken() -> bool:
    """Whether anything was read from the environment."""
    return bool(_taken)


def _value(place: re.Match[str]) -> str:
    name, closed = place[1], place[2]
    if closed and name.startswith(_FILE):
        return _first_line(name.removeprefix(_FILE))
    if not closed or not _VARIABLE.fullmatch(name):
        raise SecretError(f"${{ begins a name, and this one cannot be read: give {_ALLOWED}")
    if name in os.environ:
        _taken[name] = os.environ.pop(name)
    if name not in _taken:
        raise SecretError(f"the environment has no {name}; set it, or give {_ALLOWED}")
    return _taken[name]


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


def _encoded(value: str, template: str, at: int) -> str:
    """`value` as it may stand at that place of the template: as it is where it is a host, or the whole address."""
    before, slashes, rest = template.partition("://")
    if not slashes or "$" in before or at < len(before):
        return value
    at -= len(before) + len(slashes)
    plain = _PLACE.sub(lambda place: "x" * len(place[0]), rest)
    authority = re.split(r"[/?#]", plain)[0]
    is_host = authority.rfind("@") < at < len(authority)
    return value if is_host else quote(value, safe="", errors="surrogateescape")
