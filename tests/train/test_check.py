"""`python -m train.check`: says what is there and what is wrong, draws the sheet, and never breaks on bad data."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.detect import class_colour
from tests.kit.places import MINI
from train.check import main

NAMES = sorted(path.name for path in (MINI / "images").iterdir())


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A copy of the small data set, which is the working directory's only folder: `cells/`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(MINI, tmp_path / "cells")
    return tmp_path / "cells"


def edit(folder, change, name="train"):
    """Writes the split `name`: the small data set's, changed."""
    tree = json.loads((MINI / "train.json").read_text())
    change(tree)
    (folder / f"{name}.json").write_text(json.dumps(tree))


def outcome(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert err == "" or (err.startswith("error: ") and err.count("\n") == 1)
    return code, out + err


def test_good_data_is_told_and_shown(data, capsys):
    code, told = outcome(capsys, "cells")
    assert code == 0
    for line in (
        "train: cells/train.json",
        "8 images (8 of 320×240), 0 of them without an object",
        "104 objects, 13.0 an image, at most 15",
        "RBC             86 objects in      8 images",
        "fit for training; remarks: 0",
        "contact_sheet.png: 8 images of train",
    ):
        assert line in told, told
    sheet = cv2.imread("contact_sheet.png")
    assert sheet.shape[1] == 4 * 320 and sheet.shape[0] > 2 * 320
    for class_id in range(3):
        assert (sheet == class_colour(class_id)).all(axis=2).sum() > 100


def test_the_boxes_of_the_sheet_are_where_they_should_be(data, capsys):
    def one_box(tree):
        tree["images"], tree["annotations"] = tree["images"][:1], tree["annotations"][:1]
        tree["annotations"][0] |= {"bbox": [80, 60, 160, 120], "category_id": 2}

    edit(data, one_box)
    assert outcome(capsys, "cells", "--sheet", "s.png")[0] == 0
    drawn = (cv2.imread("s.png")[:320] == class_colour(1)).all(axis=2)
    rows, columns = drawn.any(1).nonzero()[0], drawn.any(0).nonzero()[0]
    # the image fills the width of its tile, which is 320 less a frame
    assert np.allclose([columns[0], columns[-1], rows[0], rows[-1]], [80, 240, 100, 220], atol=2)


def test_a_json_file_and_its_images_may_be_given(data, capsys):
    code, told = outcome(capsys, "--json", data / "train.json", "--images", data / "images", "--sheet", "sheet.jpg")
    assert code == 0 and "sheet.jpg: 8 images of data" in told
    assert cv2.imread("sheet.jpg") is not None


def test_a_recipe_says_what_to_look_at(data, capsys):
    edit(data, lambda tree: None, "other")
    Path("recipe.yaml").write_text(
        "data: {train_json: cells/train.json, train_images: cells/images, val_json: cells/other.json, "
        "val_images: cells/images}\nmodel: {name: res_18, input_size: 32x32}\ntargets: {max_objects: 14}\n"
    )
    code, told = outcome(capsys, "recipe.yaml")
    assert code == 0
    assert "val: cells/other.json" in told and "at 32×32, stride 4" in told
    assert "have more than 14 objects (the fullest 15)" in told


def set_boxes(*boxes):
    return lambda tree: [each.update(bbox=box) for each, box in zip(tree["annotations"], boxes, strict=False)]


def as_corners(tree):
    for each in tree["annotations"]:
        x, y, w, h = each["bbox"]
        each["bbox"] = [x, y, x + w, y + h]


def as_fractions(tree):
    for each in tree["annotations"]:
        each["bbox"] = [value / 320 for value in each["bbox"]]


def one_on_another(tree):
    first = tree["annotations"][0]
    tree["annotations"] += [
        first | {"id": 900, "bbox": [100, 100, 40, 40]},
        first | {"id": 901, "bbox": [98, 98, 44, 44]},
    ]


def many(tree):
    first = tree["annotations"][0]
    tree["annotations"] += [first | {"id": i, "bbox": [i % 300, i % 200, 20, 20]} for i in range(1000, 1200)]


REMARKS = [
    ("degenerate boxes", set_boxes([1, 1, 0, 5], [5, 5, 5, -1]), "2 boxes left out (2 of no width or height)"),
    ("not a number", set_boxes([1, 1, float("nan"), 5]), "1 boxes left out (1 not a number)"),
    ("beyond the image", set_boxes([-9, 3, 40, 40], [290, 3, 40, 40]), "2 boxes reach more than a pixel beyond"),
    ("corners", as_corners, "are they x1, y1, x2, y2?"),
    ("fractions", as_fractions, "are they fractions of the image?"),
    ("too small to see", set_boxes([1, 1, 0.2, 5]), "1 of 104 objects are less than a pixel wide or high at 512×512"),
    ("a class without objects", lambda tree: tree["categories"].append({"id": 8, "name": "none"}), "object: none"),
    ("in one cell", one_on_another, "1 of 106 objects (0.94%) have their centre in the same cell"),
    ("many objects", many, "1 images have more than 128 objects (the fullest 2"),
    ("annotation ids", lambda tree: tree["annotations"][0].update(id=2), "annotations share the id 2"),
    ("listed twice", lambda tree: tree["images"].append(tree["images"][0] | {"id": 99}), "listed more than once"),
]


@pytest.mark.parametrize(("change", "remark"), [row[1:] for row in REMARKS], ids=[row[0] for row in REMARKS])
def test_what_is_odd_is_a_remark(data, capsys, change, remark):
    edit(data, change)
    code, told = outcome(capsys, "cells")
    assert code == 0 and remark in told, told
    assert "remark: " in told and "PROBLEM" not in told


PROBLEMS = [
    ("clashing image ids", lambda tree: tree["images"][1].update(id=1), "several images have the id 1"),
    ("an unknown category", lambda tree: tree["categories"].pop(), "annotations of unknown categories: id 3"),
    ("clashing names", lambda tree: tree["categories"][1].update(name="RBC"), "several categories are called RBC"),
    (
        "missing images",
        lambda tree: tree["images"][0].update(file_name="no.jpg"),
        "1 of 8 images are not in cells/images",
    ),
    ("no boxes", lambda tree: tree.update(annotations=[]), "no annotations"),
    ("only bad boxes", lambda tree: [a.update(bbox=[0, 0, 0, 0]) for a in tree["annotations"]], "none of its 104"),
    ("no coco", lambda tree: tree.pop("images"), "missing required field `images`"),
    ("another size", lambda tree: tree["images"][0].update(width=240, height=320), "annotated as 240×320"),
]


@pytest.mark.parametrize(("change", "problem"), [row[1:] for row in PROBLEMS], ids=[row[0] for row in PROBLEMS])
def test_what_would_end_a_training_is_a_problem(data, capsys, change, problem):
    edit(data, change)
    code, told = outcome(capsys, "cells")
    assert code == 2 and "not fit for training; problems: " in told
    assert any(line.startswith("  PROBLEM: ") and problem in line for line in told.splitlines()), told


def test_all_that_is_wrong_is_told_at_once(data, capsys):
    def change(tree):
        tree["images"][1]["id"] = 1
        tree["categories"].pop()

    edit(data, change)
    (data / "val.json").write_text("{")
    code, told = outcome(capsys, "cells")
    assert code == 2 and told.count("PROBLEM") == 4
    assert not Path("contact_sheet.png").exists()


def test_damaged_images_are_found(data, capsys):
    whole = (data / "images" / NAMES[0]).read_bytes()
    (data / "images" / NAMES[0]).write_bytes(whole[:100])
    (data / "images" / NAMES[1]).write_bytes(b"no image")
    shutil.copyfile(data / "images" / NAMES[3], data / "images" / NAMES[2])
    code, told = outcome(capsys, "cells")
    assert code == 2
    assert f"PROBLEM: 2 of 8 images are of no use: cells/images/{NAMES[0]}: not an image" in told
    assert f"; cells/images/{NAMES[1]}: not an image" in told
    assert f"1 images are there more than once: {NAMES[2]} = {NAMES[3]}" in told
    assert "contact_sheet.png: 6 images" in told


def test_an_unreadable_image_among_many_is_a_remark(data, capsys):
    def change(tree):
        tree["images"] += [
            tree["images"][1] | {"id": i, "file_name": tree["images"][i % 7 + 1]["file_name"]} for i in range(100, 200)
        ]

    edit(data, change)
    (data / "images" / NAMES[0]).write_bytes(b"")
    code, told = outcome(capsys, "cells")
    assert code == 0 and "remark: 1 of 108 images are of no use" in told


def test_splits_are_compared(data, capsys):
    def other_images(tree):
        for image in tree["images"][2:]:
            image["file_name"] = f"val/{image['file_name']}"
        tree["categories"][0]["name"] = "cell"

    edit(data, other_images, "val")
    (data / "images" / "val").mkdir()
    for place, name in enumerate(NAMES[2:]):
        picture = np.full((240, 320, 3), 40 * place, np.uint8)
        cv2.imwrite(str(data / "images" / "val" / name), picture)
    code, told = outcome(capsys, "cells")
    assert code == 2
    assert "PROBLEM: other classes than in cells/train.json: without RBC and also cell" in told
    assert f"remark: 2 images are in train too, so scores will be better than they are: {NAMES[0]}, {NAMES[1]}" in told
    assert "remark: 6 images have the name of another one in train" in told


BAD_INPUT = [
    ("nothing", [], "give either DATA, a folder or a recipe, or --json FILE with --images FOLDER"),
    ("too much", ["cells", "--json", "cells/train.json", "--images", "cells"], "give either DATA"),
    ("no images", ["--json", "cells/train.json"], "give either DATA"),
    ("no such folder", ["nowhere"], "nowhere: not a folder, nor a recipe"),
    ("a json file", ["cells/train.json"], "a json file is given as --json FILE --images FOLDER"),
    ("a folder without json", ["cells/images"], "cells/images: no train.json, val.json or test.json there"),
    ("a folder of YOLO", ["yolo"], "DetectionDataset.from_pascal_voc(…) or .from_yolo(…), then .as_coco("),
    ("no such recipe", ["no.yaml"], "configuration no.yaml: No such file or directory"),
    ("no recipe", ["odd.yaml"], "odd: no such key"),
    ("an unknown model", ["cells", "--model", "yolo"], "model 'yolo': allowed are "),
    ("a sheet that is no picture", ["cells", "--sheet", "sheet.txt"], "--sheet sheet.txt: give a file"),
    ("a sheet nowhere", ["cells", "--sheet", "nowhere/sheet.png"], "--sheet nowhere/sheet.png: give a file"),
    ("an input of odd size", ["odd_size.yaml"], "input 100×100: both sides must be multiples of 32"),
]


@pytest.mark.parametrize(("arguments", "error"), [row[1:] for row in BAD_INPUT], ids=[row[0] for row in BAD_INPUT])
def test_bad_input_is_told_in_one_line(data, capsys, arguments, error):
    Path("yolo").mkdir()
    Path("yolo/a.txt").write_text("0 0.5 0.5 0.1 0.1")
    Path("odd.yaml").write_text("odd: 1")
    Path("odd_size.yaml").write_text("data: {train_json: a, train_images: b}\nmodel: {input_size: 100x100}")
    code, told = outcome(capsys, *arguments)
    assert code == 2 and told.startswith("error: ") and error in told


def test_no_image_is_overwritten(data, capsys):
    before = (data / "images" / NAMES[0]).read_bytes()
    code = main(["cells", "--sheet", f"cells/images/../images/{NAMES[0]}"])
    assert code == 2 and "is one of the images; give another file" in capsys.readouterr().err
    assert (data / "images" / NAMES[0]).read_bytes() == before


def test_a_missing_file_or_folder_is_a_problem(data, capsys):
    code, told = outcome(capsys, "--json", "no.json", "--images", "cells/images")
    assert code == 2 and "PROBLEM: cannot be read (No such file or directory)" in told
    code, told = outcome(capsys, "--json", "cells/train.json", "--images", "nowhere")
    assert code == 2 and "PROBLEM: its image folder nowhere is not there" in told
