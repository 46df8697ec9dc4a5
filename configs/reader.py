"""Reads settings into a typed struct: a YAML file, then `key=value` on top; strict, and every error is one line that
teaches. Knows no setting in particular.
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from configs import plainyaml
from configs.plainyaml import DEEPEST, Unreadable
from configs.uri import HIDDEN, Secret, looks_like_an_address, shown, shown_text

Tree = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(ValueError):
    """A file that cannot be read, an unknown key, or a value of the wrong type or out of range; one line."""


def read_settings(kind: type[T], path: str | None, assignments: Iterable[tuple[str, Any]] = ()) -> T:
    """A `kind` from the YAML file `path` (None: its defaults), with (dotted key, value) pairs applied in order.

    Raises ConfigError.
    """
    return assigned(kind, {} if path is None else read_file(path, kind)[1], assignments)


def assigned(kind: type[T], tree: Tree, assignments: Iterable[tuple[str, Any]]) -> T:
    """`tree` with (dotted key, value) pairs applied in order, as a `kind`. Raises ConfigError."""
    for key, value in assignments:
        _assign(tree, key, value)
    return check(kind, tree)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`infer.score_threshold=0.4` as ("infer.score_threshold", 0.4); the value is read as YAML."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(map(_KEY.fullmatch, parts)) or len(parts) > DEEPEST:
        raise ConfigError(f"--set {shown(text)}: give it as key=value, for example --set infer.score_threshold=0.4")
    if looks_like_an_address(value) and not value.lstrip().startswith(tuple("[{'\"")):
        return key.strip(), value  # as it is: to YAML a colon and a space, or a #, would end it
    try:
        return key.strip(), plainyaml.parse(value)
    except Unreadable as error:
        raise ConfigError(f"--set {shown(text)}: the value is not plain YAML: {_problem(error)}") from None


def check(kind: type[T], tree: Tree) -> T:
    """`tree` as a `kind`. Raises ConfigError that names the key, the value given and what is allowed."""
    for key, text in _texts(tree):
        if odd := _ODD_CHARACTERS.search(text):
            raise ConfigError(
                f"{shown_text(key)}: holds the character U+{ord(odd[0]):04X}; leave it out, in an address encode it"
            )
    try:
        return msgspec.convert(tree, kind, dec_hook=_from_text)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), tree, kind)) from None


def _from_text(kind: type, value: Any) -> Any:
    """A type of our own is made from text."""
    if not isinstance(value, str):
        raise ValueError("Expected `str`")
    return kind(value)


# Of an assignment; what else stands before = may be half of an address with a password.
_KEY = re.compile(r"[\w -]+")
# No name, path or URL has them; and half a character cannot be told to another process.
_ODD_CHARACTERS = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def _texts(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The keys and texts below, each with its dotted key."""
    if isinstance(tree, str):
        yield key, tree
    elif isinstance(tree, (dict, list)):
        for name, below in tree.items() if isinstance(tree, dict) else enumerate(tree):
            path = f"{key}.{name}" if key else str(name)
            yield path, path
            yield from _texts(below, path)


def read_file(path: str, kind: type) -> tuple[str, Tree]:
    """The text of a YAML file for a `kind`, and what it says. Raises ConfigError."""
    where = f"configuration {shown_text(path)}"
    try:
        text = plainyaml.read_file(path)
        tree = plainyaml.parse(text)
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}") from None
    except Unreadable as error:
        line = f", line {error.line}" if error.line else ""
        raise ConfigError(f"{where}{line}: {_problem(error)}") from None
    if tree is None:
        return text, {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected a mapping with the keys {_allowed_keys(kind)}")
    return text, tree


def _problem(error: Unreadable) -> str:
    return error.problem if error.value is None else f"{shown(error.value)} {error.problem}"


def _assign(tree: Tree, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            where = shown_text(".".join(parents[: depth + 1]))
            raise ConfigError(f"{where}: expected a mapping, got {shown(below)}")
        tree = below
    tree[last] = value


def _explain(text: str, tree: Tree, root: type) -> str:
    """msgspec's message, in the words of the configuration."""
    place = re.search(r" - at (`key` in )?`\$([\w.\[\]]*)`$", text)
    what = text[: place.start()] if place else text
    path = _name_keys(re.findall(r"\.\.\.|[^.\[\]]+", place[2]) if place else [], tree, root)
    if place and place[1]:
        return _explain_key(path, tree, root)
    if unknown := re.search(r"unknown field `(.*)`$", what):
        return _explain_unknown([*path, unknown[1]], root)
    key = shown_text(".".join(path)) or "configuration"
    kind = _type_at(path, root)
    if missing := re.search(r"missing required field `(.+)`", what):
        return f"{key}.{missing[1]}: is required"
    if not what.startswith(("Expected", "Invalid", "Number")):
        return f"{key}: {what}"  # a rule between several keys, in the struct's own words
    got = HIDDEN if _is_secret(kind) else shown(_value_at(tree, path))
    return f"{key}: got {got}, allowed is {_describe(kind)}"


def _is_secret(kind: Any) -> bool:
    return kind is Secret or any(_is_secret(part) for part in typing.get_args(kind))


def _explain_key(path: list[str], tree: Tree, root: type) -> str:
    """Of a mapping whose keys are the user's own."""
    kind = typing.get_args(_bare(_type_at(path, root)))[0]
    wrong = next((key for key in _value_at(tree, path) if not _is_valid(key, kind)), None)
    return f"{shown_text('.'.join(path))}: got the key {shown(wrong)}, allowed is {_describe(kind)}"


def _name_keys(path: list[str], tree: Any, root: type) -> list[str]:
    """`path` with the key of a mapping, which msgspec writes as `...`, named: the first whose value is not valid."""
    named: list[str] = []
    for name in path:
        if name == "...":
            kind = _type_at([*named, name], root)
            name = next((key for key, value in tree.items() if not _is_valid(value, kind)), name)
        named.append(name)
        tree = _value_at(tree, [name])
    return named


def _is_valid(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind, dec_hook=_from_text)
    except msgspec.ValidationError:
        return False
    return True


def _explain_unknown(path: list[str], root: type) -> str:
    parent = _type_at(path[:-1], root)
    known = msgspec.structs.fields(parent)
    close = difflib.get_close_matches(path[-1], [field.name for field in known], 1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{shown_text('.'.join(path))}: no such key; {hint}allowed here: {_allowed_keys(parent)}"


def _allowed_keys(struct: type) -> str:
    return ", ".join(field.name for field in msgspec.structs.fields(struct))


def _type_at(path: list[str], root: type) -> Any:
    kind: Any = root
    for name in path:
        kind = _bare(kind)
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            kind = next((field.type for field in msgspec.structs.fields(kind) if field.name == name), Any)
        else:
            return Any
    return kind


def _bare(kind: Any) -> Any:
    """Without what is said of it."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def _value_at(tree: Any, path: list[str]) -> Any:
    for name in path:
        if isinstance(tree, dict):
            tree = tree.get(name)
        elif isinstance(tree, list) and name.isdigit():
            tree = tree[int(name)]
    return tree


_NAMES = {
    float: "a number",
    int: "a whole number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    Any: "something else",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _describe(kind: Any) -> str:
    """What values `kind` takes, for a reader: "a number at least 0.0 and at most 1.0"."""
    if typing.get_origin(kind) is typing.Annotated:
        base, *metas = typing.get_args(kind)
        if metas[0].description:
            return str(metas[0].description)
        bounds = [f"{_BOUNDS[n]} {v}" for meta in metas for n in _BOUNDS if (v := getattr(meta, n, None)) is not None]
        return f"{_describe(base)} {' and '.join(bounds)}"
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_describe(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"a list of {_describe(typing.get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return f"a mapping with the keys {_allowed_keys(kind)}"
    return _NAMES.get(kind, "a mapping")
