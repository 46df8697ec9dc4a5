"""The kinds of outputs that there are: one line each. Imports none of them."""

from typing import NamedTuple

# In an output's path it stands for the source's id.
SOURCE = "{source}"


class SinkKind(NamedTuple):
    """`module` has a function `open_sink(target)`.

    has_pictures  it takes full-size pictures
    has_fates     it tells of every frame, whatever became of it
    is_file       it writes a file at its path
    is_shared     one takes all sources; else each source needs its own, with {source} in its path
    """

    module: str
    has_pictures: bool = False
    has_fates: bool = False
    is_file: bool = True
    is_shared: bool = True


SINKS = {
    "video": SinkKind("pipeline.sinks.video", has_pictures=True, is_shared=False),
    "jsonl": SinkKind("pipeline.sinks.jsonl", has_fates=True),
    "trace": SinkKind("pipeline.sinks.trace"),
    "mot": SinkKind("pipeline.sinks.mot", is_shared=False),
    "window": SinkKind("pipeline.sinks.window", has_pictures=True, is_file=False),
}
