"""What a camera may send: other sizes, other codecs, time stamps that leap, too much, too little, always the same."""

import time
from itertools import pairwise

import pytest

from tests.whole.faults.rig import Options, run_of
from tests.whole.witness.account import Allowed

pytestmark = pytest.mark.faults

ONE = Options(hit=["cam0"])


def test_key_frames_are_far_apart(tmp_path) -> None:
    options = Options(site=("--rate", 10, "--gop", 100), hit=["cam0"])
    with run_of(tmp_path, "hung up on, key frames 10 s apart", options) as run:
        run.fault_begins()
        run.site.tell("cam0 hangup now")
        run.fault_ends(["cam0"], run.is_after_outage)


def test_the_resolution_changes(tmp_path) -> None:
    with run_of(tmp_path, "resolution 320×240 to 640×480 and back", ONE) as run:
        run.fault_begins()
        for width, height in ((640, 480), (320, 240)):
            run.site.tell(f"cam0 size {width}x{height}")
            run.fault_ends(["cam0"], lambda line, width=width: line["width"] == width)


def test_the_codec_changes(tmp_path) -> None:
    with run_of(tmp_path, "codec H.264 to H.265 and back", ONE) as run:
        for codec in ("h265", "h264"):
            run.fault_begins()
            run.site.tell(f"cam0 codec {codec}")
            run.fault_ends(["cam0"], run.is_after_outage)


@pytest.mark.parametrize(
    ("leap", "name"),
    [("86400", "time stamps a day ahead"), ("-3600", "time stamps an hour back"), ("wrap", "time stamps pass 2³²")],
)
def test_time_stamps_leap(leap: str, name: str, tmp_path) -> None:
    options = Options(hit=["cam0"], allowed=Allowed(new_clocks=1))  # 2³², too, is come close to by a leap
    with run_of(tmp_path, name, options) as run:
        run.fault_begins()
        run.site.tell(f"cam0 stamps {leap}")
        time.sleep(5)
        run.fault_ends(["cam0"])
        times = [line["pts_seconds"] for line in run.lines("cam0") if line.get("kind") != "signal"]
        assert all(earlier < later for earlier, later in pairwise(times))
        assert times[-1] < 120
    assert any("cam0: 1 time stamps were repaired" in line for line in run.errors), run.told()


def test_far_too_many_frames(tmp_path) -> None:
    with run_of(tmp_path, "200 frames/s for 8 s", ONE) as run:
        run.fault_begins()
        run.site.tell("cam0 rate 200")
        time.sleep(8)
        run.site.tell("cam0 rate 10")
        run.fault_ends()


def test_hardly_any_frames(tmp_path) -> None:
    with run_of(tmp_path, "one frame a minute for 12 s", ONE) as run:
        run.fault_begins()
        run.site.tell("cam0 rate 0.0167")
        time.sleep(12)
        run.site.tell("cam0 rate 10")
        run.fault_ends(["cam0"])


def test_always_the_same_picture(tmp_path) -> None:
    options = Options(hit=["cam0"], source={"frozen_seconds": 3.0})
    with run_of(tmp_path, "the same picture for 3 s and more", options) as run:
        run.fault_begins()
        run.site.tell("cam0 frozen on")
        run.wait_for_signal("cam0", "frozen")
        run.site.tell("cam0 frozen off")
        run.wait_for_signal("cam0", "live")
        run.fault_ends(["cam0"])
