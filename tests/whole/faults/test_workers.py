"""Workers that are killed or stand still, one of each kind and two at once: they come back, no frame is forgotten."""

import signal

import pytest

from tests.whole.faults.rig import Options, run_of
from tests.whole.witness.account import Allowed

pytestmark = pytest.mark.faults

WORKERS = ("decode:cam0", "gather", "infer:0", "postprocess", "track", "deliver")
PAIRS = (("decode:cam0", "infer:0"), ("postprocess", "deliver"), ("gather", "track"))
BLOWS = {signal.SIGKILL: "kill -9", signal.SIGSTOP: "SIGSTOP"}
# What lay in the queue of the video when its process went: told as delivered in a line, and not in the video.
LOST_WITH_DELIVER = 32
# What came in a burst after a stand-still is more than may wait for a video; it is counted as missed.
MISSED_IN_A_BURST = 4


def options(*workers: str) -> Options:
    hit = ["cam0"] if workers == ("decode:cam0",) else ["cam0", "cam1"]
    return Options(
        hit=hit, allowed=Allowed(missing_pictures=LOST_WITH_DELIVER if "deliver" in workers else MISSED_IN_A_BURST)
    )


@pytest.mark.parametrize("number", BLOWS, ids=BLOWS.get)
@pytest.mark.parametrize("worker", WORKERS)
def test_a_worker_goes_and_comes_back(worker: str, number: signal.Signals, tmp_path) -> None:
    with run_of(tmp_path, f"{worker}: {BLOWS[number]}", options(worker)) as run:
        run.blow([worker], number)


@pytest.mark.parametrize("number", BLOWS, ids=BLOWS.get)
@pytest.mark.parametrize("workers", PAIRS, ids=" and ".join)
def test_two_workers_go_at_once(workers: tuple[str, str], number: signal.Signals, tmp_path) -> None:
    with run_of(tmp_path, f"{' and '.join(workers)}: {BLOWS[number]}", options(*workers)) as run:
        run.blow(workers, number)
