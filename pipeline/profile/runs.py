"""Whole runs for a profile: as they are asked for, but with a trace, and with their outputs beside it instead of where
a user's own are. Knows the supervisor, and no stage.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from configs.uri import Uri
from pipeline.control.runstate import RunState
from pipeline.errors import StageError
from pipeline.kinds import SINKS, SOURCE
from pipeline.profile import frames
from pipeline.run.supervisor import Supervisor
from pipeline.settings import ServeSettings, Settings, SourceSettings
from pipeline.sinks.trace import TraceLine
from pipeline.source_address import parse_address

# A list that plays a file again and again; longer ones help nobody.
MOST_TIMES = 2000


class Shown(Protocol):
    """Somebody who looks on."""

    def update(self, state: RunState) -> None: ...


Show = Callable[[], AbstractContextManager[Shown]]


class Interrupted(KeyboardInterrupt):
    """The user wants no more of it."""


@dataclass(frozen=True)
class Ran:
    """A run that is over.

    lines        its trace, without the beginning in which caches and queues fill
    seconds      from the first frame taken until all was over
    cpu_seconds  by worker; empty where the stages share a process
    """

    lines: list[TraceLine]
    state: RunState
    seconds: float
    cpu_seconds: dict[str, float]

    @property
    def throughput(self) -> float:
        return frames.throughput(self.lines)

    @property
    def cores(self) -> float:
        """That its workers kept busy."""
        return sum(self.cpu_seconds.values()) / self.seconds


def run(settings: Settings, folder: Path, seconds: float, show: Show, warm_share: float = 0.1) -> Ran:
    """For so long, or until its sources end. Raises what went wrong, and Interrupted where the user stopped it."""
    trace = folder / "trace.jsonl"
    trace.unlink(missing_ok=True)
    deliver = settings.deliver
    traced = replace(settings, deliver=replace(deliver, also=(*deliver.also, Uri(f"trace:{trace}"))))
    is_over = False

    def watch(state: RunState) -> None:
        nonlocal is_over
        if state.started_at and not is_over and time.monotonic() - state.started_at >= seconds:
            is_over = True
            supervisor.finish()
        shown.update(state)

    with show() as shown:
        supervisor = Supervisor(traced, watch)
        state = supervisor.run()
    if state.problems:
        raise state.problems[0]
    if state.interrupted:
        raise Interrupted
    lines = frames.read(trace) if trace.exists() else []
    if not state.started_at or not state.ended_at or not lines:
        raise StageError(f"no frame was captured in {seconds:g} s, so there is nothing to profile")
    cpu = {worker: report.cpu_seconds for worker, report in state.reports.items() if report.cpu_seconds is not None}
    return Ran(frames.steady(lines, warm_share), state, state.ended_at - state.started_at, cpu)


def beside(settings: Settings, folder: Path) -> Settings:
    """The same with its outputs in `folder`; a window is left out, for nobody is to sit before it, and so are other
    machines and the page, at whose address the user's own run may be."""
    kept = []
    for number, (kind, path) in enumerate(settings.deliver.outputs().values()):
        if SINKS[kind].is_file and path != "/dev/null":
            suffix = Path(path).suffix if kind == "video" else f".{kind}"
            own = "" if SINKS[kind].is_shared else f"-{SOURCE}"
            kept.append(Uri(f"{kind}:{folder}/{number}{own}{suffix}"))
        elif SINKS[kind].is_file:
            kept.append(Uri(f"{kind}:{path}"))
        elif SINKS[kind].is_folder:
            kept.append(Uri(f"{kind}:{folder}/{number}"))
    deliver = replace(settings.deliver, video=None, jsonl=None, mot=None, show=False, also=tuple(kept))
    return replace(settings, deliver=deliver, serve=ServeSettings())


def lasting(source: SourceSettings, frame_count: int | None, wanted: float, folder: Path) -> tuple[SourceSettings, int]:
    """The source, and a file that has fewer frames than `wanted` again and again, with how often it is played."""
    is_file = parse_address(source.uri).kind == "file"
    if not is_file or not frame_count or source.max_frames or frame_count >= wanted:
        return source, 1
    times = min(MOST_TIMES, math.ceil(wanted / frame_count))
    path = Path(source.uri.reveal()).absolute()
    link, text = folder / f"played{path.suffix}", folder / "played.ffconcat"
    if not link.is_symlink():
        link.symlink_to(path)
    text.write_text("ffconcat version 1.0\n" + f"file {link.name}\n" * times)
    return replace(source, uri=Uri(str(text))), times


def as_cameras(settings: Settings, source: SourceSettings, count: int) -> Settings:
    """So many cameras that send what the source holds, at its own pace."""
    paced = replace(source, realtime=True)
    return replace(settings, sources={f"camera-{number + 1}": paced for number in range(count)})
