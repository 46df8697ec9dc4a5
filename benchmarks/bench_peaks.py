"""The peak search against the usual decode in PyTorch (sigmoid, 3 x 3 max-pool, compare, top K), one thread each.

    python benchmarks/bench_peaks.py [--count 100]

Two heat maps of 80 x 128 x 128: `typical`, smooth logits about N(-7, 1.5) with some tens of peaks, as a trained network
gives; and `noisy`, 1.5 N(0, 1) - 3, where every ninth cell is a peak. The floor is one NumPy `.max()` over the array.
"""

import argparse
from typing import Any

import numpy as np
import torch
from common import finish, machine, milliseconds, percentiles
from numpy.typing import NDArray

from pipeline.kernels.peaks import find_peaks

SHAPE = (80, 128, 128)
K = 100
THRESHOLDS = {"typical": (0.3, 0.05), "noisy": (0.05, 0.0)}


def typical(rng: np.random.Generator) -> NDArray[np.float32]:
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
    frequency = np.hypot(np.fft.fftfreq(SHAPE[1])[:, None], np.fft.rfftfreq(SHAPE[2]))
    blurred = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(SHAPE)) * np.exp(-((frequency * 9) ** 2)), SHAPE[1:])
    logits = 1.5 * blurred / blurred.std() - 7
    for _ in range(40):
        channel, row, column = rng.integers(SHAPE)
        distance = np.hypot(rows - row, columns - column) / rng.uniform(1, 4)
        logits[channel] = np.maximum(logits[channel], rng.uniform(8, 10) * np.exp(-(distance**2) / 2) - 8)
    return logits.astype(np.float32)


def noisy(rng: np.random.Generator) -> NDArray[np.float32]:
    return (1.5 * rng.standard_normal(SHAPE) - 3).astype(np.float32)


def torch_decode(heatmap: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scores = heatmap.sigmoid()
    highest = torch.nn.functional.max_pool2d(scores, 3, stride=1, padding=1)
    best = (scores * (highest == scores)).flatten().topk(K)
    return best.values, best.indices


def compare(name: str, heatmap_chw: NDArray[np.float32], threshold: float, count: int) -> dict[str, Any]:
    size_chw, offset_chw = np.ones((2, *SHAPE[1:]), np.float32), np.zeros((2, *SHAPE[1:]), np.float32)
    class_ids, tensor = np.arange(SHAPE[0], dtype=np.int32), torch.from_numpy(heatmap_chw)
    peaks = find_peaks(heatmap_chw, size_chw, offset_chw, class_ids, threshold, K)
    same = torch_decode(tensor)[0].numpy()[: len(peaks.scores)]
    np.testing.assert_allclose(peaks.scores, same, atol=1e-6)
    ours = milliseconds(lambda: find_peaks(heatmap_chw, size_chw, offset_chw, class_ids, threshold, K), 5 * count)
    peer = milliseconds(lambda: torch_decode(tensor), count)
    floor = milliseconds(heatmap_chw.max, 5 * count)
    return {
        "heatmap": name,
        "score_threshold": threshold,
        "peaks": len(peaks.scores),
        "ours_ms": percentiles(ours),
        "torch_ms": percentiles(peer),
        "numpy_max_ms": percentiles(floor),
        "times_faster_than_torch": round(float(np.median(peer) / np.median(ours)), 1),
        "times_one_max": round(float(np.median(ours) / np.median(floor)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100, help="timed calls of PyTorch; ours are five times as many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    here = machine("torch", "numba")
    print(here)
    results = []
    for make in (typical, noisy):
        heatmap_chw = make(np.random.default_rng(0))
        for threshold in THRESHOLDS[make.__name__]:
            result = compare(make.__name__, heatmap_chw, threshold, arguments.count)
            results.append(result)
            print(
                f"{result['heatmap']:8} threshold {threshold:<5} {result['peaks']:3} peaks   "
                f"ours {result['ours_ms']['p50']:.3f} ms, torch {result['torch_ms']['p50']:.1f} ms: "
                f"{result['times_faster_than_torch']} times faster; {result['times_one_max']} times one max()"
            )
    finish({"benchmark": "peaks", "machine": here, "shape": SHAPE, "k": K, "results": results})


if __name__ == "__main__":
    main()
