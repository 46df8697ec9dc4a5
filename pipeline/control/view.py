"""What a run tells of itself to whoever asks: its sources as rows, or all of it. Reads its state, changes nothing."""

import time

import pipeline
from configs.uri import shown_text
from pipeline.control.runstate import RunState, SourceState
from pipeline.control.words import Dropped, OutputView, Row, SourceView, View, WorkerView
from pipeline.flow.messages import Histogram, Quantiles, Report
from pipeline.settings import Settings
from pipeline.stage import CHAIN


def row(state: RunState, source_id: str, source: SourceState) -> Row:
    """A source as it is now."""
    page = state.page(source)
    report = state.reports.get(f"{CHAIN[0]}:{source_id}")
    name = "leaving" if source.is_leaving else source.state
    return Row(
        source_id=source_id,
        state=name,
        since_unix=source.since_unix,
        cause="" if source.is_leaving else source.cause,
        frames_per_second=report.frames_per_second if report and name != "ended" else 0.0,
        captured=page.captured,
        delivered=page.delivered + page.failed,
        dropped=page.dropped_frames,
        outages=source.outage_count,
        address=source.settings.uri.shown,
    )


def view(state: RunState, settings: Settings) -> View:
    """All of it, as it is now."""
    deliver = state.reports.get(CHAIN[-1])
    ages = deliver.ages if deliver else {}
    outputs = dict(deliver.outputs) if deliver else {}
    return View(
        version=pipeline.VERSION,
        at_unix=time.time(),
        uptime_seconds=time.monotonic() - state.launched_at,
        is_stopping=state.is_stopping,
        model=state.model,
        sources=[
            _source_view(state, settings, source_id, source, ages.get(source_id))
            for source_id, source in state.sources.items()
        ],
        workers=[_worker_view(state, worker) for worker in state.statuses],
        latency=deliver.recent_latency if deliver else Quantiles(),
        outputs=[
            OutputView(name, shown_text(each.path), each.frames, each.missed, each.problem)
            for name, each in outputs.items()
        ],
        warnings=state.warnings,
        problems=[str(problem) for problem in state.problems],
    )


def _source_view(
    state: RunState, settings: Settings, source_id: str, source: SourceState, ages: Histogram | None
) -> SourceView:
    short, page, start, tuning = row(state, source_id, source), state.page(source), source.start, source.tuning
    max_rate = tuning.max_rate if tuning and tuning.max_rate is not None else source.settings.max_rate
    return SourceView(
        **{name: getattr(short, name) for name in Row.__struct_fields__ if name != "delivered"},
        delivered=page.delivered,
        without_result=page.failed,
        in_flight=page.in_flight,
        drops=[Dropped(drop.stage, drop.reason, frames) for drop, frames in page.dropped.items()],
        width=start.width if start else 0,
        height=start.height if start else 0,
        nominal_frames_per_second=start.frames_per_second if start else None,
        is_live=bool(start and start.is_live),
        is_required=source.settings.required,
        score_threshold=start.score_threshold if start else settings.infer.score(),
        classes=start.classes if start else settings.postprocess.classes,
        max_rate=max_rate or None,
        every=(tuning and tuning.every) or source.settings.every,
        zones=start.zones if start else source.settings.zones,
        lines=start.lines if start else source.settings.lines,
        last_outages=list(source.outages),
        ages=ages,
    )


def _worker_view(state: RunState, worker: str) -> WorkerView:
    report: Report | None = state.reports.get(worker)
    restarts = state.restarts.get(worker, 0)
    if report is None:
        return WorkerView(
            worker, state.statuses[worker], restarts, 0, 0.0, 0, Quantiles(), Quantiles(), None, {}, None, None
        )
    return WorkerView(
        id=worker,
        status=state.statuses[worker],
        restarts=restarts,
        frames=report.frames,
        frames_per_second=report.frames_per_second,
        queue_depth=report.queue_depth,
        working=report.recent_working,
        waiting=report.waiting,
        work=report.work,
        rounds=report.rounds,
        cpu_seconds=report.cpu_seconds,
        memory_bytes=report.memory_bytes,
        gpu=report.gpu,
    )
