"""Pools of shared memory: leased, given back, seen by another process, and gone without a trace."""

import os
import subprocess
import sys
from collections import deque

import numpy as np
import pytest

from pipeline.messages import Slot
from pipeline.sharedmem import Leases, Pool, aligned, create_pool
from tests.kit.places import ROOT


class Returned:
    """Slots that came back, in order."""

    def __init__(self) -> None:
        self.slots: deque[Slot] = deque()

    def receive(self, timeout_seconds: float) -> Slot | None:
        return self.slots.popleft() if self.slots else None


class Lessor:
    """A pool of three slots, and what its leases refused."""

    def __init__(self) -> None:
        self.pool = Pool(create_pool("frames", 3, 4096))
        self.returned = Returned()
        self.refused: list[Slot] = []
        self.leases = Leases(self.pool, self.returned, self.refused.append)

    def lease(self) -> Slot | None:
        return self.leases.lease(0.0)


@pytest.fixture
def lessor() -> Lessor:
    return Lessor()


def test_no_slot_left_means_none(lessor) -> None:
    lessor.leases.limit = 0
    assert lessor.lease() is None


def test_every_slot_is_leased_once_until_it_comes_back(lessor) -> None:
    leased = {slot.index: slot for slot in (lessor.lease() for _ in range(3))}
    assert set(leased) == {0, 1, 2}
    assert lessor.lease() is None
    lessor.returned.slots.append(leased[1])
    assert lessor.lease().index == 1
    assert lessor.lease() is None


def test_the_last_slot_given_back_is_the_next_one_taken(lessor) -> None:
    first = lessor.lease()
    lessor.leases.restore(first)
    again = lessor.lease()
    assert again.index == first.index and again.generation > first.generation


def test_a_slot_given_back_twice_is_lent_once(lessor) -> None:
    first = lessor.lease()
    lessor.returned.slots.extend([first, first])
    assert len({lessor.lease().index for _ in range(3)}) == 3
    assert lessor.refused == [first]


def test_an_old_return_does_not_end_the_next_lease(lessor) -> None:
    first = lessor.lease()
    lessor.leases.restore(first)
    second = lessor.lease()
    lessor.leases.restore(first)
    assert lessor.pool.holds(second) and lessor.refused == [first]


@pytest.mark.parametrize("index", [-1, 3, 2**40])
def test_a_slot_that_is_not_there_is_refused(index: int, lessor) -> None:
    wrong = Slot("frames", index, 0)
    lessor.returned.slots.append(wrong)
    assert lessor.lease().index == 0 and lessor.refused == [wrong]


def test_a_lease_is_over_for_every_process_as_soon_as_it_came_back(lessor) -> None:
    slot, elsewhere = lessor.lease(), Pool(lessor.pool.spec)
    assert elsewhere.holds(slot)
    lessor.leases.restore(slot)
    assert not elsewhere.holds(slot)


def test_the_table_does_not_overlap_the_slots(lessor) -> None:
    slots = [lessor.lease() for _ in range(3)]
    for slot in slots:
        lessor.pool.array(slot.index, 0, "uint8", (4096,))[:] = 255
    assert all(lessor.pool.holds(slot) for slot in slots)


def test_slots_do_not_overlap_and_start_on_pages() -> None:
    pool = Pool(create_pool("frames", 3, 5000))
    assert pool.spec.slot_bytes == aligned(5000) == 8192
    for index in range(3):
        pool.array(index, 0, "uint8", (8192,))[:] = index
    assert [int(pool.array(index, 0, "uint8", (8192,)).sum()) for index in range(3)] == [0, 8192, 16384]


def test_another_process_sees_the_same_pixels() -> None:
    spec = create_pool("frames", 2, 4096)
    Pool(spec).array(1, 0, "uint8", (3,))[:] = (1, 2, 3)
    code = f"""
from tests.kit.places import ROOT
from pipeline.sharedmem import Pool, PoolSpec
from tests.kit.places import ROOT
array = Pool(PoolSpec("frames", {spec.fd}, 2, {spec.slot_bytes})).array(1, 0, "uint8", (3,))
array += 10
"""
    subprocess.run([sys.executable, "-c", code], pass_fds=[spec.fd], check=True, cwd=ROOT)
    np.testing.assert_array_equal(Pool(spec).array(1, 0, "uint8", (3,)), [11, 12, 13])
    os.close(spec.fd)


def test_a_huge_pool_takes_only_what_is_written() -> None:
    spec = create_pool("frames", 16, 200 << 20)
    Pool(spec).array(3, 0, "uint8", (4096,))[:] = 1
    assert os.fstat(spec.fd).st_blocks * 512 < 1 << 20
    os.close(spec.fd)
