"""Addresses of outputs on a network: where they lead, and the options in them. Opens nothing, and speaks no protocol.

    mqtt://user:password@host:1883/prefix?qos=1&every=1.0
    https://user:password@host/path?token=…#every=1.0

An option is key=value, with & between them. Where the query is for whoever is addressed, they stand behind a #.
"""

import re
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Generic, Literal, TypeVar
from urllib.parse import unquote

from msgspec import Meta, Struct

from configs.uri import Uri

HIGHEST_PORT = 65535
USUAL_PREFIX = "centerstream"


class FrameOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """Which frames are sent."""

    mark: ClassVar[str] = "?"

    # objects: those with objects, and those that have no result; all: a line for each, whatever became of it
    frames: Literal["objects", "all"] = "objects"
    # At most one frame of a source in so many seconds of its own time; 0: each
    every: Annotated[float, Meta(ge=0.0, le=3600.0)] = 0.0

    @staticmethod
    def check_path(path: str) -> None:
        """Raises ValueError for a path that nothing can be sent to."""


class MqttOptions(FrameOptions, frozen=True, forbid_unknown_fields=True):
    """What is published, and how."""

    # 1: until the broker has confirmed it; 0: once, whatever becomes of it
    qos: Literal[0, 1] = 1
    # Tell Home Assistant what there is
    discovery: Literal["none", "homeassistant"] = "none"
    # Count only these class names, with commas between; empty: those that the run looks for
    classes: str = ""

    @staticmethod
    def check_path(path: str) -> None:
        if re.search(r"[+#\0]|//", topic_prefix(path)):
            raise ValueError("what stands behind the host begins each topic, so it has no + and #, and no empty level")


class WebhookOptions(FrameOptions, frozen=True, forbid_unknown_fields=True):
    """What is posted, and how."""

    mark: ClassVar[str] = "#"

    # Lines are gathered for so many seconds before they are posted together
    gather: Annotated[float, Meta(ge=0.0, le=60.0)] = 1.0
    # So many at the most
    most: Annotated[int, Meta(ge=1, le=1000)] = 100


O = TypeVar("O", bound=FrameOptions)  # noqa: E741


@dataclass(frozen=True, slots=True)
class Place(Generic[O]):
    """Where an address leads. `shown` is how it is told; `identity` is all of it but who asks, for it to be known
    again, and never to be told."""

    shown: str
    scheme: str
    host: str
    port: int | None
    user: str = field(repr=False)
    password: str | None = field(repr=False)
    path: str = field(repr=False)
    identity: str = field(repr=False)
    options: O


def read(address: Uri, kind: type[O]) -> Place[O]:
    """Raises ValueError, in one line that shows no secret."""
    network = address.network
    if network is None or network.problem:
        raise ValueError(network.problem if network and network.problem else "is no address on a network")
    port = int(network.port[1:]) if network.port else None
    if port is not None and not 0 < port <= HIGHEST_PORT:
        raise ValueError(f"port {port} cannot be, allowed is 1 to {HIGHEST_PORT}")
    path, _, options = network.tail.partition(kind.mark)
    if kind.mark == "?" and "#" in network.tail:
        raise ValueError("holds a #; write it as %23")
    kind.check_path(path)
    user, colon, password = network.user_and_password.partition(":")
    return Place(
        shown=address.shown,
        scheme=network.scheme,
        host=network.host.strip("[]"),
        port=port,
        user=unquote(user),
        password=unquote(password) if colon else None,
        path=path,
        identity=f"{network.scheme}://{network.host}{network.port}{path}",
        options=_read_options(options, kind),
    )


def topic_prefix(path: str) -> str:
    """What an address has behind its host, as the beginning of topics."""
    return unquote(path).strip("/") or USUAL_PREFIX


def _read_options(text: str, kind: type[O]) -> O:
    from configs import plainyaml, reader  # only where there are such outputs

    known = kind.__struct_fields__
    tree: dict[str, object] = {}
    for part in filter(None, text.split("&")):
        key, equals, value = map(unquote, part.partition("="))
        if not equals or key not in known:  # which may be a token that was put there by mistake
            how = f"as {kind.mark}key=value, with & between them; keys are {', '.join(known)}"
            raise ValueError(f"what stands behind the {kind.mark} is no option: give them {how}")
        if key in tree:
            raise ValueError(f"has {key} twice")
        try:
            number = plainyaml.parse(value)
        except plainyaml.Unreadable:
            number = value
        tree[key] = number if isinstance(number, int | float) else value
    return reader.check(kind, tree)
