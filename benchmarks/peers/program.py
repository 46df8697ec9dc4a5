"""A peer to measure against: the program that a good engineer writes in a day. Knows nothing of this project.

    python program.py VIDEO NETWORK.onnx --out overlay.mp4 [--mot tracks.txt] [--jsonl detections.jsonl]

Three threads with short queues between them: OpenCV reads, the main thread detects (ONNX Runtime on all cores; sigmoid,
max-pool and top-k in torch) and tracks (ByteTrack of the package `trackers`), and the last draws with OpenCV and writes
H.264 with PyAV. The network is an export of `python -m models.export`. The last line is JSON: frames, seconds from the
first frame to the closed file, and ages in milliseconds from before a frame is read until it is written.
"""

import argparse
import json
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from queue import Queue
from typing import Any, TextIO

import av
import cv2
import numpy as np
import onnxruntime
import supervision as sv
import torch
import torch.nn.functional as F
from trackers import ByteTrackTracker

WAITING_FRAMES = 4
MOST_DETECTIONS = 100
LEAST_TRACKED_SCORE, LEAST_SHOWN_SCORE = 0.1, 0.3
TRAIL_SECONDS = 2.0


@dataclass
class Item:
    """A frame on its way: its number, when it was captured, and its pixels."""

    number: int
    captured: float
    image_bgr: np.ndarray


class Detector:
    """CenterNet in ONNX Runtime: a BGR frame to the detections of at least `score`, best first."""

    def __init__(self, path: str, score: float) -> None:
        options = onnxruntime.SessionOptions()
        # Threads that spin between frames would take the cores from reading, drawing and encoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        facts = json.loads(self._session.get_modelmeta().custom_metadata_map["centerstream"])
        self.class_names: list[str] = facts["class_names"]
        self._stride: int = facts["stride"]
        self._input = self._session.get_inputs()[0].name
        self._height, self._width = self._session.get_inputs()[0].shape[1:3]
        self._score = score
        self(np.zeros((self._height, self._width, 3), np.uint8))  # the first run is slow

    @torch.inference_mode()
    def __call__(self, image_bgr: np.ndarray) -> sv.Detections:
        small = cv2.resize(image_bgr, (self._width, self._height), interpolation=cv2.INTER_LINEAR)
        images_bhwc = cv2.cvtColor(small, cv2.COLOR_BGR2RGB)[None]
        heatmap, sizes = map(torch.from_numpy, self._session.run(["hm", "wh"], {self._input: images_bhwc}))
        scores = heatmap.sigmoid_()
        peaks = scores * (F.max_pool2d(scores, 3, stride=1, padding=1) == scores)
        best, index = peaks.flatten().topk(MOST_DETECTIONS)
        best, index = best[best >= self._score], index[best >= self._score]
        rows, columns = scores.shape[2:]
        cells = index % (rows * columns)
        sides = sizes[0].flatten(1)[:, cells].T
        points = torch.stack((cells % columns, cells // columns), dim=1)
        boxes = torch.cat((points - sides[:, :2], points + sides[:, 2:]), dim=1).numpy() * self._stride
        height, width = image_bgr.shape[:2]
        boxes *= np.array([width / self._width, height / self._height] * 2, np.float32)
        np.clip(boxes, 0, [width, height, width, height], out=boxes)
        return sv.Detections(boxes, confidence=best.numpy(), class_id=(index // (rows * columns)).numpy())


def make_tracker(frames_per_second: float) -> ByteTrackTracker:
    """With the thresholds that the pipeline has."""
    return ByteTrackTracker(
        lost_track_buffer=30,  # of frames at 30 a second: one second
        frame_rate=frames_per_second,
        track_activation_threshold=0.5,
        minimum_consecutive_frames=2,
        minimum_iou_threshold=0.1,
        high_conf_det_threshold=0.35,
    )


def track(tracker: ByteTrackTracker, found: sv.Detections) -> sv.Detections:
    return tracker.update(found[found.confidence >= LEAST_TRACKED_SCORE])


class Overlay:
    """Boxes, labels and trails, onto the picture itself."""

    def __init__(self, class_names: list[str], frames_per_second: float) -> None:
        self._class_names = class_names
        self._trails: dict[int, deque[tuple[int, int]]] = defaultdict(
            lambda: deque(maxlen=max(2, round(TRAIL_SECONDS * frames_per_second)))
        )

    def draw(self, image_bgr: np.ndarray, found: sv.Detections) -> None:
        seen = set()
        for box, score, class_id, track_id in zip(
            found.xyxy, found.confidence, found.class_id, found.tracker_id, strict=True
        ):
            if track_id < 0 and score < LEAST_SHOWN_SCORE:
                continue
            left, top, right, bottom = map(int, box)
            colour = _colour(int(track_id))
            cv2.rectangle(image_bgr, (left, top), (right, bottom), colour, 2)
            name = f"{self._class_names[class_id]} {score:.2f}"
            _label(image_bgr, f"#{track_id} {name}" if track_id >= 0 else name, (left, top), colour)
            if track_id >= 0:
                seen.add(track_id)
                self._trails[track_id].append(((left + right) // 2, bottom))
                cv2.polylines(image_bgr, [np.array(self._trails[track_id])], False, colour, 2, cv2.LINE_AA)
        for gone in self._trails.keys() - seen:
            self._trails[gone].popleft()
            if not self._trails[gone]:
                del self._trails[gone]


def _colour(track_id: int) -> tuple[int, int, int]:
    if track_id < 0:
        return 205, 205, 205
    hue = np.uint8([[[track_id * 37 % 180, 190, 255]]])
    blue, green, red = cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red


def _label(image_bgr: np.ndarray, text: str, corner: tuple[int, int], colour: tuple[int, int, int]) -> None:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    left, top = corner[0], max(corner[1], height + 6)
    cv2.rectangle(image_bgr, (left, top - height - 6), (left + width + 4, top), colour, cv2.FILLED)
    cv2.putText(image_bgr, text, (left + 2, top - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)


class Results:
    """Everything that is written, and how old frames are by then."""

    def __init__(self, given: argparse.Namespace, class_names: list[str], frames_per_second: float) -> None:
        self._overlay, self._class_names = Overlay(class_names, frames_per_second), class_names
        self._rate = Fraction(frames_per_second).limit_denominator(1001)
        self._options = {"preset": given.preset, "crf": str(given.crf)}
        self._files = ExitStack()
        self._video = self._files.enter_context(av.open(given.out, "w")) if given.out else None
        self._stream: Any = None
        self._mot = self._open(given.mot)
        self._jsonl = self._open(given.jsonl)
        self.ages_ms: list[float] = []

    def _open(self, path: str | None) -> TextIO | None:
        return self._files.enter_context(open(path, "w")) if path else None  # noqa: PTH123

    def write(self, item: Item, detected: sv.Detections, tracked: sv.Detections) -> None:
        self._write_lines(item.number, detected, tracked)
        if self._video:
            self._overlay.draw(item.image_bgr, tracked)
            if self._stream is None:
                self._stream = self._video.add_stream("libx264", rate=self._rate, options=self._options)
                self._stream.height, self._stream.width = item.image_bgr.shape[:2]
                self._stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(item.image_bgr, format="bgr24")
            frame.pts, frame.time_base = item.number, 1 / self._rate
            self._video.mux(self._stream.encode(frame))
        self.ages_ms.append((time.monotonic() - item.captured) * 1e3)

    def _write_lines(self, number: int, detected: sv.Detections, tracked: sv.Detections) -> None:
        if self._mot:
            for box, score, track_id in zip(tracked.xyxy, tracked.confidence, tracked.tracker_id, strict=True):
                if track_id >= 0:
                    left, top, right, bottom = box
                    place = f"{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f}"
                    self._mot.write(f"{number + 1},{track_id},{place},{score:.4f},-1,-1,-1\n")
        if self._jsonl:
            rows = zip(detected.xyxy.tolist(), detected.confidence.tolist(), detected.class_id.tolist(), strict=True)
            objects = [{"class": self._class_names[c], "score": s, "box_xyxy": box} for box, s, c in rows]
            self._jsonl.write(json.dumps({"seq": number, "objects": objects}) + "\n")

    def close(self) -> None:
        if self._video and self._stream:
            self._video.mux(self._stream.encode(None))
        self._files.close()


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Started; what fails there ends the program, for the others would wait without end."""

    def run() -> None:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def items(queue: "Queue[Any]") -> Iterator[Any]:
    while (item := queue.get()) is not None:
        yield item


def parse(about: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("video")
    parser.add_argument("network", help="an ONNX file of `python -m models.export`")
    parser.add_argument("--out", help="overlay video, H.264")
    parser.add_argument("--mot", help="tracks as MOTChallenge text")
    parser.add_argument("--jsonl", help="all detections from --score on, one JSON object a frame")
    parser.add_argument("--score", type=float, default=LEAST_TRACKED_SCORE)
    parser.add_argument("--preset", default="veryfast", help="of libx264")
    parser.add_argument("--crf", type=int, default=23)
    return parser.parse_args()


def report(results: Results, started: float) -> None:
    p50, p95 = np.percentile(results.ages_ms, [50, 95]).round(2).tolist()
    seconds = round(time.monotonic() - started, 4)
    print(json.dumps({"frames": len(results.ages_ms), "seconds": seconds, "age_p50_ms": p50, "age_p95_ms": p95}))


def main() -> None:
    given = parse(__doc__)
    detect = Detector(given.network, given.score)
    capture = cv2.VideoCapture(given.video)
    if not capture.isOpened():
        raise SystemExit(f"{given.video} cannot be opened")
    frames_per_second = capture.get(cv2.CAP_PROP_FPS) or 25.0
    tracker, results = make_tracker(frames_per_second), Results(given, detect.class_names, frames_per_second)
    frames: Queue[Item | None] = Queue(WAITING_FRAMES)
    found: Queue[tuple[Item, sv.Detections, sv.Detections] | None] = Queue(WAITING_FRAMES)

    def read() -> None:
        number, captured = 0, time.monotonic()
        while (got := capture.read())[0]:
            frames.put(Item(number, captured, got[1]))
            number, captured = number + 1, time.monotonic()
        frames.put(None)

    def write() -> None:
        for item, detected, tracked in items(found):
            results.write(item, detected, tracked)

    started = time.monotonic()
    in_thread(read)
    writer = in_thread(write)
    for item in items(frames):
        detected = detect(item.image_bgr)
        found.put((item, detected, track(tracker, detected)))
    found.put(None)
    writer.join()
    results.close()
    report(results, started)


if __name__ == "__main__":
    main()
