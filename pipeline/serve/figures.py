"""The run's figures for Prometheus: counters since the start, gauges of now, histograms in seconds. Knows no request.

Names follow Prometheus' own conventions (base units, `_total`) and, where it has the same, MediaMTX's (a source has
a `state`). A label `source` is the source's id, never its address.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.control.words import SourceView, View
from pipeline.flow.messages import Gpu, Histogram
from pipeline.flow.metrics import BOUNDS_MS
from pipeline.serve.pictures import Viewer

PREFIX = "centerstream"
STATES = ("opening", "live", "lost", "frozen", "grey", "paused", "leaving", "ended")


def text_of(view: View, viewers: Iterable[Viewer]) -> bytes:
    """In the text format 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Figures(view, sorted(viewers, key=lambda viewer: viewer.number)))
    return generate_latest(registry)


class _Figures(Collector):
    def __init__(self, view: View, viewers: list[Viewer]) -> None:
        self._view, self._viewers = view, viewers

    def collect(self) -> Iterator[Metric]:
        yield from _run(self._view)
        yield from _sources(self._view.sources)
        yield from _workers(self._view)
        yield from _outputs(self._view)
        yield from _looked_at(self._viewers)


def _counter(name: str, what: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = CounterMetricFamily(f"{PREFIX}_{name}", what, labels=labels)
    for values, count in rows:
        family.add_metric(values, count)
    return family


def _gauge(name: str, what: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", what, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _durations(name: str, what: str, label: str, rows: Iterable[tuple[str, Histogram]]) -> Metric:
    family = HistogramMetricFamily(f"{PREFIX}_{name}_seconds", what, labels=(label,))
    for value, histogram in rows:
        bounds = [*(f"{bound_ms / 1000:g}" for bound_ms in BOUNDS_MS), "+Inf"]
        counts = [*histogram.at_most, histogram.count]
        family.add_metric((value,), list(zip(bounds, counts, strict=True)), histogram.sum_ms / 1000)
    return family


def _run(view: View) -> Iterator[Metric]:
    model = view.model
    facts = (model.name, model.engine, model.precision, model.device) if model else ("", "", "", "")
    labels = ("version", "model", "engine", "precision", "device")
    yield _gauge("info", "What runs; always 1.", labels, [((view.version, *facts), 1)])
    yield _gauge("uptime_seconds", "Since the run was started.", (), [((), view.uptime_seconds)])


def _sources(sources: list[SourceView]) -> Iterator[Metric]:
    source = ("source",)
    yield _counter(
        "frames_captured", "Frames taken from a source.", source, [((s.source_id,), s.captured) for s in sources]
    )
    yield _counter(
        "frames_delivered", "Frames that an output took.", source, [((s.source_id,), s.delivered) for s in sources]
    )
    yield _counter(
        "frames_without_result",
        "Frames whose inference failed, delivered so.",
        source,
        [((s.source_id,), s.without_result) for s in sources],
    )
    yield _counter(
        "frames_dropped",
        "Frames that ended before the outputs, by stage and reason.",
        ("source", "stage", "reason"),
        [((s.source_id, drop.stage, drop.reason), drop.frames) for s in sources for drop in s.drops],
    )
    yield _gauge("frames_in_flight", "Frames on their way.", source, [((s.source_id,), s.in_flight) for s in sources])
    yield _counter(
        "source_outages", "Times without a sound signal.", source, [((s.source_id,), s.outages) for s in sources]
    )
    yield _gauge(
        "source_state",
        "1 for the state that the source is in.",
        ("source", "state"),
        [((s.source_id, state), s.state == state) for s in sources for state in STATES],
    )
    yield _gauge(
        "source_frames_per_second",
        "Frames decoded a second, over the last seconds.",
        source,
        [((s.source_id,), s.frames_per_second) for s in sources],
    )
    ages = [(s.source_id, s.ages) for s in sources if s.ages]
    yield _durations("frame_age", "From capture to delivery.", "source", ages)


def _workers(view: View) -> Iterator[Metric]:
    workers, worker = view.workers, ("worker",)
    work = [(w.id, w.work) for w in workers if w.work]
    yield _durations("stage_work", "What a worker took for a frame.", "worker", work)
    yield _gauge(
        "queue_depth", "Frames that wait before a worker.", worker, [((w.id,), w.queue_depth) for w in workers]
    )
    yield _counter(
        "worker_restarts", "Times a worker was started anew.", worker, [((w.id,), w.restarts) for w in workers]
    )
    yield _counter(
        "worker_cpu_seconds",
        "CPU time of a worker's process since its first frame.",
        worker,
        [((w.id,), w.cpu_seconds) for w in workers if w.cpu_seconds is not None],
    )
    yield _gauge(
        "worker_resident_memory_bytes",
        "Memory of a worker's process, shared memory that it touched included.",
        worker,
        [((w.id,), w.memory_bytes) for w in workers if w.memory_bytes is not None],
    )
    yield _round_sizes(view)
    yield from _gpus([(w.id, w.gpu) for w in workers if w.gpu])


def _gpus(used: list[tuple[str, Gpu]]) -> Iterator[Metric]:
    """Nothing where nobody computes on one."""
    told = [
        ("memory_allocated_bytes", "Of a GPU, for a worker's arrays.", lambda gpu: gpu.allocated_bytes),
        ("memory_reserved_bytes", "Of a GPU, kept by a worker for its arrays.", lambda gpu: gpu.reserved_bytes),
        ("device_memory_used_bytes", "Of a worker's GPU, whoever uses it.", lambda gpu: gpu.used_bytes),
        ("device_memory_bytes", "That a worker's GPU has.", lambda gpu: gpu.total_bytes),
        ("utilization_ratio", "Share of time in which a worker's GPU computes.", lambda gpu: gpu.utilization),
    ]
    for name, what, value in told:
        rows = [((worker, gpu.device), value(gpu)) for worker, gpu in used if value(gpu) is not None]
        if rows:
            yield _gauge(f"gpu_{name}", what, ("worker", "device"), rows)


def _round_sizes(view: View) -> Metric:
    """Frames in one step of the network."""
    family = HistogramMetricFamily(
        f"{PREFIX}_round_frames", "Frames given to the network at a time.", labels=("worker",)
    )
    for worker in view.workers:
        if worker.rounds:
            largest = max(view.model.batch if view.model else 1, *worker.rounds)
            at_most = [
                (str(size), sum(count for each, count in worker.rounds.items() if each <= size))
                for size in range(1, largest + 1)
            ]
            frames = sum(size * count for size, count in worker.rounds.items())
            family.add_metric((worker.id,), [*at_most, ("+Inf", sum(worker.rounds.values()))], frames)
    return family


def _outputs(view: View) -> Iterator[Metric]:
    outputs, output = view.outputs, ("output",)
    yield _counter("output_frames", "Frames that an output took.", output, [((o.name,), o.frames) for o in outputs])
    yield _counter(
        "output_missed_frames",
        "Frames that an output missed, for it was too slow or away.",
        output,
        [((o.name,), o.missed) for o in outputs],
    )
    yield _gauge(
        "output_failed",
        "1 for an output that takes no more.",
        output,
        [((o.name,), o.problem is not None) for o in outputs],
    )


def _looked_at(viewers: list[Viewer]) -> Iterator[Metric]:
    yield _gauge("viewers", "Who looks at pictures now.", (), [((), len(viewers))])
    shown = [(str(viewer.number), viewer.age_tally.histogram()) for viewer in viewers if viewer.hears]
    yield _durations("viewer_age", "From capture to a viewer's screen.", "viewer", shown)
