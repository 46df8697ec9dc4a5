"""The simulation of a run: against what queueing theory and plain recursions say."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.profile.model import (
    Goal,
    Model,
    Station,
    bottleneck,
    cameras_between,
    live,
    most_cameras,
    others_from,
    percentile,
    simulate,
    throughput,
)
from pipeline.stage import CHAIN

MANY = 10**9


def model(
    cores: float = 2.0, ahead: int = 6, of_source: int = 7, waiting: int = 1, batch: int = 1, **stations
) -> Model:
    """Stages that are not named take no time."""
    return Model(dict.fromkeys(CHAIN, Station()) | stations, cores, ahead, of_source, waiting, batch)


def arrivals(rate: float, count: int) -> list[float]:
    draw, now, times = random.Random(7), 0.0, []
    for _ in range(count):
        now += draw.expovariate(rate)
        times.append(now)
    return times


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_one_server_waits_as_pollaczek_and_khinchine_say(load: float) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) services."""
    queue = model(cores=1, ahead=MANY, of_source=MANY, waiting=MANY, infer=Station(cpu_ms=10))
    ages = simulate(queue, cameras=[arrivals(load * 100, 6000)]).ages
    assert sum(ages) / len(ages) == pytest.approx(0.01 * (1 + load / (2 * (1 - load))), rel=0.08)


def test_a_shared_core_is_shared_evenly() -> None:
    """M/M/1 with processor sharing has the mean stay of M/M/1: service / (1 - load)."""
    draw = random.Random(3)
    spread = tuple(draw.expovariate(1.0) for _ in range(6000))
    shared = Station(lanes=1000, cpu_ms=10, spread=spread)
    ages = simulate(model(1, MANY, MANY, MANY, decode=shared), cameras=[arrivals(60, 6000)]).ages
    assert sum(ages) / len(ages) == pytest.approx(0.01 / 0.4, rel=0.15)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 30), min_size=6, max_size=6), st.integers(2, 60))
def test_stages_one_after_the_other_are_a_plain_recursion(milliseconds: list[int], count: int) -> None:
    """With cores and slots for all, frame k leaves a stage one service after the later of: it came; k - 1 left."""
    stations = {stage: Station(cpu_ms=ms) for stage, ms in zip(CHAIN, milliseconds, strict=True)}
    left = [0.0] * 6
    expected = []
    for _ in range(count):
        at = 0.0
        for number, ms in enumerate(milliseconds):
            at = left[number] = max(at, left[number]) + ms / 1e3
        expected.append(at)
    outcome = simulate(model(cores=MANY, ahead=MANY, of_source=MANY, **stations), recordings=[count])
    assert outcome.ends == pytest.approx(expected, abs=1e-6)
    assert (outcome.captured, outcome.dropped) == (count, 0)


def test_lanes_help_while_there_are_cores() -> None:
    network = Station(lanes=2, cpu_ms=20)
    assert throughput(model(cores=2, infer=network)) == pytest.approx(100, rel=0.02)
    assert throughput(model(cores=1, infer=network)) == pytest.approx(50, rel=0.02)
    assert throughput(model(cores=1, infer=Station(lanes=2, idle_ms=20))) == pytest.approx(100, rel=0.02)


def test_others_have_their_even_share() -> None:
    """Two that spin got half of two cores: there are two others. One lane then gets two thirds of a core."""
    assert others_from(1.0, 2) == pytest.approx(2) and others_from(2.0, 2) == 0.0
    run = replace(model(cores=2, infer=Station(lanes=1, cpu_ms=20)), others=others_from(1.0, 2))
    assert throughput(run) == pytest.approx(50 * 2 / 3, rel=0.02)


def test_cores_are_shared_by_all_stages() -> None:
    run = model(cores=2, infer=Station(lanes=2, cpu_ms=30), deliver=Station(cpu_ms=10))
    assert throughput(run) == pytest.approx(2 / 0.040, rel=0.03)


def test_a_decoder_with_threads_takes_more_cores_for_less_long() -> None:
    assert throughput(model(cores=2, decode=Station(cpu_ms=20, parallel=2.0))) == pytest.approx(100, rel=0.02)
    assert throughput(model(cores=1, decode=Station(cpu_ms=20, parallel=2.0))) == pytest.approx(50, rel=0.02)


def test_full_rounds_share_what_a_round_costs() -> None:
    network = Station(cpu_ms=2, round_ms=8)
    assert throughput(model(cores=1, ahead=8, of_source=12, batch=4, infer=network)) == pytest.approx(250, rel=0.1)
    assert throughput(model(cores=1, infer=network)) == pytest.approx(100, rel=0.02)


def test_slots_bound_what_is_on_its_way() -> None:
    """Little: with n frames on their way of which each takes a second, n a second come out."""
    run = model(cores=MANY, ahead=MANY, of_source=3, infer=Station(lanes=50, idle_ms=1000))
    assert throughput(run) == pytest.approx(3, rel=0.05)


def test_a_camera_that_is_too_fast_loses_what_is_too_much_and_none_gets_old() -> None:
    outcome = live(model(cores=1, infer=Station(cpu_ms=100)), cameras=1, rate=20, seconds=60)
    assert outcome.dropped_share() == pytest.approx(0.5, abs=0.03)
    assert outcome.age_percentile(95) < 0.3


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_a_recordings_frames_leave_the_network_in_bundles_and_none_stays_there(count: int) -> None:
    run = replace(model(cores=1, infer=Station(lanes=2, cpu_ms=10)), bundle=3)
    ends = simulate(run, recordings=[count]).ends
    assert len(ends) == count and max(ends) == pytest.approx(count * 0.01)
    if count == 10:
        assert ends[0] == ends[1] == ends[2] < ends[3]


def test_what_comes_straight_after_another_costs_its_share() -> None:
    """Of a bundle, but not of cameras that are not behind."""
    light = {"infer": Station(cpu_ms=7), "track": Station(cpu_ms=3, warm=1 / 3)}
    run = model(cores=1, **light)
    assert throughput(run) == pytest.approx(100, rel=0.01)
    assert throughput(replace(run, bundle=3)) == pytest.approx(3000 / (3 * 7 + 3 + 1 + 1), rel=0.02)
    ages = live(replace(run, bundle=3), cameras=1, rate=10).ages
    assert max(ages) == pytest.approx(0.01)


def test_what_a_run_costs_in_the_mean_is_of_one_cold_frame_and_warm_ones() -> None:
    station = Station(cpu_ms=1, warm=0.25).as_run(0.7, 4)
    assert (station.cpu_ms + 3 * station.warm * station.cpu_ms) / 4 == pytest.approx(0.7)
    assert Station(cpu_ms=1).as_run(0.7, 4).cpu_ms == pytest.approx(0.7)


def test_what_is_spare_is_for_recordings_alone() -> None:
    slow = replace(model(cores=MANY, ahead=5, of_source=6, infer=Station(lanes=50, idle_ms=1000)), spare=2)
    assert throughput(slow) == pytest.approx(5, rel=0.05)
    assert len(live(slow, cameras=1, rate=50, seconds=40).ends) / 40 == pytest.approx(3, rel=0.1)


def test_results_of_a_source_come_in_order() -> None:
    network = Station(lanes=4, cpu_ms=10, spread=(0.1, 1.0, 3.0))
    outcome = simulate(model(cores=4, infer=network), recordings=[300])
    captured = [end - age for end, age in zip(outcome.ends, outcome.ages, strict=True)]
    assert captured == sorted(captured) and len(captured) == 300


@pytest.mark.parametrize("stage", CHAIN)
@pytest.mark.parametrize("how", ["cpu_ms", "idle_ms"])
def test_the_bottleneck_is_what_is_slow(stage: str, how: str) -> None:
    stations = {name: Station(cpu_ms=2) for name in CHAIN} | {"infer": Station(lanes=2, cpu_ms=10)}
    slow = {"cpu_ms": 2.0} | {how: 60.0}
    stations[stage] = Station(lanes=stations[stage].lanes, **slow)
    assert next(iter(bottleneck(model(**stations)))) == stage


def test_cameras_are_as_many_as_the_cores_can_do() -> None:
    run = model(cores=2, infer=Station(lanes=2, cpu_ms=39))
    assert most_cameras(run, Goal(rate=10, max_age_ms=500)) == 5
    assert most_cameras(run, Goal(rate=10, max_age_ms=30)) == 0  # no frame is that fast
    assert most_cameras(run, Goal(rate=60, max_age_ms=500)) == 0


def test_doubt_makes_an_interval() -> None:
    run = model(cores=2, infer=Station(lanes=2, cpu_ms=39))
    low, likely, high = cameras_between(run, Goal(rate=10, max_age_ms=500), doubt=0.2)
    assert low < likely < high and likely == 5


def test_a_percentile_is_of_the_values() -> None:
    assert percentile([], 95) == 0.0
    assert percentile(range(100), 95) == 95
