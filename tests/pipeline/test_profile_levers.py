"""Levers: what is proposed, how it is weighed, and what is applied."""

import dataclasses
import re

import pytest
from msgspec.structs import replace

from configs.uri import Uri
from pipeline.command.config import load_settings
from pipeline.errors import UsageError
from pipeline.profile import levers
from pipeline.profile.levers import LEVERS, Change, Facts, Lever, Row
from pipeline.profile.model import Model
from pipeline.profile.parts import Measured, Part, Request
from pipeline.profile.session import as_yaml, model_of
from pipeline.settings import DeliverSettings, InferSettings, Settings, SourceSettings
from pipeline.stage import CHAIN
from tests.kit.bench import CARD, LIMITS
from tests.kit.places import ROOT

NETWORK_MS = 20.0


def settings_of(**parts) -> Settings:
    return Settings(sources={"door": SourceSettings(uri="door.mp4")}, **parts)


def measured(network_ms: float = NETWORK_MS, deliver_ms: float = 0.0) -> Measured:
    parts = {stage: Part(stage) for stage in CHAIN}
    parts["infer"] = Part("infer", lanes=2, cpu_ms=network_ms)
    parts["deliver"] = Part("deliver", cpu_ms=deliver_ms)
    return Measured(parts, CARD, LIMITS)


def facts_of(settings: Settings | None = None, **changes) -> Facts:
    settings, parts = settings or settings_of(), measured(**changes)
    return Facts(settings, parts, model_of(parts, settings, 2.0))


def weigh(answer, facts: Facts | None = None, which=LEVERS) -> list[Row]:
    return levers.weigh(facts or facts_of(), answer, 0.1, which)


def twice_as_fast_in_batches(request: Request) -> Measured:
    """A machine on which batches pay, and the other engines cannot be had."""
    if request.settings.infer.engine != "auto" or request.settings.infer.device == "cuda":
        raise UsageError("infer.engine: is not installed")
    return measured(NETWORK_MS / 2 if request.settings.infer.batch else NETWORK_MS)


def test_each_change_is_weighed_against_the_run_as_it_is() -> None:
    rows = weigh(twice_as_fast_in_batches)
    gains = {row.change: row.gain for row in rows}
    assert gains["infer.batch=4"] == pytest.approx(1.0, abs=0.05)
    assert [row.gain for row in rows] == sorted(gains.values(), reverse=True)
    assert {row.how for row in rows if row.lever == "every second frame"} == {"model"}
    assert {row.how for row in rows if row.lever == "batch"} == {"trial"}


def test_what_cannot_be_had_here_is_no_row() -> None:
    assert not {"engine", "GPU"} & {row.lever for row in weigh(twice_as_fast_in_batches)}


def test_a_machine_that_changes_its_pace_changes_it_for_both() -> None:
    """Everything takes twice as long as before, so a trial that takes as long as that gains nothing."""
    (row,) = weigh(
        lambda request: measured(2 * NETWORK_MS),
        which=[Lever("x", lambda f: [Change({"infer.batch": 2}, trial=("infer",))])],
    )
    assert row.gain == pytest.approx(0.0, abs=0.02)


def test_a_gain_that_does_not_come_again_is_none() -> None:
    """The first trial of it came out well by chance."""
    trials: list[float] = [0.5]
    lever = Lever("x", lambda facts: [Change({"infer.batch": 2}, trial=("infer",))])

    def lucky_once(request: Request) -> Measured:
        return measured(NETWORK_MS * (trials.pop() if request.settings.infer.batch and trials else 1.0))

    (row,) = weigh(lucky_once, which=[lever])
    assert row.gain == pytest.approx(0.0, abs=0.02) and levers.best([row]) is None


def test_only_what_keeps_the_results_is_applied() -> None:
    def row(lever: str, gain: float, keeps: bool) -> Row:
        return Row(lever, lever, {}, 1.0, gain, "trial", keeps)

    best = levers.best([row("every second frame", 0.9, False), row("engine", 0.4, True), row("batch", 0.2, True)])
    assert best and best.lever == "engine"
    assert levers.best([row("batch", 0.03, True), row("no video", 0.9, False)]) is None


def test_changes_that_pay_are_tried_together() -> None:
    first = Lever("first", lambda facts: [Change({"infer.batch": 2}, trial=("infer",))])
    second = Lever("second", lambda facts: [Change({"infer.workers": 1}, trial=("infer",))])

    def each_helps(request: Request) -> Measured:
        infer = request.settings.infer
        return measured(NETWORK_MS * (0.8 if infer.batch else 1.0) * (0.8 if infer.workers else 1.0))

    row = weigh(each_helps, which=[first, second])[0]
    assert (row.lever, row.values) == ("together", {"infer.batch": 2, "infer.workers": 1})
    assert row.gain == pytest.approx(1 / 0.64 - 1, abs=0.05)


@pytest.mark.parametrize(("share", "gain"), [(0.0, None), (0.5, 1.0), (0.9, 8.0)])
def test_frames_that_look_as_one_before_go_past_the_network(share: float, gain: float | None) -> None:
    facts = facts_of()
    still = dataclasses.replace(facts, measured=replace(facts.measured, still_share=share, look_ms=NETWORK_MS / 100))
    rows = [row for row in weigh(twice_as_fast_in_batches, still) if row.lever == "still frames"]
    assert len(rows) == (gain is not None)
    assert all(row.gain == pytest.approx(gain, rel=0.1) and not row.keeps_results for row in rows)


def test_levers_look_at_what_is_set() -> None:
    def proposed(settings: Settings) -> set[str]:
        facts = facts_of(settings)
        return {lever.name for lever in LEVERS if list(lever.changes(facts))}

    plain = proposed(settings_of())
    assert "no video" not in plain and "no overlay" not in plain and "one class" in plain
    assert {"no video", "no overlay"} <= proposed(settings_of(deliver=DeliverSettings(video="o.mp4")))
    address = Uri("rtsp://cam:s3cret@h/a")
    published = facts_of(settings_of(deliver=DeliverSettings(also=(address, Uri("record:r"), Uri("trace:t")))))
    (change,) = next(lever for lever in LEVERS if lever.name == "no video").changes(published)
    assert change.values["deliver.also"] == ("trace:t",)
    assert "s3cret" not in Change({"deliver.also": (address.reveal(),)}, trial=("deliver",)).text
    every = Settings(sources={"door": SourceSettings(uri="x", every=2)})
    assert "every second frame" not in proposed(every)


@pytest.mark.parametrize("lever", LEVERS, ids=lambda lever: lever.name)
def test_every_change_is_one_that_settings_take(lever: Lever) -> None:
    settings = settings_of(deliver=DeliverSettings(video="o.mp4"), infer=InferSettings(engine="eager"))
    for change in lever.changes(facts_of(settings)):
        assert change.model or change.trial, change
        changed = levers.changed(settings, change.values)
        assert changed != settings
        for key, value in change.values.items():
            key = key.replace("sources.", "sources.door.")
            value = list(value) if isinstance(value, tuple) else value
            load_settings(None, [("sources", {"door": {"uri": "x"}}), (key, value)])


def test_the_best_file_can_be_read_and_holds_no_source(tmp_path) -> None:
    settings = Settings(
        sources={"door": SourceSettings(uri="rtsp://me:secret@192.0.2.7/1")}, infer=InferSettings(score_threshold=0.4)
    )
    row = Row("together", "infer.batch=4", {"infer.batch": 4, "sources.decoder_threads": 1}, 1.0, 0.5, "trial", True)
    file = tmp_path / "best.yaml"
    file.write_text(as_yaml(settings, row))
    assert "secret" not in file.read_text() and "192.0.2.7" not in file.read_text()
    read = load_settings(str(file), [])
    assert read.infer == replace(settings.infer, batch=4) and not read.sources


def test_the_recipe_for_a_lever_is_one() -> None:
    _, _, section = (ROOT / "CONTRIBUTING.md").read_text().partition("## A new lever")
    function, line = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    names = dict(vars(levers))
    exec(f"{function}\nlever = {line.strip().removesuffix(',')}", names)
    lever = names["lever"]
    (change,) = lever.changes(facts_of())
    assert change.text == "postprocess.max_detections=20" and isinstance(facts_of().model, Model)
