"""`python -m models.detect`: pictures with boxes, a line for each image, and what it says to bad input."""

import json
import os
import re
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from models.detect import class_colour, draw, main
from tests.kit.places import ROOT

CLIP = ROOT / "tests" / "data" / "pets09_excerpt.mp4"


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A frame of the clip with eight people in it, 768×576, as PNG."""
    path = tmp_path_factory.mktemp("images") / "straße.png"
    with av.open(str(CLIP)) as container:
        frames = container.decode(video=0)
        image = [next(frames).to_ndarray(format="bgr24") for _ in range(21)][-1]
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    return path


def read(path):
    return cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)


def test_a_line_and_a_picture_for_each_image(street, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    grey, dark = tmp_path / "grey.jpg", tmp_path / "dark.bmp"
    cv2.imwrite(str(grey), cv2.cvtColor(read(street), cv2.COLOR_BGR2GRAY))
    cv2.imwrite(str(dark), np.zeros((9, 5, 3), np.uint8))
    assert main([str(street), str(grey), str(dark), "--score", "0.5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, path in zip(lines, (street, grey), strict=False):
        people = re.fullmatch(rf"{path}: (\d+) person", line)
        assert people and 5 <= int(people[1]) <= 9, line
    assert lines[2] == f"{dark}: nothing"
    pictures = [read(tmp_path / "detections" / f"{path.stem}.png") for path in (street, grey, dark)]
    assert [picture.shape for picture in pictures] == [(576, 768, 3), (576, 768, 3), (9, 5, 3)]
    assert (pictures[0] != read(street)).any()
    assert not pictures[2].any()


@pytest.mark.parametrize("options", [[], ["--flip", "--multi-scale", "--keep-res"]], ids=["plain", "augmented"])
def test_json_has_the_boxes_that_are_drawn(street, tmp_path, capsys, options):
    assert main([str(street), "--json", "--out", str(tmp_path / "a" / "b"), "--score", "0.55", *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["image"], told["width"], told["height"]) == (str(street), 768, 576)
    assert len(told["objects"]) >= 6
    assert [each["score"] for each in told["objects"]] == sorted((o["score"] for o in told["objects"]), reverse=True)
    picture = read(tmp_path / "a" / "b" / "straße.png")
    for each in told["objects"]:
        left, top, right, bottom = each["box_xyxy"]
        assert 0 <= left < right <= 768 and 0 <= top < bottom <= 576 and each["score"] >= 0.55
        edge = picture[round((top + bottom) / 2) :, round(left)]
        assert (edge == class_colour(each["class_id"])).all(axis=1).any(), each


def test_labels_stay_inside_small_and_narrow_images():
    for height, width in ((1, 1), (3, 400), (400, 3), (50, 50)):
        image = np.zeros((height, width, 3), np.uint8)
        draw(image, [{"class_id": 1, "class": "bicycle", "score": 0.5, "box_xyxy": [0.0, 0.0, width, height]}])
        assert (image == class_colour(1)).all(axis=2).any()


def test_colours_of_classes_differ():
    assert len({class_colour(class_id) for class_id in range(80)}) == 80


def a_folder_of_bad_input(folder, street):
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "weights.safetensors").write_text("nonsense")
    (folder / "folder").mkdir()
    (folder / "street.png").write_bytes(street.read_bytes())
    (folder / "street.jpg").write_bytes(street.read_bytes())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.jpg"], "missing.jpg: cannot be read (No such file or directory)"),
        (["folder"], "folder: cannot be read (Is a directory)"),
        (["empty.jpg"], "empty.jpg: not an image that OpenCV decodes"),
        (["text.jpg"], "text.jpg: not an image that OpenCV decodes"),
        (["street.png", "--model", "yolo"], "model 'yolo': allowed are "),
        (["street.png", "--model", "resdcn_18"], "resdcn_18"),
        (["street.png", "--weights", "weights.safetensors"], "weights.safetensors: "),
        (["street.png", "--weights", "missing.safetensors"], "missing.safetensors"),
        (["street.png", "--score", "1.5"], "--score 1.5: give a number from 0 to 1"),
        (["street.png", "--score", "nan"], "--score nan: give a number from 0 to 1"),
        (["street.png", "--device", "abacus"], "--device: got abacus; give auto, cpu, cuda or cuda:N"),
        (["street.png", "--device", "cuda:99"], "--device: got cuda:99, this machine has"),
        (["street.png", "--out", "."], "street.png: its picture street.png would overwrite an image"),
        (["street.png", "street.jpg"], "street.jpg: its picture detections/street.png would overwrite"),
        (["street.png", "--out", "text.jpg"], "text.jpg: File exists"),
        (["street.png", "--out", "text.jpg/out"], "text.jpg/out: Not a directory"),
    ],
)
def test_bad_input_is_told_in_one_line(street, tmp_path, monkeypatch, capfd, arguments, told):
    a_folder_of_bad_input(tmp_path, street)
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ") and told in err
    assert err.count("\n") == 1


def test_a_pipe_is_told_of_and_not_waited_for(tmp_path, capfd):
    os.mkfifo(tmp_path / "pipe.png")
    assert main([str(tmp_path / "pipe.png"), "--out", str(tmp_path / "out")]) == 2
    assert capfd.readouterr().err == f"error: {tmp_path}/pipe.png: cannot be read (not a regular file)\n"


def test_runs_as_a_module_and_has_the_only_word_on_a_damaged_image(street, tmp_path):
    cut = tmp_path / "cut.png"
    cut.write_bytes(street.read_bytes()[:200])
    command = [sys.executable, "-m", "models.detect", str(cut), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {cut}: not an image that OpenCV decodes; give JPEG, PNG, WebP, BMP or TIFF\n"
