"""Pools of shared memory: leased, given back, seen by another process, and gone without a trace."""

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import numpy as np

from pipeline.sharedmem import Leases, Pool, aligned, create_pool


class Returned:
    """Slots that came back, in order."""

    def __init__(self, *indices: int) -> None:
        self.indices = deque(indices)

    def receive(self, timeout_seconds: float) -> int | None:
        return self.indices.popleft() if self.indices else None


def test_no_slot_left_means_none() -> None:
    leases = Leases("frames", 0, Returned())
    assert leases.lease(0.0) is None


def test_every_slot_is_leased_once_until_it_comes_back() -> None:
    returned = Returned()
    leases = Leases("frames", 3, returned)
    leased = {leases.lease(0.0).index for _ in range(3)}
    assert leased == {0, 1, 2}
    assert leases.lease(0.0) is None
    returned.indices.append(1)
    assert leases.lease(0.0).index == 1
    assert leases.lease(0.0) is None


def test_the_last_slot_given_back_is_the_next_one_taken() -> None:
    leases = Leases("frames", 3, Returned())
    first = leases.lease(0.0)
    leases.restore(first)
    assert leases.lease(0.0) == first


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
from pipeline.sharedmem import Pool, PoolSpec
array = Pool(PoolSpec("frames", {spec.fd}, 2, {spec.slot_bytes})).array(1, 0, "uint8", (3,))
array += 10
"""
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", code], pass_fds=[spec.fd], check=True, cwd=root)
    np.testing.assert_array_equal(Pool(spec).array(1, 0, "uint8", (3,)), [11, 12, 13])
    os.close(spec.fd)


def test_a_huge_pool_takes_only_what_is_written() -> None:
    spec = create_pool("frames", 16, 200 << 20)
    Pool(spec).array(3, 0, "uint8", (4096,))[:] = 1
    assert os.fstat(spec.fd).st_blocks * 512 < 1 << 20
    os.close(spec.fd)
