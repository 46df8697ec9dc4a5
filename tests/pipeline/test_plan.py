"""The plan: who runs, with which number and which slots; and how many frames may be on their way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline.flow.messages import Limits, ModelCard
from pipeline.run.plan import IN_HAND, SPARE, Plan
from pipeline.settings import MOST_SOURCES, InferSettings, QueueSettings, Settings, SourceSettings
from pipeline.stage import CHAIN, FRAMES, HEATMAPS
from tests.kit.bench import CARD

BESIDE = IN_HAND + SPARE


def plan(sources: int = 1, capacity: int = 1, **infer) -> Plan:
    infer = {"workers": 2} | infer
    named = {f"s{number}": SourceSettings(uri="x") for number in range(sources)}
    return Plan(Settings(sources=named, infer=InferSettings(**infer), queue=QueueSettings(capacity=capacity)))


def card(workers: int, batch: int = 1) -> ModelCard:
    return replace(CARD, workers=workers, batch=batch)


def test_each_stage_has_a_worker_and_each_source_a_decoder() -> None:
    workers = plan(sources=2, processes=2).workers
    assert set(workers) == {
        "decode:s0", "decode:s1", "gather", "infer:0", "infer:1", "postprocess", "track", "deliver"
    }  # fmt: skip
    assert {worker.stage for worker in workers.values()} == set(CHAIN)
    assert [(worker.source_id, worker.place) for worker in workers.values() if worker.source_id] == [
        ("s0", 0), ("s1", 1)
    ]  # fmt: skip


def test_slots_of_different_workers_do_not_overlap_and_lie_in_their_pool() -> None:
    made = plan(sources=MOST_SOURCES, processes=3, batch=4)
    sizes = {name: slots for name, slots, _ in made.pools}
    for pool in (FRAMES, HEATMAPS):
        taken = [
            n for w in made.workers.values() if w.pool == pool for n in range(w.first_slot, w.first_slot + w.slots)
        ]
        assert len(taken) == len(set(taken)) and min(taken) == 0 and max(taken) < sizes[pool]


def test_nobody_leases_but_decoders_and_inference() -> None:
    leasing = {worker.stage: worker.pool for worker in plan().workers.values() if worker.slots}
    assert leasing == {"decode": FRAMES, "infer": HEATMAPS}


@pytest.mark.parametrize(
    ("infer", "model", "limits"),
    [
        ({}, card(2), Limits(ahead=2 + BESIDE, of_source=3 + BESIDE, waiting=1, lanes=2, round=1, spare=SPARE)),
        ({"processes": 3}, card(2), Limits(6 + BESIDE, 7 + BESIDE, 1, 2, 1, SPARE)),
        ({"batch": 4}, card(2, 4), Limits(8 + BESIDE, 9 + BESIDE, 1, 2, 4, SPARE)),
        ({"workers": 8}, card(1), Limits(1 + BESIDE, 2 + BESIDE, 1, 1, 1, SPARE)),
        ({"batch": 2}, card(2, 16), Limits(4 + BESIDE, 5 + BESIDE, 1, 2, 2, SPARE)),  # never more than slots
    ],
)
def test_limits_follow_from_lanes_processes_and_rounds(infer, model, limits) -> None:
    made = plan(**infer)
    assert made.limits(model) == limits
    decoder = made.workers["decode:s0"]
    assert limits.of_source <= decoder.slots and limits.ahead <= made.workers["infer:0"].slots


def test_a_longer_queue_is_more_frames_of_each_source_on_their_way() -> None:
    assert plan(capacity=5).limits(card(2)).of_source == plan(capacity=1).limits(card(2)).of_source + 4


def test_there_are_only_so_many_sources() -> None:
    made = plan(sources=MOST_SOURCES)
    with pytest.raises(ValueError, match=f"there are {MOST_SOURCES} sources already"):
        made.add_source("one-more")
    made.remove_source("s7")
    assert made.add_source("one-more").place == 7


@given(st.lists(st.integers(0, 5), max_size=40))
def test_a_number_is_never_anothers_however_sources_come_and_go(names: list[int]) -> None:
    made, seen = plan(sources=0), set()
    seen = {worker.number for worker in made.workers.values()}
    for name in names:
        if f"decode:n{name}" in made.workers:
            made.remove_source(f"n{name}")
        else:
            worker = made.add_source(f"n{name}")
            assert worker.number not in seen
            seen.add(worker.number)
        places = [worker.place for worker in made.of_stage("decode")]
        assert len(places) == len(set(places)) and all(0 <= place < MOST_SOURCES for place in places)
