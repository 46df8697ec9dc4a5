"""Zones and lines of a source, written into the file of settings that the run was started with. All else in the file
stays as it is: comments, order, and names of secrets, whose values are not known here. Knows no run.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from configs import edit, plainyaml, reader
from configs.reader import ConfigError, Tree
from configs.uri import shown_text
from pipeline.errors import UsageError
from pipeline.settings import Settings
from pipeline.shapes import Layout, Line, Zone

KINDS: dict[str, type[Zone | Line]] = {"zones": Zone, "lines": Line}


def save_layout(path: str | None, source_id: str, layout: Layout) -> str:
    """What was done, in a line. Raises UsageError, with what to put where, for what cannot be; then the file is as it
    was."""
    if path is None:
        where = "the run was started without --config FILE"
        raise UsageError(f"{where}; start it with one that has {_to_copy(source_id, layout)}")
    try:
        text, tree = reader.read_file(path, Settings)
    except ConfigError as error:
        raise UsageError(f"{error}; nothing was saved") from None
    sources = tree.get("sources")
    if not isinstance(sources, dict) or not isinstance(sources.get(source_id), dict):
        raise UsageError(f"{shown_text(path)} has no sources.{source_id}; put there {_to_copy(source_id, layout)}")
    edited = _edited(text, tree, source_id, layout)
    if edited is None:
        how = f"{shown_text(path)} says it in a way that cannot be changed without the rest (an alias, a merge)"
        raise UsageError(f"{how}; put there {_to_copy(source_id, layout)}")
    if edited == text:
        return f"{shown_text(path)} has these zones and lines of {source_id} already"
    try:
        _write(Path(path).resolve(), edited)
    except OSError as error:
        why = f"cannot write {shown_text(path)}: {error.strerror}"
        raise UsageError(f"{why}; put there {_to_copy(source_id, layout)}") from None
    return f"the zones and lines of {source_id} were saved to {shown_text(path)}"


def _to_copy(source_id: str, layout: Layout) -> str:
    """A line of YAML for each kind, without what is usual."""
    plain = {kind: {name: _unusual(shape, kind) for name, shape in found.items()} for kind, found in _plain(layout)}
    told = [f"{kind}: {plainyaml.inline(shapes)}" for kind, shapes in plain.items() if shapes]
    return f"below sources.{source_id}: {' and '.join(told) or 'neither zones nor lines'}"


def _plain(layout: Layout) -> list[tuple[str, Tree]]:
    """As a file has it, with all fields."""
    return [(kind, msgspec.json.decode(msgspec.json.encode(getattr(layout, kind)))) for kind in KINDS]


def _unusual(shape: Tree, kind: str) -> Tree:
    usual = _usual(kind)
    return {key: value for key, value in shape.items() if value != usual[key]}


def _usual(kind: str) -> Tree:
    """What each field is where a file says nothing of it."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(KINDS[kind])}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}


# -- from the old text to the new one


def _edited(text: str, tree: Tree, source_id: str, layout: Layout) -> str | None:
    """None where the text does not come out as it should."""
    before = tree["sources"][source_id]
    try:
        for kind, wanted in _plain(layout):
            text = _with_shapes(text, ("sources", source_id, kind), before.get(kind), wanted)
        after = plainyaml.parse(text)
        is_right = _without(after, source_id) == _without(tree, source_id)
        return text if is_right and _layout_of(after["sources"][source_id]) == layout else None
    except (KeyError, ValueError, TypeError, AttributeError, plainyaml.Unreadable):
        return None


def _with_shapes(text: str, path: tuple[str, ...], before: Tree | None, wanted: Tree) -> str:
    """Only where something is another, so that what is written beside the others stays."""
    kind = path[-1]
    usual = _usual(kind)
    if not before or not wanted:
        if wanted:
            return edit.put(text, path, {name: _unusual(shape, kind) for name, shape in wanted.items()})
        return edit.drop(text, path) if before else text
    for name, shape in wanted.items():
        if name not in before:
            text = edit.put(text, (*path, name), _unusual(shape, kind))
            continue
        for key, value in shape.items():
            if value != before[name].get(key, usual[key]):
                text = edit.put(text, (*path, name, key), value)
    for name in before.keys() - wanted.keys():
        text = edit.drop(text, (*path, name))
    return text


def _layout_of(source: Tree) -> Layout:
    return msgspec.convert({kind: source.get(kind) or {} for kind in KINDS}, Layout)


def _without(tree: Tree, source_id: str) -> Tree:
    """All but the zones and lines of this source."""
    source = {key: value for key, value in tree["sources"][source_id].items() if key not in KINDS}
    return tree | {"sources": tree["sources"] | {source_id: source}}


def _write(path: Path, text: str) -> None:
    """All of it or nothing, whatever happens meanwhile; with the rights that the file had."""
    status = path.stat()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            with suppress(OSError):  # only an administrator may give it back to its owner
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
