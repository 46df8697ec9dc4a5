"""Changes one value in the text of a YAML file, and leaves every other letter of it as it is: comments, order, quotes.

What is written inline stays inline, what stands on lines of its own does so. Knows no setting and no file. What an
alias or a merge stands for is not followed: whoever changes a text reads it again, and looks whether it says what it
should.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode

from configs.plainyaml import inline

INDENT = "  "


def put(text: str, path: Sequence[str], value: Any) -> str:
    """With `value` at `path`, whose last key may be new. Raises KeyError where there is no mapping for it."""
    parent, key = _mapping(text, path[:-1]), path[-1]
    found = _entry(parent, key)
    if found:
        return _replaced(text, parent, found, value)
    if parent.flow_style:
        return _inserted_inline(text, parent, key, value)
    column = parent.value[0][0].start_mark.column
    at = _end_of_line(text, _end(text, parent))
    before = "" if text[:at].endswith("\n") else _newline(text)
    return text[:at] + before + _block(text, key, value, " " * column) + text[at:]


def drop(text: str, path: Sequence[str]) -> str:
    """Without the key at `path`, and all below it. Raises KeyError where there is none."""
    parent = _mapping(text, path[:-1])
    key, value = _entry(parent, path[-1]) or _missing(path[-1])
    start, end = key.start_mark.index, _end(text, value)
    if not parent.flow_style:
        return text[: _start_of_line(text, start)] + text[_end_of_line(text, end) :]
    rest = text[end:].lstrip()
    if rest.startswith(","):
        return text[:start] + rest[1:].lstrip()
    return text[:start].rstrip().removesuffix(",") + text[end:]


# -- where things are


def _mapping(text: str, path: Sequence[str]) -> MappingNode:
    node: Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for key in path:
        found = _entry(node, key) if isinstance(node, MappingNode) else None
        node = (found or _missing(key))[1]
    if not isinstance(node, MappingNode):
        raise KeyError(path[-1] if path else "")
    return node


def _entry(parent: MappingNode, key: str) -> tuple[Node, Node] | None:
    return next(
        ((name, value) for name, value in parent.value if isinstance(name, ScalarNode) and name.value == key), None
    )


def _missing(key: str) -> tuple[Node, Node]:
    raise KeyError(key)


def _end(text: str, node: Node) -> int:
    """Just after its last letter; PyYAML's own mark of what stands on lines of its own lies behind comments there."""
    if isinstance(node, CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    end: int = node.end_mark.index
    return len(text[:end].rstrip()) if isinstance(node, ScalarNode) and node.style in ("|", ">") else end


def _start_of_line(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def _end_of_line(text: str, at: int) -> int:
    """Where the next line begins."""
    return text.find("\n", at) + 1 or len(text)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


# -- what is written


def _replaced(text: str, parent: MappingNode, found: tuple[Node, Node], value: Any) -> str:
    key, before = found
    start, end = key.start_mark.index, _end(text, before)
    has_lines = isinstance(before, CollectionNode) and not before.flow_style
    if parent.flow_style or not (has_lines or isinstance(value, dict)):
        return text[: before.start_mark.index] + inline(value) + text[end:]
    whole = _block(text, key.value, value, " " * key.start_mark.column)
    return text[: _start_of_line(text, start)] + whole + text[_end_of_line(text, end) :]


def _inserted_inline(text: str, parent: MappingNode, key: str, value: Any) -> str:
    told = f"{inline(key)}: {inline(value)}"
    if parent.value:
        end = _end(text, parent.value[-1][1])
        return text[:end] + ", " + told + text[end:]
    start = parent.start_mark.index + text[parent.start_mark.index :].index("{") + 1
    return text[:start] + told + text[start:]


def _block(text: str, key: str, value: Any, indent: str) -> str:
    newline = _newline(text)
    return newline.join([*_lines(key, value, indent), ""])


def _lines(key: str, value: Any, indent: str) -> Iterator[str]:
    if not isinstance(value, dict) or not value:
        yield f"{indent}{inline(key)}: {inline(value)}"
        return
    yield f"{indent}{inline(key)}:"
    for name, below in value.items():
        yield from _lines(name, below, indent + INDENT)
