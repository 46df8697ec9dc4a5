"""YAML text as plain values: mappings with text for keys, lists, text, numbers, true and false, null. Strict, and of a
size that people write: what is nested, repeated or multiplied beyond it is refused before it takes time or memory.
Knows no setting and shows nothing to anyone: an error carries the value for whoever does.
"""

import re
import stat
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError

LARGEST_BYTES = 64 << 10
MOST_VALUES = 5000
DEEPEST = 32
MOST_DIGITS = 100

_YAML = "tag:yaml.org,2002:"
_SCALARS = {
    _YAML + "str": "is not text",
    _YAML + "int": f"is not a whole number of up to {MOST_DIGITS} digits",
    _YAML + "float": "is not a number",
    _YAML + "bool": "is neither true nor false",
    _YAML + "null": "is not null",
}
_MERGE = _YAML + "merge"
# In the words of PyYAML and in ours
_PROBLEMS = {
    "but found another document": "a second document begins; keep one",
    "found character '\\t' that cannot start any token": "a tab; indent with spaces",
}


class Unreadable(Exception):
    """A text that is no plain YAML: its `problem`, the `line` if it has one, the `value` that the problem is with."""

    def __init__(self, problem: str, line: int | None = None, value: str | None = None) -> None:
        super().__init__(problem)
        self.problem, self.line, self.value = problem, line, value


def read_file(path: str) -> str:
    """The text of a small file. Raises Unreadable, and OSError where it cannot be opened."""
    if not stat.S_ISREG(Path(path).stat().st_mode):  # to open a pipe would wait for ever
        raise Unreadable("not a regular file; give a file")
    with Path(path).open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise Unreadable(f"larger than {LARGEST_BYTES} bytes; give a file of settings alone")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable("not UTF-8 text", content.count(b"\n", 0, error.start) + 1) from None


def parse(text: str) -> Any:
    """The value of the one document in `text`; None where there is none. Raises Unreadable."""
    try:
        loader = _Loader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Unreadable(f"holds the character U+{error.character:04X}, which YAML does not take", line) from None
    try:
        node = loader.get_single_node()
        return None if node is None else loader.value(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _PROBLEMS.get(error.problem or "", "not valid YAML")
        raise Unreadable(problem, mark.line + 1 if mark else None) from None
    except (ValueError, OverflowError):  # a number in a directive or an escape that PyYAML does not look at before use
        raise Unreadable("not valid YAML", loader.line + 1) from None


def inline(value: Any) -> str:
    """`value` as YAML in one line, which `parse` reads back."""
    dumped = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1e9)
    return dumped.removesuffix("...\n").strip()


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what `_Loader` would not read as text."""


class _Loader(yaml.SafeLoader):
    """YAML, where 1e-3 is a number, to YAML 1.1 a word for want of a point; and where dates and = are text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._composed = 0
        self._made = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._composed += 1
        self._depth += 1
        _check_size(self.peek_event(), self._composed, self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def value(self, node: Node, depth: int = 1) -> Any:
        """What `node` stands for. An alias is counted as all that it stands for, each time."""
        self._made += 1
        _check_size(node, self._made, depth)
        if isinstance(node, SequenceNode) and node.tag == _YAML + "seq":
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, MappingNode) and node.tag == _YAML + "map":
            return self._mapping(node, depth + 1)
        if isinstance(node, ScalarNode) and node.tag in (*_SCALARS, _MERGE):
            return self._scalar(node)
        raise Unreadable("is a tag that is not read; leave it out", _line(node), node.tag.replace(_YAML, "!!"))

    def _mapping(self, node: MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, below in node.value:
            value = self.value(below, depth)
            if key.tag == _MERGE:
                merged = _merge(value, below) | merged
            elif key.tag != _YAML + "str" or not isinstance(key, ScalarNode):
                raise Unreadable("is a key, and keys are text; put it in quotes", _line(key), _source_text(key))
            elif key.value in own:
                raise Unreadable("is a key that was given before; keep one", _line(key), key.value)
            else:
                own[key.value] = value
        return merged | own

    def _scalar(self, node: ScalarNode) -> Any:
        if node.tag == _MERGE:
            return node.value
        try:
            if node.tag == _YAML + "int" and len(node.value) > MOST_DIGITS:
                raise ValueError
            return self.construct_object(node)
        except (ValueError, LookupError):
            raise Unreadable(_SCALARS[node.tag], _line(node), node.value) from None


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_YAML + "float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_YAML + "timestamp", _YAML + "value")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _check_size(place: Any, values: int, depth: int) -> None:
    if depth > DEEPEST:
        raise Unreadable(f"nested deeper than {DEEPEST}", _line(place))
    if values > MOST_VALUES:
        raise Unreadable(f"more than {MOST_VALUES} values", _line(place))


def _merge(value: Any, node: Node) -> dict[str, Any]:
    """What `<<` brings: of several mappings the first that has a key gives its value."""
    mappings = value if isinstance(value, list) else [value]
    if not all(isinstance(mapping, dict) for mapping in mappings):
        raise Unreadable("<< takes a mapping or a list of mappings", _line(node))
    return {key: value for mapping in reversed(mappings) for key, value in mapping.items()}


def _line(place: Any) -> int:
    """Of a node or an event, counted from 1."""
    return int(place.start_mark.line) + 1


def _source_text(key: Node) -> str:
    return key.value if isinstance(key, ScalarNode) else "[…]" if isinstance(key, SequenceNode) else "{…}"
