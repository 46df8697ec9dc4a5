"""Workers that are lost come back, one of each kind and two at once, killed or frozen: the run goes on, every frame of
every source has one fate, and what was written can be read."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from tests.kit.account import account, accounts, assert_books_agree, missed
from tests.kit.harness import QUICK, Leftovers, finish, json_lines, nursery_pids, start, wait_until, worker_pids
from tests.kit.media import count_pictures

SOURCES = ("gate", "hall", "clip")
WORKERS = ("decode:gate", "gather", "infer:0", "postprocess", "track", "deliver")


class Run:
    """Two live sources and an endless recording, with a video for each."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._leftovers, self.folder = Leftovers(), folder
        names = [word for name in SOURCES for word in ("--name", name)]
        paced = [word for name in SOURCES[:2] for word in ("--set", f"sources.{name}.realtime=true")]
        pattern = "lavfi:testsrc2=size=160x120:rate={}"
        self.process = start(
            *map(pattern.format, (25, 10, 10)), *names, *paced, *options, *QUICK,
            "--set", "infer.workers=1", "--out", folder / "{source}.mkv", "--jsonl", folder / "o.jsonl",
        )  # fmt: skip
        self.await_frames()
        self.pids = worker_pids(self.process.pid)

    def await_frames(self) -> None:
        """Until some more frames of each source were delivered."""
        before = self._delivered()
        wait_until(
            lambda: (
                self.process.poll() is not None
                or all(count > before[name] + 5 for name, count in self._delivered().items())
            ),
            what="frames of each source",
        )
        assert self.process.poll() is None, self.process.communicate()[1]

    def _delivered(self) -> dict[str, int]:
        path = self.folder / "o.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        of = {name: f'"source":"{name}"' for name in SOURCES}
        return {name: sum(text in line and '"status":"ok"' in line for line in lines) for name, text in of.items()}

    def lose(self, *workers: str, blow: signal.Signals = signal.SIGKILL) -> None:
        """Each gets the blow; the run goes on with others in their place."""
        before = worker_pids(self.process.pid)
        for worker in workers:
            os.kill(before[worker], blow)

        def are_back() -> bool:
            now = worker_pids(self.process.pid)
            return self.process.poll() is not None or all(
                now.get(worker, before[worker]) != before[worker] for worker in workers
            )

        wait_until(are_back, what=f"another {' and '.join(workers)}")
        self.await_frames()
        self.pids |= worker_pids(self.process.pid)

    def stop(self) -> str:
        """Ctrl-C; all that has to hold whatever was lost. What was said."""
        self.process.send_signal(signal.SIGINT)
        code, errors = finish(self.process)
        assert "Traceback" not in errors, errors
        self._leftovers.assert_none(self.pids)
        lost = assert_books_agree(self.folder / "o.jsonl", errors, SOURCES)
        # Of a live source that is how it is; a recording has not been seen whole.
        assert code == (4 if lost["clip"] else 130), errors
        assert errors.count("error:") == (1 if lost["clip"] else 0), errors
        for name in SOURCES:
            self._assert_videos_play(name, accounts(errors)[name].delivered - missed(errors, name))
        return errors

    def _assert_videos_play(self, name: str, delivered: int) -> None:
        """All pictures are there but those that a busy encoder missed, which is told, and those that lay before it when
        deliver was killed."""
        pictures = sum(map(count_pictures, self.folder.glob(f"{name}*.mkv")))
        lives = len(list(self.folder.glob(f"{name}*.mkv")))
        assert delivered - 40 * (lives - 1) <= pictures <= delivered


def told(errors: str, worker: str, how: str) -> bool:
    return re.search(rf"warning: stage {worker} {how}.*; it was started anew: \d", errors) is not None


def test_each_worker_is_killed_and_the_run_goes_on(tmp_path) -> None:
    run = Run(tmp_path)
    for worker in WORKERS:
        run.lose(worker)
    errors = run.stop()
    for worker in WORKERS:
        assert told(errors, worker, "was killed by SIGKILL"), errors
    assert {path.name for path in tmp_path.glob("gate*")} == {"gate.mkv", "gate.1.mkv"}
    assert json_lines(tmp_path / "o.jsonl")[0]["seq"] == 0  # one file from the first line on


def test_workers_are_forked_from_what_has_loaded_what_they_need_and_started_by_themselves_without_it(tmp_path) -> None:
    run = Run(tmp_path)
    assert {worker for worker in WORKERS if not is_forked(run.pids[worker])} == set()
    run.lose("track")
    assert is_forked(run.pids["track"])
    os.kill(nursery_pids(run.process.pid)["nursery"], signal.SIGKILL)
    run.lose("track", "deliver")
    assert not is_forked(run.pids["track"]) and not is_forked(run.pids["deliver"])
    assert told(run.stop(), "track", "was killed by SIGKILL")


def is_forked(pid: int) -> bool:
    """It got its name in one piece; what is started has its words one by one."""
    return "\0-m\0" not in Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.parametrize("blow", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.thorough)], ids=str)
def test_stages_that_share_a_process_go_and_come_back_together(blow: signal.Signals, tmp_path) -> None:
    run = Run(tmp_path, "--set", "run.groups=[[postprocess, track, deliver]]", "--set", "run.silent_seconds=3")
    shared = {run.pids[worker] for worker in ("postprocess", "track", "deliver")}
    assert len(shared) == 1 and len(set(run.pids.values())) == len(run.pids) - 2
    run.lose("track", blow=blow)
    errors = run.stop()
    first = re.search(r"stage (\w+) (was killed by SIGKILL|was not heard)", errors)
    assert first, errors
    for other in {"postprocess", "track", "deliver"} - {first[1]}:
        assert told(errors, other, f"went with {first[1]}, whose process it shares"), errors
    assert len(re.findall(r"; it was started anew: 1", errors)) == 3, errors


@pytest.mark.thorough
@pytest.mark.parametrize("worker", WORKERS)
def test_each_worker_is_frozen_and_another_takes_its_place(worker: str, tmp_path) -> None:
    run = Run(tmp_path, "--set", "run.silent_seconds=3")
    run.lose(worker, blow=signal.SIGSTOP)
    assert told(run.stop(), worker, "was not heard for 3 s")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "workers",
    [
        ("decode:gate", "decode:clip"),
        ("gather", "infer:0"),
        ("postprocess", "track"),
        ("track", "deliver"),
        ("infer:0", "deliver"),
        ("decode:clip", "deliver"),
    ],
    ids=" and ".join,
)
def test_two_workers_are_killed_at_once(workers: tuple[str, str], tmp_path) -> None:
    run = Run(tmp_path)
    run.lose(*workers)
    errors = run.stop()
    assert all(told(errors, worker, "was killed by SIGKILL") for worker in workers), errors


@pytest.mark.thorough
def test_one_of_several_that_compute_is_killed_and_the_others_go_on(tmp_path) -> None:
    run = Run(tmp_path, "--set", "infer.processes=2")
    for _ in range(2):
        run.lose("infer:1")
    assert told(run.stop(), "infer:1", "was killed by SIGKILL")


def test_what_is_on_its_way_when_deliver_is_lost_after_the_source_has_ended_is_delivered(tmp_path) -> None:
    """The next deliver is told of the end, and waits for the frames before it."""
    lines = tmp_path / "o.jsonl"
    process = start(
        "lavfi:testsrc2=size=160x120:rate=2:duration=2", "--realtime", "--name", "live", *QUICK,
        "--set", "run.silent_seconds=60", "--out", tmp_path / "{source}.mkv", "--jsonl", lines,
    )  # fmt: skip
    wait_until(lambda: process.poll() is not None or (lines.exists() and lines.stat().st_size > 100), what="a frame")
    pids = worker_pids(process.pid)
    os.kill(pids["postprocess"], signal.SIGSTOP)
    wait_until(lambda: "decode:live" not in worker_pids(process.pid), what="the end of the source")
    os.kill(pids["deliver"], signal.SIGKILL)
    wait_until(lambda: worker_pids(process.pid).get("deliver", pids["deliver"]) != pids["deliver"], what="another")
    time.sleep(3.0)  # it is ready, and was told of the end
    os.kill(pids["postprocess"], signal.SIGCONT)
    code, errors = finish(process)
    assert code == 0 and "Traceback" not in errors, errors
    assert assert_books_agree(lines, errors, ("live",)) == {"live": 0}
    assert account(errors).captured == 4 and account(errors).delivered >= 2
    assert count_pictures(tmp_path / "live.1.mkv") >= 1
