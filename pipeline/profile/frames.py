"""A run's trace, read and summed up: what waited, what worked, and how fast. Pure, but for reading the file.

`waiting` at a stage is from the stage before (or capture) to when it began, `working` from then until it was done; of
all stages together they are the latency. The words are those of the summary and of docs/operating.md.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from pipeline.flow.messages import Quantiles
from pipeline.flow.metrics import quantiles_of
from pipeline.sinks.trace import TraceLine
from pipeline.stage import CHAIN

_decode = msgspec.json.Decoder(TraceLine).decode
# So much of a run's time is left out at its beginning, in which caches and queues fill.
WARM_SHARE = 0.1
PERCENTS = (50, 90, 95, 99)
NEAR = 0.02  # frames so near in rank stand for a percentile


class Span(NamedTuple):
    """A frame at a stage: it waited from `came_ns`, worked from `entered_ns` to `left_ns`."""

    stage: str
    came_ns: int
    entered_ns: int
    left_ns: int

    @property
    def waiting_ms(self) -> float:
        return max(0, self.entered_ns - self.came_ns) / 1e6

    @property
    def working_ms(self) -> float:
        return max(0, self.left_ns - self.entered_ns) / 1e6


def read(path: Path) -> list[TraceLine]:
    """Each whole line; the last may be cut off where the run was killed."""
    lines = []
    for text in path.read_bytes().splitlines():
        try:
            lines.append(_decode(text))
        except msgspec.MsgspecError:
            break
    return lines


def spans(line: TraceLine) -> list[Span]:
    came_ns, found = line.captured_ns, []
    for hop in line.hops:
        found.append(Span(hop.stage, came_ns, hop.entered_ns, hop.left_ns))
        came_ns = hop.left_ns
    return found


def delivered(lines: Iterable[TraceLine]) -> list[TraceLine]:
    """Those that came to their end with whatever result, in the order in which they did."""
    return sorted(
        (line for line in lines if line.status != "dropped" and line.hops), key=lambda line: line.hops[-1].left_ns
    )


def steady(lines: Sequence[TraceLine], warm_share: float = WARM_SHARE) -> list[TraceLine]:
    """Without those captured at the beginning."""
    if not lines:
        return []
    first, last = (edge(line.captured_ns for line in lines) for edge in (min, max))
    return [line for line in lines if line.captured_ns >= first + warm_share * (last - first)]


def throughput(lines: Sequence[TraceLine]) -> float:
    """Frames a second, from the first delivery to the last."""
    ends = [line.hops[-1].left_ns for line in delivered(lines)]
    return (len(ends) - 1) * 1e9 / (ends[-1] - ends[0]) if len(ends) > 1 and ends[-1] > ends[0] else 0.0


def dropped_share(lines: Sequence[TraceLine]) -> float:
    return sum(line.status == "dropped" for line in lines) / max(1, len(lines))


class StageTimes(msgspec.Struct, frozen=True):
    waiting: Quantiles
    working: Quantiles


def stage_times(lines: Sequence[TraceLine]) -> dict[str, StageTimes]:
    by_stage: dict[str, list[Span]] = {stage: [] for stage in CHAIN}
    for line in delivered(lines):
        for span in spans(line):
            by_stage[span.stage].append(span)
    return {
        stage: StageTimes(quantiles_of([s.waiting_ms for s in own]), quantiles_of([s.working_ms for s in own]))
        for stage, own in by_stage.items()
    }


class Slice(msgspec.Struct, frozen=True):
    """Frames about one percentile of latency: their mean latency, and of it waiting and working by stage."""

    percent: int
    latency_ms: float
    waiting_ms: dict[str, float]
    working_ms: dict[str, float]


def breakdown(lines: Sequence[TraceLine]) -> list[Slice]:
    by_latency = sorted(delivered(lines), key=lambda line: line.latency_ms)
    return [_slice(percent, _near(by_latency, percent)) for percent in PERCENTS] if by_latency else []


def _near(by_latency: list[TraceLine], percent: int) -> list[TraceLine]:
    at, reach = int(percent / 100 * (len(by_latency) - 1)), int(NEAR * len(by_latency))
    return by_latency[max(0, at - reach) : at + reach + 1]


def _slice(percent: int, lines: list[TraceLine]) -> Slice:
    waiting, working = dict.fromkeys(CHAIN, 0.0), dict.fromkeys(CHAIN, 0.0)
    for line in lines:
        for span in spans(line):
            waiting[span.stage] += span.waiting_ms / len(lines)
            working[span.stage] += span.working_ms / len(lines)
    return Slice(percent, sum(line.latency_ms for line in lines) / len(lines), waiting, working)


class Depths(msgspec.Struct, frozen=True):
    """Frames that waited before each stage, at moments (seconds from the first capture)."""

    seconds: list[float]
    waiting: dict[str, list[int]]


def depths(lines: Sequence[TraceLine], points: int = 200) -> Depths:
    if not lines:
        return Depths([], {})
    first = min(line.captured_ns for line in lines)
    last = max((line.hops[-1].left_ns for line in lines if line.hops), default=first)
    moments = np.linspace(first, last, points)
    waiting: dict[str, list[int]] = {}
    for stage in CHAIN:
        own = [span for line in lines for span in spans(line) if span.stage == stage]
        came, entered = (np.sort([getattr(s, name) for s in own]) for name in ("came_ns", "entered_ns"))
        held = np.searchsorted(came, moments, "right") - np.searchsorted(entered, moments, "right")
        waiting[stage] = [int(count) for count in held]
    return Depths([round(float(m - first) / 1e9, 3) for m in moments], waiting)


def slowest(lines: Sequence[TraceLine], count: int = 12) -> list[TraceLine]:
    return sorted(delivered(lines), key=lambda line: -line.latency_ms)[:count]
