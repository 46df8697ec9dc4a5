"""What a run reads it does not write, and it writes nothing twice: looked at by what a file is, not by its name."""

import os
from pathlib import Path

import pytest

from pipeline.command.files import check_folders, check_inputs, check_outputs
from pipeline.errors import OutputError, UsageError


def check(inputs: dict[str, list[str]], outputs: dict[str, str]) -> None:
    check_inputs({name: map(Path, paths) for name, paths in inputs.items()}, check_outputs(outputs))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    (tmp_path / "old.jsonl").write_bytes(b"yesterday's")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    (tmp_path / "to-come.mp4").symlink_to("new.mp4")
    (tmp_path / "elsewhere").symlink_to("folder")
    os.link("clip.mp4", "hard.mp4")
    return tmp_path


GOOD = {
    "nothing at all": ({}, {}),
    "no output": ({"the source": ["clip.mp4"]}, {}),
    "a new file": ({"the source": ["clip.mp4"]}, {"jsonl": "new.jsonl"}),
    "an old result": ({"the source": ["clip.mp4"]}, {"jsonl": "old.jsonl"}),
    "two new files": ({}, {"jsonl": "a", "mot": "b"}),
    "standard output": ({"the source": ["clip.mp4"]}, {"jsonl": "-"}),
    "nowhere, twice": ({}, {"jsonl": "/dev/null", "mot": "/dev/null"}),
    "a source that is not there": ({"the source": ["none.mp4"]}, {"jsonl": "new.jsonl"}),
}


@pytest.mark.parametrize(("inputs", "outputs"), GOOD.values(), ids=GOOD)
def test_good_files(inputs, outputs, place) -> None:
    check(inputs, outputs)
    assert (place / "old.jsonl").read_bytes() == b"yesterday's"


CLIP = {"the source": ["clip.mp4"], "the configuration": ["old.jsonl"]}
CLASHES = {
    "the source": ({"video": "clip.mp4"}, "video: clip.mp4 is the source"),
    "the source by another name": ({"video": "./folder/../clip.mp4"}, "is the source"),
    "the source by a symbolic link": ({"video": "link.mp4"}, "is the source"),
    "the source by a hard link": ({"jsonl": "hard.mp4"}, "is the source"),
    "the configuration": ({"mot": "old.jsonl"}, "mot: old.jsonl is the configuration"),
    "one file twice": ({"jsonl": "old.jsonl", "mot": "old.jsonl"}, "is the file of"),
    "one new file twice": ({"jsonl": "new", "mot": "new"}, "is the file of"),
    "one new file by two names": ({"jsonl": "folder/new", "mot": "elsewhere/../folder/new"}, "is the file of"),
    "one new file by a link to a folder": ({"jsonl": "folder/new", "mot": "elsewhere/new"}, "is the file of"),
    "one new file by a link to it": ({"jsonl": "new.mp4", "video": "to-come.mp4"}, "is the file of"),
    "standard output twice": ({"jsonl": "-", "mot": "-"}, "is the file of"),
}


@pytest.mark.parametrize(("outputs", "message"), CLASHES.values(), ids=CLASHES)
def test_a_file_with_two_uses_is_refused(outputs, message: str, place) -> None:
    with pytest.raises(UsageError, match=r"give another file$") as refused:
        check(CLIP, outputs)
    assert message in str(refused.value)


UNWRITABLE = {
    "no such folder": ("nowhere/x", UsageError, "the folder of nowhere/x does not exist"),
    "a folder": ("folder", OutputError, "it is a folder"),
    "too long a name for a folder": ("x" * 5000 + "/x", UsageError, "File name too long"),
    "too long a name": ("x" * 5000, UsageError, "File name too long"),
    "a file as folder": ("clip.mp4/x", UsageError, "the folder of clip.mp4/x does not exist"),
}


@pytest.mark.parametrize(("path", "kind", "message"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_cannot_be_written_is_told_at_once(path: str, kind: type[Exception], message: str, place) -> None:
    with pytest.raises(kind) as refused:
        check({}, {"jsonl": path})
    assert message in str(refused.value) and len(str(refused.value)) < 400


FOLDERS = {
    "none": ({}, None),
    "there": ({"a": "folder/door"}, None),
    "to be made": ({"a": "new/door", "b": "new/yard"}, None),
    "in a new one": (
        {"a": "new/recordings/door"},
        (UsageError, "a: the folder of new/recordings does not exist; make"),
    ),
    "a file": ({"a": "clip.mp4/door"}, (OutputError, "a: cannot write into clip.mp4: it is no folder")),
    "twice": ({"a": "new/door", "b": "folder/../new/door"}, (UsageError, "folder of b too; give another folder")),
    "too long a name": ({"a": "x" * 5000 + "/door"}, (UsageError, "File name too long")),
    "no name": ({"a": "x\0/door"}, (UsageError, "not a name a file can have")),
}


@pytest.mark.parametrize(("outputs", "refused"), FOLDERS.values(), ids=FOLDERS)
def test_folders_to_write_into(outputs: dict[str, str], refused: tuple | None, place) -> None:
    if refused is None:
        check_folders(outputs)
        return
    with pytest.raises(refused[0]) as told:
        check_folders(outputs)
    assert refused[1] in str(told.value) and len(str(told.value)) < 400
