"""What waits before the network: who goes next, in rounds of how many, and what is given up. The clock is simulated."""

import sys
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flow.rounds import NEWER, RATE, TOO_OLD, Rounds
from tests.kit.lanes import MS, SECOND, File, Log, Source, simulate

INTERVAL_NS = 100 * MS  # 10 frames a second
PHASES = {
    "in phase": [0] * 8,
    "out of phase": [i * INTERVAL_NS // 8 for i in range(8)],
    "somewhere": [83 * MS, 11 * MS, 47 * MS, 44 * MS, 90 * MS, 2 * MS, 61 * MS, 29 * MS],
}
TUNED_NS = 5 * SECOND  # before, it is learnt how fast items come and how long rounds take


def eight(phase: str = "out of phase", jitter: float = 0.0) -> list[Source | File]:
    return [Source(f"s{i}", INTERVAL_NS, start_ns, jitter) for i, start_ns in enumerate(PHASES[phase])]


def taking(fixed_ms: float, each_ms: float):
    """How long a lane takes for a round."""
    return lambda size: round((fixed_ms + each_ms * size) * MS)


def run(rounds: Rounds, sources, lanes: int, service_ns, seconds: int = 60) -> Log:
    return simulate(rounds, sources, lanes, service_ns, seconds * SECOND).after(TUNED_NS)


def filled(rounds: Rounds, **policies: str) -> Rounds:
    for source_id, policy in policies.items():
        rounds.open(source_id, policy)  # type: ignore[arg-type]
    return rounds


def put(rounds: Rounds, *items: str, now_ns: int = 0):
    """Items such as "a1", of source "a"."""
    return [dropped for item in items for dropped in rounds.put(item[0], item, now_ns, now_ns)]


def test_a_file_loses_nothing_and_a_live_source_its_oldest() -> None:
    rounds = filled(Rounds(8, 2), a="block", b="latest")
    assert put(rounds, "a1", "a2", "a3", "a4") == []
    assert [(d.item, d.reason) for d in put(rounds, "b1", "b2", "b3", "b4")] == [("b1", NEWER), ("b2", NEWER)]
    assert rounds.depth == 6


def test_sources_take_turns_and_each_keeps_its_order() -> None:
    rounds = filled(Rounds(3, 4), a="block", b="latest", c="block")
    put(rounds, "a1", "a2", "a3", "a4", "b1", "b2", "c1")
    assert rounds.take(0, 1) == (["a1", "b1", "c1"], [])
    assert rounds.take(0, 1) == (["a2", "b2", "a3"], [])  # a second one of a source where no other waits
    put(rounds, "b3")
    assert rounds.take(0, 1) == (["a4", "b3"], [])
    assert rounds.take(0, 1) == ([], []) and rounds.depth == 0


def test_the_next_round_goes_on_after_the_source_served_last() -> None:
    rounds = filled(Rounds(2, 1), a="block", b="block", c="block")
    put(rounds, "a1", "a2", "a3", "b1", "b2", "c1", "c2")
    assert [rounds.take(0, 1)[0] for _ in range(4)] == [["a1", "b1"], ["c1", "a2"], ["b2", "c2"], ["a3"]]


def test_no_round_without_a_free_lane() -> None:
    rounds = filled(Rounds(2, 1), a="block")
    put(rounds, "a1", "a2", "a3")
    assert rounds.take(0, 0) == ([], []) and rounds.depth == 3


def test_what_a_closed_source_had_waiting_is_given_back() -> None:
    rounds = filled(Rounds(4, 1), a="block", b="block")
    put(rounds, "a1", "b1", "a2")
    assert rounds.close("a") == ["a1", "a2"]
    assert rounds.take(0, 1) == (["b1"], [])
    assert rounds.close("a") == [] and rounds.depth == 0
    with pytest.raises(KeyError):
        put(rounds, "a3")


def test_a_source_that_is_opened_again_has_its_new_policy_and_all_that_waits() -> None:
    rounds = filled(Rounds(8, 1), a="block")
    put(rounds, "a1", "a2", "a3")
    rounds.open("a", "latest")
    assert rounds.depth == 3
    assert [d.item for d in put(rounds, "a4")] == ["a1", "a2", "a3"]


@pytest.mark.parametrize("wrong", [(0, 1, None), (1, 0, None), (1, 1, 0)])
def test_bounds_that_are_none_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        Rounds(*wrong)


# What follows needs a clock. Where rounds of 8 take 74 or 95 ms and lone ones 53 or 56 ms, lanes could not do 80 a
# second one by one, and have a moment to spare with full rounds.


@pytest.mark.parametrize("jitter", [0.0, 0.1])
@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("each_ms", [3.0, 5.6])
@pytest.mark.parametrize("phase", PHASES)
def test_rounds_are_full_where_arrivals_allow_it_and_wait_no_longer_than_a_frame(phase, each_ms, lanes, jitter) -> None:
    rounds = Rounds(8, 1)
    log = run(rounds, eight(phase, jitter), lanes, taking(50 * lanes, each_ms * lanes))
    assert log.share_of(8) >= 0.95 and rounds.figures.full >= 0.95
    assert rounds.figures.window_p95_ns <= INTERVAL_NS
    assert len(log.served) >= 0.98 * 80 * 55  # for the sake of which nothing much is dropped


def test_full_rounds_get_more_through_several_lanes_than_taking_what_there_is() -> None:
    patient, greedy = Rounds(8, 1), Rounds(8, 1)
    greedy.served = lambda size, busy_ns: None  # who does not know how long rounds take does not wait
    service_ns = taking(160, 4)
    patient_log, greedy_log = (run(rounds, eight(), 2, service_ns) for rounds in (patient, greedy))
    assert len(patient_log.served) > 1.3 * len(greedy_log.served)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_nobody_waits_where_lone_frames_are_served_in_time(phase, lanes) -> None:
    rounds = Rounds(8, 1)
    log = run(rounds, eight(phase), lanes, taking(0, 9 * lanes))
    assert rounds.figures.window_max_ns == 0 and not log.dropped


@pytest.mark.parametrize("service_ns", [taking(20, 2), taking(10, 8)], ids=["fast", "batches hardly pay"])
def test_nobody_waits_where_small_rounds_are_served_in_time(service_ns) -> None:
    rounds = Rounds(8, 1)
    run(rounds, eight(), 1, service_ns)
    assert rounds.figures.window_max_ns == 0


@pytest.mark.parametrize(("most", "sources"), [(8, eight()[:1]), (1, eight())], ids=["one source", "one at a time"])
def test_nobody_waits_for_what_cannot_come(most, sources) -> None:
    rounds = Rounds(most, 1)
    run(rounds, sources, 1, taking(80, 10))
    assert rounds.figures.window_max_ns == 0


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("phase", PHASES)
def test_half_of_too_much_is_half_of_each_and_none_of_it_old(phase, lanes) -> None:
    service_ns = taking(80 * lanes, 15 * lanes)  # 40 a second in full rounds
    log = run(Rounds(8, 1), eight(phase), lanes, service_ns)
    counts = [log.count(f"s{i}") for i in range(8)]
    assert max(counts) <= 1.1 * min(counts)
    assert 0.45 < sum(counts) / (80 * 55) < 0.55
    done_ms = np.array([each.done_ns - each.captured_ns for each in log.served]) / MS
    assert np.percentile(done_ms, 95) <= (2 * service_ns(8) + INTERVAL_NS) / MS


def test_a_slow_source_beside_fast_ones_loses_nothing() -> None:
    sources = [Source("slow", SECOND, 7 * MS), *(Source(f"fast{i}", 33 * MS, i * MS) for i in range(3))]
    log = run(Rounds(4, 1), sources, 1, taking(60, 10))
    assert log.count("slow") >= 54 and not any(d.item[0] == "slow" for d in log.dropped)
    fast = [log.count(f"fast{i}") for i in range(3)]
    assert max(fast) <= 1.1 * min(fast)


def test_windows_that_do_not_fill_their_rounds_are_given_up() -> None:
    sources = [Source("fast", 33 * MS), *(Source(f"slow{i}", SECOND, i * 130 * MS) for i in range(7))]
    rounds = Rounds(8, 1)
    log = run(rounds, sources, 1, taking(200, 5))
    assert rounds.figures.full < 0.1  # it was tried now and then
    assert log.busy_ns > 0.97 * 60 * SECOND


def test_a_source_that_falls_silent_holds_nobody_up() -> None:
    sources = [*eight()[:7], Source("s7", INTERVAL_NS, 87 * MS, pause_ns=20 * SECOND, resume_ns=40 * SECOND)]
    rounds = Rounds(8, 1)
    log = run(rounds, sources, 1, taking(50, 5.6))
    sizes = Counter(size for time_ns, size in log.sizes if 25 * SECOND < time_ns < 40 * SECOND)
    assert sizes[7] > 0.9 * sizes.total()
    assert len(log.dropped) < 30
    assert sum(each.source == "s7" and each.taken_ns > 41 * SECOND for each in log.served) >= 185


@pytest.mark.parametrize("service_ns", [taking(20, 10), taking(50, 20)], ids=["with time to spare", "too much"])
def test_a_file_among_live_sources_has_its_turn_and_no_more(service_ns) -> None:
    log = run(Rounds(8, 1), [*eight()[:7], File("file", slots=6)], 1, service_ns)
    live = [log.count(f"s{i}") for i in range(7)]
    assert max(live) <= 1.1 * min(live) and 0.9 * min(live) <= log.count("file") <= 1.1 * max(live)
    assert not any(d.item[0] == "file" for d in log.dropped)
    assert np.ptp(np.diff([each.number for each in log.served if each.source == "file"])) == 0


def test_a_file_takes_the_time_that_live_sources_leave() -> None:
    log = run(Rounds(8, 1), [*eight()[:2], File("file", slots=6)], 1, taking(20, 10))
    assert log.busy_ns > 0.99 * 60 * SECOND
    assert log.count("s0") == log.count("s1") >= 549


GOAL_NS = 300 * MS


@pytest.mark.parametrize("count", [8, 32])
def test_an_age_goal_is_kept_by_letting_in_less_of_every_source(count) -> None:
    sources = [Source(f"s{i}", INTERVAL_NS, i * INTERVAL_NS // count) for i in range(count)]
    rounds: Rounds = Rounds(8, 4, GOAL_NS)
    log = simulate(rounds, sources, 1, taking(20, 20), 60 * SECOND).after(20 * SECOND)
    assert log.ages_ms().max() <= GOAL_NS / MS
    counts = [log.count(source.name) for source in sources]
    assert max(counts) <= 1.1 * min(counts) + 1
    assert rounds.figures.admitted < 0.7
    reasons = Counter(d.reason for d in log.dropped)
    assert reasons[RATE] > 10 * reasons[TOO_OLD] > 0
    assert sum(size for _, size in log.sizes) > 0.75 * 40 * SECOND / taking(20, 20)(8) * 8  # what there is is used


def test_the_rate_is_raised_again_when_there_is_room() -> None:
    burst = [Source(f"b{i}", INTERVAL_NS, i * MS, pause_ns=20 * SECOND, resume_ns=90 * SECOND) for i in range(24)]
    rounds: Rounds = Rounds(8, 4, GOAL_NS)
    simulate(rounds, [*eight()[:2], *burst], 1, taking(20, 20), 20 * SECOND)
    assert rounds.figures.admitted < 0.5
    rounds = Rounds(8, 4, GOAL_NS)
    log = simulate(rounds, [*eight()[:2], *burst], 1, taking(20, 10), 60 * SECOND)
    assert rounds.figures.admitted == 1.0 and rounds.figures.goal_is_kept
    assert sum(each.source == "s0" and each.taken_ns > 50 * SECOND for each in log.served) >= 98


def test_what_comes_too_old_is_dropped_and_lowers_nobodys_rate() -> None:
    rounds: Rounds = Rounds(8, 1, GOAL_NS)
    log = simulate(rounds, eight(), 1, taking(5, 1), 10 * SECOND, upstream_ns=310 * MS)
    assert not log.served and {d.reason for d in log.dropped} == {TOO_OLD}
    assert rounds.figures.admitted == 1.0


def test_a_source_whose_oldest_was_too_old_still_has_its_turn() -> None:
    rounds = filled(Rounds(1, 2, GOAL_NS), a="latest", b="latest")
    put(rounds, "a1")
    put(rounds, "a2", "b1", now_ns=GOAL_NS)
    taken, dropped = rounds.take(GOAL_NS + 1, 1)
    assert taken == ["a2"] and [(d.item, d.reason) for d in dropped] == [("a1", TOO_OLD)]


def test_files_know_no_age_goal() -> None:
    log = run(Rounds(8, 1, 50 * MS), [File("file", slots=20)], 1, taking(50, 20))
    assert log.ages_ms().max() > 50 and not log.dropped


def test_no_goal_is_neither_kept_nor_missed() -> None:
    assert Rounds(8, 1).figures.goal_is_kept is None and Rounds(8, 1, GOAL_NS).figures.goal_is_kept is True


def test_who_is_told_to_wait_is_told_how_long() -> None:
    rounds = filled(Rounds(2, 1), a="latest", b="latest")
    for now_ns in range(0, 50 * INTERVAL_NS, INTERVAL_NS):
        put(rounds, "a1", "b1", now_ns=now_ns)
        assert rounds.take(now_ns, 1) == (["a1", "b1"], [])
        rounds.served(2, 120 * MS)
    assert rounds.wait_ns(now_ns) is None
    now_ns += INTERVAL_NS
    put(rounds, "a2", now_ns=now_ns)
    assert rounds.take(now_ns, 1) == ([], [])
    wait_ns = rounds.wait_ns(now_ns)
    assert wait_ns and 0.9 * INTERVAL_NS < wait_ns < 1.25 * INTERVAL_NS
    now_ns += wait_ns
    assert rounds.take(now_ns, 1) == (["a2"], []) and rounds.wait_ns(now_ns) is None


operations = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.sampled_from("abcd"), st.sampled_from(["block", "latest"])),
        st.tuples(st.just("close"), st.sampled_from("abcd")),
        st.tuples(st.just("put"), st.sampled_from("abcd"), st.integers(0, 400)),
        st.tuples(st.just("take"), st.integers(0, 2)),
        st.tuples(st.just("served"), st.integers(1, 4), st.integers(0, 500)),
        st.tuples(st.just("wait"), st.integers(0, 400)),
    ),
    max_size=120,
)


@settings(max_examples=300)
@given(operations, st.integers(1, 4), st.integers(1, 3), st.sampled_from([None, 200 * MS]))
def test_nothing_is_lost_or_told_twice_and_bounds_and_orders_are_kept(steps, most, capacity, max_age_ns) -> None:
    rounds: Rounds[tuple[str, int]] = Rounds(most, capacity, max_age_ns)
    policies: dict[str, str] = {}
    waiting: dict[str, list[int]] = defaultdict(list)
    numbers: Counter[str] = Counter()
    now_ns = 0

    def gone(items, is_first: bool = True) -> None:
        for source_id, number in items:
            assert number in waiting[source_id] and (not is_first or waiting[source_id][0] == number)
            waiting[source_id].remove(number)

    for verb, *rest in steps:
        if verb == "open":
            rounds.open(*rest)
            policies[rest[0]] = rest[1]
        elif verb == "close":
            given_back = rounds.close(rest[0])
            assert [number for _, number in given_back] == waiting.pop(rest[0], [])
            policies.pop(rest[0], None)
        elif verb == "put" and rest[0] in policies:
            source_id, age_ms = rest
            numbers[source_id] += 1
            waiting[source_id].append(numbers[source_id])
            dropped = rounds.put(source_id, (source_id, numbers[source_id]), now_ns - age_ms * MS, now_ns)
            assert policies[source_id] == "latest" or not dropped
            gone([d.item for d in dropped], is_first=all(d.reason == NEWER for d in dropped))
            if policies[source_id] == "latest" and not any(d.reason in (RATE, TOO_OLD) for d in dropped):
                assert len(waiting[source_id]) <= capacity
        elif verb == "take":
            taken, dropped = rounds.take(now_ns, rest[0])
            assert len(taken) <= most and (rest[0] or not taken)
            assert all(d.reason == TOO_OLD and policies[d.item[0]] == "latest" for d in dropped)
            gone(sorted([*taken, *(d.item for d in dropped)]))
            for source_id in waiting:
                numbers_taken = [number for source, number in taken if source == source_id]
                assert numbers_taken == sorted(numbers_taken)
            if taken and any(waiting.values()):
                turns = Counter(source_id for source_id, _ in taken)
                assert all(turns[s] or max(turns.values()) == 1 for s, left in waiting.items() if left)
        elif verb == "served":
            rounds.served(rest[0], rest[1] * MS)
        elif verb == "wait":
            now_ns += rest[0] * MS
            wait_ns = rounds.wait_ns(now_ns)
            assert wait_ns is None or wait_ns >= 0
        assert rounds.depth == sum(map(len, waiting.values()))
    while rounds.depth:
        now_ns += SECOND  # nobody waits for ever
        taken, dropped = rounds.take(now_ns, 1)
        assert taken or dropped
        gone(sorted([*taken, *(d.item for d in dropped)]))
    assert not any(waiting.values())


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(10, 1000), st.integers(0, 100)), min_size=2, max_size=12),
    st.integers(1, 8), st.integers(1, 3), st.integers(1, 100), st.integers(1, 30),
)  # fmt: skip
def test_no_source_starves(sources, most, lanes, fixed_ms, each_ms) -> None:
    service_ns = taking(fixed_ms, each_ms)
    all_sources = [Source(f"s{i}", interval * MS, phase * MS) for i, (interval, phase) in enumerate(sources)]
    log = simulate(Rounds(most, 1), all_sources, lanes, service_ns, 20 * SECOND)
    # Each has its turn once all others had theirs, and a window is never longer than its own interval.
    turn_ns = -(-len(sources) // most) * service_ns(most) + service_ns(most)
    for source in all_sources:
        longest_ns = turn_ns + 2.5 * source.interval_ns + source.phase_ns
        times_ns = [0, *(each.taken_ns for each in log.served if each.source == source.name), 20 * SECOND]
        assert np.diff(times_ns).max() <= longest_ns


def steps_a_frame(count: int) -> float:
    """Lines of Python that a frame of one of so many sources takes, in full rounds."""
    rounds: Rounds[int] = Rounds(8, 1)
    for i in range(count):
        rounds.open(f"s{i}", "latest")
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for k in range(4000):
            rounds.put(f"s{k % count}", k, k * MS, k * MS)
            if k % 8 == 7:
                rounds.take(k * MS, 1)
                rounds.served(8, 7 * MS)
    finally:
        sys.settrace(before)
    return lines / 4000


def test_a_frame_takes_as_many_steps_among_a_thousand_sources_as_among_eight() -> None:
    assert steps_a_frame(1000) <= 1.2 * steps_a_frame(8)
