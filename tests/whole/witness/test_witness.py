"""The witness, on made-up outputs of a run: it passes what is right, and finds each thing that is wrong."""

import ast
import json
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.kit.places import ROOT
from tests.whole.witness import barcode
from tests.whole.witness.__main__ import witness
from tests.whole.witness.account import NOTHING, Allowed

BEGAN = 1_790_000_000.0  # Unix seconds of seq 0
SOURCE = 3
DROPPED, FAILED, OUTAGE_AT, LAST = (5, 6), 9, 14, 23  # the outage of 5 s is before seq 14, the second file begins at 18
SECOND_FILE_AT = 18


@dataclass(frozen=True)
class Shown:
    """A picture of the video, and what it says."""

    pts_seconds: float
    number: int
    source: int = SOURCE
    is_grey: bool = False
    is_readable: bool = True
    file: int = 0


def moment(seq: int) -> float:
    """Seconds from the first frame."""
    return seq / 10 + (5.0 if seq >= OUTAGE_AT else 0.0)


def number(seq: int) -> int:
    return round((BEGAN + moment(seq)) * 1000) % 2**32


def frame_line(seq: int) -> dict:
    line = {
        "schema": 2,
        "kind": "frame",
        "source": "cam0",
        "seq": seq,
        "pts_seconds": round(moment(seq), 6),
        "captured_unix": BEGAN + moment(seq) + 0.107 + 0.003 * (seq % 3),
        "width": 320,
        "height": 240,
        "status": "ok",
        "latency_ms": 40.0,
        "objects": [],
    }
    if seq in DROPPED:
        line |= {"status": "dropped", "stage": "gather", "reason": "a newer frame came"}
    if seq == FAILED:
        line |= {"status": "failed", "reason": "the model gave no answer"}
    return line


def signal_line(state: str) -> dict:
    outage = {"state": "lost", "cause": "no data", "start_unix": BEGAN, "end_unix": BEGAN, "attempts": 2}
    line = {"schema": 2, "kind": "signal", "source": "cam0", "seq": OUTAGE_AT, "state": state, "cause": "no data"}
    return line | {"at_unix": BEGAN, "outage": outage if state == "live" else None}


class Run:
    """What a run left: its lines, its pictures, what the camera sent."""

    def __init__(self) -> None:
        self.lines = [frame_line(seq) for seq in range(LAST + 1)]
        self.lines[OUTAGE_AT:OUTAGE_AT] = [signal_line("lost"), signal_line("live")]
        self.shown = [self._picture(seq) for seq in range(LAST + 1) if seq not in DROPPED]
        before = next(i for i, shown in enumerate(self.shown) if shown.number == number(OUTAGE_AT))
        self.shown[before:before] = [
            Shown(moment(OUTAGE_AT - 1) + step / 2, number(OUTAGE_AT - 1), is_grey=True) for step in range(1, 8)
        ]
        self.sent = [number(seq) for seq in range(OUTAGE_AT)]
        self.sent += [number(OUTAGE_AT - 1) + 100 * step for step in range(1, 51)]
        self.sent += [number(seq) for seq in range(OUTAGE_AT, LAST + 1)]

    @staticmethod
    def _picture(seq: int) -> Shown:
        file = int(seq >= SECOND_FILE_AT)
        return Shown(moment(seq) - (moment(SECOND_FILE_AT) if file else 0.0), number(seq), file=file)

    def line(self, seq: int) -> dict:
        return next(line for line in self.lines if line["seq"] == seq and line.get("kind") != "signal")

    def at(self, seq: int) -> int:
        """Where the picture of `seq` is among those shown."""
        return next(i for i, shown in enumerate(self.shown) if shown.number == number(seq) and not shown.is_grey)

    def write(self, folder: Path) -> tuple[list[Path], Path, Path]:
        """The videos, the lines, what was sent."""
        videos = [folder / "cam0.mp4", folder / "cam0.1.mp4"]
        for file, path in enumerate(videos):
            write_shown(path, [shown for shown in self.shown if shown.file == file])
        lines, sent = folder / "all.jsonl", folder / "sent.jsonl"
        lines.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        sent.write_text("".join(json.dumps({"source": SOURCE, "number": one}) + "\n" for one in self.sent))
        return [video for video in videos if video.exists()], lines, sent

    def problems(self, folder: Path, allowed: Allowed = NOTHING) -> list[str]:
        videos, lines, sent = self.write(folder)
        [account], problems = witness([lines], videos, {"cam0": SOURCE}, sent, allowed)
        return problems + account.problems


def write_shown(path: Path, pictures: list[Shown]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for shown in pictures:
            frame = av.VideoFrame.from_ndarray(drawn(shown), "bgr24")
            frame.pts, frame.time_base = round(shown.pts_seconds * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def drawn(shown: Shown) -> np.ndarray:
    picture = np.full((240, 320, 3), 90, np.uint8)
    barcode.draw(picture, shown.source, shown.number)
    if not shown.is_readable:
        picture[:, 20:300] = 128
    if shown.is_grey:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return picture


def test_a_right_run_passes(tmp_path) -> None:
    videos, lines, sent = Run().write(tmp_path)
    [account], problems = witness([lines], videos, {"cam0": None}, sent)
    assert problems + account.problems == []
    assert account.by_status == {"ok": LAST + 1 - 3, "failed": 1, "dropped": 2} and account.frames == LAST + 1
    assert account.dropped == {"gather: a newer frame came": 2}
    assert (account.pictures, account.grey, account.outages) == (LAST + 1 - 2, 7, 1)
    assert (account.lost_in_outages, account.lost_on_network) == (50, 0)


def missing_line(run: Run) -> None:
    run.lines.remove(run.line(8))
    del run.shown[run.at(8)]


def missing_lines_of_dropped(run: Run) -> None:
    run.lines = [line for line in run.lines if line.get("status") != "dropped"]


def doubled_line(run: Run) -> None:
    run.lines.insert(8, run.line(8))


def swapped_lines(run: Run) -> None:
    run.lines[7], run.lines[8] = run.lines[8], run.lines[7]


def dropped_without_reason(run: Run) -> None:
    del run.line(5)["reason"]


def failed_without_reason(run: Run) -> None:
    del run.line(FAILED)["reason"]


def signal_too_late(run: Run) -> None:
    at = next(i for i, line in enumerate(run.lines) if line.get("state") == "live")
    run.lines.insert(at + 1, run.lines.pop(at))


def broken_line(run: Run) -> None:
    del run.line(8)["status"]


def missing_picture(run: Run) -> None:
    del run.shown[run.at(11)]


def missing_first_picture(run: Run) -> None:
    del run.shown[0]


def missing_first_file(run: Run) -> None:
    """Its writer was killed before it had written one picture."""
    run.shown = [shown for shown in run.shown if shown.file == 1]


def missing_picture_after_an_outage(run: Run) -> None:
    del run.shown[run.at(OUTAGE_AT)]


def missing_picture_of_the_failed(run: Run) -> None:
    del run.shown[run.at(FAILED)]


def missing_first_of_the_second_file(run: Run) -> None:
    del run.shown[run.at(SECOND_FILE_AT)]


def only_shown_grey(run: Run) -> None:
    run.shown[run.at(11)] = replace(run.shown[run.at(11)], is_grey=True)


def doubled_picture(run: Run) -> None:
    at = run.at(11)
    run.shown.insert(at + 1, replace(run.shown[at], pts_seconds=run.shown[at].pts_seconds + 0.05))


def picture_of_a_dropped_frame(run: Run) -> None:
    run.shown.insert(run.at(7), Shown(moment(6), number(6)))


def put(run: Run, seq: int, **changes: object) -> None:
    """The picture of `seq`, found by its time in the video, otherwise."""
    file = int(seq >= SECOND_FILE_AT)
    pts_seconds = moment(seq) - (moment(SECOND_FILE_AT) if file else 0.0)
    at = next(i for i, shown in enumerate(run.shown) if (shown.file, shown.pts_seconds) == (file, pts_seconds))
    run.shown[at] = replace(run.shown[at], **changes)


def swapped_pictures(run: Run) -> None:
    put(run, 11, number=number(12))
    put(run, 12, number=number(11))


def the_picture_before_again(run: Run) -> None:
    put(run, 11, number=number(10))


def the_next_picture_already(run: Run) -> None:
    put(run, 11, number=number(12))


def a_picture_of_long_ago(run: Run) -> None:
    put(run, 11, number=number(2))


def a_picture_of_a_dropped_frame_instead(run: Run) -> None:
    put(run, 7, number=number(6))


def pictures_one_too_new_from_here(run: Run) -> None:
    for seq in range(11, OUTAGE_AT):
        put(run, seq, number=number(seq) + 100)


def a_picture_of_the_future(run: Run) -> None:
    run.sent.append(number(LAST) + 1000)
    put(run, LAST, number=number(LAST) + 1000)


def a_picture_that_nobody_sent(run: Run) -> None:
    put(run, 11, number=number(11) + 3)


def a_picture_of_another_camera(run: Run) -> None:
    put(run, 11, source=SOURCE + 1)


def a_picture_past_reading(run: Run) -> None:
    put(run, 11, is_readable=False)


@pytest.mark.parametrize(
    ("harm", "finding"),
    [
        (missing_line, "seq 8 is silent"),
        (missing_lines_of_dropped, "seq 5 to 6 are silent"),
        (doubled_line, "seq 8 is told 2 times"),
        (swapped_lines, "seq 7 comes after 8"),
        (dropped_without_reason, "seq 5 was dropped without a stage or a reason"),
        (failed_without_reason, "seq 9 failed without a reason"),
        (signal_too_late, "signal live before seq 14 comes after seq 14"),
        (broken_line, "line 9 is no line of schema 1 or 2"),
        (missing_picture, "seq 11 (ok) has no picture"),
        (missing_first_picture, "seq 0 (ok) has no picture"),
        (missing_first_file, "seq 17 (ok) has no picture"),
        (missing_picture_after_an_outage, "seq 14 (ok) has no picture"),
        (missing_picture_of_the_failed, "seq 9 (failed) has no picture"),
        (missing_first_of_the_second_file, "seq 18 (ok) has no picture"),
        (only_shown_grey, "seq 11 (ok) has no picture"),
        (doubled_picture, "belongs to no line"),
        (picture_of_a_dropped_frame, "belongs to no line"),
        (swapped_pictures, "seq 12 shows an older picture than seq 11"),
        (the_picture_before_again, "seq 11 shows the same picture as seq 10"),
        (the_next_picture_already, "seq 12 shows the same picture as seq 11"),
        (a_picture_of_long_ago, "seq 11 shows an older picture than seq 10"),
        (a_picture_of_a_dropped_frame_instead, "seq 7 shows a picture of another moment"),
        (pictures_one_too_new_from_here, "seq 11 shows a picture of another moment"),
        (a_picture_of_the_future, f"seq {LAST} shows a picture made after it was captured"),
        (a_picture_that_nobody_sent, "which no camera sent"),
        (a_picture_of_another_camera, "seq 11 shows a picture of camera 4, not 3"),
        (a_picture_past_reading, "the bar code of seq 11 (picture 9 of file 0) cannot be read"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_wrong_is_found(harm, finding: str, tmp_path) -> None:
    run = Run()
    harm(run)
    problems = run.problems(tmp_path)
    assert any(finding in problem for problem in problems), problems


@pytest.mark.parametrize("harm", [missing_picture, missing_first_of_the_second_file])
def test_one_missing_picture_is_one_finding_and_can_be_allowed(harm, tmp_path) -> None:
    run = Run()
    harm(run)
    assert len(run.problems(tmp_path)) == 1
    assert run.problems(tmp_path, Allowed(missing_pictures=1)) == []


def test_a_first_file_without_pictures_leaves_the_second_in_place(tmp_path) -> None:
    run = Run()
    missing_first_file(run)
    missing = SECOND_FILE_AT - len(DROPPED)
    assert len(run.problems(tmp_path)) == missing
    assert run.problems(tmp_path, Allowed(missing_pictures=missing)) == []


def test_how_long_an_outage_was_is_known_only_about(tmp_path) -> None:
    run = Run()
    for line in run.lines:
        if line["seq"] >= OUTAGE_AT and "pts_seconds" in line:
            line["pts_seconds"] -= 0.8
            line["captured_unix"] -= 0.08  # and the one before it came late
    run.line(OUTAGE_AT - 1)["captured_unix"] += 0.7
    for i in range(run.at(OUTAGE_AT), run.at(SECOND_FILE_AT)):
        run.shown[i] = replace(run.shown[i], pts_seconds=run.shown[i].pts_seconds - 0.8)
    assert run.problems(tmp_path) == []


def test_a_damaged_picture_can_be_allowed(tmp_path) -> None:
    run = Run()
    a_picture_past_reading(run)
    put(run, 16, number=number(15))
    assert run.problems(tmp_path) and run.problems(tmp_path, Allowed(damage=True)) == []


def test_a_picture_that_the_camera_repeats_may_be_repeated(tmp_path) -> None:
    run = Run()
    the_picture_before_again(run)
    run.sent[run.sent.index(number(11))] = number(10)
    assert run.problems(tmp_path) == []


def test_what_was_lost_on_the_network_is_counted(tmp_path) -> None:
    run = Run()
    at = run.sent.index(number(12))
    run.sent[at:at] = [number(11) + 25, number(11) + 50]
    videos, lines, sent = run.write(tmp_path)
    [account], _ = witness([lines], videos, {"cam0": SOURCE}, sent)
    assert (account.lost_in_outages, account.lost_on_network) == (50, 2)


def test_a_clock_that_was_repaired_is_no_finding(tmp_path) -> None:
    run = Run()
    for line in run.lines:
        if line["seq"] >= 11 and "pts_seconds" in line:
            line["pts_seconds"] -= 0.06  # a step of 40 ms where 100 were
    for i in range(run.at(11), run.at(SECOND_FILE_AT)):
        run.shown[i] = replace(run.shown[i], pts_seconds=run.shown[i].pts_seconds - 0.06)
    assert run.problems(tmp_path) == []


def test_one_new_clock_that_began_late_can_be_allowed(tmp_path) -> None:
    run = Run()
    for line in run.lines:
        if line["seq"] >= 11 and "pts_seconds" in line:
            line["pts_seconds"] += 0.09  # a step of 190 ms where 100 were, for the machine was busy
    run.line(11)["captured_unix"] += 0.09
    for i in range(run.at(11), run.at(SECOND_FILE_AT)):
        run.shown[i] = replace(run.shown[i], pts_seconds=run.shown[i].pts_seconds + 0.09)
    [problem] = run.problems(tmp_path)
    assert "seq 11 shows a picture of another moment" in problem
    assert run.problems(tmp_path, Allowed(new_clocks=1)) == []


def test_schema_1_tells_no_drops(tmp_path) -> None:
    run = Run()
    run.lines = [line | {"schema": 1} for line in run.lines if line.get("status") in ("ok", "failed")]
    for line in run.lines:
        del line["kind"]
    assert run.problems(tmp_path) == ["seq 5 to 6 are silent"]


@pytest.mark.parametrize(("harm", "code"), [(None, 0), (missing_line, 1)])
def test_the_command_says_it_in_one_line_and_its_exit_code(harm, code: int, tmp_path) -> None:
    run = Run()
    if harm:
        harm(run)
    videos, lines, sent = run.write(tmp_path)
    words = [word for video in videos for word in ("--video", str(video))]
    words += ["--lines", str(lines), "--source", "cam0", "--sent", str(sent)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.whole.witness", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == code, done.stderr
    last = "NOT ALL FRAMES ACCOUNTED FOR: 1 findings" if harm else "ALL FRAMES ACCOUNTED FOR"
    assert done.stdout.splitlines()[-1] == last
    assert ("cam0: seq 8 is silent" in done.stdout) == bool(harm)


def test_it_imports_nothing_of_the_product() -> None:
    for path in (ROOT / "tests/whole/witness").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {str(name).split(".")[0] for name in names} & {"pipeline", "models", "train", "configs"}, path
