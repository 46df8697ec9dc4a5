"""deliver: draws, and hands each frame to the outputs. An output that fails is closed; the others go on.

Outputs are opened when a source has given its first frame: a run that does not come so far leaves earlier results as
they are.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.detections import Detections
from pipeline.errors import OutputError
from pipeline.frame import Frame
from pipeline.messages import EndOfStream, FrameHeader, ModelCard, StreamStart
from pipeline.results import FrameResult
from pipeline.settings import DeliverSettings
from pipeline.sinks import Sink
from pipeline.sinks.window import StopRequested
from pipeline.stage import Kit, Stage

SinkMaker = Callable[[StreamStart], Sink]


class Deliver(Stage):
    """The outputs' process. A frame is delivered when an output took it, or when none was asked for."""

    sees_failed_frames = True

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.deliver
        self._sinks: dict[str, Sink] = {}
        self._makers: dict[str, SinkMaker] = {}
        self._has_outputs = False
        self._places: dict[str, os.stat_result | None] = {}

    def prepare(self) -> None:
        settings = self._settings
        self._makers = sink_makers(settings)
        if settings.video or settings.show:
            from pipeline.overlay import Overlay

            self._overlay = Overlay() if settings.overlay else None
        if settings.show:
            from pipeline.sinks.window import WindowSink

            self.kit.tell("looking for a screen")
            self._add("show", WindowSink())

    def begin(self, model: ModelCard) -> None:
        self._class_names = model.class_names

    def stream_started(self, start: StreamStart) -> None:
        self._start = start
        self._has_outputs = self._settings.has_outputs()

    def _open_all(self) -> None:
        """What is not open yet, now that there is a frame, or that a source without any came to a good end."""
        makers, self._makers = self._makers, {}
        problems = [self._open(output, make) for output, make in makers.items()]
        for problem in filter(None, problems):
            self._tell(problem)

    def _open(self, output: str, make: SinkMaker) -> OutputError | None:
        try:
            self._add(output, make(self._start))
        except OutputError as error:
            self._failed(output, error)
            return error
        return None

    def _add(self, output: str, sink: Sink) -> None:
        self._sinks[output] = sink
        self.kit.meter.output_opened(output)

    def process(self, frame: Frame) -> None:
        self._open_all()
        result = self._result(frame)
        image_bgr = frame.array("image_bgr") if "image_bgr" in frame else None
        if image_bgr is not None and self._overlay:
            self._overlay.draw(image_bgr, result)
        # All are asked, whatever the first says.
        taken = [self._offer(output, result, image_bgr) for output in list(self._sinks)]
        if any(taken) or not self._has_outputs:
            self.kit.meter.delivered(frame.header, time.monotonic_ns())
        else:
            self.kit.meter.dropped(frame.header.source_id, frame.header.seq, "no output took it")
        self.kit.end_frame(frame)

    def _offer(self, output: str, result: FrameResult, image_bgr: NDArray[np.uint8] | None) -> bool:
        """Whether the output took the frame."""
        try:
            self._sinks[output].write(result, image_bgr)
        except OutputError as error:
            self._give_up(output, error)
            return False
        except StopRequested:
            self.kit.ask_stop(True)
        self._took(output)
        return True

    def _took(self, output: str) -> None:
        self.kit.meter.output_took(output)
        if output not in self._places:  # the file is there from the first frame on
            self._places[output] = self._place(output)

    def _place(self, output: str) -> os.stat_result | None:
        path = self._settings.files().get(output)
        with suppress(OSError):
            return Path(path).stat() if path else None
        return None

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

    def _give_up(self, output: str, error: OutputError) -> None:
        self._failed(output, error)
        with suppress(OutputError):  # the same trouble once more
            self._sinks.pop(output).close()
        self._tell(error)

    def _failed(self, output: str, error: OutputError) -> None:
        self.problem = self.problem or error
        self.kit.meter.output_failed(output, str(error))

    def _tell(self, error: OutputError) -> None:
        """What becomes of the run; without outputs nobody would see what is computed from here on."""
        self.kit.meter.warn(
            f"{error}; {'the other outputs go on' if self._sinks else 'no output is left, the run ends'}"
        )
        if not self._sinks:
            self.kit.ask_stop(False)

    def stream_ended(self, end: EndOfStream) -> None:
        if end.failure is None:
            self._open_all()
        self.close()

    def close(self) -> None:
        while self._sinks:
            output, sink = self._sinks.popitem()
            try:
                sink.close()
            except OutputError as error:
                self._failed(output, error)
            before, after = self._places.get(output), self._place(output)
            if before and not (after and os.path.samestat(before, after)):
                self.kit.meter.output_gone(output)


def sink_makers(settings: DeliverSettings) -> dict[str, SinkMaker]:
    """What opens each file that is wanted, by its key in the settings. Only what is wanted is imported, and now."""
    makers: dict[str, SinkMaker] = {}
    jsonl, mot, video = settings.jsonl, settings.mot, settings.video
    if jsonl:
        from pipeline.sinks.jsonl import JsonLinesSink

        makers["jsonl"] = lambda start: JsonLinesSink(jsonl)
    if mot:
        from pipeline.sinks.mot import MotSink

        makers["mot"] = lambda start: MotSink(mot)
    if video:
        from pipeline.sinks.video import VideoSink

        makers["video"] = lambda start: VideoSink(video, start.frames_per_second)
    return makers
