"""How old is what a browser shows? From capture to the pixels of the page, above what the pipeline itself takes.

    python benchmarks/bench_screen.py [--seconds 30] [--browser /usr/bin/chromium] [-- OPTION …]

A camera of 1280x720 at 25 frames a second, whose frames carry their number as a bar code, is played by an RTSP server
and run with the page; headless Chromium opens the large view twice: once without WebCodecs, so that JPEGs are shown,
once with it, so that the camera's own packets are. A script in the page reads the bar code back from the canvas after
each paint. The pipeline's own share of a frame is `latency_ms` of its JSON line, capture to delivery; what is told is
the rest: making the JPEG, or nothing, the way to the browser, decoding and drawing. The first ten seconds do not count.
Browser, camera, pipeline and this script share the machine. Needs the package playwright. What follows `--` is for the
run. The last line is one JSON object.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
from common import ROOT, finish, machine, percentiles

from tests.kit.servers import running

WIDTH, HEIGHT, RATE = 1280, 720, 25
BITS, SIDE = 16, 48
WARM_SECONDS = 10.0
SPARE_SECONDS = 60.0  # to start the run, and the browser
PATHS = {"jpeg": "delete window.VideoDecoder;", "webcodecs": ""}

# Reads the squares' middles in the source's own pixels, wherever the page has put the picture: after each paint, for
# before it the page may not have drawn yet.
READER = """
([width, height, bits, side]) => {
  const seen = (window.seen = new Map());
  const painted = new MessageChannel();
  const look = () => {
    const canvas = document.querySelector("canvas.pixels");
    if (canvas && canvas.width) {
      const scale = Math.min(canvas.width / width, canvas.height / height);
      const left = (canvas.width - width * scale) / 2, top = (canvas.height - height * scale) / 2;
      const context = canvas.getContext("2d");
      const row = context.getImageData(0, Math.round(top + (side / 2) * scale), canvas.width, 1).data;
      let number = 0;
      for (let bit = 0; bit < bits; bit++)
        number |= (row[4 * Math.round(left + (bit + 0.5) * side * scale)] > 127 ? 1 : 0) << bit;
      if (!seen.has(number)) seen.set(number, (performance.timeOrigin + performance.now()) / 1000);
    }
  };
  painted.port1.onmessage = look;
  const frame = () => {
    painted.port2.postMessage(null);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}
"""


def write_video(path: Path, seconds: float) -> None:
    """Each frame's number as squares along the top, the lowest bit at the left; below it something that moves."""
    ramp = np.tile(np.linspace(40, 200, WIDTH, dtype=np.uint8), (HEIGHT, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=RATE, options={"preset": "ultrafast", "crf": "20", "g": str(RATE)}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(round(seconds * RATE)):
            grey = np.roll(ramp, 4 * number, axis=1)
            for bit in range(BITS):
                grey[:SIDE, bit * SIDE : (bit + 1) * SIDE] = 255 * (number >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        container.mux(stream.encode(None))


def shown_by_browser(port: int, browser: str, seconds: float, path: str) -> dict[int, float]:
    """Frame → when its pixels were there, in seconds since 1970."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.add_init_script(PATHS[path])
        page.goto(f"http://127.0.0.1:{port}/#/bars")
        page.wait_for_selector(f".large .picture[data-path={path}]")
        page.evaluate(READER, [WIDTH, HEIGHT, BITS, SIDE])
        page.wait_for_timeout(1000 * seconds)
        if (came := page.get_attribute(".large .picture", "data-path")) != path:
            raise SystemExit(f"the page went over to {came}: this machine is too busy for {path}")
        seen = page.evaluate("[...window.seen]")
        chromium.close()
    return {int(number): float(at_unix) for number, at_unix in seen}


def figures(frames: dict[int, dict], shown: dict[int, float]) -> dict:
    """Of one path."""
    first = min(shown.values()) + WARM_SECONDS
    counted = [(frames[seq], at) for seq, at in shown.items() if seq in frames and at >= first]
    ages_ms = [1000 * (at - line["captured_unix"]) for line, at in counted]
    above_ms = [age - line["latency_ms"] for age, (line, _) in zip(ages_ms, counted, strict=True)]
    if min(above_ms) < 0:
        raise SystemExit("a frame was seen before it was delivered: numbers and frames do not belong together")
    seconds = max(at for _, at in counted) - first
    return {
        "shown_per_second": round(len(counted) / seconds, 2),
        "above_pipeline_ms": percentiles(above_ms) | {"p95": round(float(np.percentile(above_ms, 95)), 2)},
        "capture_to_page_ms": percentiles(ages_ms),
        "capture_to_delivery_ms": percentiles(line["latency_ms"] for line, _ in counted),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("options", nargs="*")
    given = parser.parse_args()
    print(machine("aiohttp", "av", "openvino", "playwright"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    loads: dict[str, float] = {}
    shown: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        video, lines = Path(folder, "bars.mp4"), Path(folder, "lines.jsonl")
        write_video(video, len(PATHS) * (given.seconds + WARM_SECONDS) + SPARE_SECONDS)
        options = ["--name", "bars", "--jsonl", str(lines), "--serve", f"127.0.0.1:{port}", *given.options]
        with (
            running(sys.executable, "play_server.py", {"file": video}) as camera,
            subprocess.Popen(
                [sys.executable, "run_pipeline.py", camera.url, *options], cwd=ROOT, stderr=subprocess.DEVNULL
            ) as run,
        ):
            try:
                until_ready(port)
                for path in PATHS:
                    shown[path] = shown_by_browser(port, given.browser, given.seconds + WARM_SECONDS, path)
                    loads[path] = os.getloadavg()[0]
            finally:
                run.terminate()
        frames = {
            line["seq"]: line for line in map(json.loads, lines.read_text().splitlines()) if line.get("status") == "ok"
        }
    result = {path: figures(frames, shown[path]) | {"load": round(loads[path], 1)} for path in PATHS}
    for path, told in result.items():
        above, whole, own = (
            told[f"{name}_ms"] for name in ("above_pipeline", "capture_to_page", "capture_to_delivery")
        )
        print(f"{path}: {told['shown_per_second']} frames a second shown, load {told['load']}")
        print(f"  above the pipeline's own: p50 {above['p50']:.1f} ms, p95 {above['p95']:.1f}, p99 {above['p99']:.1f}")
        print(f"  capture to page: p50 {whole['p50']:.1f} ms; capture to delivery: p50 {own['p50']:.1f}")
    finish({"benchmark": "screen", "machine": machine("aiohttp", "av", "openvino", "playwright"), **result})


def until_ready(port: int) -> None:
    """Frames flow."""
    while True:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
