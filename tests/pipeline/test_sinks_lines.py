"""Files of lines: CSV and COCO results, files that go on in a next one, and what a kill or a full disk leaves."""

import csv
import json
import os
import subprocess
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import COCO_CLASSES
from pipeline.errors import OutputError
from pipeline.flow.fates import NEWER
from pipeline.sinks import Sink, Target
from pipeline.sinks import coco as coco_module
from pipeline.sinks.coco import CATEGORY_IDS, CocoSink
from pipeline.sinks.csv import COLUMNS, CsvSink
from pipeline.sinks.jsonl import JsonLinesSink
from pipeline.sinks.lines import LineFile
from pipeline.sinks.segments import newest_segment, next_segment, segments
from tests.kit.results import Row, result

CONFIRMED: Row = ((10.123, 20.0, 50.5, 99.999), 0.87654, 0, 3)
TENTATIVE: Row = ((1.0, 2.0, 3.0, 4.0), 0.5, 1, 0)
LOW: Row = ((5.0, 6.0, 8.0, 10.0), 0.1, 0, 0)


def write(sink: Sink, *frames) -> None:
    for frame in frames:
        sink.write(frame, None)
    sink.close()


# --- CSV -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([], []),
        ([LOW], []),
        ([TENTATIVE], ["door,7,0.3,1767225600.123457,,dog,0.5,1.0,2.0,3.0,4.0,0"]),
        (
            [CONFIRMED, TENTATIVE],
            [
                "door,7,0.3,1767225600.123457,3,person,0.8765,10.12,20.0,50.5,100.0,0",
                "door,7,0.3,1767225600.123457,,dog,0.5,1.0,2.0,3.0,4.0,0",
            ],
        ),
    ],
    ids=["empty", "low", "no track", "two"],
)
def test_csv_has_a_line_for_each_object_under_its_header(tmp_path: Path, rows: list[Row], lines: list[str]) -> None:
    frames = [result(rows, seq=7, seconds=0.3), result(seq=8, failure="no answer"), result(seq=9, dropped=NEWER)]
    write(CsvSink(str(tmp_path / "o.csv")), *frames)
    assert (tmp_path / "o.csv").read_text().splitlines() == [",".join(COLUMNS), *lines]


def test_csv_tells_whom_nobody_found(tmp_path: Path) -> None:
    frames = [result([CONFIRMED], seq=seq, predicted=seq == 1) for seq in range(3)]
    write(CsvSink(str(tmp_path / "o.csv")), *frames)
    assert [row["predicted"] for row in csv.DictReader((tmp_path / "o.csv").open())] == ["0", "1", "0"]


def test_csv_quotes_a_name_with_a_comma(tmp_path: Path) -> None:
    frame = result([CONFIRMED])
    object.__setattr__(frame, "class_names", ('a "big", dog', "b"))
    write(CsvSink(str(tmp_path / "o.csv")), frame)
    (row,) = csv.DictReader((tmp_path / "o.csv").open())
    assert row["class"] == 'a "big", dog'


def test_csv_that_goes_on_has_one_header(tmp_path: Path) -> None:
    for seq in range(3):
        write(CsvSink(str(tmp_path / "o.csv"), goes_on=seq > 0), result([CONFIRMED], seq=seq))
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [row["seq"] for row in rows] == ["0", "1", "2"]


# --- COCO ------------------------------------------------------------------------------------------------------------


def coco_of(path: Path) -> list[dict]:
    found = json.loads(path.read_text())
    assert isinstance(found, list)
    return found


def test_coco_results_are_a_whole_list_after_each_frame(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    sink = CocoSink(str(path))
    assert coco_of(path) == []
    told = []
    for seq, rows in enumerate([[], [CONFIRMED], [], [CONFIRMED, TENTATIVE], [LOW]]):
        sink.write(result(rows, seq=seq), None)
        told += [seq] * sum(row[1] >= 0.3 for row in rows)
        assert [each["image_id"] for each in coco_of(path)] == told
    sink.close()
    assert coco_of(path)[0] == {"image_id": 1, "category_id": 1, "bbox": [10.12, 20, 40.38, 80], "score": 0.87654}
    assert coco_of(path)[2]["category_id"] == 2  # these are not COCO's classes: index + 1


def test_coco_results_mark_what_was_not_found(tmp_path: Path) -> None:
    write(CocoSink(str(tmp_path / "o.json")), *(result([CONFIRMED], seq=seq, predicted=seq == 1) for seq in range(3)))
    assert [each.get("predicted") for each in coco_of(tmp_path / "o.json")] == [None, True, None]


def test_the_categories_of_cocos_classes_are_its_public_ids(tmp_path: Path) -> None:
    assert len(CATEGORY_IDS) == len(COCO_CLASSES) == 80
    public = {
        "person": 1,
        "stop sign": 13,
        "bench": 15,
        "backpack": 27,
        "bottle": 44,
        "wine glass": 46,
        "toothbrush": 90,
    }
    assert {name: CATEGORY_IDS[COCO_CLASSES.index(name)] for name in public} == public
    frame = result([((1, 2, 3, 4), 0.9, COCO_CLASSES.index("toothbrush"), 0)])
    object.__setattr__(frame, "class_names", COCO_CLASSES)
    write(CocoSink(str(tmp_path / "o.json")), frame)
    assert coco_of(tmp_path / "o.json")[0]["category_id"] == 90


@pytest.mark.parametrize("before", [0, 1, 3], ids="{} frames before".format)
def test_coco_results_that_were_cut_off_anywhere_go_on_without_loss(tmp_path: Path, before: int) -> None:
    """The bytes of an append reach the file from its beginning on, as far as they come."""
    path = tmp_path / "o.json"
    sink = CocoSink(str(path))
    for seq in range(before):
        sink.write(result([CONFIRMED], seq=seq), None)
    whole = path.read_bytes()
    sink.write(result([TENTATIVE], seq=before), None)
    after = path.read_bytes()
    start = len(whole) - len(coco_module._CLOSING)
    for cut in range(start, len(after) + 1):
        path.write_bytes(after[:cut] + whole[cut:])
        write(CocoSink(str(path), goes_on=True), result([CONFIRMED], seq=99))
        found = [each["image_id"] for each in coco_of(path)]
        is_whole = cut >= len(after) - len(coco_module._CLOSING)
        assert found == [*range(before), *([before] if is_whole else []), 99], cut


def test_coco_results_go_on_in_what_is_no_file_yet(tmp_path: Path) -> None:
    write(CocoSink(str(tmp_path / "new.json"), goes_on=True), result([CONFIRMED]))
    (tmp_path / "empty.json").touch()
    write(CocoSink(str(tmp_path / "empty.json"), goes_on=True), result([CONFIRMED]))
    assert len(coco_of(tmp_path / "new.json")) == len(coco_of(tmp_path / "empty.json")) == 1


@pytest.mark.parametrize("frames", [[], [result([CONFIRMED]), result(), result([TENTATIVE])]], ids=["empty", "some"])
def test_coco_results_to_a_pipe_are_closed_at_the_end(tmp_path: Path, frames: list) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        while True:
            try:
                sink = CocoSink(str(tmp_path / "pipe"))
                break
            except OutputError as error:
                assert "nobody reads" in str(error)
        write(sink, *frames)
        sink.close()
        assert reader.stdout is not None
        assert len(json.loads(reader.stdout.read())) == sum(len(frame.objects()) for frame in frames)


# --- whole lines -----------------------------------------------------------------------------------------------------


@given(lines=st.lists(st.binary(max_size=200).map(lambda line: line.replace(b"\n", b"")), max_size=5), cut=st.binary())
@settings(max_examples=100)
def test_what_was_cut_off_is_taken_away_before_a_file_goes_on(tmp_path_factory, lines, cut) -> None:
    path = tmp_path_factory.mktemp("lines") / "o"
    whole = b"".join(line + b"\n" for line in lines)
    path.write_bytes(whole + cut.replace(b"\n", b"") * 400)
    file = LineFile(str(path), goes_on=True)
    file.append(b"next\n")
    file.close()
    assert path.read_bytes() == whole + b"next\n"


FULL_DISK = """
import resource, signal, sys
from pipeline.errors import OutputError
from pipeline.sinks.lines import LineFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = LineFile(sys.argv[1])
file.append(b"a" * 899 + b"\\n")
for over in (b"", b"\\n"):
    try:
        file.append(b"b" * 200 + b"\\n", over=over)
    except OutputError:
        print("told")
"""


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """The limit of a file's size is met in the middle of a line, as the end of a disk is."""
    import sys

    from tests.kit.places import ROOT

    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "o")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "told\ntold\n", done.stderr
    assert (tmp_path / "o").read_bytes() == b"a" * 899 + b"\n"


# --- files that go on in a next one ----------------------------------------------------------------------------------


def seqs_in(path: Path) -> list[int]:
    return [json.loads(line)["seq"] for line in path.read_text().splitlines()]


def in_order(path: Path) -> list[Path]:
    return [found for _, found in sorted(segments(str(path)).items())]


@pytest.mark.parametrize(
    ("names", "newest", "after"),
    [
        ([], "o.jsonl", "o.1.jsonl"),
        (["o.jsonl"], "o.jsonl", "o.1.jsonl"),
        (["o.jsonl", "o.1.jsonl", "o.2.jsonl"], "o.2.jsonl", "o.3.jsonl"),
        (["o.3.jsonl", "o.10.jsonl"], "o.10.jsonl", "o.11.jsonl"),  # by number, not by letters; earlier ones are gone
        (["o.1.jsonl", "o.jsonl"], "o.jsonl", "o.2.jsonl"),  # begun anew over an earlier run's first
        (["p.7.jsonl", "o.x.jsonl", "o.01.jsonl", "o.1.csv", "xo.1.jsonl"], "o.jsonl", "o.1.jsonl"),
    ],
    ids=["empty", "one", "three", "ten", "anew", "others"],
)
def test_segments_are_named_one_after_the_other(tmp_path: Path, names: list[str], newest: str, after: str) -> None:
    for age, name in enumerate(names):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(age, age))
    path = str(tmp_path / "o.jsonl")
    assert (newest_segment(path), next_segment(path)) == (str(tmp_path / newest), str(tmp_path / after))


def test_lines_go_on_in_a_next_file_and_none_is_lost_or_doubled(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    write(JsonLinesSink(str(path), rotate_bytes=1000), *(result([CONFIRMED] * (seq % 4), seq=seq) for seq in range(60)))
    files = in_order(path)
    assert len(files) > 10 and files[0] == path
    assert list(chain(*map(seqs_in, files))) == list(range(60))
    assert all(file.stat().st_size <= 1000 for file in files)


def test_a_line_larger_than_a_file_may_be_has_one_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    write(JsonLinesSink(str(path), rotate_bytes=50), *(result(seq=seq) for seq in range(3)))
    assert list(map(seqs_in, in_order(path))) == [[0], [1], [2]]


def test_csv_goes_on_in_a_next_file_under_its_header(tmp_path: Path) -> None:
    path = tmp_path / "o.csv"
    write(CsvSink(str(path), rotate_bytes=300), *(result([CONFIRMED], seq=seq) for seq in range(20)))
    rows = [row for file in in_order(path) for row in csv.DictReader(file.open())]
    assert [int(row["seq"]) for row in rows] == list(range(20)) and len(in_order(path)) > 5


def test_only_the_newest_files_are_kept_whoever_wrote_the_others(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    for name in ("o.3.jsonl", "o.9.jsonl"):  # an earlier run's
        (tmp_path / name).write_text('{"seq":-1}\n')
        os.utime(tmp_path / name, ns=(1, 1))
    (tmp_path / "other.1.jsonl").write_text("not ours")
    write(JsonLinesSink(str(path), rotate_bytes=1000, keep_files=3), *(result(seq=seq) for seq in range(40)))
    files = in_order(path)
    assert len(files) == 3 and (tmp_path / "other.1.jsonl").exists()
    kept = list(chain(*map(seqs_in, files)))
    assert kept == list(range(kept[0], 40)) and kept[0] > 0


@pytest.mark.parametrize("keep_files", [None, 2])
def test_after_a_restart_the_last_file_goes_on(tmp_path: Path, keep_files: int | None) -> None:
    """Also where its last line was cut off, which is then missing, and where the next file was just begun."""
    path = tmp_path / "o.jsonl"
    seqs = iter(range(100))
    lost = []
    for life in range(6):
        sink = JsonLinesSink(str(path), life > 0, rotate_bytes=1000, keep_files=keep_files)
        for _ in range(5):
            sink.write(result(seq=next(seqs)), None)
        if life == 2:
            lost.append(next(seqs))
            with Path(sink.path or "").open("a") as file:
                file.write(f'{{"schema":2,"kind":"frame","source":"door","seq":{lost[0]}')
        if life == 4:
            Path(next_segment(str(path))).touch()
    files = in_order(path)
    kept = list(chain(*map(seqs_in, files)))
    assert kept == [seq for seq in range(kept[0], 31) if seq not in lost]
    assert len(files) == keep_files if keep_files else kept[0] == 0


def test_what_is_no_file_has_no_segments(tmp_path: Path) -> None:
    write(JsonLinesSink("/dev/null", rotate_bytes=10), *(result(seq=seq) for seq in range(3)))
    assert not Path("/dev/null.1").exists()


def test_a_target_says_how_large_a_file_may_be(tmp_path: Path) -> None:
    from pipeline.sinks import csv as csv_sink
    from pipeline.sinks import jsonl

    for module in (jsonl, csv_sink):
        path = tmp_path / module.__name__
        write(
            module.open_sink(Target(str(path), rotate_bytes=200, keep_files=2)),
            *(result([CONFIRMED], seq=seq) for seq in range(9)),
        )
        assert len(segments(str(path))) == 2
