"""Many sources in one run: files and live ones, each with its own outputs, its own account, and its own troubles."""

import signal

import av
import pytest

from tests.kit.account import accounts, assert_books_agree, frames_of
from tests.kit.harness import QUICK, Leftovers, finish, json_lines, run, start, wait_until, worker_pids
from tests.kit.media import count_pictures
from tests.kit.places import CLIP

LIVE = "lavfi:testsrc2=size=160x120:rate={}"
SOURCES = ("gate", "hall", "clip")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two live sources with an end, and a file; a video and MOT text for each, and one file of lines for all."""
    folder, leftovers = tmp_path_factory.mktemp("mixed"), Leftovers()
    live = [f"{LIVE.format(rate)}:duration=2" for rate in (25, 10)]
    names = [word for name in SOURCES for word in ("--name", name)]
    paced = [word for name in SOURCES[:2] for word in ("--set", f"sources.{name}.realtime=true")]
    done = run(
        *live, CLIP, *names, *paced, *QUICK, "--set", "sources.clip.max_frames=20", "--out", folder / "{source}.mp4",
        "--mot", folder / "{source}.txt", "--jsonl", folder / "o.jsonl",
    )  # fmt: skip
    leftovers.assert_none()
    assert done.returncode == 0, done.stderr
    return folder, done


def test_every_frame_of_every_source_has_a_line_and_a_fate(mixed) -> None:
    folder, done = mixed
    assert_books_agree(folder / "o.jsonl", done.stderr, SOURCES)
    assert {name: account.captured for name, account in accounts(done.stderr).items()} == {
        "gate": 50, "hall": 20, "clip": 20
    }  # fmt: skip


def test_a_file_among_live_sources_loses_nothing(mixed) -> None:
    _, done = mixed
    assert accounts(done.stderr)["clip"] == (20, 20, 0, 0, 0)


def test_each_source_has_its_own_video_in_its_own_size(mixed) -> None:
    folder, done = mixed
    sizes = {"gate": (160, 120), "hall": (160, 120), "clip": (768, 576)}
    for name in SOURCES:
        with av.open(str(folder / f"{name}.mp4")) as video:
            stream = video.streams.video[0]
            assert (stream.width, stream.height) == sizes[name]
            assert sum(1 for _ in video.decode(stream)) == accounts(done.stderr)[name].delivered
    assert {path.name for path in folder.glob("*.txt")} == {f"{name}.txt" for name in SOURCES}


def test_the_files_objects_are_those_of_a_run_of_its_own(mixed, tmp_path) -> None:
    folder, _ = mixed
    alone = run(CLIP, *QUICK, "--max-frames", 20, "--name", "clip", "--jsonl", tmp_path / "o.jsonl")
    assert alone.returncode == 0, alone.stderr

    def objects(path) -> list:
        return [(line["seq"], line["pts_seconds"], line["objects"]) for line in frames_of(path, "clip")]

    assert objects(folder / "o.jsonl") == objects(tmp_path / "o.jsonl")


def test_all_outputs_are_told_of_with_their_frames(mixed) -> None:
    folder, done = mixed
    for name in SOURCES:
        assert f"wrote {folder}/{name}.mp4: {accounts(done.stderr)[name].delivered} frames" in done.stderr


def test_sources_without_names_have_the_names_of_their_files(tmp_path) -> None:
    done = run(CLIP, CLIP, *QUICK, "--max-frames", 3, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert {line["source"] for line in json_lines(tmp_path / "o.jsonl")} == {CLIP.stem, f"{CLIP.stem}-2"}


def test_a_source_that_fails_is_an_error_and_the_others_go_on(tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(CLIP.read_bytes()[:2000])
    done = run(broken, CLIP, "--max-frames", 10, *QUICK, "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert "broken" in next(line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert [line["seq"] for line in frames_of(tmp_path / "o.jsonl", CLIP.stem)] == list(range(10))


def test_a_source_that_is_required_and_fails_ends_the_run(tmp_path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(CLIP.read_bytes()[:2000])
    done = run(broken, LIVE.format(10), *QUICK, "--set", "sources.broken.required=true", timeout=60)
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr


def test_ctrl_c_ends_all_sources_and_closes_all_outputs(tmp_path) -> None:
    leftovers = Leftovers()
    names = ["--name", "gate", "--name", "hall", "--name", "yard"]
    process = start(
        LIVE.format(25), LIVE.format(10), LIVE.format(25), *names, *QUICK, "--set", "sources.gate.realtime=true",
        "--out", tmp_path / "{source}.mp4", "--jsonl", tmp_path / "o.jsonl",
    )  # fmt: skip
    wait_for_all(process, tmp_path / "o.jsonl", ("gate", "hall", "yard"))
    pids = worker_pids(process.pid)
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code == 130 and "Traceback" not in errors, errors
    leftovers.assert_none(pids)
    assert_books_agree(tmp_path / "o.jsonl", errors, ("gate", "hall", "yard"))
    assert accounts(errors)["hall"].dropped == accounts(errors)["yard"].dropped == 0
    for name in ("gate", "hall", "yard"):
        assert count_pictures(tmp_path / f"{name}.mp4") == accounts(errors)[name].delivered


def wait_for_all(process, path, sources) -> None:
    """Until some frames of each were delivered."""

    def all_came() -> bool:
        text = path.read_text() if path.exists() else ""
        return process.poll() is not None or all(text.count(f'"source":"{name}"') > 3 for name in sources)

    wait_until(all_came, what="frames of each source")
    assert process.poll() is None, process.communicate()[1]
