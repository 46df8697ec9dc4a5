"""A run's trace in Chrome's trace event format, which Perfetto and chrome://tracing open: each stage a process with its
lanes, each frame's whole life above them, and arrows from stage to stage. Pure.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.profile.frames import Span, spans
from pipeline.sinks.trace import TraceLine
from pipeline.stage import CHAIN

FRAMES_PID = 0  # the process that shows whole lives; stage n of the chain is n + 1


def trace_events(lines: Sequence[TraceLine]) -> dict[str, Any]:
    """The whole file; times in microseconds from the first capture."""
    start_ns = min((line.captured_ns for line in lines), default=0)
    return {"displayTimeUnit": "ms", "traceEvents": [*_names(), *_lives(lines, start_ns), *_stages(lines, start_ns)]}


def _names() -> Iterator[dict[str, Any]]:
    for pid, name in enumerate(("frames", *CHAIN)):
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
        yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}


def _name(line: TraceLine) -> str:
    return f"{line.source} {line.seq}"


def _lives(lines: Sequence[TraceLine], start_ns: int) -> Iterator[dict[str, Any]]:
    for line in lines:
        end_ns = line.hops[-1].left_ns if line.hops else line.captured_ns
        common = {"cat": "frame", "name": _name(line), "id": _name(line), "pid": FRAMES_PID, "tid": 0}
        facts = {"status": line.status} | ({"stage": line.stage, "reason": line.reason} if line.stage else {})
        yield {"ph": "b", "ts": _micro(line.captured_ns, start_ns), "args": facts} | common
        yield {"ph": "e", "ts": _micro(max(end_ns, line.captured_ns), start_ns)} | common


def _stages(lines: Sequence[TraceLine], start_ns: int) -> Iterator[dict[str, Any]]:
    lanes = {stage: _Lanes() for stage in CHAIN}
    everything = [(span, n, line) for line in lines for n, span in enumerate(spans(line))]
    for span, number, line in sorted(everything, key=lambda item: item[0].entered_ns):
        place = {"pid": CHAIN.index(span.stage) + 1, "tid": lanes[span.stage].lane(span)}
        ts = _micro(span.entered_ns, start_ns)
        yield {
            "ph": "X",
            "cat": "stage",
            "name": _name(line),
            "ts": ts,
            "dur": (span.left_ns - span.entered_ns) / 1e3,
            "args": {"seq": line.seq, "source": line.source, "waited_ms": round(span.waiting_ms, 3)},
        } | place
        if len(line.hops) > 1:
            phase = "s" if number == 0 else "f" if number == len(line.hops) - 1 else "t"
            arrow = {"ph": phase, "cat": "way", "name": "way", "id": _name(line), "ts": ts} | place
            yield arrow | ({"bp": "e"} if phase == "f" else {})


def _micro(at_ns: int, start_ns: int) -> float:
    return (at_ns - start_ns) / 1e3


class _Lanes:
    """Spans that overlap are shown beside each other."""

    def __init__(self) -> None:
        self._busy: list[tuple[int, int]] = []
        self._free: list[int] = []
        self._count = 0

    def lane(self, span: Span) -> int:
        while self._busy and self._busy[0][0] <= span.entered_ns:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        if not self._free:
            self._count += 1
            heapq.heappush(self._free, self._count)
        number = heapq.heappop(self._free)
        heapq.heappush(self._busy, (max(span.left_ns, span.entered_ns + 1), number))
        return number
