"""What a frame of overlay video costs, step by step, and what the encoder's presets cost and give.

Steps: from the decoded frame to BGR, drawing, from BGR to what an encoder takes; beside two of them what they were
before, and how near to the source's planes a picture comes back that goes there and back undrawn. "Planes" copies the
decoder's planes: what would be left of both conversions if all drawing were done on them.
Presets: CPU of the whole process for encoding (with the conversion), size, and likeness of the brightness (PSNR, and
SSIM as Wang et al. 2004) to the drawn pictures. All in turn, in several rounds, for the machine may be shared; of
encodings the round with the least CPU counts.

    python benchmarks/bench_overlay.py [VIDEO] [--rounds N] [--presets P …] [--quality N …]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from common import DATA, ROOT, finish, machine, percentiles  # first, for the path to the rest

# isort: split
import av
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from bench_pipeline import Parts
from numpy.typing import NDArray

from pipeline.overlay import Overlay
from pipeline.settings import EncoderSettings, InferSettings
from pipeline.sinks.h264 import to_yuv420p
from pipeline.sinks.video import VideoSink
from pipeline.sources.pixels import PixelConverter

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
FRAMES = 60
Picture = NDArray[np.uint8]


class Steps:
    """The steps on one decoded frame after the other, each a function of the frame's number."""

    def __init__(self, video: Path, parts: Parts) -> None:
        with av.open(str(video)) as container:
            self.frames = list(islice(container.decode(video=0), FRAMES))
        self._results, self._overlay = parts.results(), Overlay()
        self._converter, self._accurate = PixelConverter(), VideoReformatter()
        self._matrix = Colorspace.ITU709 if parts.width >= 1280 or parts.height > 576 else Colorspace.ITU601
        self.bgr = np.empty((parts.height, parts.width, 3), np.uint8)
        self.named: dict[str, Callable[[int], object]] = {
            "to BGR": self.to_bgr,
            "to BGR, as before": self.to_bgr_accurate,
            "draw": lambda number: self._overlay.draw(self.bgr, self._results[number % len(self._results)]),
            "to YUV": lambda number: VideoFrame.from_ndarray(to_yuv420p(self.bgr), format="yuv420p"),
            "to YUV, as before": lambda number: self.to_yuv_swscale(self.bgr, Colorspace.ITU709),
            "planes": lambda number: self.frames[number].to_ndarray(),
        }

    def to_bgr(self, number: int) -> None:
        self._converter.write_bgr(self.frames[number], 0, self.bgr)

    def to_bgr_accurate(self, number: int) -> None:
        flags = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
        frame = self.frames[number]
        made = self._accurate.reformat(
            frame,
            format="bgr24",
            src_colorspace=self._matrix,
            dst_colorspace=self._matrix,
            interpolation=flags,
            threads=1,
        )
        self.bgr[:] = made.to_ndarray()

    @staticmethod
    def to_yuv_swscale(bgr: Picture, matrix: Colorspace) -> VideoFrame:
        return VideoFrame.from_ndarray(bgr, format="bgr24").reformat(format="yuv420p", dst_colorspace=matrix)

    def cpu_ms(self, rounds: int) -> dict[str, dict[str, float]]:
        times: dict[str, list[float]] = {name: [] for name in self.named}
        for _, number, (name, step) in product(range(rounds), range(len(self.frames)), self.named.items()):
            start = time.process_time_ns()
            step(number)
            times[name].append((time.process_time_ns() - start) / 1e6)
        return {name: percentiles(some) for name, some in times.items()}

    def there_and_back(self) -> dict[str, dict[str, float]]:
        """How near the planes come to those of the source, now and as before, where its matrix is BT.601."""

        def now(number: int) -> Picture:
            self.to_bgr(number)
            return to_yuv420p(self.bgr)

        def before(number: int) -> Picture:
            self.to_bgr_accurate(number)
            return self.to_yuv_swscale(self.bgr, Colorspace.ITU601).to_ndarray()

        sources = [frame.to_ndarray() for frame in self.frames[::10]]
        height = self.bgr.shape[0]
        told = {}
        for name, way in (("now", now), ("before", before)):
            backs = [way(number) for number in range(0, len(self.frames), 10)]
            pairs = list(zip(sources, backs, strict=True))
            told[name] = {
                "y_psnr": float(np.mean([psnr(a[:height], b[:height]) for a, b in pairs])),
                "uv_psnr": float(np.mean([psnr(a[height:], b[height:]) for a, b in pairs])),
                "y_darker": float(np.mean([a[:height].mean() - b[:height].mean() for a, b in pairs])),
            }
        return told


def psnr(a: Picture, b: Picture) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(np.float64) - b) ** 2), 1e-9)))


def ssim(a: Picture, b: Picture) -> float:
    """Structural similarity of two planes: a Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03."""

    def mean(plane: NDArray[np.float64]) -> Any:
        return cv2.GaussianBlur(plane, (11, 11), 1.5)

    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y, c1, c2 = mean(x), mean(y), (0.01 * 255) ** 2, (0.03 * 255) ** 2
    var_x, var_y, both = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2, mean(x * y) - mean_x * mean_y
    nominator = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((nominator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())


class Encodings:
    """The drawn pictures through the sink, with one set of settings after the other."""

    def __init__(self, parts: Parts) -> None:
        self._results, self._rate = parts.results(), parts.rate
        overlay, self._pictures = Overlay(), [picture.copy() for picture in parts.pictures]
        for picture, result in zip(self._pictures, self._results, strict=True):
            overlay.draw(picture, result)

    def run(self, encoder: EncoderSettings) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "o.mp4")
            sink, start = VideoSink(str(path), self._rate, encoder_settings=encoder), time.process_time()
            for picture, result in zip(self._pictures, self._results, strict=True):
                sink.write(result, picture)
            sink.close()
            cpu_ms = 1e3 * (time.process_time() - start) / len(self._pictures)
            likeness = np.array([(psnr(a, b), ssim(a, b)) for a, b in self._pairs(path)]).mean(axis=0)
            megabits = path.stat().st_size * 8 / len(self._pictures) * self._rate / 1e6
        return {"cpu_ms": cpu_ms, "mbit_s": megabits, "psnr": likeness[0], "ssim": likeness[1]}

    def _pairs(self, path: Path) -> Iterator[tuple[Picture, Picture]]:
        """Brightness of each picture before and after; SSIM of all takes long, so of one in ten."""
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number % 10 == 0:
                    height, width = self._pictures[number].shape[:2]
                    yield to_yuv420p(self._pictures[number])[:height], frame.to_ndarray()[:height, :width]


def main() -> None:
    usual, clip = DATA / "pets09/vtest.avi", ROOT / "tests/data/pets09_excerpt.mp4"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("video", nargs="?", type=Path, default=usual if usual.exists() else clip)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", default=PRESETS)
    parser.add_argument("--quality", type=int, nargs="+", default=[EncoderSettings().quality])
    arguments = parser.parse_args()
    here = machine("av", "opencv-python-headless")
    print(here)
    parts = Parts(arguments.video, FRAMES, InferSettings(engine="eager"))
    steps = Steps(arguments.video, parts)
    costs, nearness = steps.cpu_ms(arguments.rounds), steps.there_and_back()
    for name, figures in costs.items():
        print(f"{name:18} CPU ms a frame: p50 {figures['p50']:.2f}, least {figures['min']:.2f}")
    for name, likeness in nearness.items():
        print(f"there and back, {name:6} " + ", ".join(f"{key} {value:.2f}" for key, value in likeness.items()))
    presets = measure_presets(Encodings(parts), list(product(arguments.presets, arguments.quality)), arguments.rounds)
    finish({"benchmark": "overlay", "machine": here, "steps": costs, "there_and_back": nearness, "presets": presets})


def measure_presets(encodings: Encodings, wanted: list[tuple[str, int]], rounds: int) -> dict[str, dict[str, float]]:
    told: dict[str, dict[str, float]] = {}
    for preset, quality in islice(cycle(wanted), rounds * len(wanted)):
        figures = encodings.run(EncoderSettings(codec="libx264", preset=preset, quality=quality))
        name = f"{preset} {quality}"
        least = min(figures["cpu_ms"], told.get(name, figures)["cpu_ms"])
        told[name] = {key: round(value, 4) for key, value in (figures | {"cpu_ms": least}).items()}
    for name, figures in told.items():
        print(f"{name:14} " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    return told


if __name__ == "__main__":
    main()
