"""A source's address as its user gave it: a value that prints itself without secrets, and a rule by which any other
text from a user is shown. Opens nothing, and knows no kind of source.

Text is never searched for secrets once it is a sentence: what may hold one is asked here, as a whole, how it is shown.
Of an address on a network only scheme, host and port are; a path or a query may be a token as well as a place.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import total_ordering
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

HIDDEN = "…"
LONGEST_SHOWN = 200
LONGEST_NAME = 64

_NETWORK = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)
# One slash too, for of two in a row a path has one; schemes that people know without any; and host:port/path
_SCHEME = re.compile(
    r"[a-zA-Z0-9+.-]{2}\s{0,9}:\s{0,9}/|^\s*(rtsps?|https?|rtmp|srt|udp|tcp|ftp)\s*:|^/*[\w.-]+:\d+/", re.IGNORECASE
)
_HARMLESS_PATTERN = re.compile(r"lavfi:(?!.*movie)[\w=:.,;()+*-]*(?<!\\)(/\d[\w=:.,;()+*-]*)*")
_UNQUOTED = dict.fromkeys(map(ord, "'\"[]"))
_BACKSLASHES: tuple[dict[int, str | None], ...] = ({ord("\\"): None}, {ord("\\"): "/"})
_HOST_AND_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+(?:%25[\w.-]+)?\])(:\d{1,5})?")
# Kept in a user and password as they are: RFC 3986, section 3.2.1; a % only where it begins a code
_TO_ENCODE = re.compile(r"%(?![0-9a-fA-F]{2})|[^\w!$&'()*+,;=:.~%-]", re.ASCII)
_PATTERN = "lavfi:"


@dataclass(frozen=True, slots=True)
class Network:
    """Where a network address leads; `problem` is why it cannot be read, in words that show nothing of it."""

    scheme: str
    host: str = ""
    port: str = ""
    user_and_password: str = field(default="", repr=False)
    tail: str = field(default="", repr=False)
    problem: str | None = None


@total_ordering
class Uri:
    """An address. Whatever prints it, by accident too, shows `shown`; `reveal` is for whoever opens it.

    name     a short id of letters, digits, - and _, without secrets: a file's stem, a host, a camera's number
    network  its parts if it has the form scheme://…, else None
    """

    __slots__ = ("_text", "name", "network", "shown")

    def __init__(self, text: str) -> None:
        self._text = text
        self.network = _read_network(text)
        self.shown = _show_network(self.network) if self.network else _show_path(text)
        self.name = _name(text, self.network)

    def reveal(self) -> str:
        """The address, secrets and all. Never into a message."""
        return self._text

    def for_ffmpeg(self) -> str:
        """The address with the letters of user and password encoded that would end them too early."""
        network = self.network
        if not network or not network.user_and_password:
            return self._text
        encoded = _TO_ENCODE.sub(_percent, network.user_and_password)
        return f"{network.scheme}://{encoded}@{network.host}{network.port}{network.tail}"

    def __str__(self) -> str:
        return self.shown

    def __repr__(self) -> str:
        return f"Uri({self.shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Uri) and other._text == self._text

    def __lt__(self, other: "Uri") -> bool:
        return self._text < other._text

    def __hash__(self) -> int:
        return hash(self._text)


class Secret(Uri):
    """A password or a token: nothing of it is ever shown."""

    __slots__ = ()

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.network, self.shown, self.name = None, HIDDEN, HIDDEN


def shown(value: Any) -> str:
    """Any value that a user gave, as an error may show it: in quotes if it is text, on one line, not too long, and
    without what may be a secret."""
    match value:
        case Uri():
            return repr(value.shown)
        case str():
            return f"'{shown_text(value)}'"
        case dict():
            return f"{{{HIDDEN}}}"  # to YAML an address with a space in its password is a mapping
        case list() | tuple():
            return f"[{HIDDEN}]"
        case None | True | False:
            return str(value).lower() if value is not None else "null"  # as YAML writes them
    return _cut(repr(value))


def shown_text(text: str) -> str:
    """The same without quotes: a path, a key, a name."""
    network = _read_network(text)
    return _show_network(network) if network else _show_path(text)


def looks_like_an_address(text: str) -> bool:
    """Whether a part of it may be a secret."""
    return bool(_read_network(text)) or _is_hidden(text)


def _is_hidden(text: str) -> bool:
    return _show_path(text) != _cut(printable(text))


def _read_network(text: str) -> Network | None:
    form = _NETWORK.fullmatch(text)
    if not form:
        return None
    scheme, rest = form[1], form[2]
    end = re.search(r"[/?#]", rest)
    authority, tail = (rest[: end.start()], rest[end.start() :]) if end else (rest, "")
    user_and_password, _, host_and_port = authority.rpartition("@")
    place = _HOST_AND_PORT.fullmatch(host_and_port)
    if not place:
        return Network(scheme, problem=_why_no_host(authority, tail))
    return Network(scheme, place[1], place[2] or "", user_and_password, tail)


def _why_no_host(authority: str, tail: str) -> str:
    if "@" in tail:  # user:pa/ss@host, or user:pa?ss@host
        return "has a letter in its user or password that must be encoded: write / as %2F, ? as %3F, # as %23"
    return "names no host that can be read: write it as scheme://user:password@host:port/path, letters as %40 for @"


def _show_network(network: Network) -> str:
    # An @ further on may be the one after a password that has a / in it: then nothing here is surely the host.
    if network.problem or "@" in network.tail:
        return f"{network.scheme}://{HIDDEN}"
    who = "***@" if network.user_and_password else ""
    tail = network.tail if network.tail in ("", "/") else f"/{HIDDEN}"
    return _cut(f"{network.scheme}://{who}{network.host}{network.port}{tail}")


def _show_path(text: str) -> str:
    """A path is shown as it is, unless it looks like an address that went wrong, or a part of one: anything with an @,
    a?token=b, host:554/path, also where it is encoded, escaped or in quotes."""
    if text.startswith(_PATTERN) and not _HARMLESS_PATTERN.fullmatch(text):  # a filter may open an address, too
        return f"{_PATTERN}{re.match(r'[a-z0-9_]*', text.removeprefix(_PATTERN))[0]}{HIDDEN}"  # type: ignore[index]
    meant = [unquote(unicodedata.normalize("NFKC", text)).translate(_UNQUOTED | way) for way in _BACKSLASHES]
    if any(_SCHEME.search(reading) for reading in meant):
        return f"{HIDDEN}://{HIDDEN}"
    if any("@" in reading for reading in meant):
        return f"***@{HIDDEN}"
    before, query, _ = text.partition("?")
    if query and any("=" in reading.partition("?")[2] for reading in meant):
        text = f"{before}?{HIDDEN}"
    return _cut(printable(text))


def printable(text: str) -> str:
    """On one line and in UTF-8: line ends, and bytes of a file name that are no text, are backslash codes."""
    return "".join(letter if letter.isprintable() else _code(letter) for letter in text)


def _code(letter: str) -> str:
    if 0xDC80 <= ord(letter) <= 0xDCFF:  # how Python holds a byte that is no text: PEP 383
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode("ascii")


def _cut(text: str) -> str:
    """The start and the end of a long one: of a path both tell something."""
    half = LONGEST_SHOWN // 2
    return text if len(text) <= LONGEST_SHOWN else f"{text[:half]}{HIDDEN}{text[-half:]}"


def _name(text: str, network: Network | None) -> str:
    if network:
        safe = not network.problem and "@" not in network.tail
        words = network.host.strip("[]") if safe else network.scheme
    elif text.startswith(_PATTERN):
        words = re.match(r"\w*", text.removeprefix(_PATTERN))[0]  # type: ignore[index]  # \w* always matches
    elif _is_hidden(text):
        words = ""
    else:
        words = PurePath(text).stem or PurePath(text).name
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in words)
    return name[:LONGEST_NAME].strip("-") or "source"


def _percent(letter: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in letter[0].encode("utf-8", "surrogatepass"))
