"""Outputs that stand still or are full: they miss frames, the others and all sources go on."""

import time

import pytest

from tests.whole.faults.rig import Options, run_of
from tests.whole.faults.storage import small_disk, stalling_disk
from tests.whole.witness.account import Allowed

pytestmark = pytest.mark.faults


def test_the_disk_of_the_video_stands_still(tmp_path) -> None:
    with stalling_disk(tmp_path / "disk") as disk:
        options = Options(videos=disk.folder, hit=["cam0", "cam1"], allowed=Allowed(missing_pictures=1000))
        with run_of(tmp_path, "disk of the videos stands still for 6 s", options) as run:
            try:
                run.fault_begins()
                disk.freeze()
                time.sleep(6)
                run.wait_for_results(time.time())  # the lines go on meanwhile
            finally:
                disk.thaw()
            run.fault_ends()


def test_the_disk_of_the_video_is_full(tmp_path) -> None:
    with small_disk(tmp_path / "disk", "256k") as folder:
        options = Options(videos=folder, hit=["cam0", "cam1"], exit_code=4, lines_only=True)
        with run_of(tmp_path, "disk of the videos full", options) as run:
            run.fault_begins()
            run.wait_until_told("No space left")
            run.fault_ends()
