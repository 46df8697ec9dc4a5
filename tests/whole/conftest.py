"""What whole runs share: their network, exported before the first of them needs it in a hurry."""

from pathlib import Path

import pytest

from tests.kit.harness import QUICK, run
from tests.kit.places import CLIP


@pytest.fixture(scope="session", autouse=True)
def exported(cache_folder: Path) -> None:
    done = run(CLIP, "--max-frames", 1, *QUICK)
    assert done.returncode == 0, done.stderr
