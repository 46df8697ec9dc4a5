"""Freed memory stays with the process, so that the next buffer is not handed out page by page."""

import platform
import subprocess
import sys

import pytest

from tests.kit.places import ROOT

CODE = """
import resource
import numpy as np
from models.memory import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(5_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_freed_memory()
page_faults()
print(page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc")
def test_a_buffer_that_was_freed_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100  # without: some hundred for each of the 20 buffers
