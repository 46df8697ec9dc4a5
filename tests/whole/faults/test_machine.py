"""A machine that does not give what is asked of it: memory for the network, shared memory, a clock that goes on."""

import re
import time
from pathlib import Path

import pytest

from tests.kit.harness import Leftovers, is_running, run
from tests.kit.places import CLIP
from tests.whole.faults.inside import patched
from tests.whole.faults.memory import memory_group
from tests.whole.faults.rig import Options, run_of
from tests.whole.witness.account import Allowed

pytestmark = pytest.mark.faults

NO_MEMORY = """
import ctypes
run = m.Eager.run
def without_memory(self, images_bhwc, out):
    if len(images_bhwc) > LIMIT and self.warm:
        raise RuntimeError("CUDA out of memory")
    run(self, images_bhwc, out)
warm_up = m.Eager.warm_up
def then_warm(self):
    warm_up(self)
    type(self).warm = True
m.Eager.warm = False
m.Eager.run, m.Eager.warm_up = without_memory, then_warm
"""

CLOCK_BACK = """
import time
real, began, offset = m.time.time, m.time.monotonic(), -3600.0
m.time.time = lambda: real() + (offset if m.time.monotonic() - began > 8.0 else 0.0)
"""


def test_a_round_that_is_too_large_is_halved(tmp_path, monkeypatch) -> None:
    for name, value in patched(tmp_path / "site", "models.engines.eager", NO_MEMORY.replace("LIMIT", "1")).items():
        monkeypatch.setenv(name, value)
    options = Options(cameras=4, infer={"batch": 4, "workers": 1})
    with run_of(tmp_path, "no memory for more than one frame in the network", options) as run_:
        run_.fault_begins()
        run_.wait_for_results(time.time())
        run_.fault_ends()
        assert {line["status"] for line in run_.lines() if line["kind"] == "frame"} <= {"ok", "dropped"}
    assert any("tried again in halves" in line for line in run_.errors), run_.told()


def test_a_network_without_any_memory_gives_no_result_and_says_so(tmp_path, monkeypatch) -> None:
    for name, value in patched(tmp_path / "site", "models.engines.eager", NO_MEMORY.replace("LIMIT", "0")).items():
        monkeypatch.setenv(name, value)
    done = run(CLIP, "--max-frames", 6, "--engine", "eager", "--input", "128x96", "--jsonl", tmp_path / "o.jsonl")
    assert done.returncode == 4 and "inference failed: CUDA out of memory" in done.stderr, done.stderr
    assert "6 captured = 0 delivered + 6 without result + 0 dropped + 0 in flight" in done.stderr


def test_the_wall_clock_is_set_back(tmp_path, monkeypatch) -> None:
    for name, value in patched(tmp_path / "site", "pipeline.stages.decode", CLOCK_BACK).items():
        monkeypatch.setenv(name, value)
    with run_of(tmp_path, "wall clock set back by an hour", Options(lines_only=True)) as run_:
        run_.fault_begins()
        run_.wait_for(
            lambda: any(line["captured_unix"] < time.time() - 1800 for line in run_.lines() if line["kind"] == "frame"),
            "the leap",
        )
        before = {source: len(run_.results(source)) for source in run_.sources}
        run_.wait_for(lambda: all(len(run_.results(s)) > before[s] + 20 for s in run_.sources), "results after it")
        ages = [line["latency_ms"] for line in run_.lines() if line.get("status") == "ok"]
        assert min(ages) >= 0 and max(ages) < 30_000


@pytest.mark.parametrize("limit", ["--fsize=1000000", "--as=4000000000"])
def test_no_shared_memory_is_one_line(limit: str, tmp_path: Path) -> None:
    leftovers = Leftovers()
    done = run(CLIP, "--max-frames", 3, "--jsonl", tmp_path / "o.jsonl", before=["prlimit", limit])
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 2 and len(errors) == 1, done.stderr
    assert re.search("shared memory", errors[0]) and "Traceback" not in done.stderr
    leftovers.assert_none()


def test_who_touches_a_page_of_shared_memory_too_many_is_killed_and_comes_back(tmp_path) -> None:
    """By the kernel, in a control group whose memory is used up; the one that is started in its place is outside."""
    options = Options(hit=["cam0"], allowed=Allowed(damage=True))
    with memory_group(1) as group, run_of(tmp_path, "shared memory exhausted (control group)", options) as run_:
        decoder = run_.pid_of("decode:cam0")
        group.add(decoder)
        run_.fault_begins()
        run_.site.tell("cam0 size 640x480")  # more pages than it has so far
        run_.wait_for(lambda: not is_running(decoder), "the end of the decoder")
        run_.fault_ends(["cam0"])
        run_.wait_until_told("it was started anew")
