"""What needs a CUDA device: `pytest -m gpu`."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models import load_model
from models.engines import Job, available_engines, create_engine
from tests.kit.harness import json_lines, run, wait_until
from tests.kit.places import CLIP
from tests.kit.served import served

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_gpu_finds_what_the_cpu_finds(tmp_path) -> None:
    for device in ("cpu", "cuda"):
        done = run(
            CLIP, "--max-frames", 20, "--device", device, "--score", 0.5, "--jsonl", tmp_path / f"{device}.jsonl"
        )
        assert done.returncode == 0, done.stderr
    cpu, gpu = (json_lines(tmp_path / f"{device}.jsonl") for device in ("cpu", "cuda"))
    for on_cpu, on_gpu in zip(cpu, gpu, strict=True):
        assert abs(len(on_cpu["objects"]) - len(on_gpu["objects"])) <= 1  # fp16 may move a score across the threshold
        best = zip(on_cpu["objects"][:1], on_gpu["objects"][:1], strict=True)
        assert all(a["box_xyxy"] == pytest.approx(b["box_xyxy"], abs=3) for a, b in best)


def test_a_run_tells_how_its_gpu_is_used() -> None:
    with served(CLIP, "--realtime", settings=("--set", "infer.engine=eager", "--device", "cuda")) as page:
        wait_until(lambda: page.view()["sources"][0]["delivered"] > 10, what="frames")
        (gpu,) = (each["gpu"] for each in page.view()["workers"] if each["gpu"])
        told = page.get("/metrics").text
    assert gpu["device"] == "cuda:0" and 0 < gpu["allocated_bytes"] <= gpu["reserved_bytes"] <= gpu["used_bytes"]
    assert gpu["used_bytes"] <= gpu["total_bytes"] and 0 <= (gpu["utilization"] or 0) <= 1
    assert 'centerstream_gpu_memory_allocated_bytes{device="cuda:0",worker="infer:0"}' in told


def noise(job: Job, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, job.height, job.width, 3), np.uint8)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", ["eager", "compile", "cuda_graphs"])
def test_an_engine_on_a_gpu_gives_the_heads_of_the_cpu(name, batch) -> None:
    assert name in available_engines("cuda")
    network, images = load_model("mobilenetv3"), noise(Job(), batch)
    on_cpu = create_engine("eager", network, Job(batches=(batch,)))
    expected = on_cpu.allocate(batch)
    on_cpu.run(images, expected)
    engine = create_engine(name, load_model("mobilenetv3"), Job("cuda", batches=(1, 4)))
    out = engine.allocate(batch)
    engine.run(images, out)
    for head in expected:  # half precision
        assert np.abs(out[head] - expected[head]).max() < 0.03 * np.abs(expected[head]).max()


def test_recordings_do_not_disturb_each_other() -> None:
    engine = create_engine("cuda_graphs", load_model("mobilenetv3"), Job("cuda", lanes=2, top_k=10))
    images = [np.full((1, 512, 512, 3), value, np.uint8) for value in range(0, 250, 10)]

    def candidates(image: np.ndarray) -> np.ndarray:
        out = engine.allocate()
        engine.run(image, out)
        return out["candidates"]

    alone = [candidates(image) for image in images]
    with ThreadPoolExecutor(2) as lanes:
        together = list(lanes.map(candidates, images * 4))
    for got, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_allclose(got[..., 4], expected[..., 4], atol=1e-3)
