"""What needs a CUDA device: `pytest -m gpu`."""

import pytest
import torch

from tests.harness import CLIP, json_lines, run

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
