"""The harness for trackers: what it reads is what is there, what is neither right nor wrong counts for nothing, the
synthetic family is what it says, and no time is told of a tracker that its plain twin contradicts."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.mot import __main__ as mot
from benchmarks.mot import crossval, follow, score, speed, synthetic
from benchmarks.mot.ours import make_twin, make_with, thresholds
from benchmarks.mot.sequences import ONE_CLASS, Sequence, by_class, read, read_all, thinned, to_xyxy, write
from benchmarks.mot.synthetic import Theme
from benchmarks.mot.trackers import Thresholds, make_of
from tests.kit.places import ROOT

VENV = os.environ.get("CENTERSTREAM_MOT_VENV")
BOX = (100, 100, 40, 80)
ASIDE = (400, 100, 40, 80)
KITTI = {1: "car", 2: "pedestrian"}


def folder_with(place: Path, detections: str, truth: str, info: str) -> Path:
    folder = place / "group/sequence"
    folder.mkdir(parents=True)
    for name, text in (("det.txt", detections), ("gt.txt", truth), ("info.json", info)):
        (folder / name).write_text(text)
    return folder


def sequence_of(truth: list, classes: dict[int, str] = ONE_CLASS, detections: list | None = None) -> Sequence:
    """Two frames; rows as a Sequence has them."""
    tables = (np.array(rows or [], float).reshape(-1, width) for rows, width in ((detections, 7), (truth, 8)))
    return Sequence("group", "sequence", 10.0, 2, classes, *tables)


@pytest.mark.parametrize(
    ("detections", "truth", "info", "frame_count", "classes", "found", "true"),
    [
        ("", "", '{"fps": 5}', 0, ONE_CLASS, [], []),
        ("", "", '{"fps": 5, "frames": 7}', 7, ONE_CLASS, [], []),
        ("2,-1,1,2,3,4,0.5\n", "", '{"fps": 5}', 2, ONE_CLASS, [[2, 1, 2, 3, 4, 0.5, 1]], []),
        (
            "1,-1,1,2,3,4,0.5,-1,-1,-1\n",  # MOT15: no classes
            "3,7,1,2,3,4,1,-1,-1,-1\n",
            '{"fps": 5, "classes": {"1": "pedestrian"}}',
            3,
            {1: "pedestrian"},
            [[1, 1, 2, 3, 4, 0.5, 1]],
            [[3, 7, 1, 2, 3, 4, 1, 1]],
        ),
        (
            "1,-1,1,2,3,4,0.5,2,-1\n",  # KITTI: words after the class
            "1,7,1,2,3,4,1,2,Pedestrian\n1,-1,0,0,9,9,0,0,DontCare\n1,8,1,2,3,4,0,-1,Van\n",
            '{"fps": 5, "classes": {"1": "car", "2": "pedestrian"}}',
            1,
            KITTI,
            [[1, 1, 2, 3, 4, 0.5, 2]],
            [[1, 7, 1, 2, 3, 4, 1, 2], [1, -1, 0, 0, 9, 9, 0, 0], [1, 8, 1, 2, 3, 4, 0, -1]],
        ),
    ],
)
def test_a_sequence_is_read_as_it_is_written_down(
    tmp_path, detections, truth, info, frame_count, classes, found, true
) -> None:
    sequence = read(folder_with(tmp_path, detections, truth, info))
    assert (sequence.group, sequence.name, sequence.frames_per_second) == ("group", "sequence", 5.0)
    assert (sequence.frame_count, sequence.classes) == (frame_count, classes)
    assert sequence.detections.tolist() == found and sequence.truth.tolist() == true
    write(sequence, tmp_path / "again")
    again = read(tmp_path / "again/group/sequence")
    assert again.detections.tolist() == found and again.truth.tolist() == true
    assert again.frame_count == frame_count and again.classes == classes


@pytest.mark.parametrize(
    ("detections", "truth", "info", "told"),
    [
        ("", "", "", "info.json"),
        ("", "", "{}", "fps"),
        ("", "", '{"fps": 0}', "fps"),
        ("1,2,3\n", "", '{"fps": 5}', "det.txt"),
        ("", "frame,id\n", '{"fps": 5}', "gt.txt"),
    ],
)
def test_a_sequence_that_cannot_be_read_says_which_file_is_wrong(tmp_path, detections, truth, info, told) -> None:
    with pytest.raises(ValueError, match=told):
        read(folder_with(tmp_path, detections, truth, info))


def test_a_folder_without_sequences_says_what_it_should_have(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"GROUP/SEQUENCE/det\.txt"):
        read_all(tmp_path)


def test_each_frame_has_its_detections_best_first_at_its_time() -> None:
    rows = [[2, *BOX, 0.2, 1], [2, *ASIDE, 0.9, 1], [2, *BOX, 0.05, 1]]
    none, two = sequence_of([], detections=rows).frames(0.1)
    assert none.boxes_xyxy.shape == (0, 4) and none.pts_seconds == 0
    assert two.pts_seconds == 0.1 and two.scores.tolist() == pytest.approx([0.9, 0.2])
    assert two.boxes_xyxy.tolist() == [[400, 100, 440, 180], [100, 100, 140, 180]]


@pytest.mark.parametrize(
    ("count", "step", "kept"),
    [(0, 3, []), (1, 3, [1]), (3, 3, [1]), (4, 3, [1, 4]), (4, 1, [1, 2, 3, 4]), (7, 6, [1, 7])],
)
def test_a_slower_camera_sees_every_so_manyth_frame_at_the_same_seconds(count, step, kept) -> None:
    rows = [[number, *BOX, 0.5, 1] for number in range(1, count + 1)]
    whole = replace(sequence_of([], detections=rows), frame_count=count)
    slower = thinned(whole, step)
    seconds = [frame.pts_seconds for frame in slower.frames(0)]
    assert seconds == pytest.approx([(number - 1) / 10 for number in kept])
    assert slower.detections[:, 0].tolist() == list(range(1, len(kept) + 1))


def test_classes_are_measured_apart_with_what_is_neutral_in_each() -> None:
    truth = [[1, 1, *BOX, 1, 1], [1, 2, *BOX, 1, 2], [1, 3, *BOX, 0, -1], [1, -1, *BOX, 0, 0]]
    found = [[1, *BOX, 0.5, 1], [1, *ASIDE, 0.5, 2]]
    cars, people = by_class(sequence_of(truth, KITTI, found))
    assert (cars.group, people.group) == ("group-car", "group-pedestrian")
    assert cars.truth[:, 1].tolist() == [1, 3, -1] and people.truth[:, 1].tolist() == [2, 3, -1]
    assert cars.detections[:, 6].tolist() == [1] and people.detections[:, 6].tolist() == [2]


REGION_AROUND = [1, -1, 50, 50, 300, 300, 0, 0]


@pytest.mark.parametrize(
    ("truth", "classes", "found", "true_count", "found_count"),
    [
        ([], ONE_CLASS, [], 0, 0),
        ([], ONE_CLASS, [BOX], 0, 1),
        ([[1, 1, *BOX, 1, 1]], ONE_CLASS, [], 1, 0),
        ([[1, 1, *BOX, 1, 1]], ONE_CLASS, [BOX, ASIDE], 1, 2),
        ([[1, 1, *BOX, 0, 8]], ONE_CLASS, [BOX], 0, 0),  # a distractor
        ([[1, 1, *BOX, 0, 8]], ONE_CLASS, [ASIDE], 0, 1),
        ([[1, 1, *BOX, 0, 9]], ONE_CLASS, [BOX], 0, 1),  # not counted, but no distractor either
        ([[1, 1, *BOX, 1, 2]], {2: "pedestrian"}, [BOX], 1, 1),  # 2 is a class of its own here
        ([[1, 1, *BOX, 0, -1]], {2: "pedestrian"}, [BOX], 0, 0),
        ([[1, 1, *BOX, 0, -1], [1, 2, *BOX, 1, 1]], ONE_CLASS, [BOX, BOX], 1, 1),
        ([REGION_AROUND], ONE_CLASS, [BOX, ASIDE], 0, 1),
        ([REGION_AROUND, [1, 1, *BOX, 1, 1]], ONE_CLASS, [BOX], 1, 1),  # what is found there is right
        ([[1, -1, 50, 50, 70, 300, 0, 0]], ONE_CLASS, [BOX], 0, 1),  # half of it lies in the region, not more
    ],
)
def test_what_is_neither_right_nor_wrong_counts_for_nothing(truth, classes, found, true_count, found_count) -> None:
    tracks = np.array([[1, number, *box] for number, box in enumerate(found)], float).reshape(-1, 6)
    data = score.compared(sequence_of(truth, classes), tracks)
    assert (data["num_gt_dets"], data["num_tracker_dets"]) == (true_count, found_count)
    assert [one.shape for one in data["similarity_scores"]] == [(true_count, found_count), (0, 0)]


@pytest.mark.parametrize(
    ("rows", "deta", "assa", "mota", "idf1", "switches"),
    [
        ([], 0, 0, 0, 0, 0),
        ([[1, 5, *BOX], [2, 5, *BOX]], 100, 100, 100, 100, 0),
        ([[1, 5, *BOX], [2, 6, *BOX]], 100, 50, 50, 50, 1),
        ([[1, 5, *BOX], [2, 5, *ASIDE]], 100 / 3, 100 / 3, 0, 50, 0),
        ([[1, 5, *BOX], [2, 5, *BOX], [2, 6, *ASIDE]], 200 / 3, 100, 50, 80, 0),
    ],
)
def test_tracks_are_scored_as_the_measures_are_defined(rows, deta, assa, mota, idf1, switches) -> None:
    sequence = sequence_of([[1, 1, *BOX, 1, 1], [2, 1, *BOX, 1, 1]])
    measure = score.motmetrics()
    told = measure.figures([measure.count(score.compared(sequence, np.array(rows, float).reshape(-1, 6)))])
    expected = {"HOTA": (deta * assa) ** 0.5, "DetA": deta, "AssA": assa, "MOTA": mota, "IDF1": idf1}
    assert told == pytest.approx(expected | {"switches": switches}, abs=1e-3)


@pytest.mark.parametrize("count", [0, 1, score.FEWEST_DRAWN - 1])
def test_of_few_sequences_none_are_drawn(count) -> None:
    sequence = sequence_of([[1, 1, *BOX, 1, 1]])
    measure = score.motmetrics()
    counts = [measure.count(score.compared(sequence, np.empty((0, 6))))] * count
    assert score.drawn(counts, measure) == []


def test_draws_are_the_same_for_every_tracker_and_have_each_sequence_as_often_as_chance_will() -> None:
    measure, sequence = score.motmetrics(), sequence_of([[1, 1, *BOX, 1, 1]])
    found, missed = np.array([[1, 1, *BOX]], float), np.empty((0, 6))
    some, other = (
        [measure.count(score.compared(sequence, found if hit else missed)) for hit in hits]
        for hits in ([True, False, False, False, False], [False, True, True, True, True])
    )
    # HOTA is the root of the share that is found, where no id changes.
    one, rest = (np.square(score.drawn(each, measure)) / 100 for each in (some, other))
    assert len(one) == score.DRAWS
    # Of five objects those that one has not found the other has, in each draw.
    assert one + rest == pytest.approx(np.full(score.DRAWS, 100.0), abs=0.01)
    assert one.mean() == pytest.approx(20, abs=2) and one.std() == pytest.approx(100 * (0.2 * 0.8 / 5) ** 0.5, abs=2)


def figures_with(hota: float, drawn: list[float]) -> dict[str, Any]:
    return {"groups": {"g": {"HOTA": hota, "drawn": drawn}}}


@pytest.mark.parametrize(
    ("told", "margin"),
    [
        ({}, None),
        ({"ours": figures_with(50, [50, 50])}, None),
        ({"ours": {"missing": "why"}, "a": figures_with(50, [50, 50])}, None),
        ({"ours": figures_with(50, [50, 50]), "a": {"missing": "why"}}, None),
        ({"ours": figures_with(50, []), "a": figures_with(49, [])}, None),
        ({"ours": figures_with(50, [50, 50]), "ours:other": figures_with(60, [60, 60])}, None),
        (
            {"a": figures_with(48, [60, 60]), "ours": figures_with(50, [40, 60]), "b": figures_with(51, [50, 50])},
            {"best_other": "b", "HOTA": -1, "low": -9.5, "high": 9.5},
        ),
    ],
)
def test_ours_is_told_beside_the_best_other(told, margin) -> None:
    assert mot.margin_of("g", told) == margin


def test_without_people_and_faults_a_synthetic_sequence_is_empty() -> None:
    nothing = synthetic.made("none", Theme(people=0, false=0), 10, seed=1, seconds=1)
    assert nothing.frame_count == 10 and len(nothing.truth) == len(nothing.detections) == 0


def test_a_synthetic_sequence_is_the_same_at_every_call_and_another_for_another_seed() -> None:
    first, same, other = (synthetic.made("a", Theme(), 10, seed, seconds=2) for seed in (1, 1, 2))
    assert np.array_equal(first.truth, same.truth) and np.array_equal(first.detections, same.detections)
    assert not np.array_equal(first.detections[:20], other.detections[:20])


@pytest.mark.parametrize("theme", synthetic.THEMES.values(), ids=synthetic.THEMES)
def test_every_rate_shows_the_same_world(theme) -> None:
    slow, fast = (synthetic.made("a", theme, rate, seed=3, seconds=4) for rate in (5, 30))
    assert np.allclose(slow.truth, thinned(fast, 6).truth)


@pytest.mark.parametrize(
    ("missing", "false"), [(0.0, 0.0), (0.3, 0.0), (0.0, 2.0), (0.1, 0.5)], ids=lambda rate: f"{rate:g}"
)
def test_a_detector_misses_and_invents_at_the_rates_it_is_told(missing, false) -> None:
    alone = Theme(people=1, speed=0.2, missing=missing, false=false, jitter=0.0)
    sequences = [synthetic.made("a", alone, 10, seed, seconds=20) for seed in range(6)]
    frames = seen = hits = invented = 0
    for sequence in sequences:
        for number in range(1, sequence.frame_count + 1):
            true = sequence.truth[sequence.truth[:, 0] == number]
            found = sequence.detections[sequence.detections[:, 0] == number]
            right = score.overlaps(to_xyxy(found[:, 1:5]), to_xyxy(true[:, 2:6])).max(axis=1, initial=0) > 0.999
            in_full_view = ((true[:, 2:4] >= 0) & (true[:, 2:4] + true[:, 4:6] <= (1920, 1080))).all(axis=1)
            frames, invented = frames + 1, invented + int((~right).sum())
            seen, hits = seen + int(in_full_view.sum()), hits + int(right.sum() * in_full_view.sum())
    # Four standard errors.
    assert seen > 500
    assert abs(hits / seen - (1 - missing)) <= 4 * (missing * (1 - missing) / seen) ** 0.5
    assert abs(invented / frames - false) <= 4 * (false / frames) ** 0.5


def test_who_is_covered_is_neutral_and_never_found() -> None:
    crowd = replace(synthetic.THEMES["occlusions"], people=40, jitter=0.0, false=0.0)
    sequence = synthetic.made("a", crowd, 10, 1, seconds=10)
    hidden = sequence.truth[sequence.truth[:, 6] == 0]
    assert len(hidden) > 100 and sequence.neutral(hidden[:, 7]).all()
    found = {(row[0], *row[1:5].round(6)) for row in sequence.detections}
    assert not found & {(row[0], *row[2:6].round(6)) for row in hidden}


def test_who_comes_back_is_another() -> None:
    truth = synthetic.made("a", synthetic.THEMES["exits"], 10, seed=2).truth
    for track_id in np.unique(truth[:, 1]):
        frames = np.sort(truth[truth[:, 1] == track_id, 0])
        assert np.diff(frames).max(initial=1) == 1, "nobody is out of the picture and comes back the same"
    assert len(np.unique(truth[:, 1])) > synthetic.THEMES["exits"].people


def test_ours_follows_every_frame_of_a_sequence() -> None:
    sequence = synthetic.made("a", Theme(missing=0, false=0, jitter=0), 10, 1, seconds=3)
    told = follow.follow(sequence, make_of("ours", thresholds()))
    assert len(told) == sequence.frame_count and sum(len(each.ids) for each in told) > 200


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(Exception, match="no_such"):
        make_of("ours:a", thresholds(), ("track.no_such=1",))
    with pytest.raises(ValueError, match="no tracker nobody"):
        make_of("nobody", thresholds())


def test_a_time_is_told_only_where_the_plain_twin_gives_the_same_ids(monkeypatch) -> None:
    monkeypatch.setattr(speed, "SIZES", {10: (1920, 1080, 20), 50: (1920, 1080, 20)})
    alike = thresholds()
    make = make_with(alike, ())
    right = speed.measure("ours", make, make_twin(alike, ()))
    assert {size: one["count"] for size, one in right.items()} == {"10": 20, "50": 20}
    wrong = speed.measure("ours", make, make_twin(alike, ("track.new_score=0.95",)))
    assert all("p50" not in one and "frame 1" in one["none"] for one in wrong.values())


FIGURES = {
    "ours": {"a": {"HOTA": 50.0}, "a-slow": {"HOTA": 50.0}, "b": {"HOTA": 50.0}},
    "ours:for-a": {"a": {"HOTA": 90.0}, "a-slow": {"HOTA": 90.0}, "b": {"HOTA": 40.0}},
    "ours:for-b": {"a": {"HOTA": 45.0}, "a-slow": {"HOTA": 45.0}, "b": {"HOTA": 60.0}},
}


def test_a_variant_is_chosen_on_the_other_families_and_told_on_its_own() -> None:
    a, b = crossval.held_out(FIGURES, "HOTA")
    assert a == ("a", "ours:for-b", {"a": {"HOTA": 45.0}, "a-slow": {"HOTA": 45.0}})
    assert b == ("b", "ours:for-a", {"b": {"HOTA": 40.0}})


@pytest.mark.parametrize(
    ("variants", "told"),
    [
        ({}, "same groups"),
        ({"ours": {"a": {"HOTA": 1.0}}}, "1 families"),
        ({"ours": {"a": {"HOTA": 1.0}}, "ours:b": {"b": {"HOTA": 1.0}}}, "same groups"),
    ],
)
def test_what_cannot_be_held_out_is_refused(variants, told) -> None:
    with pytest.raises(ValueError, match=told):
        crossval.held_out(variants, "HOTA")


def test_without_the_peers_environment_ours_is_scored_and_they_are_named(tmp_path) -> None:
    write(replace(synthetic.made("a", Theme(), 10, 1, seconds=3), group="small"), tmp_path)
    words = [str(tmp_path), "--peers-venv", str(tmp_path / "none"), "--only", "ours", "norfair", "--groups", "small"]
    line = [sys.executable, "-m", "benchmarks.mot", *words, "--no-speed"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "missing: no environment for peers" in done.stdout.replace(", ", ": ")
    told = json.loads(done.stdout.splitlines()[-1])["trackers"]
    assert told["norfair"] == {"missing": "no environment for peers"}
    figures = told["ours"]["groups"]["small"]
    assert figures["MOTA"] > 50 and 0 < figures["HOTA"] < 100


COMPARE = """
import json, sys
from pathlib import Path
from trackeval.datasets import MotChallenge2DBox
from benchmarks.mot import score
from benchmarks.mot.sequences import read
folder, tracks = Path(sys.argv[1]), Path(sys.argv[2])
measure = score.trackeval()
ours = score.compared(read(folder / "mot17/one"), score.read_tracks(tracks / "mot17/one.txt"))
dataset = MotChallenge2DBox({
    "GT_FOLDER": sys.argv[3], "TRACKERS_FOLDER": sys.argv[3], "TRACKERS_TO_EVAL": ["tracker"], "PRINT_CONFIG": False,
    "SKIP_SPLIT_FOL": True, "SEQ_INFO": {"one": int(sys.argv[4])}, "BENCHMARK": "MOT17",
})
theirs = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("tracker", "one"), "pedestrian")
print(json.dumps([measure.figures([measure.count(data)]) for data in (ours, theirs)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(VENV is None, reason="CENTERSTREAM_MOT_VENV names no environment for benchmarks/mot")
def test_the_figures_are_those_of_trackevals_own_reader(tmp_path) -> None:
    """On people of whom every third is a distractor of MOT17, its own code says what counts."""
    made = synthetic.made("one", synthetic.THEMES["crossings"], 10, 1)
    truth = made.truth.copy()
    truth[truth[:, 7] == -1, 7] = 12
    truth[truth[:, 1] % 3 == 0, 6:] = (0, 7)
    sequence = replace(made, group="mot17", classes={1: "pedestrian"}, truth=truth)
    write(sequence, tmp_path / "sequences")
    told = follow.follow(sequence, make_of("ours", Thresholds(0.1, 0.35, 0.5)))
    follow.write(told, tmp_path / "tracks/mot17/one.txt")
    for name, text in (
        ("one/gt/gt.txt", (tmp_path / "sequences/mot17/one/gt.txt").read_text()),
        ("tracker/data/one.txt", (tmp_path / "tracks/mot17/one.txt").read_text()),
    ):
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    folders = [tmp_path / "sequences", tmp_path / "tracks", tmp_path / "theirs", sequence.frame_count]
    line = [str(Path(str(VENV), "bin/python")), "-c", COMPARE, *map(str, folders)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout.splitlines()[-1])
    assert ours == theirs and ours["HOTA"] > 20
