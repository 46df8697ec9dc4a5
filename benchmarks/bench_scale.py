"""From decoded YUV 4:2:0 to 512×512 RGB: the pipeline's converter against PyAV's to_ndarray and cv2.resize.

    python benchmarks/bench_scale.py

Both are given the same frames in turn, one thread each; milliseconds a frame. The last line is one JSON object.
"""

import argparse
import time
from collections.abc import Callable

import av
import cv2
import numpy as np
from common import finish, machine, percentiles

from pipeline.sources.pixels import PixelConverter

SIZES = {"768x576": (768, 576), "1080p": (1920, 1080), "4K": (3840, 2160)}
INPUT_SIZE = 512


def pattern(width: int, height: int) -> av.VideoFrame:
    with av.open(f"testsrc2=size={width}x{height}:rate=30", "r", format="lavfi") as container:
        return next(container.decode(video=0)).reformat(format="yuv420p")


def ours(frame: av.VideoFrame) -> Callable[[], None]:
    converter, out_hwc = PixelConverter(), np.empty((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    return lambda: converter.write_input(frame, 0, out_hwc)


def peer(frame: av.VideoFrame) -> Callable[[], None]:
    out_hwc = np.empty((INPUT_SIZE, INPUT_SIZE, 3), np.uint8)

    def convert() -> None:
        small_bgr = cv2.resize(frame.to_ndarray(format="bgr24", threads=1), (INPUT_SIZE, INPUT_SIZE))
        cv2.cvtColor(small_bgr, cv2.COLOR_BGR2RGB, dst=out_hwc)

    return convert


def interleaved(runs: dict[str, Callable[[], None]], count: int) -> dict[str, list[float]]:
    """Milliseconds of each run, taken in turn so that a busy moment hits all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(count):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append((time.perf_counter() - start) * 1e3)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    count = parser.parse_args().count
    cv2.setNumThreads(1)
    results: dict[str, object] = {}
    for name, (width, height) in SIZES.items():
        frame = pattern(width, height)
        runs = {"ours": ours(frame), "peer": peer(frame)}
        interleaved(runs, 10)
        taken = interleaved(runs, count)
        row = {run: percentiles(ms) for run, ms in taken.items()}
        results[name] = row | {"ratio": round(row["peer"]["p50"] / row["ours"]["p50"], 2)}
        print(f"{name:8} ours {row['ours']['p50']:.2f} ms, peer {row['peer']['p50']:.2f} ms (median of {count})")
    facts = machine("av", "opencv-python-headless")
    finish({"benchmark": "scale", "unit": "ms", "machine": facts, "results": results})


if __name__ == "__main__":
    main()
