"""What should not come, came: a slot returned twice or too early costs its own frame at most, a stranger nothing."""

import os
import re
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import zmq

from pipeline.flow import messages
from pipeline.flow.frame import NOT_ITS_OWN
from pipeline.flow.messages import EndOfStream, Failed
from pipeline.flow.sharedmem import Pool
from pipeline.flow.transport import RunKey
from pipeline.run.supervisor import Supervisor
from pipeline.run.worker import Worker
from pipeline.settings import DeliverSettings, InferSettings, Settings, SourceSettings
from pipeline.stage import HEATMAPS
from pipeline.stages.postprocess import Postprocess
from pipeline.stages.track import Track
from tests.kit.harness import AS_FOUND, STAGES, children, finish, json_lines, run_here, start, wait_until
from tests.kit.places import CLIP

FRAMES = 60


def objects(line: dict) -> list:
    return [(o["class"], o["score"], *o["box_xyxy"]) for o in line["objects"]]


FOUND = (CLIP, "--max-frames", FRAMES, "--engine", "eager", *AS_FOUND)


def run_to_lines(folder):
    done = run_here(*FOUND, "--jsonl", folder / "o.jsonl", "--out", folder / "o.mp4")
    assert done.returncode == 0 and f"{FRAMES} captured" in done.stderr, done.stderr
    return done, json_lines(folder / "o.jsonl")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    _, lines = run_to_lines(tmp_path_factory.mktemp("clean"))
    return [objects(line) for line in lines]


def test_slots_given_back_twice_change_no_frame(clean, tmp_path, monkeypatch) -> None:
    end_lease, again = Pool.end_lease, []

    def twice(self, slot) -> bool:
        ended = end_lease(self, slot)
        again.append(end_lease(self, slot))
        return ended

    monkeypatch.setattr(Pool, "end_lease", twice)
    _, lines = run_to_lines(tmp_path)
    assert [objects(line) for line in lines] == clean
    assert len(again) > FRAMES and not any(again)


def test_a_slot_given_back_too_early_gives_a_failed_frame_not_anothers_objects(clean, tmp_path, monkeypatch) -> None:
    process = Postprocess.process

    def give_back_first(self, frame) -> None:
        if frame.header.seq % 2:
            for slot in frame.header.leases:
                if slot.pool == HEATMAPS:
                    self.kit.pools[HEATMAPS].end_lease(slot)
        process(self, frame)

    monkeypatch.setattr(Postprocess, "process", give_back_first)
    done, lines = run_to_lines(tmp_path)
    failed = [line for line in lines if line["status"] == "failed"]
    assert len(lines) == FRAMES and failed and all(line["reason"] == NOT_ITS_OWN for line in failed)
    assert all(line["seq"] % 2 for line in failed)
    assert all(objects(line) == clean[line["seq"]] for line in lines if line["status"] == "ok")
    assert "frames without a result, for its pixels were given to another frame" in done.stderr
    assert " 0 in flight" in done.stderr


FORGED = [
    b"\xc1 not a message",
    messages.encode(EndOfStream(CLIP.stem, 0, 0)),
    messages.encode(Failed(4, "forged")),
    bytes(12),
]


def pester(folder: Path, over: threading.Event) -> None:
    """Forged messages and noise on every socket of a run, under the names of its stages, until it is over."""
    with zmq.Context() as context:
        while not over.is_set():
            for path in folder.glob("*"):
                for kind, name in ((zmq.PUSH, b"me"), *((zmq.DEALER, stage.encode()) for stage in STAGES)):
                    with context.socket(kind) as stranger:
                        stranger.linger, stranger.sndtimeo, stranger.identity = 100, 100, name
                        stranger.connect(f"ipc://{path}")
                        with suppress(zmq.Again):  # turned away already
                            for forged in FORGED:
                                stranger.send(forged)
                with suppress(OSError), socket.socket(socket.AF_UNIX) as stranger:
                    stranger.connect(str(path))
                    stranger.sendall(os.urandom(500))
            time.sleep(0.2)


def test_strangers_change_nothing_and_are_told_of(clean, tmp_path) -> None:
    place = Path(tempfile.gettempdir())
    before = set(place.glob("centerstream-*"))
    lines = tmp_path / "o.jsonl"
    process = start(*FOUND, "--jsonl", lines)
    wait_until(lambda: set(place.glob("centerstream-*")) - before, what="the sockets")
    (folder,) = set(place.glob("centerstream-*")) - before
    over = threading.Event()
    stranger = threading.Thread(target=pester, args=(folder, over))
    stranger.start()
    try:
        code, errors = finish(process)
    finally:
        over.set()
        stranger.join()
    assert code == 0 and "Traceback" not in errors, errors
    assert [objects(line) for line in json_lines(lines)] == clean
    assert re.search(r"warning: queue control: connections without this run's key, refused: \d", errors)
    assert re.search(r"warning: queue infer:0: connections without this run's key, refused: \d", errors)


def test_the_key_of_a_run_is_in_no_command_line_and_no_environment(monkeypatch, tmp_path) -> None:
    keys, seen = [], []

    def look(state) -> None:
        if state.started_at and not seen:
            for pid in children(os.getpid()):
                seen.append(Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes())

    def new():
        keys.append(make())
        return keys[-1]

    make = RunKey.new
    monkeypatch.setattr(RunKey, "new", new)
    settings = Settings(
        sources={"clip": SourceSettings(uri=str(CLIP), max_frames=10)},
        infer=InferSettings(engine="eager"),
        deliver=DeliverSettings(jsonl=str(tmp_path / "o.jsonl")),
    )
    state = Supervisor(settings, look).run()
    assert state.exit_code == 0 and len(keys) == 1 and len(seen) >= len(STAGES)
    for secret in (keys[0].public.encode(), keys[0].secret.encode()):
        assert not any(secret in text for text in seen)


def test_a_workers_garbage_is_that_workers_failure(tmp_path, monkeypatch) -> None:
    """Once it has a frame: before, there may be none yet to be accounted for."""
    report, process, came = Worker._report, Track.process, threading.Event()

    def report_badly(self):
        if self._plan.id == "track" and came.is_set():
            self._control.send(b"\xc1 not a message")
        return report(self)

    def tell_and_process(self, frame):
        came.set()
        return process(self, frame)

    monkeypatch.setattr(Worker, "_report", report_badly)
    monkeypatch.setattr(Track, "process", tell_and_process)
    done = run_here(CLIP, "--engine", "eager", "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
    assert "error: stage track sent what is no message" in done.stderr and done.stderr.count("error:") == 1
    assert " 0 in flight" in done.stderr


def test_a_message_from_no_stage_is_counted_and_dropped(tmp_path, monkeypatch) -> None:
    connect = Worker._connect

    def bring_a_friend(self, stage) -> None:
        connect(self, stage)
        friend = self._transport.spoke(f"{self._spec.endpoints}/control", f"friend of {self._plan.id}")
        friend.send(messages.encode(Failed(4, "forged")))

    monkeypatch.setattr(Worker, "_connect", bring_a_friend)
    done = run_here(CLIP, "--max-frames", 3, "--engine", "eager", "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 0 and "3 captured = 3 delivered" in done.stderr, done.stderr
    assert f"queue control: messages from no stage of this run, dropped: {len(STAGES)}" in done.stderr
