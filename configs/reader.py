"""Reads settings into a typed struct: a YAML file, then `key=value` on top; strict, and every error is one line that
teaches. Knows no setting in particular.
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

Tree = dict[str, Any]
T = TypeVar("T", bound=msgspec.Struct)


class ConfigError(ValueError):
    """A file that cannot be read, an unknown key, or a value of the wrong type or out of range; one line."""


def read_settings(kind: type[T], path: str | None, assignments: Iterable[tuple[str, Any]] = ()) -> T:
    """A `kind` from the YAML file `path` (None: its defaults), with (dotted key, value) pairs applied in order.

    Raises ConfigError.
    """
    tree = _read_yaml(path, kind) if path else {}
    for key, value in assignments:
        _assign(tree, key, value)
    return check(kind, tree)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`infer.score_threshold=0.4` as ("infer.score_threshold", 0.4); the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r}: give it as key=value, for example --set infer.score_threshold=0.4")
    try:
        return key.strip(), _read(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text!r}: the value is not YAML") from None


def check(kind: type[T], tree: Tree) -> T:
    """`tree` as a `kind`. Raises ConfigError that names the key, the value given and what is allowed."""
    try:
        return msgspec.convert(tree, kind, dec_hook=_from_text)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), tree, kind)) from None


def _from_text(kind: type, value: Any) -> Any:
    """A type of our own is made from text."""
    if not isinstance(value, str):
        raise ValueError("Expected `str`")
    return kind(value)


class _Loader(yaml.SafeLoader):
    """YAML, where 1e-3 is a number: to YAML 1.1 it is a word for want of a point."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _read(text: str) -> Any:
    return yaml.load(text, _Loader)


def _read_yaml(path: str, kind: type) -> Tree:
    try:
        tree = _read(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        raise ConfigError(f"configuration {path}{line}: not valid YAML") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"configuration {path}: expected a mapping with the keys {_allowed_keys(kind)}")
    return tree


def _assign(tree: Tree, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for depth, parent in enumerate(parents):
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"{'.'.join(parents[: depth + 1])}: expected a mapping, got {below!r}")
        tree = below
    tree[last] = value


def _explain(text: str, tree: Tree, root: type) -> str:
    """msgspec's message, in the words of the configuration."""
    what, _, where = text.partition(" - at `$")
    path = _name_keys(re.findall(r"\.\.\.|[^.\[\]`]+", where), tree, root)
    if unknown := re.search(r"unknown field `(.+)`", what):
        return _explain_unknown([*path, unknown[1]], root)
    key = ".".join(path) or "configuration"
    kind = _type_at(path, root)
    if missing := re.search(r"missing required field `(.+)`", what):
        return f"{key}.{missing[1]}: is required"
    if not what.startswith(("Expected", "Invalid")):
        return f"{key}: {what}"  # a rule between several keys, in the struct's own words
    return f"{key}: got {_value_at(tree, path)!r}, allowed is {_describe(kind)}"


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
    return f"{'.'.join(path)}: no such key; {hint}allowed here: {_allowed_keys(parent)}"


def _allowed_keys(struct: type) -> str:
    return ", ".join(field.name for field in msgspec.structs.fields(struct))


def _type_at(path: list[str], root: type) -> Any:
    kind: Any = root
    for name in path:
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        elif typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            kind = next((field.type for field in msgspec.structs.fields(kind) if field.name == name), Any)
        else:
            return Any
    return kind


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
