"""Odd configuration files and values: each is one line that names the file and the line, soon and in little memory."""

import os
import resource
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.reader import ConfigError, parse_assignment, read_settings
from pipeline.settings import Settings
from tests.kit.harness import command
from train.recipe import Recipe


def bomb(first: str, each: str) -> str:
    """Nine values, of which each holds the one before nine times: 387 million in all."""
    return "\n".join([f"a0: &a0 {first}", *(f"a{i + 1}: &a{i + 1} {each.format(f'*a{i}')}" for i in range(9))])


ODD_FILES = {
    "deep lists": ("infer: " + "[" * 3000, "line 1: nested deeper than 32"),
    "deep mappings": ("\n".join(" " * i + "a:" for i in range(200)), "line 32: nested deeper than 32"),
    "deep by aliases": (
        "a0: &a0 [[[[[1]]]]]\n" + "\n".join(f"a{i + 1}: &a{i + 1} [[[[*a{i}]]]]" for i in range(9)),
        ": nested deeper than 32",
    ),
    "a bomb of aliases": (bomb("[x]", "[{0},{0},{0},{0},{0},{0},{0},{0},{0}]"), ": more than 5000 values"),
    "a bomb of merges": (bomb("{x: 1}", "{{<<: [{0},{0},{0},{0},{0},{0},{0},{0},{0}]}}"), ": more than 5000 values"),
    "an anchor that contains itself": ("infer: &a\n  model: *a", ": nested deeper than 32"),
    "an anchor that merges itself": ("infer: &a\n  <<: *a", ": nested deeper than 32"),
    "many values": ("a: [" + "1," * 30_000 + "]", "line 1: more than 5000 values"),
    "a key twice": (
        "infer:\n  threads: 1\n  workers: 2\n  threads: 3",
        "line 4: 'threads' is a key that was given before",
    ),
    "a section twice": ("infer: {}\nqueue: {}\n'infer': {}", "line 3: 'infer' is a key that was given before"),
    "a day that is none": ("sources:\n  a: {uri: x, max_frames: 2026-99-99}", "sources.a.max_frames: got '2026-99-99'"),
    "a number that is none": ("infer:\n  threads: !!int abc", "line 2: 'abc' is not a whole number"),
    "a yes that is none": ("deliver:\n  show: !!bool abc", "line 2: 'abc' is neither true nor false"),
    "a huge number": ("infer:\n  threads: " + "9" * 5000, "line 2: '9999"),
    "a huge hexadecimal number": ("infer:\n  threads: 0x" + "f" * 60_000, "line 2: '0xff"),
    "a merge of a number": ("queue: {}\ninfer:\n  <<: 3", "line 3: << takes a mapping or a list of mappings"),
    "a number for a key": ("sources:\n  7: {uri: x}", "line 2: '7' is a key, and keys are text; put it in quotes"),
    "a list for a key": ("queue: {}\n? [a]\n: 1", "line 2: '[…]' is a key, and keys are text"),
    "a tag of Python": (
        "infer: !!python/object/apply:os.system ['true']",
        "line 1: '!!python/object/apply:os.system' is a tag",
    ),
    "a set": ("queue: {}\ninfer: !!set {a, b}", "line 2: '!!set' is a tag that is not read"),
    "binary text": ("infer: {model: !!binary aGVsbG8=}", "line 1: '!!binary' is a tag that is not read"),
    "a tag of its own": ("infer: !mine {}", "line 1: '!mine' is a tag that is not read"),
    "a letter beyond Unicode": ('infer:\n  model: "\\UFFFFFFFF"', "line 2: not valid YAML"),
    "a version beyond counting": ("%YAML " + "1" * 5000 + ".1\n---\na: 1", "line 1: not valid YAML"),
    "several documents": ("infer: {}\n---\nqueue: {}", "line 2: a second document begins; keep one"),
    "tabs": ("infer:\n\tthreads: 1", "line 2: a tab; indent with spaces"),
    "a NUL": ("infer:\n  model: a\0b", "line 2: holds the character U+0000"),
    "a control character": ("queue: {}\n# \x1b[2J", "line 2: holds the character U+001B"),
    "a NUL that is written out": ('infer: {model: "a\\0b"}', "infer.model: holds the character U+0000"),
    "half a character": ('infer: {model: "\\ud800"}', "infer.model: holds the character U+D800"),
    "a key that is no line": ('"in\\nfer": 1', "holds the character U+000A"),
    "a key of length": ("a" * 900 + ": 1", "aaa: no such key"),
    "not UTF-8": (b"queue: {}\n# caf\xe9", "line 2: not UTF-8 text"),
    "a large file": ("# " + "x" * 100_000, "larger than 65536 bytes"),
    "an endless list": ("- 1\n" * 10, "expected a mapping with the keys"),
}


def wrong(path: Path, *assignments: str, kind: type = Settings) -> str:
    with pytest.raises(ConfigError) as caught:
        read_settings(kind, str(path), [parse_assignment(text) for text in assignments])
    message = str(caught.value)
    assert message.isprintable() and len(message) < 600, message
    return message


@pytest.mark.parametrize(("content", "problem"), ODD_FILES.values(), ids=ODD_FILES)
def test_an_odd_file_is_one_line_that_names_it(content: str | bytes, problem: str, tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    message = wrong(path)
    assert problem in message
    assert "c.yaml" in message or ", line" not in message


@pytest.mark.parametrize("name", ["deep lists", "a bomb of merges", "a key twice"])
def test_recipes_are_read_by_the_same_rules(name: str, tmp_path) -> None:
    content, problem = ODD_FILES[name]
    (tmp_path / "r.yaml").write_text(content)
    assert problem in wrong(tmp_path / "r.yaml", kind=Recipe)


def test_the_command_refuses_a_bomb_in_little_memory(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text(ODD_FILES["a bomb of merges"][0])
    done = subprocess.run(
        command("x.mp4", "--config", tmp_path / "c.yaml"),
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr[-2000:]


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in wrong(tmp_path / "pipe")
    assert "not a regular file" in wrong(tmp_path)
    assert "File name too long" in wrong(tmp_path / ("a" * 5000))
    assert "not a regular file" in wrong(Path("/dev/zero"))


def test_anchors_aliases_and_merges_go_on_working(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "sources:\n  a: &camera {uri: x.mp4, max_frames: 5}\n  b: {<<: *camera, max_frames: 6}\n"
        "  c:\n    <<: [{max_frames: 7}, *camera]\n    realtime: true\n"
        "postprocess: {classes: &names [car, !!str 1]}\n"
    )
    settings = read_settings(Settings, str(path))
    a, b, c = (settings.sources[name] for name in "abc")
    assert [(s.uri.reveal(), s.max_frames, s.realtime) for s in (a, b, c)] == [
        ("x.mp4", 5, False),
        ("x.mp4", 6, False),
        ("x.mp4", 7, True),
    ]
    assert settings.postprocess.classes == ("car", "1")


@pytest.mark.parametrize("text", ["2026-11-24", "=", "<<"])
def test_a_word_that_yaml_takes_for_more_is_text(text: str) -> None:
    assert parse_assignment(f"deliver.jsonl={text}") == ("deliver.jsonl", text)


ODD_ASSIGNMENTS = {
    "a key without end": ("a." * 5000 + "a=1", "--set"),
    "a key within a value": ("infer.model." + "a." * 20 + "a=1", "infer.model: got {…}, allowed is text"),
    "an empty key": (" =1", "--set"),
    "an empty part": ("infer..threads=1", "--set"),
    "nested lists": ("sources=" + "[" * 3000, "nested deeper than 32"),
    "a key twice": ("infer={threads: 1, threads: 2}", "'threads' is a key that was given before"),
    "a huge number": ("infer.threads=" + "9" * 5000, "is not a whole number"),
    "a huge number for text": ("infer.model=" + "9" * 60, "infer.model: got 9999"),
    "a long value": ("infer.device=" + "x" * 100_000, "infer.device: got 'xxx"),
    "a control character": ("infer.device=\x1b[2J", "U+001B"),
    "two documents": ("infer.threads=1\n--- 2", "a second document begins; keep one"),
}


@pytest.mark.parametrize(("text", "problem"), ODD_ASSIGNMENTS.values(), ids=ODD_ASSIGNMENTS)
def test_an_odd_assignment_is_one_short_line(text: str, problem: str, tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("")
    assert problem in wrong(tmp_path / "c.yaml", text)


PIECES = [
    *"a:-[]{},!?|>'\"\\#%~1é@`\t \0\n",
    "\n  ",
    ": ",
    "- ",
    "&a ",
    "*a",
    "<<",
    "!!int ",
    "---",
    "...",
    ".nan",
    "0x",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=2), max_size=30).map("".join))
def test_whatever_is_written_is_a_value_or_one_line(text: str) -> None:
    try:
        parse_assignment("infer=" + text)
    except ConfigError as error:
        assert str(error).isprintable()


NAMES = st.sampled_from(["uri", "a", "threads", "lost_seconds"]) | st.text()
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3))


@given(st.dictionaries(st.sampled_from(["infer", "sources", "track"]) | st.text(), VALUES, max_size=3))
def test_whatever_the_values_are_they_fit_or_are_told_in_one_line(tree: dict) -> None:
    try:
        read_settings(Settings, None, tree.items())
    except ConfigError as error:
        assert str(error).isprintable()
