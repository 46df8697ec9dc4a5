"""What can be made again is whole or made again, lies where it can be written, and does not grow for ever."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.folders import cache_dir
from models.cache import ABANDONED_SECONDS, MOST_FILES, cached_file
from models.files import whole_file
from tests.kit.places import ROOT


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(text: str):
    return lambda path: path.write_text(text) and None


def test_what_was_made_is_taken(cache) -> None:
    assert cached_file("a.txt", write("first")).read_text() == "first"
    assert cached_file("a.txt", write("second")).read_text() == "first"


@pytest.mark.parametrize("damage", ["", "fjrst", "first and more"])
def test_what_is_not_as_it_was_made_is_made_again(cache, damage) -> None:
    path = cached_file("a.txt", write("first"))
    path.write_text(damage)
    assert cached_file("a.txt", write("second")).read_text() == "second"
    assert [path.read_text() for path in cache.iterdir()] == ["second"]


def test_a_name_that_is_part_of_another_is_not_taken_for_it(cache) -> None:
    cached_file("a.b.txt", write("other"))
    assert cached_file("a.txt", write("own")).read_text() == "own"
    assert cached_file("a.b.txt", write("new")).read_text() == "other"


def test_what_fails_leaves_nothing(cache) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cached_file("a.txt", fail)
    assert list(cache.iterdir()) == []


def test_the_least_lately_used_go_and_what_others_are_writing_is_not_counted(cache) -> None:
    for number in range(MOST_FILES):
        cached_file(f"{number}.txt", write(str(number)))
        (cache / f"other.{number}.partial.txt").touch()
    for age, path in enumerate(sorted(cache.glob("[0-9].*.txt"))):
        os.utime(path, (time.time() - 100 + age,) * 2)
    cached_file("0.txt", write("never"))  # used again
    cached_file("new.txt", write("new"))
    kept = {path.name.partition(".")[0] for path in cache.glob("*.txt") if ".partial" not in path.suffixes}
    assert kept == {"new", "0", *map(str, range(2, MOST_FILES))}
    assert len(list(cache.glob("*.partial.*"))) == MOST_FILES


def test_what_a_killed_process_left_half_made_goes(cache) -> None:
    cache.mkdir()
    left = cache / "big.1234.partial.txt"
    left.touch()
    os.utime(left, (time.time() - ABANDONED_SECONDS - 1,) * 2)
    cached_file("new.txt", write("new"))
    assert not left.exists()


def test_a_whole_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: calls.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    )
    path = tmp_path / "weights.bin"
    with whole_file(path) as partial:
        partial.write_bytes(b"all")
        assert not path.exists() and not calls
    assert calls == [str(partial), str(tmp_path)] and path.read_bytes() == b"all"


def test_a_folder_that_cannot_be_written_gives_way_to_one_of_this_users_own(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_dir()
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700 and cache_dir() == folder
    assert cached_file("a.txt", write("kept")).parent == folder


@pytest.mark.parametrize("whose", ["another user's", "open to all", "a link"])
def test_a_folder_of_somebody_else_is_never_taken_for_it(tmp_path, monkeypatch, whose) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f".centerstream-{os.getuid()}"
    if whose == "another user's":
        monkeypatch.setattr(os, "getuid", lambda: 4321)
        folder = tmp_path / ".centerstream-4321"
    (tmp_path / "target").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "target") if whose == "a link" else folder.mkdir(mode=0o700)
    if whose == "open to all":
        folder.chmod(0o777)
    with pytest.raises(PermissionError, match="not this user's alone"):
        cache_dir()


@pytest.mark.parametrize("damage", ["emptied", "garbage", "a folder"])
def test_damaged_kernels_are_compiled_anew(damage: str, tmp_path: Path) -> None:
    """Numba has no checksums, and raises what it stumbles over."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"CENTERSTREAM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    code = "from pipeline.kernels import compiled; from pipeline.kernels.tracks import assign; import numpy as np; "
    code += "compiled(lambda: assign(np.ones((2, 2)))); print(assign(np.eye(2)).tolist())"

    def start() -> str:
        line = [sys.executable, "-c", code]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout

    first = start()
    files = list((tmp_path / "cache").rglob("*.nbi"))
    assert files
    for path in files:
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        else:
            path.write_bytes(b"" if damage == "emptied" else b"no index")
    assert start() == first == "[0, 1]\n"
