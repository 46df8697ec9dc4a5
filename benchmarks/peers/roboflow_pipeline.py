"""A peer to measure against: Roboflow's `inference` with its InferencePipeline, and our network as its custom handler.

    python roboflow_pipeline.py VIDEO NETWORK.onnx --out overlay.mp4 [--mot tracks.txt] [--jsonl detections.jsonl]

What is the same in `program.py` is taken from there: detector, tracker, drawing, writing, and the last line. The
pipeline decodes, detects and writes in a thread each; its queues are as short as there.
"""

import os
import time
from typing import Any

# Nothing is told to anybody, and no model of theirs is looked for.
os.environ |= {"TELEMETRY_OPT_OUT": "True", "METRICS_ENABLED": "False", "OTEL_METRICS_ENABLED": "False"}
os.environ |= {"DISABLE_VERSION_CHECK": "True", "CORE_MODELS_ENABLED": "False"}

import supervision as sv
from inference import InferencePipeline
from program import WAITING_FRAMES, Detector, Item, Results, make_tracker, parse, report, track

Found = tuple[sv.Detections, sv.Detections]


class Handlers:
    """What the pipeline calls; the first frame tells the rate."""

    def __init__(self) -> None:
        self._given = parse(__doc__)
        self._detect = Detector(self._given.network, self._given.score)
        self._captured: dict[int, float] = {}
        self._tracker: Any = None
        self.results: Results | None = None

    def told(self, update: Any) -> None:
        """Of a file a frame says when it was recorded; when it was captured is only told here."""
        if update.event_type == "FRAME_CAPTURED":
            self._captured[update.payload["frame_id"]] = time.monotonic()

    def found(self, frames: list[Any]) -> list[Found]:
        if self._tracker is None:
            self._tracker = make_tracker(frames[0].fps or 25.0)
        detected = [self._detect(frame.image) for frame in frames]
        return [(some, track(self._tracker, some)) for some in detected]

    def write(self, found: Found, frame: Any) -> None:
        if self.results is None:
            self.results = Results(self._given, self._detect.class_names, frame.fps or 25.0)
        number = len(self.results.ages_ms)
        self.results.write(Item(number, self._captured.pop(frame.frame_id), frame.image), *found)

    def run(self) -> None:
        pipeline = InferencePipeline.init_with_custom_logic(
            video_reference=self._given.video,
            on_video_frame=self.found,
            on_prediction=self.write,
            status_update_handlers=[self.told],
            decoding_buffer_size=WAITING_FRAMES,
            predictions_queue_size=WAITING_FRAMES,
        )
        started = time.monotonic()
        pipeline.start()
        pipeline.join()
        assert self.results, "no frame came"
        self.results.close()
        report(self.results, started)


if __name__ == "__main__":
    Handlers().run()
