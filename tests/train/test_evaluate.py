"""Average precision: what it comes to by hand, what pycocotools says of the same files, and the command."""

import contextlib
import io
import json
import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models import create_model, load_model
from models.tta import predict
from tests.kit.places import CLIP
from train.average_precision import score
from train.coco import CocoData, CocoImage, read_coco
from train.evaluate import evaluate, main

CPU = torch.device("cpu")
CAT, DOG = 0, 1
BOX = (10, 10, 110, 110)
ELSEWHERE = (200, 200, 260, 260)
NOTHING = np.empty((0, 6), np.float32)


pytestmark = pytest.mark.usefixtures("one_thread")


def image(image_id=1, objects=(), crowds=(), areas=None) -> CocoImage:
    """`objects` and `crowds`: (box, class) each."""
    boxes, crowd_boxes = (np.array([box for box, _ in of], np.float32).reshape(-1, 4) for of in (objects, crowds))
    box_areas, crowd_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1).astype(float) for each in (boxes, crowd_boxes))
    return CocoImage(
        image_id=image_id,
        path=Path(f"{image_id}.png"),
        width=640,
        height=480,
        boxes_xyxy=boxes,
        class_ids=np.array([class_id for _, class_id in objects], np.int64),
        crowd_boxes_xyxy=crowd_boxes,
        crowd_class_ids=np.array([class_id for _, class_id in crowds], np.int64),
        areas=box_areas if areas is None else np.array(areas, float),
        crowd_areas=crowd_areas,
    )


def data(*images: CocoImage) -> CocoData:
    return CocoData(class_names=("cat", "dog"), category_ids=(1, 2), images=list(images))


def found(*rows) -> np.ndarray:
    """Rows of box, score, class."""
    return np.array([(*box, value, class_id) for box, value, class_id in rows], np.float32).reshape(-1, 6)


def same(value: float, expected: float) -> bool:
    return math.isnan(value) if math.isnan(expected) else math.isclose(value, expected, abs_tol=1e-9)


NAN = math.nan
TWO_CATS = [(BOX, CAT), (ELSEWHERE, CAT)]
MISSES = [((300, 300, 340, 340), 0.9 - i / 1000, CAT) for i in range(100)]


@pytest.mark.parametrize(
    ("objects", "crowds", "detections", "ap", "ap50", "f1"),
    [
        pytest.param([], [], [], NAN, NAN, 1, id="nothing there and nothing found"),
        pytest.param([], [], [(BOX, 0.9, CAT)], NAN, NAN, 0, id="nothing there, something found"),
        pytest.param([(BOX, CAT)], [], [], 0, 0, 0, id="nothing found"),
        pytest.param([(BOX, CAT)], [], [(BOX, 0.9, CAT)], 1, 1, 1, id="perfect"),
        pytest.param([(BOX, CAT)], [], [(BOX, 0.1, CAT)], 1, 1, 0, id="perfect, but too faint to show"),
        pytest.param([(BOX, CAT)], [], [(BOX, 0.9, DOG)], 0, 0, 0, id="taken for a dog"),
        # Full precision at the 51 recalls 0.00 to 0.50 of 101.
        pytest.param(TWO_CATS, [], [(BOX, 0.9, CAT)], 51 / 101, 51 / 101, 2 / 3, id="one of two"),
        pytest.param([(BOX, CAT)], [], [(ELSEWHERE, 0.9, CAT), (BOX, 0.8, CAT)], 0.5, 0.5, 2 / 3, id="a miss before"),
        pytest.param([(BOX, CAT)], [], [(BOX, 0.9, CAT), (ELSEWHERE, 0.8, CAT)], 1, 1, 2 / 3, id="a miss after"),
        pytest.param([(BOX, CAT)], [], [(BOX, 0.8, CAT), (BOX, 0.9, CAT)], 1, 1, 2 / 3, id="found twice"),
        # IoU 0.62: right at 0.50, 0.55 and 0.60 of ten thresholds.
        pytest.param([(BOX, CAT)], [], [((10, 10, 110, 72), 0.9, CAT)], 0.3, 1, 1, id="not quite the box"),
        pytest.param([(BOX, CAT)], [], [*MISSES, (BOX, 0.1, CAT)], 0, 0, 0, id="the 101st"),
        pytest.param(
            [(BOX, CAT)],
            [(ELSEWHERE, CAT)],
            [((210, 210, 230, 230), 0.9, CAT), ((235, 235, 255, 255), 0.9, CAT), (BOX, 0.5, CAT)],
            1, 1, 1, id="some of a crowd",
        ),
        pytest.param(
            [(BOX, CAT)],
            [(ELSEWHERE, DOG)],
            [(ELSEWHERE, 0.9, CAT), (BOX, 0.5, CAT)],
            0.5, 0.5, 2 / 3, id="in a crowd of others",
        ),
        pytest.param([(BOX, CAT)], [], [((NAN, NAN, NAN, NAN), 0.9, CAT)], 0, 0, 0, id="a box that is none"),
    ],
)  # fmt: skip
def test_average_precision_is_what_it_comes_to_by_hand(capfd, objects, crowds, detections, ap, ap50, f1) -> None:
    scores = score(data(image(objects=objects, crowds=crowds)), [found(*detections)])
    assert same(scores.ap, ap) and same(scores.ap50, ap50) and same(scores.f1_by_image[0], f1)
    assert same(scores.by_class["cat"].ap, ap) and scores.by_class["cat"].objects == len(objects)
    assert math.isnan(scores.by_class["dog"].ap)
    assert capfd.readouterr() == ("", "")


def test_no_images_have_no_score() -> None:
    scores = score(data(), [])
    assert math.isnan(scores.ap) and math.isnan(scores.ar100) and scores.images == 0 and len(scores.f1_by_image) == 0


@pytest.mark.parametrize(("area", "size"), [(1023, "small"), (1025, "medium"), (9215, "medium"), (9217, "large")])
def test_size_is_the_area_that_the_file_says_not_that_of_the_box(area, size) -> None:
    scores = score(data(image(objects=[(BOX, CAT)], areas=[area])), [found((BOX, 0.9, CAT))])
    assert {name for name in ("small", "medium", "large") if not math.isnan(getattr(scores, name))} == {size}
    assert same(getattr(scores, size), 1)


def test_scores_are_not_rounded() -> None:
    """Neighbours among the floats decide who comes first."""
    before = np.nextafter(np.float32(0.5), np.float32(1))
    objects = data(image(objects=[(BOX, CAT)]))
    assert same(score(objects, [found((ELSEWHERE, 0.5, CAT), (BOX, before, CAT))]).ap, 1)
    assert same(score(objects, [found((ELSEWHERE, before, CAT), (BOX, 0.5, CAT))]).ap, 0.5)


def test_each_image_has_its_own_f1_whatever_its_id() -> None:
    images = data(image(9, [(BOX, CAT)]), image(2, TWO_CATS), image(5))
    scores = score(images, [found((BOX, 0.9, CAT)), found((BOX, 0.9, CAT)), NOTHING])
    assert scores.f1_by_image.tolist() == [1, pytest.approx(2 / 3), 1]


def test_the_scores_are_those_of_pycocotools_on_files(tmp_path) -> None:
    json_path = write_random_set(tmp_path)
    coco = read_coco(json_path, tmp_path)
    detections = random_detections(coco, np.random.default_rng(1))
    expected, by_class = run_pycocotools(json_path, coco, detections)
    scores = score(coco, detections)
    ours = (scores.ap, scores.ap50, scores.ap75, scores.small, scores.medium, scores.large)
    assert ours == pytest.approx(expected[:6], abs=1e-12) and scores.ar100 == pytest.approx(expected[8], abs=1e-12)
    assert 0.05 < scores.ap < 0.95
    assert [each.ap for each in scores.by_class.values()] == pytest.approx([ap for ap, _ in by_class], abs=1e-12)
    assert [each.ap50 for each in scores.by_class.values()] == pytest.approx([ap50 for _, ap50 in by_class], abs=1e-12)


def write_random_set(folder: Path) -> Path:
    """30 images of no size, 3 classes whose ids have gaps and no order, some crowds, areas below those of the boxes.

    All numbers are quarters, which both sides compute with exactly."""
    rng = np.random.default_rng(0)
    annotations = []
    for image_id in range(1, 31):
        (folder / f"{image_id}.png").touch()
        for _ in range(rng.poisson(6)):
            x, y, w, h = (rng.integers([0, 0, 20, 20], [1200, 1200, 600, 600]) / 4).tolist()
            crowd, category = int(rng.random() < 0.1), int(rng.choice([7, 3, 12]))
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": [x, y, w, h],
                 "area": w * h * 0.75, "iscrowd": crowd}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in ((7, "b"), (3, "a"), (12, "c"))]
    images = [{"id": i, "file_name": f"{i}.png", "width": 460, "height": 460} for i in range(30, 0, -1)]
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


def random_detections(coco: CocoData, rng: np.random.Generator) -> list[np.ndarray]:
    """Boxes near objects and crowds, and anywhere, more than 100 an image; scores are few, so that many are equal."""
    everything = []
    for each in coco.images:
        near = np.repeat(np.concatenate((each.boxes_xyxy, each.crowd_boxes_xyxy)), 6, axis=0)
        near = near + rng.integers(-40, 40, near.shape) / 4
        anywhere = rng.integers(0, 1200, (90, 2)) / 4
        anywhere = np.concatenate((anywhere, anywhere + rng.integers(20, 600, (90, 2)) / 4), axis=1)
        boxes = np.concatenate((near, anywhere))
        boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)]
        classes = rng.integers(0, 3, len(boxes))
        known = np.repeat(np.concatenate((each.class_ids, each.crowd_class_ids)), 6)[: len(boxes)]
        classes[: len(known)] = known
        everything.append(np.column_stack((boxes, rng.integers(1, 200, len(boxes)) / 256, classes)).astype(np.float32))
    return everything


def run_pycocotools(json_path: Path, coco: CocoData, detections: list[np.ndarray]):
    """Its twelve figures, and (AP, AP50) of each class by the ids of the file."""
    results = [
        {"image_id": image.image_id, "category_id": coco.category_ids[int(class_id)], "score": value,
         "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for image, of_image in zip(coco.images, detections, strict=True)
        for x1, y1, x2, y2, value, class_id in of_image.tolist()
    ]  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(json_path))
        answers = truth.loadRes(results)
        figures = []
        for category_ids in (coco.category_ids, *((each,) for each in coco.category_ids)):
            evaluation = COCOeval(truth, answers, "bbox")
            evaluation.params.catIds = list(category_ids)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            figures.append(evaluation.stats)
    return figures[0].tolist(), [tuple(each[:2].tolist()) for each in figures[1:]]


# -- with a network


@pytest.fixture(scope="module")
def network():
    return load_model("mobilenetv3")


@pytest.fixture(scope="module")
def street(tmp_path_factory, network) -> Path:
    """Three frames of the clip; annotated is what the network itself finds there, its cars last and first by id."""
    folder = tmp_path_factory.mktemp("street")
    with av.open(str(CLIP)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)][10:100:40]
    kinds, images, annotations = {0: 8, 2: 3}, [], []
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
        images.append({"id": 10 + i, "file_name": f"{i}.png", "width": 768, "height": 576})
        for x1, y1, x2, y2, value, class_id in predict(network, frame[:, :, ::-1]).tolist():
            if value > 0.3 and class_id in kinds:
                box = [x1, y1, x2 - x1, y2 - y1]
                annotations.append({"image_id": 10 + i, "category_id": kinds[class_id], "bbox": box})
    categories = [{"id": 8, "name": "person"}, {"id": 3, "name": "car"}]
    path = folder / "street.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


@pytest.fixture
def broken_street(street, tmp_path) -> Path:
    """The second of its three images is none."""
    for path in street.parent.iterdir():
        (tmp_path / path.name).write_bytes(b"no image" if path.name == "1.png" else path.read_bytes())
    return tmp_path / street.name


def test_a_network_finds_what_it_found_by_the_names_of_classes(network, street) -> None:
    coco = read_coco(street, street.parent)
    done = []
    scores = evaluate(network, coco, device=CPU, batch=2, progress=lambda *state: done.append(state))
    assert coco.class_names == ("car", "person") and network.spec.class_names.index("car") == 2
    assert scores.ap > 0.99 and min(each.ap for each in scores.by_class.values()) > 0.99
    assert scores.by_class["person"].objects > 15 and scores.by_class["car"].objects > 0
    assert done == [(1, 3), (2, 3), (3, 3)] and scores.images == 3 and scores.seconds > 0
    assert all(set(each[:, 5]) <= {0, 1} for each in scores.detections)


def test_augmented_views_are_those_of_predict(network, street) -> None:
    coco = read_coco(street, street.parent)
    scores = evaluate(network, coco, device=CPU, flip=True, scales=(0.5,), k=20)
    expected = predict(network, cv2.imread(str(coco.images[2].path))[:, :, ::-1], flip=True, scales=(0.5,), k=20)
    expected = expected[(expected[:, 5] == 0) | (expected[:, 5] == 2)][:, :5].numpy()
    assert len(expected) and np.array_equal(scores.detections[2][:, :5], expected)


def test_an_image_that_cannot_be_read_counts_as_one_where_nothing_was_found(network, street, broken_street) -> None:
    whole, broken = (
        evaluate(network, read_coco(path, path.parent), device=CPU, batch=2, input_wh=(256, 200))
        for path in (street, broken_street)
    )
    assert len(broken.problems) == 1 and "1.png" in broken.problems[0] and whole.problems == ()
    for place, (theirs, ours) in enumerate(zip(whole.detections, broken.detections, strict=True)):
        assert np.allclose(theirs, ours, atol=1e-3) if place != 1 else len(ours) == 0 < len(theirs)
    assert broken.ar100 < whole.ar100


def test_layers_stay_in_the_modes_they_were_in(street) -> None:
    network = create_model("res_18").train()
    frozen = next(layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)).eval()
    before = [layer.training for layer in network.modules()]
    statistics = {name: value.clone() for name, value in network.named_buffers()}
    evaluate(network, read_coco(street, street.parent), device=CPU, input_wh=(64, 64))
    assert [layer.training for layer in network.modules()] == before and not frozen.training
    assert all(torch.equal(value, statistics[name]) for name, value in network.named_buffers())


# -- the command


def test_the_command_tells_and_writes_the_scores(street, tmp_path, capsys) -> None:
    out = tmp_path / "scores.json"
    assert main(["--data", str(street), "--images", str(street.parent), "--json", str(out), "--batch", "3"]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    scores = json.loads(out.read_text())
    assert scores["ap"] > 0.99 and scores["images"] == 3 and scores["by_class"].keys() == {"car", "person"}
    lines = [line.split() for line in told.out.splitlines()]
    assert lines[2] == ["AP", "AP50", "AP75", "small", "medium", "large", "AR100"]
    assert lines[3][:3] == [f"{100 * scores[name]:.1f}" for name in ("ap", "ap50", "ap75")]
    assert lines[4][:4] == ["95", "%", "of", "draws"]
    low, high = scores["intervals"]["ap"]
    assert lines[4][4] == f"{100 * low:.1f}–{100 * high:.1f}" and low <= scores["ap"] <= high
    assert [line[0] for line in lines[7:11:2]] == ["car", "person"]
    assert lines[9][1] == str(scores["by_class"]["person"]["objects"])
    assert len(lines[10]) == 2 and all("–" in each for each in lines[10])
    assert f"(--score {scores['threshold']['score']:.2f} of a run)" in told.out.splitlines()[-1]


def test_the_command_names_images_it_could_not_read(broken_street, capsys) -> None:
    given = ["--data", str(broken_street), "--images", str(broken_street.parent), "--input", "96x64"]
    assert main(given) == 0
    assert "1.png" in capsys.readouterr().err


BAD_INPUT = {
    "no file": (["--data", "missing.json"], "missing.json"),
    "no json": (["--data", "0.png"], "0.png"),
    "other folder": (["--images", "."], "street.json"),
    "other classes": (["--data", "cells.json"], "RBC"),
    "no such model": (["--model", "resnext"], "resnext"),
    "no weights ship": (["--model", "dla_34"], "ships without weights"),
    "weights missing": (["--weights", "missing.pth"], "missing.pth"),
    "weights are none": (["--weights", "street.json"], "street.json"),
    "input no size": (["--input", "512"], "--input 512"),
    "input of nothing": (["--input", "0x512"], "--input 0x512"),
    "input and keep-res": (["--input", "512x512", "--keep-res"], "--keep-res"),
    "no batch": (["--batch", "0"], "--batch 0"),
    "no such device": (["--device", "cuda:99"], "cuda:99"),
    "nowhere to write": (["--json", "nowhere/scores.json"], "nowhere"),
    "the annotations as scores": (["--json", "street.json"], "street.json: is read by this command"),
    "no image": (["--data", "none.json"], "none of 1 images"),
}


@pytest.mark.parametrize(("options", "told"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_line(street, tmp_path, monkeypatch, capsys, options, told) -> None:
    folder = tmp_path / "street"
    folder.mkdir()
    for path in street.parent.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "text.png").write_text("no image")
    content = json.loads(street.read_text())
    cells = content | {"categories": [{"id": 8, "name": "RBC"}, {"id": 3, "name": "car"}]}
    (folder / "cells.json").write_text(json.dumps(cells))
    none = content | {"images": [content["images"][0] | {"file_name": "text.png"}]}
    none["annotations"] = [each for each in content["annotations"] if each["image_id"] == 10]
    (folder / "none.json").write_text(json.dumps(none))
    monkeypatch.chdir(folder)
    given = dict(zip(("--data", "--images"), ("street.json", str(folder)), strict=True))
    arguments = [word for pair in given.items() for word in pair] + options  # the last of two counts
    if options == ["--images", "."]:
        monkeypatch.chdir(tmp_path)
        arguments = ["--data", "street/street.json", *options]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert told in printed.err
