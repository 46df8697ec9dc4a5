"""deliver: draws, and hands each frame to the outputs. An output that fails is closed; the others go on."""

import time
from contextlib import suppress

from pipeline.detections import Detections
from pipeline.errors import OutputError
from pipeline.frame import Frame
from pipeline.messages import EndOfStream, FrameHeader, ModelCard, StreamStart
from pipeline.results import FrameResult
from pipeline.sinks import Sink
from pipeline.sinks.window import StopRequested
from pipeline.stage import Kit, Stage


class Deliver(Stage):
    """The outputs' process."""

    sees_failed_frames = True

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.deliver
        self._sinks: list[Sink] = []

    def prepare(self) -> None:
        self.kit.tell("opening the outputs")
        settings = self._settings
        if settings.video or settings.show:
            from pipeline.overlay import Overlay

            self._overlay = Overlay() if settings.overlay else None
        if settings.jsonl:
            from pipeline.sinks.jsonl import JsonLinesSink

            self._sinks.append(JsonLinesSink(settings.jsonl))
        if settings.mot:
            from pipeline.sinks.mot import MotSink

            self._sinks.append(MotSink(settings.mot))
        if settings.show:
            from pipeline.sinks.window import WindowSink

            self._sinks.append(WindowSink())

    def begin(self, model: ModelCard) -> None:
        self._class_names = model.class_names

    def stream_started(self, start: StreamStart) -> None:
        if self._settings.video:
            from pipeline.sinks.video import VideoSink

            self._sinks.append(VideoSink(self._settings.video, start.frames_per_second))

    def process(self, frame: Frame) -> None:
        result = self._result(frame)
        image_bgr = frame.array("image_bgr") if "image_bgr" in frame else None
        if image_bgr is not None and self._overlay:
            self._overlay.draw(image_bgr, result)
        for sink in list(self._sinks):
            try:
                sink.write(result, image_bgr)
            except OutputError as error:
                self._give_up(sink, error)
            except StopRequested:
                self.kit.ask_stop()
        self.kit.meter.delivered(frame.header, time.monotonic_ns())
        self.kit.end_frame(frame)

    def _result(self, frame: Frame) -> FrameResult:
        header: FrameHeader = frame.header
        return FrameResult(
            source_id=header.source_id,
            seq=header.seq,
            pts_seconds=header.pts_seconds,
            captured_unix=header.captured_unix,
            width=header.width,
            height=header.height,
            failure=header.failure,
            latency_ms=(time.monotonic_ns() - header.captured_ns) / 1e6,
            detections=Detections.empty() if header.failure else frame.detections(),
            score_threshold=self.kit.settings.infer.score_threshold,
            class_names=self._class_names,
            frames_per_second=self.kit.meter.recent_per_second() or None,
        )

    def _give_up(self, sink: Sink, error: OutputError) -> None:
        self._sinks.remove(sink)
        self.problem = self.problem or error
        self.kit.meter.warn(f"{error}; the other outputs go on")
        with suppress(OutputError):  # the same trouble once more
            sink.close()

    def stream_ended(self, end: EndOfStream) -> None:
        self.close()

    def close(self) -> None:
        while self._sinks:
            sink = self._sinks.pop()
            try:
                sink.close()
            except OutputError as error:
                self.problem = self.problem or error
