"""The figures for Prometheus that need a machine of another kind: a GPU's, as a worker tells of it."""

import time

from pipeline.control.runstate import RunState
from pipeline.control.view import view
from pipeline.flow.messages import Gpu
from pipeline.flow.metrics import Meter
from pipeline.serve.figures import text_of
from pipeline.settings import Settings

MIB = 1 << 20
GPU = Gpu("cuda:1", 100 * MIB, 200 * MIB, 300 * MIB, 400 * MIB, 0.75)


def figures(**gpus: Gpu | None) -> dict[str, float]:
    """All of GPUs that is told of a run with an inference worker for each, by name and labels."""
    state = RunState(launched_at=time.monotonic())
    for name, gpu in gpus.items():
        meter = Meter(owns_process=True)
        meter.gpu = lambda gpu=gpu: gpu  # type: ignore[misc]
        state.reports[name] = meter.report(0, 0.0)
        state.statuses[name] = "running"
    state.statuses["starts"] = "loading the network"
    text = text_of(view(state, Settings()), []).decode()
    assert 'centerstream_worker_restarts_total{worker="starts"} 0.0' in text
    lines = [line.rpartition(" ") for line in text.splitlines() if "gpu" in line and not line.startswith("#")]
    assert lines or "gpu" not in text.lower()
    return {name.removeprefix("centerstream_gpu_"): float(value) for name, _, value in lines}


def test_without_a_gpu_nothing_is_told_of_one() -> None:
    assert figures() == {} == figures(infer=None)


def test_each_worker_tells_of_its_device() -> None:
    told = figures(infer=None, one=GPU, other=Gpu("cuda:0", 1, 2, 3, 4))
    one, other = '{device="cuda:1",worker="one"}', '{device="cuda:0",worker="other"}'
    assert told == {
        f"memory_allocated_bytes{one}": 100 * MIB,
        f"memory_reserved_bytes{one}": 200 * MIB,
        f"device_memory_used_bytes{one}": 300 * MIB,
        f"device_memory_bytes{one}": 400 * MIB,
        f"utilization_ratio{one}": 0.75,
        f"memory_allocated_bytes{other}": 1,
        f"memory_reserved_bytes{other}": 2,
        f"device_memory_used_bytes{other}": 3,
        f"device_memory_bytes{other}": 4,
    }
