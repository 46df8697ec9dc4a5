"""Every number that a user may give has a lower and an upper bound, which errors state; so will the next one have."""

import math
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.reader import ConfigError, check
from pipeline.settings import Settings
from train.recipe import Recipe

# What is required beside the value that is tried
AROUND = {Settings: {}, Recipe: {"data": {"train_json": "t.json", "train_images": "t"}}}
ODD = (math.nan, math.inf, -math.inf, 1e23, -1e23, 10**23, -(10**23), 10**400, -1, True, "many", [1], {})


def numbers(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type]]:
    """The keys of all numbers of `kind`, with int or float; a mapping has a key `x`, a list a place 0."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        yield from (found for part in parts for found in numbers(part, path))
    elif origin is dict:
        yield from numbers(parts[1], (*path, "x"))
    elif origin in (tuple, list):
        yield from numbers(parts[0], (*path, "0"))
    elif origin is typing.Annotated:
        yield from numbers(parts[0], path)
    elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        for field in msgspec.structs.fields(kind):
            yield from numbers(field.type, (*path, field.name))
    elif kind in (int, float):
        yield path, kind


def tree_with(root: type, path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = [value] if name == "0" else {name: value}
        if name == "x" and path[0] == "sources":
            value["x"]["uri"] = "x.mp4"
    return AROUND[root] | value


NUMBERS = [(root, path, kind) for root in (Settings, Recipe) for path, kind in numbers(root)]
EACH = pytest.mark.parametrize(("root", "path", "kind"), NUMBERS, ids=[".".join(path) for _, path, _ in NUMBERS])


def refused(root: type, path: tuple[str, ...], value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(root, tree_with(root, path, value))
    return str(caught.value)


def told_as(path: tuple[str, ...]) -> str:
    """A coordinate is told of with all corners that it is among."""
    return ".".join(path[: path.index("0")] if path.count("0") > 1 else path)


def test_all_numbers_are_looked_at() -> None:
    keys = {".".join(path) for _, path, _ in NUMBERS}
    assert keys > {"sources.x.max_frames", "infer.threads", "run.drain_seconds", "track.lost_seconds"}
    assert keys > {"loss_weights.x", "schedule.drops.0", "optimiser.clip_norm", "loop.seed"}


@EACH
def test_a_number_is_bounded_below_and_above(root: type, path: tuple[str, ...], kind: type) -> None:
    for value in ODD:
        message = refused(root, path, value)
        assert message.isprintable() and f"{told_as(path)}: got " in message
        stated = ("at least" in message or "above" in message) and "at most" in message
        assert stated or "from 0 to 1" in message, message


@EACH
@given(st.data())
def test_what_is_not_refused_is_within_bounds(root: type, path: tuple[str, ...], kind: type, data: Any) -> None:
    value = data.draw(st.integers() if kind is int else st.floats() | st.integers())
    try:
        check(root, tree_with(root, path, value))
    except ConfigError as error:
        assert str(error).isprintable()
    else:
        assert 0 <= value < 2**32


@pytest.mark.parametrize(
    ("infer", "problem"),
    [
        ({"workers": 65}, "infer.workers: got 65, allowed is a whole number at least 1 and at most 64 or null"),
        ({"threads": 65}, "infer.threads: got 65, allowed is a whole number at least 1 and at most 64 or null"),
        ({"workers": 64, "threads": 9}, "workers 64 × threads 9: at most 512 threads in all"),
        ({"device": "cuda:٣"}, "infer.device"),
        ({"input_size": "٣٣x٣٣"}, "infer.input_size"),
    ],
)
def test_more_than_a_machine_survives_is_refused(infer: dict, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(Settings, {"infer": infer})
    assert problem in str(caught.value)
    check(Settings, {"infer": {"workers": 64, "threads": 8}})


def test_a_recipe_has_a_largest_input() -> None:
    message = refused(Recipe, ("model", "input_size"), "4128x512")
    assert "input_size 4128x512: a side has at most 4096 pixels" in message
