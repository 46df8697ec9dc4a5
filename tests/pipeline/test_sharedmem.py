"""Pools of shared memory: leased, given back, seen by another process, and gone without a trace; and the table of their
slots, which outlives whoever wrote it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.messages import Slot
from pipeline.flow.sharedmem import Held, Lessor, Pool, PoolSpec, aligned, create_pool
from tests.kit.places import ROOT

DECODER, TRACK, DELIVER = 7, 8, 9
SLOTS = 3


@pytest.fixture
def pool() -> Pool:
    return Pool(create_pool("frames", SLOTS, 4096))


@pytest.fixture
def lessor(pool) -> Lessor:
    return Lessor(pool, 0, SLOTS, DECODER)


def elsewhere(spec: PoolSpec, code: str) -> "subprocess.Popen[str]":
    """A process that maps the pool and runs `code`."""
    head = f"""
import sys, time
from pipeline.flow.sharedmem import Lessor, Pool, PoolSpec
pool = Pool(PoolSpec("frames", {spec.fd}, {spec.slots}, {spec.slot_bytes}))
"""
    return subprocess.Popen(
        [sys.executable, "-c", head + code], pass_fds=[spec.fd], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


# --- leases ----------------------------------------------------------------------------------------------------------


def test_no_slot_left_means_none(lessor) -> None:
    lessor.limit = 0
    assert lessor.lease(0, 0) is None


def test_every_slot_is_leased_once_until_it_comes_back(pool, lessor) -> None:
    leased = {slot.index: slot for slot in (lessor.lease(0, seq) for seq in range(3))}
    assert set(leased) == {0, 1, 2}
    assert lessor.lease(0, 3) is None
    assert pool.end_lease(leased[1])
    assert lessor.lease(0, 3).index == 1
    assert lessor.lease(0, 4) is None


def test_the_first_free_slot_is_taken_with_another_generation(pool, lessor) -> None:
    first = lessor.lease(0, 0)
    pool.end_lease(first)
    again = lessor.lease(0, 1)
    assert again.index == first.index and again.generation > first.generation


def test_a_slot_given_back_twice_is_lent_once(pool, lessor) -> None:
    first = lessor.lease(0, 0)
    assert pool.end_lease(first) and not pool.end_lease(first)
    assert len({lessor.lease(0, seq).index for seq in range(3)}) == 3
    assert lessor.lease(0, 3) is None


def test_an_old_return_does_not_end_the_next_lease(pool, lessor) -> None:
    first = lessor.lease(0, 0)
    pool.end_lease(first)
    second = lessor.lease(0, 1)
    assert not pool.end_lease(first)
    assert pool.holds(second) and not pool.holds(first)


def test_a_slot_that_is_free_has_no_lease_to_end(pool, lessor) -> None:
    assert not pool.end_lease(Slot("frames", 0, 0))
    assert lessor.lease(0, 0).generation == 1


@pytest.mark.parametrize("index", [-1, 3, 2**40])
def test_a_slot_that_is_not_there_is_refused(index: int, pool) -> None:
    assert not pool.holds(Slot("frames", index, 1)) and not pool.end_lease(Slot("frames", index, 1))


def test_a_lease_is_over_for_every_process_as_soon_as_it_came_back(pool, lessor) -> None:
    slot, other = lessor.lease(0, 0), Pool(pool.spec)
    assert other.holds(slot)
    assert other.end_lease(slot)
    assert not pool.holds(slot) and lessor.lease(0, 1).index == slot.index


def test_a_lessor_leases_from_its_own_range_alone(pool) -> None:
    ours, theirs = Lessor(pool, 0, 2, DECODER), Lessor(pool, 2, 1, DECODER + 1)
    assert [theirs.lease(1, 0).index, theirs.lease(1, 1)] == [2, None]
    assert [ours.lease(0, 0).index, ours.lease(0, 1).index, ours.lease(0, 2)] == [0, 1, None]


def test_a_limit_allows_fewer_than_there_are(pool, lessor) -> None:
    lessor.limit = 2
    first, _ = lessor.lease(0, 0), lessor.lease(0, 1)
    assert lessor.lease(0, 2) is None
    pool.end_lease(first)
    assert lessor.lease(0, 2) is not None
    assert lessor.lease(0, 3) is None


def test_a_lessor_that_is_started_anew_goes_on_where_the_other_was(pool, lessor) -> None:
    held = [lessor.lease(0, 0), lessor.lease(0, 1)]
    again = Lessor(Pool(pool.spec), 0, SLOTS, DECODER)
    again.limit = 3
    third = again.lease(0, 2)
    assert third.index == 2 and again.lease(0, 3) is None
    assert all(pool.holds(slot) for slot in held)
    pool.end_lease(held[1])
    assert again.lease(0, 3).index == 1


@given(st.lists(st.integers(0, 5), max_size=60))
def test_a_lease_is_good_until_it_is_ended_once_whatever_else_happens(moves: list[int]) -> None:
    """0 leases; another number ends the lease, old or new, that is so far back."""
    spec = create_pool("frames", SLOTS, 4096)
    pool = Pool(spec)
    os.close(spec.fd)
    lessor = Lessor(pool, 0, SLOTS, DECODER)
    leases: list[Slot] = []
    good: set[Slot] = set()
    for move in moves:
        if move == 0:
            slot = lessor.lease(0, len(leases))
            assert (slot is None) == (len(good) == SLOTS)
            if slot:
                leases.append(slot)
                good.add(slot)
        elif len(leases) >= move:
            assert pool.end_lease(leases[-move]) == (leases[-move] in good)
            good.discard(leases[-move])
        assert {slot for slot in leases if pool.holds(slot)} == good
        assert set(pool.still_open(leases)) == good and pool.leased(0, SLOTS) == len(good)


# --- who has what ----------------------------------------------------------------------------------------------------


def holders(pool: Pool) -> dict[int, list[int]]:
    """The seqs that each worker holds or was sent."""
    return {worker: [held.seq for held in pool.held_by(worker)] for worker in (DECODER, TRACK, DELIVER)}


def test_what_is_on_its_way_is_lost_with_either_of_the_two(pool, lessor) -> None:
    slot = lessor.lease(0, 5)
    assert holders(pool) == {DECODER: [5], TRACK: [], DELIVER: []}
    pool.send(slot, TRACK)
    assert holders(pool) == {DECODER: [5], TRACK: [5], DELIVER: []}
    pool.take(slot, TRACK)
    assert holders(pool) == {DECODER: [], TRACK: [5], DELIVER: []}
    pool.end_lease(slot)
    assert holders(pool) == {DECODER: [], TRACK: [], DELIVER: []}


def test_a_new_lease_knows_nothing_of_the_one_before(pool, lessor) -> None:
    slot = lessor.lease(0, 5)
    pool.take(slot, TRACK)
    pool.send(slot, DELIVER)
    pool.tell(slot)
    pool.end_lease(slot)
    again = lessor.lease(2, 6)
    assert pool.held_by(TRACK) == pool.held_by(DELIVER) == []
    assert pool.held_by(DECODER) == [Held(again, 2, 6, told=False)]


def test_a_frame_whose_fate_was_told_says_so_while_somebody_still_reads_it(pool, lessor) -> None:
    slot = lessor.lease(1, 5)
    pool.tell(slot)
    assert pool.held_by(DECODER) == [Held(slot, 1, 5, told=True)]


def test_a_frame_is_alive_while_a_slot_holds_it(pool, lessor) -> None:
    slot = lessor.lease(1, 5)
    assert pool.is_alive(1, 5) and not pool.is_alive(0, 5) and not pool.is_alive(1, 4)
    pool.end_lease(slot)
    assert not pool.is_alive(1, 5)


def test_the_table_outlives_the_process_that_wrote_it(pool) -> None:
    code = f"""
lessor = Lessor(pool, 0, {SLOTS}, {DECODER})
pool.send(lessor.lease(1, 40), {TRACK})
lessor.lease(1, 41)
print("ready", flush=True)
time.sleep(60)
"""
    with elsewhere(pool.spec, code) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert holders(pool) == {DECODER: [40, 41], TRACK: [40], DELIVER: []}
    assert [pool.end_lease(held.slot) for held in pool.held_by(DECODER)] == [True, True]
    assert pool.leased(0, SLOTS) == 0


# --- memory ----------------------------------------------------------------------------------------------------------


def test_the_table_does_not_overlap_the_slots(pool, lessor) -> None:
    slots = [lessor.lease(0, seq) for seq in range(3)]
    for slot in slots:
        pool.array(slot.index, 0, "uint8", (4096,))[:] = 255
    assert all(pool.holds(slot) for slot in slots)


def test_slots_do_not_overlap_and_start_on_pages() -> None:
    pool = Pool(create_pool("frames", 3, 5000))
    assert pool.spec.slot_bytes == aligned(5000) == 8192
    for index in range(3):
        pool.array(index, 0, "uint8", (8192,))[:] = index
    assert [int(pool.array(index, 0, "uint8", (8192,)).sum()) for index in range(3)] == [0, 8192, 16384]


def test_another_process_sees_the_same_pixels(pool) -> None:
    pool.array(1, 0, "uint8", (3,))[:] = (1, 2, 3)
    with elsewhere(pool.spec, "array = pool.array(1, 0, 'uint8', (3,)); array += 10"):
        pass
    np.testing.assert_array_equal(pool.array(1, 0, "uint8", (3,)), [11, 12, 13])


@pytest.mark.parametrize(
    ("index", "offset", "shape"),
    [(3, 0, (1,)), (-1, 0, (1,)), (0, 4096, (1,)), (0, -1, (1,)), (0, 0, (4097,)), (0, 0, (-1, -1))],
)
def test_nothing_reaches_beyond_its_own_slot(index: int, offset: int, shape: tuple[int, ...], pool) -> None:
    with pytest.raises(ValueError, match="does not fit 3 slots of 4096 bytes"):
        pool.array(index, offset, "uint8", shape)


def test_a_huge_pool_takes_only_what_is_written() -> None:
    spec = create_pool("frames", 16, 200 << 20)
    Pool(spec).array(3, 0, "uint8", (4096,))[:] = 1
    assert os.fstat(spec.fd).st_blocks * 512 < 1 << 20
    os.close(spec.fd)


def test_nobody_can_take_the_memory_from_under_the_others(pool) -> None:
    with suppress(OSError):
        os.ftruncate(pool.spec.fd, 0)
    assert os.fstat(pool.spec.fd).st_size == pool.spec.size_bytes
