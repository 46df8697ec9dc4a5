"""The pictures of a run, recorded and published: its process is killed, its server is started anew, and it goes on.

CENTERSTREAM_PUBLISHED_SECONDS=300 looks for five minutes at what is published.
"""

import os
import re
import signal
from itertools import pairwise
from pathlib import Path

import av
import av.error

from pipeline.sinks.shelf import began_unix
from tests.kit.account import account
from tests.kit.harness import QUICK, QUICK_ENGINE, finish, json_lines, stage_pids, start, wait_until
from tests.kit.media import count_pictures, readable_frames
from tests.kit.places import CLIP
from tests.kit.reading import from_server

SECRET = "pa55w0rd"


def test_people_are_recorded_and_a_killed_recorder_goes_on_in_the_next_file(tmp_path: Path) -> None:
    folder = tmp_path / "recordings" / "street"
    process = start(
        CLIP, "--name", "street", "--jsonl", tmp_path / "o.jsonl", "--also", f"record:{tmp_path}/recordings",
        "--set", "deliver.record.classes=[person]", "--max-frames", 90, "--engine", QUICK_ENGINE,
        "--input", "320x256",
    )  # fmt: skip
    wait_until(lambda: folder.exists() and any(readable(path) > 10 for path in folder.iterdir()), what="a recording")
    os.kill(stage_pids(process.pid)["deliver"], signal.SIGKILL)
    code, errors = finish(process, 240)
    assert account(errors).captured == 90 and account(errors).in_flight == 0, errors
    assert code == (4 if "frames were lost: stage deliver was killed by SIGKILL" in errors else 0), errors
    first, second = sorted(folder.iterdir())
    assert began_unix(first.name) and readable(first) > 10 and count_pictures(second) > 10
    delivered = [line for line in json_lines(tmp_path / "o.jsonl") if line["status"] == "ok"]
    assert readable(first) + count_pictures(second) >= len(delivered) - 10  # the frames that it took with it
    (line,) = json_lines(tmp_path / "recordings" / "events.jsonl")
    assert line["file"] == f"street/{second.name}" and line["classes"]["person"] >= 2
    assert re.search(r"wrote \S*/recordings/street: \d+ frames, in 1 file, by libx264", errors)


def readable(path: Path) -> int:
    try:
        return readable_frames(path)
    except (OSError, av.error.InvalidDataError):  # so early that there is no header
        return 0


def test_a_run_publishes_to_a_server_that_is_started_anew(gst_relay, tmp_path: Path) -> None:
    server = gst_relay(name="door", user="cam", password=SECRET)
    process = start(
        "lavfi:testsrc2=size=320x240:rate=10", "--realtime", "--name", "door", *QUICK,
        "--jsonl", tmp_path / "o.jsonl",
        "--also", server.url_for("cam", SECRET).replace("/door", "/{source}"),
    )  # fmt: skip
    frames = round(10 * float(os.environ.get("CENTERSTREAM_PUBLISHED_SECONDS", "2.4")) / 2)
    for again in (False, True):
        if again:
            server.kill()
            server = gst_relay(name="door", user="cam", password=SECRET, port=server.port)
        shown = from_server(server.live_url.replace("//", f"//cam:{SECRET}@"), frames)
        assert {frame.image_bgr.shape for frame in shown} == {(240, 320, 3)}
        steps = [round(10 * (b.seconds - a.seconds), 1) for a, b in pairwise(shown)]
        assert all(step >= 1 and step == round(step) for step in steps)  # a busy machine may drop some
        print(f"{len(shown)} pictures, {sum(steps) - len(steps):.0f} missed of those between")
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code == 0 and account(errors).in_flight == 0, errors
    told = re.search(rf"wrote rtsp://\*\*\*@127.0.0.1:{server.port}/…: (\d+) frames, (\d+) missed", errors)
    assert told and "missed because it was too slow or away, in 2 sessions, by libx264" in errors, errors
    assert int(told[1]) >= 2 * frames and re.search(r"was lost: [^;\n]+; it is tried again", errors), errors
    assert SECRET not in errors + (tmp_path / "o.jsonl").read_text()
