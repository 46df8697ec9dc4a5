"""The trace of each frame: when it came to each stage and when it left it, as JSON lines for whoever looks for time.

    {"schema":1,"source":"door","seq":7,"captured_ns":81234567,"hops":[["decode",81234600,81236000],…],"status":"ok"}

Times are nanoseconds of the host's monotonic clock. What lies between two hops was waiting; the last hop, deliver's,
ends when this output took the frame. Knows no stage and no pixels.
"""

import time
from typing import Literal

import msgspec
from msgspec.structs import replace

from pipeline.flow.messages import Hop
from pipeline.flow.results import FrameResult
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.lines import LineFile

SCHEMA = 1


class TraceLine(msgspec.Struct):
    """One frame; `stage` and `reason` say where and why it was dropped."""

    schema: int
    source: str
    seq: int
    captured_ns: int
    hops: list[Hop]
    status: Literal["ok", "failed", "dropped"] = "ok"
    stage: str = ""
    reason: str = ""

    @property
    def latency_ms(self) -> float:
        """From capture to delivery."""
        return (self.hops[-1].left_ns - self.captured_ns) / 1e6


def open_sink(target: Target) -> Sink:
    return TraceSink(target.path, target.goes_on)


class TraceSink(Sink):
    """Appends one line a frame. Raises OutputError as `LineFile` does."""

    def __init__(self, path: str, goes_on: bool = False) -> None:
        """`goes_on`: after what is there already."""
        self._encoder = msgspec.json.Encoder()
        self._file = LineFile(path, goes_on)

    def write(self, frame: FrameResult, image_bgr: Image | None = None) -> None:
        self._file.append(self._encoder.encode(trace_line(frame, time.monotonic_ns())) + b"\n")

    def close(self) -> None:
        self._file.close()


def trace_line(frame: FrameResult, now_ns: int) -> TraceLine:
    """`frame` as it is written at `now_ns`."""
    hops = list(frame.trace)
    if frame.dropped:
        return TraceLine(
            SCHEMA,
            frame.source_id,
            frame.seq,
            frame.captured_ns,
            hops,
            "dropped",
            frame.dropped.stage,
            frame.dropped.reason,
        )
    hops[-1:] = [replace(hop, left_ns=now_ns) for hop in hops[-1:]]
    status: Literal["ok", "failed"] = "failed" if frame.failure else "ok"
    return TraceLine(SCHEMA, frame.source_id, frame.seq, frame.captured_ns, hops, status)
