"""What the user sees on the terminal: status, a live table, and the summary. Writes to standard error only, so that
standard output stays free for results. Knows the run's state, no process."""

import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Self, cast

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from configs.uri import shown_text
from pipeline.command.unhurried import Unhurried
from pipeline.control.runstate import RunState, SourceState, by_path
from pipeline.flow.ledger import Page
from pipeline.flow.messages import Quantiles, Report
from pipeline.stage import CHAIN

REFRESH_SECONDS = 0.25
LINE_SECONDS = 5.0
LINE_WIDTH = 120


class Console:
    """Shows a run while it lasts: a table that renews itself in a terminal, else a plain line now and then.

    The run does not wait for a terminal that stands still; the end of it does, for the summary must be read.
    """

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._out = Unhurried(sys.stderr)
        self._terminal = Terminal(file=cast("IO[str]", self._out), highlight=False)
        if not self._terminal.is_terminal:
            self._terminal.width = LINE_WIDTH
        self._live: Live | None = None
        self._next = 0.0
        self._told: set[str] = set()

    def __enter__(self) -> Self:
        if self._terminal.is_terminal:
            self._live = Live(console=self._terminal, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        self._out.wait()

    def update(self, state: RunState) -> None:
        """Called often; draws when it is time to."""
        self._tell_warnings(state)
        if not self._live:
            self._tell_lines(state)
        elif time.monotonic() >= self._next and not self._out.is_behind():
            self._next = time.monotonic() + REFRESH_SECONDS
            self._live.update(live_view(state), refresh=True)

    def _tell_warnings(self, state: RunState) -> None:
        for warning in state.warnings:
            self._tell_once(f"warning: {warning}")

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._terminal.print(Text(text), soft_wrap=True)

    def _tell_lines(self, state: RunState) -> None:
        if state.started_at is None:
            for worker, doing in state.statuses.items():
                if doing not in ("starting", "ready"):
                    self._tell_once(f"{worker}: {doing}")
            return
        self._tell_once(f"ready after {state.started_at - state.launched_at:.1f} s: {model_line(state)}")
        self._next = self._next or time.monotonic() + 1.0
        # Not before there is a rate to tell.
        if time.monotonic() >= self._next and has_rate(state):
            self._next = time.monotonic() + LINE_SECONDS
            self._terminal.print(Text(plain_line(state)), soft_wrap=True)

    def summarise(self, state: RunState) -> None:
        """The last word: how fast, how late, where the time went, what became of each frame, what went wrong."""
        self._tell_warnings(state)
        if state.started_at is not None and state.ended_at is not None and state.ledger():
            for part in summary(state):
                self._terminal.print(part, soft_wrap=isinstance(part, Text))
        for problem in state.problems:
            self._terminal.print(Text(f"error: {problem}"), soft_wrap=True)
            if self._verbose:
                for note in getattr(problem, "__notes__", []):
                    self._terminal.print(Text(note), soft_wrap=True)
        if state.interrupted:
            self._terminal.print("stopped on request")
        self._out.wait()


def has_rate(state: RunState) -> bool:
    return (
        state.started_at is not None and "deliver" in state.reports and state.reports["deliver"].frames_per_second > 0
    )


def _rate(frames_per_second: float) -> str:
    """Of a frame a minute there is something to see too."""
    return f"{frames_per_second:.1f} frames/s" if frames_per_second >= 1 else f"{frames_per_second:.2g} frames/s"


def model_line(state: RunState) -> str:
    """The network and where it runs."""
    model = state.model
    if model is None:
        return "no network yet"
    each = f"{model.workers} × {model.threads} threads" if model.device == "cpu" else f"{model.workers} worker"
    size = f"{model.input_width}x{model.input_height}"
    engine = f"{model.engine} (auto)" if model.engine_speeds else model.engine
    return f"{model.name} ({model.weights}) {size} on {model.device}, {engine}, {model.precision}, {each}"


def engines_line(images_per_second: dict[str, float]) -> str:
    """What `auto` chose from, the fastest first."""
    by_speed = sorted(images_per_second.items(), key=lambda item: -item[1])
    return "engines measured here, images/s: " + ", ".join(f"{name} {speed:.1f}" for name, speed in by_speed)


def plain_line(state: RunState) -> str:
    """One line on how it goes: `clip 120/795  27.9 frames/s  latency p50 41 p95 60 ms  dropped 0  1:02 left`."""
    pages = state.ledger()
    if len(pages) == 1:
        ((source_id, page),) = pages.items()
        words = [f"{source_id} {_progress(state, source_id, page)}"]
    else:
        live = [name for name, source in state.sources.items() if source.state == "live"]
        words = [f"{len(live)} of {len(state.sources)} sources live"]
    report = state.reports["deliver"]
    latency = report.recent_latency
    words += [_rate(report.frames_per_second), f"latency p50 {latency.p50_ms:.0f} p95 {latency.p95_ms:.0f} ms"]
    words.append(f"dropped {sum(page.dropped_frames for page in pages.values())}")
    if failed := sum(page.failed for page in pages.values()):
        words.append(f"without result {failed}")
    words += [
        f"{name} {source.state}" for name, source in state.sources.items() if source.state not in ("live", "ended")
    ]
    return "  ".join(words + [f"{left} left" for left in [_time_left(state)] if left])


def _progress(state: RunState, source_id: str, page: Page) -> str:
    done = page.captured - page.in_flight
    stream = state.streams.get(source_id)
    return f"{done}/{stream.frame_count}" if stream and stream.frame_count else f"{done}"


def _fraction_done(state: RunState) -> float | None:
    """Over all sources; None while one of them does not tell its length."""
    counts = [stream.frame_count for stream in state.streams.values()]
    if not counts or not all(counts):
        return None
    done = sum(page.captured - page.in_flight for page in state.ledger().values())
    return min(1.0, done / sum(filter(None, counts)))


def _time_left(state: RunState) -> str | None:
    done = _fraction_done(state)
    if not done or state.started_at is None:
        return None
    seconds = round((time.monotonic() - state.started_at) * (1 - done) / done)
    return f"{seconds // 60}:{seconds % 60:02d}"


def live_view(state: RunState) -> RenderableType:
    """The table that a terminal shows while the run lasts."""
    parts: list[RenderableType] = [Text(model_line(state), style="dim"), _stage_table(state)]
    if len(state.sources) > 1:
        parts.append(_source_table(state))
    if has_rate(state):
        parts.append(Text(plain_line(state)))
    done = _fraction_done(state)
    if done is not None:
        parts.append(ProgressBar(total=1.0, completed=done, width=60))
    return Group(*parts)


def _stage_table(state: RunState) -> Table:
    table = Table("stage", "status", box=None, header_style="bold", pad_edge=False)
    for title in ("frames/s", "ms p50", "p95", "queue"):
        table.add_column(title, justify="right")
    for worker, status in state.statuses.items():
        if worker.partition(":")[2] in state.sources and len(state.sources) > 1:
            continue  # many decoders are told of by their sources
        report = state.reports.get(worker)
        table.add_row(worker, status, *(_live_cells(report) if report else ()))
    return table


def _live_cells(report: Report) -> list[str]:
    recent = report.recent_working
    rate, p50, p95 = report.frames_per_second, recent.p50_ms, recent.p95_ms
    return [f"{rate:.1f}", f"{p50:.1f}", f"{p95:.1f}", str(report.queue_depth)]


def _source_table(state: RunState) -> Table:
    table = Table("source", "state", box=None, header_style="bold", pad_edge=False)
    for title in ("frames/s", "captured", "delivered", "dropped", "outages"):
        table.add_column(title, justify="right")
    pages = state.ledger()
    for name, source in state.sources.items():
        page, report = pages.get(name, Page()), state.reports.get(f"decode:{name}")
        rate = f"{report.frames_per_second:.1f}" if report else ""
        counts = (page.captured, page.delivered, page.dropped_frames, source.outage_count)
        table.add_row(name, state_line(source), rate, *map(str, counts))
    return table


def state_line(source: SourceState) -> str:
    """`lost since 12:04:31: no data for 5 s`."""
    signal = source.signal
    if signal is None or source.state in ("live", "ended"):
        return source.state
    since = time.strftime("%H:%M:%S", time.localtime(signal.at_unix))
    return f"{source.state} since {since}: {signal.cause}"


def summary(state: RunState) -> list[RenderableType]:
    """Throughput, latency, where the time went (if any frame came through), the ledger, and what was written."""
    assert state.started_at is not None and state.ended_at is not None
    pages = state.ledger()
    frames = sum(page.delivered + page.failed for page in pages.values())
    seconds = state.ended_at - state.started_at
    lines: list[RenderableType] = []
    if frames:
        rate = f"{frames} frames in {seconds:.1f} s: {_rate(frames / max(seconds, 1e-9))}"
        lines.append(Text(f"{rate}, ready after {state.started_at - state.launched_at:.1f} s", style="bold"))
    lines.append(Text(model_line(state)))
    if state.model and state.model.engine_speeds:
        lines.append(Text(engines_line(state.model.engine_speeds)))
    if state.model and state.model.on_precision:
        lines.append(Text(state.model.on_precision))
    if frames and "deliver" in state.reports:
        lines.append(Text(f"latency from capture to delivery: {_spread(state.reports['deliver'].latency)}"))
        lines.append(_time_table(state))
    lines += [_ledger_text(source_id, page) for source_id, page in pages.items()]
    told = [
        *_shadow_lines(state),
        *_round_lines(state),
        *_outage_lines(state),
        *_restart_lines(state),
        *_written(state),
    ]
    return lines + [Text(line) for line in told + _memory_lines(state)]


def _outage_lines(state: RunState) -> Iterator[str]:
    for name, source in state.sources.items():
        if source.outage_count:
            yield f"{name}: {source.outage_count} outages, the last ones:"
        for outage in source.outages:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(outage.start_unix))
            yield f"  {outage.state} from {since} for {outage.end_unix - outage.start_unix:.1f} s: {outage.cause}"


def _shadow_lines(state: RunState) -> Iterator[str]:
    """What lower precision missed and found more than fp32, over all inference workers."""
    shadows = [report.figures for report in state.reports.values() if report.figures.get("shadow_frames")]
    if not shadows:
        return
    frames, objects, missed, more = (
        round(sum(figures[f"shadow_{name}"] for figures in shadows)) for name in ("frames", "objects", "missed", "more")
    )
    rate = f" ({100 * missed / objects:.1f} %)" if objects else ""
    yield f"shadow: {frames} frames in fp32, too: {missed} of {objects} objects missed{rate}, {more} more found"


def _round_lines(state: RunState) -> Iterator[str]:
    """How full the rounds were, where there could be more than one frame in one, and whether the age goal was kept."""
    report = state.reports.get("gather")
    if report is None:
        return
    figures = report.figures
    if max(report.rounds, default=1) > 1:
        sizes = ", ".join(f"{count} of {size}" for size, count in sorted(report.rounds.items()))
        full = f"{100 * figures['full']:.0f} % full where arrivals allowed it"
        yield f"rounds: {sizes}; {full}; lanes waited for fuller ones p95 {figures['window_p95_ms']:.1f} ms"
    if "goal_is_kept" in figures:
        kept = "kept" if figures["goal_is_kept"] else "missed"
        yield f"queue.max_age_ms was {kept} at the end; {100 * figures['admitted']:.0f} % of live frames were let in"


def _restart_lines(state: RunState) -> Iterator[str]:
    for worker, count in state.restarts.items():
        yield f"{worker} was started anew {count} time{'s' * (count != 1)}"


def _memory_lines(state: RunState) -> list[str]:
    """The most that each worker has had resident."""
    peaks = {worker: report.peak_memory_bytes for worker, report in state.reports.items() if report.peak_memory_bytes}
    if not peaks:
        return []
    decoders = [peak for worker, peak in peaks.items() if worker.startswith("decode:")]
    told = [f"{worker} {peak >> 20}" for worker, peak in peaks.items() if not worker.startswith("decode:")]
    if decoders:
        told.insert(0, f"decode {max(decoders) >> 20}" + f" (the largest of {len(decoders)})" * (len(decoders) > 1))
    return [f"peak memory in MiB, each with what it shares with others: {', '.join(told)}"]


def _written(state: RunState) -> Iterator[str]:
    """What became of each file that was to be written."""
    outputs = dict(state.reports["deliver"].outputs) if "deliver" in state.reports else {}
    for source in state.sources.values():
        outputs |= source.outputs
    for counts in by_path([*state.written, *outputs.values()]).values():
        if not (counts.frames or counts.missed) or counts.path in ("", "-"):
            continue
        files = shown_text(counts.path) + f" and {counts.segments} more" * (counts.segments > 0)
        told = f"{files}: {counts.frames} frames"
        if counts.missed:
            told += f", {counts.missed} missed because it was too slow{' or away' * ('://' in counts.path)}"
        told += f", {counts.way}" * bool(counts.way)
        if counts.problem:
            yield f"{told}, then it failed"
        elif counts.is_gone:
            yield f"{told}, and it is not there any more: deleted or moved while it was written"
        else:
            yield f"wrote {told}"


def _spread(q: Quantiles) -> str:
    return f"p50 {q.p50_ms:.1f}  p95 {q.p95_ms:.1f}  p99 {q.p99_ms:.1f}  max {q.max_ms:.1f} ms"


def _time_table(state: RunState) -> Table:
    """Waiting and working of all stages add up to the latency; of several decoders the slowest is told."""
    table = Table("ms a frame", box=None, header_style="bold", pad_edge=False)
    for title in ("waiting p50", "p95", "working p50", "p95", "p99", "CPU"):
        table.add_column(title, justify="right")
    for stage in CHAIN:
        own = {worker: report for worker, report in state.reports.items() if worker.partition(":")[0] == stage}
        if stage == CHAIN[0] and own:
            worker = max(own, key=lambda worker: own[worker].working.p50_ms)
            own = {worker: own[worker]}
        for worker, report in own.items():
            table.add_row(worker if len(state.sources) > 1 else worker.partition(":")[0], *_time_cells(report))
    return table


def _time_cells(report: Report) -> list[str]:
    waiting, working = report.waiting, report.working
    cells = [waiting.p50_ms, waiting.p95_ms, working.p50_ms, working.p95_ms, working.p99_ms]
    cpu = report.cpu_seconds
    a_frame = "–" if cpu is None or not report.frames else f"{cpu * 1e3 / report.frames:.2f}"
    return [f"{value:.2f}" for value in cells] + [a_frame]


def _ledger_text(source_id: str, page: Page) -> Text:
    text = Text(
        f"{source_id}: {page.captured} captured = {page.delivered} delivered + {page.failed} without result "
        f"+ {page.dropped_frames} dropped + {page.in_flight} in flight"
    )
    for drop, frames in page.dropped.items():
        text.append(f"\n  {frames} dropped at {drop.stage}: {drop.reason}")
    if page.taken_over or page.audits:
        text.append(f"\n  {page.taken_over} delivered took over what was found in a frame before that looked the same")
    if page.audits:
        missed, objects = page.missed_objects, page.audited_objects
        text.append(
            f"\n  {page.audits} more could have, and were computed to see: {missed} of {objects} objects missed"
        )
        text.append(f" ({100 * missed / objects:.2f} %)" if objects else "")
    return text
