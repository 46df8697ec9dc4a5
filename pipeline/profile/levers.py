"""What could make a run faster, one entry each in `LEVERS`, and by how much. Knows settings, parts and the model.

A lever looks at the facts and proposes changes. A change says what the model is then (`model`: the figure is predicted
from the parts as measured), or which stages are to be measured anew with it (`trial`); the whole is the model's word in
both cases. Changes that leave results as they are can be applied; the others are for the user to weigh.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from configs.uri import Uri, shown_text
from pipeline.errors import CenterStreamError
from pipeline.kinds import SINKS, kind_and_target
from pipeline.profile.bench import STILL_IN_A_ROW
from pipeline.profile.model import Model, Station, throughput
from pipeline.profile.parts import Measured, Part, Request
from pipeline.settings import Settings, usable_cores

# Gains below it are within what a measurement tells.
MARGIN = 0.05
Measure = Callable[[Request], Measured]


@dataclass(frozen=True)
class Facts:
    """The run as it is: its settings, its parts, and the model of it."""

    settings: Settings
    measured: Measured
    model: Model


@dataclass(frozen=True)
class Change:
    """Keys of the configuration and their values (`{"infer.batch": 4}`), and how its effect is found out."""

    values: dict[str, Any]
    model: Callable[[Model], Model] | None = None
    trial: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return ", ".join(f"{key}={_shown(value)}" for key, value in self.values.items())


@dataclass(frozen=True)
class Lever:
    """`keeps_results`: what is found and written is the same with it."""

    name: str
    changes: Callable[[Facts], Iterable[Change]]
    keeps_results: bool = True


class Row(msgspec.Struct, frozen=True):
    """A change, weighed. `gain` is of the throughput, 0.1 for a tenth; `how` the figure came about."""

    lever: str
    change: str
    values: dict[str, Any]
    throughput: float
    gain: float
    how: Literal["model", "trial"]
    keeps_results: bool


# -- the levers


def _engines(facts: Facts) -> Iterator[Change]:
    card = facts.measured.model
    assert card
    names = ("eager", "onnxruntime", "openvino") if card.device == "cpu" else ("eager", "cuda_graphs")
    for name in names:
        if name != card.engine:
            yield Change({"infer.engine": name}, trial=("infer",))


def _devices(facts: Facts) -> Iterator[Change]:
    if facts.measured.model and facts.measured.model.device == "cpu":
        yield Change({"infer.device": "cuda", "infer.engine": "auto"}, trial=("infer", "postprocess"))


def _precisions(facts: Facts) -> Iterator[Change]:
    """What `auto` did not take, for this machine has it not, or because it finds something else."""
    card = facts.measured.model
    if card and card.precision == "fp32":
        yield Change({"infer.precision": "bf16" if card.device == "cpu" else "fp16"}, trial=("infer",))


def _encoders(facts: Facts) -> Iterator[Change]:
    deliver = facts.settings.deliver
    encodes = any(kind in ("video", "record") for kind, _ in deliver.outputs().values())
    if encodes and deliver.encoder.codec == "libx264":
        for codec in ("h264_nvenc", "h264_qsv"):
            yield Change({"deliver.encoder.codec": codec}, trial=("deliver",))


def _lanes(facts: Facts) -> Iterator[Change]:
    card, cores = facts.measured.model, usable_cores()
    if card and card.device == "cpu":
        wanted = {(1, cores), (cores, 1), (max(1, cores // 2), 2), (cores + 1, 1)}
        for workers, threads in sorted(wanted - {(card.workers, card.threads)}):
            yield Change({"infer.workers": workers, "infer.threads": threads}, trial=("infer",))


def _batches(facts: Facts) -> Iterator[Change]:
    card = facts.measured.model
    for batch in (2, 4) if card and card.device == "cpu" else (4, 8):
        if card and batch > card.batch:
            yield Change({"infer.batch": batch}, trial=("infer",))


def _input_sizes(facts: Facts) -> Iterator[Change]:
    card = facts.measured.model
    for share in (0.75, 0.5):
        sides = (
            [max(64, int(side * share) // 32 * 32) for side in (card.input_width, card.input_height)] if card else []
        )
        if card and sides != [card.input_width, card.input_height]:
            yield Change({"infer.input_size": f"{sides[0]}x{sides[1]}"}, trial=("infer", "postprocess"))


def _classes(facts: Facts) -> Iterator[Change]:
    card = facts.measured.model
    if card and not facts.settings.postprocess.classes and len(card.class_names) > 1:
        yield Change({"postprocess.classes": (card.class_names[0],)}, trial=("infer", "postprocess"))


def _overlay(facts: Facts) -> Iterator[Change]:
    if facts.settings.deliver.has_pictures() and facts.settings.deliver.overlay:
        yield Change({"deliver.overlay": False}, trial=("deliver",))


def _video(facts: Facts) -> Iterator[Change]:
    deliver = facts.settings.deliver
    if deliver.has_pictures():
        also = tuple(each.reveal() for each in deliver.also if not _has_pictures(each))
        yield Change({"deliver.video": None, "deliver.also": also}, trial=("decode", "deliver"))


def _has_pictures(output: Uri) -> bool:
    kind, _ = kind_and_target(output.reveal()) or ("", "")
    return SINKS[kind].has_pictures


def _decoder_threads(facts: Facts) -> Iterator[Change]:
    source = next(iter(facts.settings.sources.values()))
    for threads in sorted({1, usable_cores()}):
        if threads != source.decoder_threads:
            yield Change({"sources.decoder_threads": threads}, trial=("decode",))


def _every(facts: Facts) -> Iterator[Change]:
    def halved(model: Model) -> Model:
        for stage in ("infer", "postprocess"):
            model = model.with_station(stage, model.stations[stage].times(0.5))
        return model

    if all(source.every == 1 for source in facts.settings.sources.values()):
        yield Change({"sources.every": 2}, model=halved)


def _still(facts: Facts) -> Iterator[Change]:
    """Frames that look as one before go past the network; each is looked at."""
    share, look_ms = facts.measured.still_share, facts.measured.look_ms

    def past_the_network(model: Model) -> Model:
        for stage in ("infer", "postprocess"):
            model = model.with_station(stage, model.stations[stage].times(1 - share))
        gather = model.stations["gather"]
        return model.with_station(
            "gather", dataclasses.replace(gather, cpu_ms=gather.cpu_ms + look_ms * model.slowness)
        )

    if share and facts.settings.infer.still is None:
        yield Change({"infer.still": STILL_IN_A_ROW}, model=past_the_network)


LEVERS = (
    Lever("engine", _engines),
    Lever("GPU", _devices),
    Lever("lanes and threads", _lanes),
    Lever("batch", _batches),
    Lever("decoder threads", _decoder_threads),
    Lever("lower precision", _precisions, keeps_results=False),
    Lever("hardware encoder", _encoders, keeps_results=False),
    Lever("input size", _input_sizes, keeps_results=False),
    Lever("every second frame", _every, keeps_results=False),
    Lever("still frames", _still, keeps_results=False),
    Lever("one class", _classes, keeps_results=False),
    Lever("no overlay", _overlay, keeps_results=False),
    Lever("no video", _video, keeps_results=False),
)


# -- weighing them


def weigh(facts: Facts, measure: Measure, seconds: float, levers: Iterable[Lever] = LEVERS) -> list[Row]:
    """All changes that can be had here, by what they gain; the most first."""
    scale = _Scale(facts, measure, seconds)
    rows = [
        row for lever in levers for change in lever.changes(facts) if (row := scale.weigh(lever, change)) is not None
    ]
    together = _together(rows)
    if together:
        row = scale.weigh(
            Lever("together", lambda facts: ()), Change(together, trial=("decode", "infer", "postprocess"))
        )
        rows += [row] if row else []
    return sorted(rows, key=lambda row: -row.gain)


def best(rows: Iterable[Row]) -> Row | None:
    """The change to apply: what gains the most and leaves the results as they are; None where none is worth it."""
    return max((row for row in rows if row.keeps_results and row.gain > MARGIN), key=lambda row: row.gain, default=None)


def _together(rows: list[Row]) -> dict[str, Any]:
    """The best change of each lever that is worth applying, where that is more than one."""
    of_lever: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row.gain):
        if row.keeps_results and row.gain > MARGIN:
            of_lever[row.lever] = row
    ordered = sorted(of_lever.values(), key=lambda row: row.gain)
    return {key: value for row in ordered for key, value in row.values.items()} if len(ordered) > 1 else {}


class _Scale:
    """Weighs changes; what a trial measures is set against the same parts as they are, measured just before."""

    def __init__(self, facts: Facts, measure: Measure, seconds: float) -> None:
        self._facts, self._measure, self._seconds = facts, measure, seconds
        self._base = throughput(facts.model)
        self._now: dict[tuple[str, ...], dict[str, Part]] = {}

    def weigh(self, lever: Lever, change: Change) -> Row | None:
        """None for what cannot be had here. What seems to pay by a trial is tried again: the smaller gain counts."""
        try:
            rate = throughput(change.model(self._facts.model) if change.model else self._tried(change))
            if not change.model and lever.keeps_results and rate > (1 + MARGIN) * self._base:
                self._now.pop(change.trial)
                rate = min(rate, throughput(self._tried(change)))
        except CenterStreamError:
            return None
        how: Literal["model", "trial"] = "model" if change.model else "trial"
        return Row(lever.name, change.text, change.values, rate, rate / self._base - 1, how, lever.keeps_results)

    def _tried(self, change: Change) -> Model:
        stages = change.trial
        if stages not in self._now:
            self._now[stages] = self._measure(Request(self._facts.settings, stages, self._seconds)).parts
        tried = self._measure(Request(changed(self._facts.settings, change.values), stages, self._seconds))
        model = self._facts.model
        for stage in stages:
            model = model.with_station(stage, self._in_proportion(stage, self._now[stages][stage], tried.parts[stage]))
        limits = tried.limits
        assert limits
        return dataclasses.replace(model, ahead=limits.ahead, of_source=limits.of_source, batch=limits.round)

    def _in_proportion(self, stage: str, now: Part, tried: Part) -> Station:
        """The station as it was, changed as the trial changed the part."""
        was, part, slowness = (
            self._facts.model.stations[stage],
            self._facts.measured.parts[stage],
            self._facts.model.slowness,
        )
        pace = slowness * (part.cpu_ms + part.round_ms) / max(now.cpu_ms + now.round_ms, 1e-9)
        handed_on_ms = max(0.0, was.cpu_ms - part.cpu_ms * slowness)
        return dataclasses.replace(
            was,
            lanes=tried.lanes * was.lanes // max(1, part.lanes),
            cpu_ms=handed_on_ms + tried.cpu_ms * pace,
            round_ms=tried.round_ms * pace,
            idle_ms=tried.idle_ms * slowness,
            parallel=tried.parallel,
        )


def changed(settings: Settings, values: dict[str, Any]) -> Settings:
    """`settings` with other values; `sources.KEY` is a key of each source."""
    for key, value in values.items():
        part, _, name = key.partition(".")
        if part == "sources":
            sources = {source_id: replace(source, **{name: value}) for source_id, source in settings.sources.items()}
            settings = replace(settings, sources=sources)
        else:
            settings = _with(settings, key, value)
    return settings


def _with(part: Any, key: str, value: Any) -> Any:
    """`part` with another value at `key`, which may lead into the parts of it."""
    name, _, inner = key.partition(".")
    return replace(part, **{name: _with(getattr(part, name), inner, value) if inner else value})


def _shown(value: Any) -> str:
    """As YAML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(shown_text(str(each)) for each in value)}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
