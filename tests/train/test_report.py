"""What a training leaves to look at: pictures, curves, and the page with all of it."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from models import create_model
from models.detect import class_colour
from tests.kit.places import MINI
from train.average_precision import score, with_intervals
from train.coco import read_coco
from train.curves import HEIGHT, MOST_POINTS, WIDTH, chart
from train.evaluate import span
from train.pictures import GAP, PANEL_WIDTH, STRIP_HEIGHT, compared, epoch_pictures, training_pictures
from train.recipe import DataSettings, Recipe, TargetSettings
from train.report import GALLERY, choose_images, read_metrics, write_report

NOTHING = np.empty((0, 6), np.float32)
RECIPE = Recipe(data=DataSettings("train.json", "images"))
METRICS = """epoch,step,learning_rate,loss,hm,wh,reg,seconds,images_per_second,loader_wait_share,ap,ap50,memory_gib
1,10,0.0005,900.5,800,100,0.5,10,3,0.5,,,1.5
2,20,0.0005,9.5,8,1,0.5,30,7,0.1,0.25,0.5,1.5
3,30,0.00005,5.5,4,1,0.5,10,7,0.1,0.2,0.4,1.5
"""


pytestmark = pytest.mark.usefixtures("one_thread")


# -- pictures


def rgb(class_id: int) -> np.ndarray:
    return np.array(class_colour(class_id)[::-1])


def panels(picture: np.ndarray, row: int, height: int) -> list[np.ndarray]:
    top = STRIP_HEIGHT + row * height
    return [picture[top : top + height, i * PANEL_WIDTH : (i + 1) * PANEL_WIDTH] for i in range(4)]


def test_a_row_shows_objects_both_heat_maps_and_detections() -> None:
    images = np.full((2, 100, 200, 3), 90, np.uint8)
    boxes = [np.array([[20, 20, 60, 60]], np.float32), np.empty((0, 4), np.float32)]
    target, heat = np.zeros((2, 2, 2, 25, 50), np.float32)
    target[0, 1, 10, 10] = 1
    target[0, 0, 20:, 40:] = -1
    heat[0, 0, 5, 30] = 1
    found = [np.array([[100, 40, 150, 80, 0.9, 0], [10, 10, 90, 90, 0.2, 2]], np.float32), NOTHING]
    picture = training_pictures(images, boxes, [np.array([1]), np.array([], int)], target, heat, found, ("a", "b", "c"))
    assert picture.shape == (2 * STRIP_HEIGHT + 2 * 200, 4 * PANEL_WIDTH, 3) and picture.dtype == np.uint8
    objects, should, says, shown = (panel.astype(int) for panel in panels(picture, 0, 200))
    assert np.abs(objects[80, 40] - rgb(1)).max() < 60 and (objects[100, 200] == 90).all()
    assert (should[84, 84] - rgb(1) > -60).all() and should[84, 84].max() - should[84, 84].min() > 40
    assert says[44, 244].max() - says[44, 244].min() > 40
    assert should[180, 360].min() > should[180, 200].max() + 30  # nothing to be learnt
    assert np.abs(shown[120, 200] - rgb(0)).max() < 60 and (shown[100, 20] == 90).all()
    named = [class_id for class_id in range(3) if (picture[-STRIP_HEIGHT:] == rgb(class_id)).all(axis=2).any()]
    assert named == [0, 1]
    for panel in panels(picture, 1, 200):
        assert np.ptp(panel[:-GAP, :-GAP]) == 0  # nothing there, nothing shown


def small_network(training: bool = False):
    network = create_model("mobilenetv3", 3).train(training)
    network.spec = replace(network.spec, class_names=("RBC", "WBC", "Platelets"), input_width=96, input_height=64)
    return network


def test_pictures_of_an_epoch_are_of_the_same_images_each_time(tmp_path) -> None:
    network = small_network(training=True)
    coco = read_coco(MINI / "train.json", MINI / "images")
    first = epoch_pictures(network, coco, TargetSettings(), 3)
    assert np.array_equal(first, epoch_pictures(network, coco, TargetSettings(), 3)) and network.training
    row = round(64 * PANEL_WIDTH / 96)
    assert first.shape == (2 * STRIP_HEIGHT + 3 * row, 4 * PANEL_WIDTH, 3)
    objects, should, _, _ = panels(first, 0, row)
    assert objects.std() > 10 and should.std() > 5
    assert len(epoch_pictures(network, coco, TargetSettings(), 99)) == 2 * STRIP_HEIGHT + len(coco.images) * row


def test_images_that_cannot_be_read_are_left_out_of_the_pictures(tmp_path) -> None:
    shutil.copytree(MINI, tmp_path / "mini")
    coco = read_coco(tmp_path / "mini" / "train.json", tmp_path / "mini" / "images")
    coco.images[0].path.write_bytes(b"")
    network, row = small_network(), round(64 * PANEL_WIDTH / 96)
    assert len(epoch_pictures(network, coco, TargetSettings(), 2)) == 2 * STRIP_HEIGHT + row
    for image in coco.images:
        image.path.write_bytes(b"")
    assert len(epoch_pictures(network, coco, TargetSettings(), 2)) < row


def test_a_missed_object_stays_white() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    boxes = np.array([[10, 30, 50, 90], [110, 30, 150, 90]], np.float32)
    picture = compared(image, boxes, np.array([[10, 30, 50, 90, 0.9, 0]], np.float32), ("a",))
    assert (picture[60, 10] == class_colour(0)).all() and (picture[60, 110] == 255).all()
    assert not image.any()


# -- curves


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("points", "drawn"),
    [
        ([], 0),
        ([(1, NAN), (2, INF)], 0),
        ([(1, 0.0)], 1),
        ([(1, 5.0), (2, NAN), (3, 4.0)], 2),
        ([(i, 0.0) for i in range(5)], 5),
        ([(i, -2.0 * i) for i in range(5)], 5),
        ([(i, 10.0 ** (i - 9)) for i in range(20)], 20),
        ([(i, 1e-12) for i in range(5)], 5),
        ([(i * 1000, float(i)) for i in range(5000)], MOST_POINTS),
    ],
    ids=["empty", "no numbers", "one", "a gap", "zero", "negative", "wide", "tiny", "many"],
)
def test_a_curve_has_its_points_inside_the_chart(points, drawn) -> None:
    svg = chart({"a & b": points}, "epoch")
    if not drawn:
        assert svg == ""
        return
    root = ElementTree.fromstring(svg)
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in root.iter("circle")]
    assert drawn * 0.8 < len(dots) <= drawn
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in dots) and dots == sorted(dots, key=lambda dot: dot[0])
    ticks = [text.text for text in root.iter("text") if text.get("text-anchor") == "end"]
    assert 2 <= len(set(ticks)) == len(ticks) <= 8


def test_more_is_higher() -> None:
    root = ElementTree.fromstring(chart({"up": [(1, 1), (2, 2)], "down": [(1, 500), (2, 3)]}, "epoch"))
    (a, b), (c, d) = ([float(dot.get("cy")) for dot in line.iter("circle")] for line in root.iter("g"))
    assert a > b > d > c


# -- the page


class Page(HTMLParser):
    """Its tags, which must close in order, and all that they refer to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


@pytest.fixture(scope="module")
def judged():
    """The data, and scores as if all objects of every second image had been found."""
    coco = read_coco(MINI / "train.json", MINI / "images")
    coco = replace(coco, class_names=("RBC", "<b>WBC & more", "Platelets"))
    found = [
        np.column_stack((image.boxes_xyxy, np.full(len(image.class_ids), 0.9), image.class_ids)).astype(np.float32)
        if place % 2
        else NOTHING
        for place, image in enumerate(coco.images)
    ]
    return coco, with_intervals(score(coco, found))


def test_the_page_holds_curves_figures_images_recipe_and_machine(judged, tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text(METRICS)
    page = Page(write_report(tmp_path, RECIPE, *judged, "validation", replace(judged[1], ap=0.123)))
    # AP, learning rate, loss, three heads, speed, waiting, and what it had never heard of
    assert page.tags.count("svg") == 9 and "memory_gib" in page.text
    assert page.tags.count("img") == len(judged[0].images) == 8
    assert "script" not in page.tags and "link" not in page.tags
    assert all(reference.startswith("data:image/jpeg;base64,") for reference in page.references)
    assert not re.search(r"https?:|//\w|url\(|@import", re.sub(r'"data:[^"]*"', "", page.source))
    words = " ".join(page.text.split())
    scores = judged[1]
    assert "Averaged with the mirrored image: AP 12.3" in words
    assert "What is taken for what" in words and "as nothing" in words
    assert span(scores.intervals.ap) in words and words.count("–") >= 3 + 2 * len(scores.by_class)
    assert f"AP {100 * scores.ap:.1f}" in re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page.source))
    for expected in (
        "2 of 3",
        "8 validation images",
        "<b>WBC & more",
        "weight_decay",
        torch.__version__.partition("+")[0],
        "0:00:50",
    ):
        assert expected in words, expected
    # Epochs that took longer count more: 3 for 10 s and 7 for 40 s; half of 10 s and a tenth of 40 s.
    assert "6.2" in words and "18.0 %" in words
    assert "prefers-color-scheme: dark" in page.source
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".csv"] == ["report.html"]


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "epoch,step,loss,ap\n",
        "epoch,step\n1,10\n",
        METRICS[:-40],
        "\x00\xff\n,,\nnan,inf,x,y,z\n",
        "a\n1\n2\n",
    ],
    ids=["none", "empty", "heading only", "no figures", "cut short", "garbage", "another table"],
)
def test_the_page_does_with_what_metrics_there_are(judged, tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content, encoding="latin-1")
    page = Page(write_report(tmp_path, RECIPE, *judged))
    assert not re.search(r"\bnan\b", page.text) and page.tags.count("img") == 8


def test_metrics_are_the_numbers_of_each_row(tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,loss,ap\n1,2.5,\n2,nan\n3,word,0.5,9\n")
    assert read_metrics(tmp_path / "metrics.csv") == [{"epoch": 1, "loss": 2.5}, {"epoch": 2}, {"epoch": 3, "ap": 0.5}]


def test_an_image_that_is_gone_is_told_of(judged, tmp_path) -> None:
    coco, scores = judged
    gone = replace(coco, images=[replace(image, path=tmp_path / image.path.name) for image in coco.images])
    page = Page(write_report(tmp_path, RECIPE, gone, scores))
    assert page.tags.count("img") == 0 and page.text.count("cannot be read") == 8


@pytest.mark.parametrize(
    ("f1", "objects", "worst", "best"),
    [
        ([], [], [], []),
        ([0.5], [3], [], [0]),
        ([0.5, 0.9], [3, 3], [0], [1]),
        ([1, 1, 0.2, 1], [0, 5, 4, 9], [2, 0], [3, 1]),
        ([0, 0, 0.9, 1], [1, 8, 4, 9], [1, 0], [3, 2]),
    ],
)
def test_the_gallery_shows_the_worst_and_the_best(f1, objects, worst, best) -> None:
    assert choose_images(np.array(f1, float), objects) == (worst, best)


def test_the_gallery_shows_a_few() -> None:
    worst, best = choose_images(np.linspace(0, 1, 100), [1] * 100)
    assert worst == list(range(GALLERY)) and best == list(range(99, 99 - GALLERY, -1))
