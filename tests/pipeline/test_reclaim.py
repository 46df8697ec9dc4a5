"""What a worker had when it was killed travels on as dropped, and its slots are free again; with real processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.flow.fates import LOST
from pipeline.flow.ledger import Ledger, create_ledger
from pipeline.flow.sharedmem import Pool, create_pool
from pipeline.run.plan import WorkerPlan
from pipeline.run.reclaim import reclaim
from tests.kit.places import ROOT

SOURCES = {0: "door", 1: "yard"}
SLOTS = 6
DECODER, INFER, TRACK = 1, 2, 3
PLANS = {
    DECODER: WorkerPlan("decode:door", DECODER, "decode", "door", 0),
    INFER: WorkerPlan("infer:0", INFER, "infer"),
    TRACK: WorkerPlan("track", TRACK, "track"),
}


class Memory:
    """Both pools and the ledger, with what another process needs to map them."""

    def __init__(self) -> None:
        self.specs = {name: create_pool(name, SLOTS, 4096) for name in ("frames", "heatmaps")}
        self.ledger_spec = create_ledger(2)
        self.pools = {name: Pool(spec) for name, spec in self.specs.items()}
        self.ledger = Ledger(self.ledger_spec)

    def reclaim(self, worker: int, source_at=SOURCES.get) -> list[tuple[str, int]]:
        """(source, seq) of what travels on, all of it as lost with that worker."""
        frames = reclaim(PLANS[worker], self.pools, self.ledger, source_at)
        headers = [frame.header for frame in frames]
        assert all(h.reclaimed and h.dropped == LOST[PLANS[worker].stage] for h in headers)
        assert all(h.leases == [] and h.arrays == [] and SOURCES[h.place] == h.source_id for h in headers)
        return [(h.source_id, h.seq) for h in headers]

    def leased(self) -> dict[str, int]:
        return {name: pool.leased(0, SLOTS) for name, pool in self.pools.items()}

    @contextmanager
    def worker(self, code: str) -> Iterator["subprocess.Popen[str]"]:
        """A process that has done `code`, and waits to be killed."""
        fds = [*(spec.fd for spec in self.specs.values()), self.ledger_spec.fd]
        head = f"""
import time
from pipeline.flow.ledger import Ledger, LedgerSpec
from pipeline.flow.sharedmem import Lessor, Pool, PoolSpec
frames, heatmaps = (
    Pool(PoolSpec(name, fd, {SLOTS}, 4096)) for name, fd in (("frames", {fds[0]}), ("heatmaps", {fds[1]}))
)
ledger = Ledger(LedgerSpec({fds[2]}, 2))
decoder = Lessor(frames, 0, {SLOTS}, {DECODER})

def frame(place, seq):
    ledger.capture(place, 0.0, 0)
    return decoder.lease(place, seq)

"""
        tail = "\nprint('ready', flush=True)\ntime.sleep(120)"
        with subprocess.Popen(
            [sys.executable, "-c", head + code + tail], pass_fds=fds, cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "ready\n"
            try:
                yield process
            finally:
                process.kill()

    def killed(self, code: str, number: signal.Signals = signal.SIGKILL) -> None:
        with self.worker(code) as process:
            process.send_signal(number)
            assert process.wait(20) == -number


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_what_a_decoder_held_or_had_just_sent_is_lost_with_it(number, memory) -> None:
    memory.killed(f"frame(0, 0); frames.send(frame(0, 1), {INFER})", number)
    assert memory.reclaim(DECODER) == [("door", 0), ("door", 1)]
    assert memory.leased() == {"frames": 0, "heatmaps": 0}
    assert memory.reclaim(INFER) == []  # each is told of once


def test_what_is_on_its_way_is_lost_with_its_receiver_too(memory) -> None:
    """The receiver had not read it; the sender still lives."""
    memory.killed(f"frames.send(frame(0, 0), {TRACK})")
    assert memory.reclaim(TRACK) == [("door", 0)] and memory.reclaim(DECODER) == []


def test_what_was_taken_is_not_its_senders_any_more(memory) -> None:
    memory.killed(f"slot = frame(0, 0); frames.send(slot, {INFER}); frames.take(slot, {INFER})")
    assert memory.reclaim(DECODER) == [] and memory.leased()["frames"] == 1
    assert memory.reclaim(INFER) == [("door", 0)]


def test_a_slot_taken_for_a_frame_that_was_not_captured_holds_none(memory) -> None:
    memory.killed("frame(0, 0); decoder.lease(0, 1)")
    assert memory.reclaim(DECODER) == [("door", 0)]
    assert memory.leased()["frames"] == 0


def test_a_frame_with_heat_maps_is_one_frame(memory) -> None:
    memory.killed(f"slot = frame(0, 0); frames.take(slot, {INFER}); Lessor(heatmaps, 0, 2, {INFER}).lease(0, 0)")
    assert memory.reclaim(INFER) == [("door", 0)]
    assert memory.leased() == {"frames": 0, "heatmaps": 0}


def test_heat_maps_alone_tell_of_no_frame(memory) -> None:
    """Its frame's slot is another worker's by now, who tells of it."""
    memory.killed(f"slot = frame(0, 0); frames.take(slot, {TRACK}); Lessor(heatmaps, 0, 2, {INFER}).lease(0, 0)")
    assert memory.reclaim(INFER) == [] and memory.leased() == {"frames": 1, "heatmaps": 0}


def test_a_frame_whose_fate_was_told_is_not_told_again(memory) -> None:
    memory.killed("frames.tell(frame(0, 0)); frame(0, 1)")
    assert memory.reclaim(DECODER) == [("door", 1)]
    assert memory.leased()["frames"] == 0


def test_frames_of_several_sources_come_in_order(memory) -> None:
    memory.killed("[frame(place, seq) for place, seq in ((1, 0), (0, 0), (1, 1), (0, 1))]")
    assert memory.reclaim(DECODER) == [("door", 0), ("door", 1), ("yard", 0), ("yard", 1)]


def test_of_a_source_that_is_gone_nobody_wants_to_hear(memory) -> None:
    memory.killed("frame(0, 0); frame(1, 0)")
    assert memory.reclaim(DECODER, source_at={1: "yard"}.get) == [("yard", 0)]
    assert memory.leased()["frames"] == 0


def test_the_decoder_that_comes_after_goes_on(memory) -> None:
    memory.killed("frame(0, 0); frame(0, 1)")
    memory.reclaim(DECODER)
    memory.killed("frame(0, ledger.captured(0))")
    assert memory.reclaim(DECODER) == [("door", 2)] and memory.ledger.captured(0) == 3
