"""The kinds of outputs that there are: one line each. Imports none of them."""

from pathlib import Path
from typing import NamedTuple

from pipeline.addresses import FrameOptions, MqttOptions, WebhookOptions

# In an output's path it stands for the source's id.
SOURCE = "{source}"


class SinkKind(NamedTuple):
    """`module` has a function `open_sink(target)`.

    has_pictures  it takes full-size pictures
    on_demand     it is for whoever looks, and decides no frame's fate; it takes pictures only of sources that it asks
                  for, with nothing drawn on them
    has_fates     it tells of every frame, whatever became of it
    is_file       it writes a file at its path
    is_folder     it writes files of its own names into a folder that each source has in the one at its path
    is_shared     one takes all sources; else each source needs its own, with {source} in its path
    schemes       it is reached over a network, at an address with one of them
    is_called     there is a server at that address: it has a host, and may have user and password, port and path
    options       what may be said in such an address, where anything may
    """

    module: str
    has_pictures: bool = False
    on_demand: bool = False
    has_fates: bool = False
    is_file: bool = True
    is_folder: bool = False
    is_shared: bool = True
    schemes: tuple[str, ...] = ()
    is_called: bool = False
    options: type[FrameOptions] | None = None


SINKS = {
    "video": SinkKind("pipeline.sinks.video", has_pictures=True, is_shared=False),
    "jsonl": SinkKind("pipeline.sinks.jsonl", has_fates=True),
    "trace": SinkKind("pipeline.sinks.trace"),
    "mot": SinkKind("pipeline.sinks.mot", is_shared=False),
    "csv": SinkKind("pipeline.sinks.csv"),
    "coco": SinkKind("pipeline.sinks.coco", is_shared=False),
    "publish": SinkKind(
        "pipeline.sinks.publish", has_pictures=True, on_demand=True, is_file=False, schemes=("tcp", "ipc")
    ),
    "mqtt": SinkKind("pipeline.sinks.mqtt", is_file=False, schemes=("mqtt", "mqtts"), options=MqttOptions),
    "webhook": SinkKind("pipeline.sinks.webhook", is_file=False, schemes=("http", "https"), options=WebhookOptions),
    "window": SinkKind("pipeline.sinks.window", has_pictures=True, is_file=False),
    "record": SinkKind("pipeline.sinks.record", has_pictures=True, is_file=False, is_folder=True, is_shared=False),
    "rtsp": SinkKind(
        "pipeline.sinks.rtsp",
        has_pictures=True,
        is_file=False,
        is_shared=False,
        schemes=("rtsp", "rtsps"),
        is_called=True,
    ),
}

_LOCAL = tuple(kind for kind, sink in SINKS.items() if sink.is_file or sink.is_folder)
_KIND_OF = {scheme: kind for kind, sink in SINKS.items() for scheme in sink.schemes}
ALLOWED = f"KIND:PATH with a kind of {', '.join(_LOCAL)}, for example jsonl:objects.jsonl" + (
    f", or an address that begins with {', '.join(f'{scheme}://' for scheme in _KIND_OF)}" if _KIND_OF else ""
)


def kind_and_target(address: str) -> tuple[str, str] | None:
    """The kind of the output at `address` and what its sink is given: the PATH of KIND:PATH (in it, the folder of the
    source where the kind has some), or all of scheme://…

    None for what is no output.
    """
    word, colon, rest = address.partition(":")
    if colon and rest.startswith("//") and word in _KIND_OF:
        return _KIND_OF[word], address
    if not colon or word not in _LOCAL:
        return None
    if not SINKS[word].is_folder:
        return word, rest
    return (word, str(Path(rest.removesuffix(SOURCE), SOURCE))) if rest else None
