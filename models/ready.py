"""What a start came to, remembered: the next one that asks for the same makes the engine of the exported file at once,
and needs neither the network nor torch, which alone takes seconds to import. Knows no engine in particular.
"""

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from models.cache import cached_file, kept_file
from models.engines import Engine, EngineError, Exported, Job, engine_of
from models.fingerprint import code_digest, processor, versions

# All that may decide which engine is taken, or what it does.
PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "onnxruntime", "openvino")


class Ready(msgspec.Struct, frozen=True):
    """An engine that can be made again, and `card`, which whoever remembered it wanted to know."""

    engine: str
    job: Job
    graph: str  # the name of the exported file in the cache, without its checksum
    shapes: dict[str, tuple[int, ...]]
    card: msgspec.Raw


Card = TypeVar("Card")

_decode = msgspec.json.Decoder(Ready).decode


def recall(asked: object, weights: Path, card_type: type[Card]) -> tuple[Engine, Card] | None:
    """The engine remembered for what was `asked` (anything with a lasting `repr`) of these weights, and its card.

    None where there is none, or it cannot be had today. Raises OSError for weights that cannot be read.
    """
    name = _name(asked, weights)
    with suppress(OSError, msgspec.MsgspecError, EngineError):
        kept = kept_file(name)
        ready = _decode(kept.read_bytes()) if kept else None
        graph = kept_file(ready.graph) if ready else None
        if ready and graph:
            card = msgspec.json.decode(ready.card, type=card_type)
            return engine_of(ready.engine, Exported(graph, ready.shapes), ready.job), card
    return None


def remember(asked: object, weights: Path, engine: Engine, card: object) -> None:
    """For the next start, where `engine` was made of an exported file; without a cache there is no next time."""
    if engine.exported is None:
        return
    graph = f"{engine.exported.path.name.partition('.')[0]}{engine.exported.path.suffix}"
    job = replace(engine.job, precision=engine.precision)
    ready = Ready(engine.name, job, graph, engine.exported.shapes, msgspec.Raw(msgspec.json.encode(card)))
    content = msgspec.json.encode(ready)
    with suppress(OSError):
        cached_file(_name(asked, weights), lambda path: _write(path, content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _name(asked: object, weights: Path) -> str:
    """Of a file: what was asked, the weights, our code, the packages and the machine are in its name."""
    digest = hashlib.blake2b(repr((asked, code_digest(), versions(*PACKAGES), processor())).encode(), digest_size=12)
    with weights.open("rb") as file:
        digest.update(hashlib.file_digest(file, hashlib.blake2b).digest())
    return f"start-{digest.hexdigest()}.ready"
