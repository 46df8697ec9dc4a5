"""infer: heads in slots of their own; a step that fails is halved, and what fails alone has no result."""

import numpy as np
import pytest

import models
from models.samples import sample_images
from pipeline.flow.messages import ModelCard
from pipeline.settings import InferSettings, PostprocessSettings
from pipeline.stage import FRAMES, HEATMAPS
from pipeline.stages.infer import Infer, batches_up_to
from tests.kit.bench import Bench

SIDE, MARK = 64, 255


class Network:
    """The shipped network at a small size in rounds of four, with `broken`: an input with a white pixel in its corner
    breaks the device, and the whole step with it."""

    def __init__(self) -> None:
        settings = InferSettings(engine="eager", input_size=f"{SIDE}x{SIDE}", batch=4, workers=1, threads=1)
        self.bench = Bench(infer=settings, postprocess=PostprocessSettings(classes=("person",)))
        self.stage = Infer(self.bench.kit(HEATMAPS))
        self.card = self.stage.prepare()
        self.steps: list[int] = []
        self.broken = False
        run = self.stage._engine.run

        def run_or_break(images, out) -> None:
            self.steps.append(len(images))
            if self.broken and (images[:, 0, 0] == MARK).any():
                raise RuntimeError("device lost\nand a long trace")
            run(images, out)

        self.stage._engine.run = run_or_break

    def frames(self, count: int, bad: tuple[int, ...] = ()):
        frames = [self.bench.frame(seq, input_side=SIDE) for seq in range(count)]
        for frame in frames:
            rng = np.random.default_rng(frame.header.seq)
            frame.array("input_rgb")[:] = rng.integers(0, 250, (SIDE, SIDE, 3))
            if frame.header.seq in bad:
                frame.array("input_rgb")[0, 0] = MARK
        return frames

    def process(self, frames) -> None:
        self.steps.clear()
        self.stage.process_round(frames)


@pytest.fixture(scope="module")
def made() -> Network:
    return Network()


@pytest.fixture
def network(made) -> Network:
    made.broken = False
    made.stage.problem = None
    for pool in made.bench.pools.values():
        for worker in (1, 2):
            for held in pool.held_by(worker):
                pool.end_lease(held.slot)
    return made


def test_the_model_card_says_what_runs(network) -> None:
    card = network.card
    assert (card.name, card.input_width, card.stride, card.class_names[0]) == ("mobilenetv3", SIDE, 4, "person")
    assert (card.engine, card.workers, card.batch) == ("eager", 1, 4)


def test_heads_lie_in_a_slot_leased_for_their_frame(network) -> None:
    (frame,) = network.frames(1)
    network.process([frame])
    assert frame.header.failure is None and "input_rgb" not in frame
    assert frame.array("hm").shape == (1, 16, 16) and frame.array("wh").shape == (4, 16, 16)
    assert [slot.pool for slot in frame.header.leases] == [FRAMES, HEATMAPS]
    (held,) = network.bench.pools[HEATMAPS].held_by(2)
    assert (held.slot, held.place, held.seq) == (frame.header.leases[1], 0, 0)


def test_each_frame_of_a_round_gets_what_it_would_get_alone(network) -> None:
    together, alone = network.frames(4), network.frames(4)
    network.process(together)
    assert network.steps == [4]
    for frame in alone:
        network.process([frame])
    for one, other in zip(together, alone, strict=True):
        for head in ("hm", "wh"):
            np.testing.assert_allclose(one.array(head), other.array(head), atol=1e-4)
    assert not np.allclose(together[0].array("hm"), together[1].array("hm"))


def test_a_round_that_is_no_size_of_a_step_is_taken_in_parts(network) -> None:
    frames = network.frames(3)
    network.process(frames)
    assert sum(network.steps) == 3 and set(network.steps) <= {1, 2, 4}
    assert all("hm" in frame for frame in frames)


def test_what_fails_alone_has_no_result_and_costs_its_neighbours_nothing(network) -> None:
    frames, clean = network.frames(4, bad=(2,)), network.frames(4, bad=(2,))
    network.process(clean)
    network.broken = True
    network.process(frames)
    assert network.steps == [4, 2, 2, 1, 1]
    assert [frame.header.failure is None for frame in frames] == [True, True, False, True]
    assert frames[2].header.failure == "inference failed: device lost"
    for seq in (0, 1, 3):
        np.testing.assert_allclose(frames[seq].array("hm"), clean[seq].array("hm"), atol=1e-4)


def test_a_failure_is_no_empty_result_and_holds_no_heat_maps(network) -> None:
    network.broken = True
    (frame,) = network.frames(1, bad=(0,))
    network.process([frame])
    assert "hm" not in frame and "input_rgb" not in frame
    assert [slot.pool for slot in frame.header.leases] == [FRAMES]
    assert network.bench.leased(HEATMAPS) == 0
    assert network.stage.problem is not None and network.stage.problem.exit_code == 4


def test_where_all_fail_each_says_so_and_no_slot_is_lost(network) -> None:
    network.broken = True
    frames = network.frames(4, bad=(0, 1, 2, 3))
    network.process(frames)
    assert network.steps == [4, 2, 1, 1, 2, 1, 1]
    assert all(frame.header.failure for frame in frames) and network.bench.leased(HEATMAPS) == 0
    warnings = network.bench.meter.report(0, 0.0).warnings
    assert any(text.startswith("steps that failed (RuntimeError) and were tried again in halves") for text in warnings)


def test_without_a_slot_for_its_heat_maps_a_frame_fails(network) -> None:
    network.stage.kit.lessor.limit = 1
    frames = network.frames(2)
    network.process(frames)
    network.stage.kit.lessor.limit = 8
    assert [frame.header.failure for frame in frames] == [None, "inference failed: no slot for its heat maps"]


@pytest.mark.parametrize(("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (4, (1, 2, 4)), (6, (1, 2, 4, 6))])
def test_every_round_falls_into_few_steps(largest: int, sizes: tuple[int, ...]) -> None:
    assert batches_up_to(largest) == sizes


def test_every_so_many_frames_are_computed_in_fp32_too(monkeypatch) -> None:
    monkeypatch.setattr("models.engines.eager.Eager.precisions", classmethod(lambda cls, device: ("fp16", "fp32")))
    settings = InferSettings(
        engine="eager", precision="fp16", input_size=f"{SIDE}x{SIDE}", batch=2, workers=1, threads=1, shadow=2
    )
    bench = Bench(infer=settings)
    stage = Infer(bench.kit(HEATMAPS))
    assert stage.prepare().precision == "fp16"
    frames = [bench.frame(seq, input_side=SIDE) for seq in range(5)]
    for some in (frames[:2], frames[2:4], frames[4:]):
        stage.process_round(some)
    assert [frame.header.failure for frame in frames] == [None] * 5
    figures = bench.meter.report(0, 0.0).figures
    assert figures["shadow_frames"] == 3 and figures["shadow_objects"] == figures["shadow_missed"] == 0
    assert all("hm" in frame and "input_rgb" not in frame for frame in frames)


def test_a_shadow_of_fp32_is_told_to_be_none() -> None:
    settings = InferSettings(
        engine="eager", precision="fp32", input_size=f"{SIDE}x{SIDE}", batch=1, workers=1, threads=1, shadow=2
    )
    bench = Bench(infer=settings)
    Infer(bench.kit(HEATMAPS)).prepare()
    report = bench.meter.report(0, 0.0)
    assert report.figures == {} and any("nothing to compare" in text for text in report.warnings)


class Doubtful:
    """The shipped network in half precision, which `auto` has taken, and frames with people in them; a few are enough
    to judge by, for half precision is slow on a CPU."""

    SIDE, FRAMES, OBJECTS = 256, 24, 60

    def __init__(self, monkeypatch, precision: str = "auto") -> None:
        monkeypatch.setattr("models.engines.eager.Eager.precisions", classmethod(lambda cls, device: ("fp32", "fp16")))
        monkeypatch.setattr("models.shadow.MOST_FRAMES", self.FRAMES)
        monkeypatch.setattr("models.shadow.ENOUGH_OBJECTS", self.OBJECTS)
        monkeypatch.setattr("models.engines.choice.measure", lambda engines, images: self._speeds(engines))
        self.remembered: list[ModelCard] = []
        monkeypatch.setattr("models.ready.remember", lambda asked, weights, engine, card: self.remembered.append(card))
        side = f"{self.SIDE}x{self.SIDE}"
        settings = InferSettings(
            engine="eager",
            precision=precision,
            input_size=side,
            batch=1,
            workers=1,
            threads=1,  # type: ignore[arg-type]
        )
        self.bench = Bench(infer=settings)
        self.stage = Infer(self.bench.kit(HEATMAPS))
        self.card = self.stage.prepare()
        self._images = sample_images(models.SPECS["mobilenetv3"], self.SIDE, self.SIDE)

    @staticmethod
    def _speeds(engines) -> dict:
        return {label: 1.0 + ("fp16" in str(label)) for label in engines}

    def spoil(self) -> None:
        """Its boxes come out twice as large from now on, in half precision alone."""
        engine = self.stage._engine
        run = engine.run

        def run_and_spoil(images, out) -> None:
            run(images, out)
            out["wh"] *= 2

        engine.run = run_and_spoil

    def see(self, frames: int) -> list[dict[str, np.ndarray]]:
        """The heads of each."""
        seen = []
        for seq in range(frames):
            frame = self.bench.frame(seq, input_side=self.SIDE)
            frame.array("input_rgb")[:] = self._images[seq % len(self._images)]
            self.stage.process_round([frame])
            assert frame.header.failure is None
            seen.append({name: frame.array(name).copy() for name in ("hm", "wh")})
            frame.give_back()
        return seen


def test_the_first_frames_bear_out_lower_precision(monkeypatch) -> None:
    doubtful = Doubtful(monkeypatch)
    assert doubtful.card.precision == "fp16" and "finds the same" in doubtful.card.on_precision
    assert not doubtful.remembered
    doubtful.see(doubtful.FRAMES)
    (told,) = doubtful.bench.models
    assert doubtful.remembered == [told] and told.precision == "fp16" and doubtful.stage._engine.precision == "fp16"
    assert (
        told.on_precision.startswith(doubtful.card.on_precision + "; in the first ")
        and ", too: AP" in told.on_precision
    )


def test_fp32_takes_the_place_of_what_finds_other_objects_in_the_first_frames(monkeypatch) -> None:
    doubtful = Doubtful(monkeypatch)
    doubtful.spoil()
    seen = doubtful.see(doubtful.FRAMES + 6)
    (told,) = doubtful.bench.models
    assert doubtful.remembered == [told] and told.precision == "fp32" and doubtful.stage._engine.precision == "fp32"
    assert "it finds other objects" in told.on_precision and told.on_precision.endswith("so fp32 took its place")
    again = doubtful.FRAMES + 5 - (doubtful.FRAMES + 5) % 6  # the first picture, once more
    assert seen[0]["wh"].mean() > 1.5 * seen[again]["wh"].mean()
    doubtful.stage.close()
    assert len(doubtful.remembered) == 1


def test_a_short_run_remembers_what_it_saw(monkeypatch) -> None:
    doubtful = Doubtful(monkeypatch)
    doubtful.see(1)
    assert not doubtful.remembered
    doubtful.stage.close()
    (told,) = doubtful.remembered
    assert told.precision == "fp16" and "in the first 1 frames" in told.on_precision


def test_once_settled_no_frame_is_computed_twice(monkeypatch) -> None:
    doubtful = Doubtful(monkeypatch)
    exact, runs = doubtful.stage._exact, []
    run = exact.run
    exact.run = lambda images, out: (runs.append(len(images)), run(images, out))
    doubtful.see(1)
    assert runs == [1]
    doubtful.stage.settle()
    doubtful.see(3)
    assert runs == [1] and len(doubtful.bench.models) == 1


def test_who_asks_for_a_precision_gets_it(monkeypatch) -> None:
    doubtful = Doubtful(monkeypatch, "fp16")
    assert doubtful.remembered == [doubtful.card] and doubtful.card.precision == "fp16"
    doubtful.spoil()
    doubtful.see(doubtful.FRAMES)
    assert doubtful.stage._engine.precision == "fp16" and not doubtful.bench.models


def test_only_the_wanted_heat_maps_are_computed() -> None:
    settings = InferSettings(engine="eager", input_size=f"{SIDE}x{SIDE}", batch=1, workers=1, threads=1)
    bench = Bench(infer=settings, postprocess=PostprocessSettings(classes=("car", "person")))
    stage = Infer(bench.kit(HEATMAPS))
    card = stage.prepare()
    assert card.channels == (0, 2) and len(card.class_names) == 80
    frame = bench.frame(0, input_side=SIDE)
    stage.process_round([frame])
    assert frame.array("hm").shape == (2, 16, 16)
