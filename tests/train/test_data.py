"""The data side of training: COCO files as they should be and as they should not, samples, batches, loaders."""

import json
import os
import shutil
from dataclasses import replace
from itertools import chain

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from models.preprocess import preprocess
from models.spec import SPECS
from tests.kit.places import MINI
from train.coco import DataError, read_coco, same_classes
from train.dataset import LOADER_START, DetectionDataset, collate, loader_process
from train.recipe import AugmentSettings, TargetSettings
from train.state import StateError, load_state

IMAGE = {"id": 1, "file_name": "a.png", "width": 40, "height": 30}
CLASS = {"id": 1, "name": "cell"}
BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 20]}


@pytest.fixture
def write(tmp_path):
    """`write(images=…, categories=…, annotations=…)`: a json file, and an image folder with a.png and b.png."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.full((30, 40, 3), 90, np.uint8))

    def write(**parts):
        path = tmp_path / "data.json"
        tree = {"images": [IMAGE], "categories": [CLASS], "annotations": [BOX]} | parts
        path.write_text(json.dumps(tree))
        return path, folder

    return write


# -- the file


def test_images_come_with_their_boxes_in_the_order_of_the_file(write):
    images = [IMAGE | {"id": 9}, IMAGE | {"id": 4, "file_name": "b.png"}]
    annotations = [
        BOX | {"image_id": 4, "category_id": 7},
        BOX | {"image_id": 9, "category_id": 3, "bbox": [1.5, 2, 3, 4], "area": 5.5},
        BOX | {"image_id": 4, "category_id": 3, "bbox": [-5, 0, 50, 30]},
        BOX | {"image_id": 4, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 9, 8], "segmentation": {"counts": []}},
    ]
    categories = [{"id": 7, "name": "cat", "supercategory": "x"}, {"id": 3, "name": "dog"}]
    json_path, folder = write(images=images, annotations=annotations, categories=categories, info={"year": 2020})
    data = read_coco(json_path, folder)
    assert (data.class_names, data.category_ids) == (("dog", "cat"), (3, 7))
    first, second = data.images
    assert (first.image_id, first.path, first.width, first.height) == (9, folder / "a.png", 40, 30)
    assert first.boxes_xyxy.tolist() == [[1.5, 2, 4.5, 6]] and first.boxes_xyxy.dtype == np.float32
    assert (first.class_ids.tolist(), first.areas.tolist()) == ([0], [5.5])
    assert second.boxes_xyxy.tolist() == [[2, 3, 12, 23], [-5, 0, 45, 30]]
    assert (second.class_ids.tolist(), second.areas.tolist()) == ([1, 0], [200, 1500])
    assert second.crowd_boxes_xyxy.tolist() == [[0, 0, 9, 8]]
    assert (second.crowd_class_ids.tolist(), second.crowd_areas.tolist()) == ([0], [72])
    assert first.crowd_boxes_xyxy.shape == (0, 4)


def test_an_image_without_a_box_is_one_too(write):
    data = read_coco(*write(images=[IMAGE, IMAGE | {"id": 2, "file_name": "b.png"}]))
    assert data.images[1].boxes_xyxy.shape == (0, 4) and data.images[1].class_ids.shape == (0,)


def test_bad_boxes_are_left_out_and_counted(write):
    boxes = {
        "not a number": [[float("nan"), 1, 2, 3], [1, 1, float("inf"), 3], [1e300, 1, 1e300, 3]],
        "of no width or height": [[5, 5, 0, 5], [5, 5, 5, -1]],
        "outside their image": [[40, 0, 5, 5], [0, -9, 5, 9], [0, 99, 5, 5], [-7, 3, 7, 5]],
    }
    annotations = [BOX, {"image_id": 1, "category_id": 1}]
    annotations += [BOX | {"id": i, "bbox": box} for i, box in enumerate(chain(*boxes.values()), 2)]
    data = read_coco(*write(annotations=annotations))
    assert data.images[0].boxes_xyxy.tolist() == [[2, 3, 12, 23]]
    assert data.left_out == {"missing": 1, **{what: len(bad) for what, bad in boxes.items()}}
    (remark,) = data.remarks
    assert "10 boxes left out (1 missing, 3 not a number, 2 of no width or height, 4 outside their image)" in remark


def test_a_byte_order_mark_is_passed_over(write):
    path, folder = write()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_coco(path, folder).images) == 1


WRONG_FILES = [
    ("empty", b"", "not JSON, or cut short"),
    ("cut short", b'{"images": [{"id": 1', "not JSON, or cut short"),
    ("not text", b"\xff\xd8\xff\x00", "not JSON, or cut short"),
    ("too deep", b"[" * 100_000, "not "),
    ("a list", b"[]", "not COCO annotations (Expected `object`, got `array`); needed are images (id, file_name"),
    ("detections", b'[{"image_id": 1, "score": 0.5}]', "not COCO annotations"),
    ("no categories", b'{"images": [], "annotations": []}', "missing required field `categories`"),
]


@pytest.mark.parametrize(("content", "told"), [row[1:] for row in WRONG_FILES], ids=[row[0] for row in WRONG_FILES])
def test_what_is_no_coco_file_is_told_in_one_line(tmp_path, content, told):
    path = tmp_path / "data.json"
    path.write_bytes(content)
    refused(path, tmp_path, told)


def refused(json_path, folder, told):
    with pytest.raises(DataError) as error:
        read_coco(json_path, folder)
    text = str(error.value)
    assert told in text and text.startswith(f"{json_path}: ") and "\n" not in text, text


WRONG_PARTS = [
    ("no images", {"images": []}, "no images"),
    ("no categories", {"categories": []}, "no categories"),
    ("no annotations", {"annotations": []}, "no annotations"),
    ("no good box", {"annotations": [BOX | {"bbox": [1, 1, 0, 0]}]}, "none of its 1 boxes can be used (1 of no width"),
    ("no box at all", {"annotations": [{"image_id": 1, "category_id": 1}]}, "can be used (1 missing)"),
    ("an image id twice", {"images": [IMAGE, IMAGE]}, "several images have the id 1"),
    ("a category id twice", {"categories": [CLASS, {"id": 1, "name": "x"}]}, "several categories have the id 1"),
    ("a name twice", {"categories": [CLASS, {"id": 2, "name": "cell"}]}, "several categories are called cell"),
    ("an unknown image", {"annotations": [BOX | {"image_id": 5}]}, "annotations of images that are not listed: id 5"),
    ("an unknown category", {"annotations": [BOX | {"category_id": 8}]}, "annotations of unknown categories: id 8"),
    ("a missing image", {"images": [IMAGE | {"file_name": "x.png"}]}, "1 of 1 images are not in "),
    ("a wrong folder", {"images": [IMAGE | {"file_name": "up/a.png"}]}, "up/a.png; the folders in their file_name"),
    ("an odd name", {"images": [IMAGE | {"file_name": "a\n\0b" * 99}]}, "1 of 1 images are not in "),
    ("an id of text", {"images": [IMAGE | {"id": "1"}]}, "Expected `int`, got `str` - at `$.images[0].id`"),
    ("a box of three", {"annotations": [BOX | {"bbox": [1, 2, 3]}]}, "$.annotations[0].bbox"),
    ("no width", {"images": [IMAGE | {"width": 0}]}, "$.images[0].width"),
]


@pytest.mark.parametrize(("parts", "told"), [row[1:] for row in WRONG_PARTS], ids=[row[0] for row in WRONG_PARTS])
def test_what_does_not_fit_together_is_told_in_one_line(write, parts, told):
    refused(*write(**parts), told)


def test_missing_files_are_named_a_few_of_many(write):
    images = [IMAGE | {"id": i, "file_name": f"{i}.png"} for i in range(1, 10)]
    refused(*write(images=images), ": 1.png, 2.png, 3.png, 4.png, 5.png and 4 more; is it the right folder?")


def test_a_missing_file_or_folder_is_told_in_one_line(write, tmp_path):
    path, folder = write()
    refused(tmp_path / "no.json", folder, "cannot be read (No such file or directory)")
    refused(tmp_path, folder, "cannot be read (Is a directory)")
    refused(path, tmp_path / "nowhere", "nowhere is not there, or not a folder")
    refused(path, path, "is not there, or not a folder")


def boxes(*all_xywh):
    return [BOX | {"id": i, "bbox": list(box)} for i, box in enumerate(all_xywh, 1)]


SUSPECT = [
    ("x1, y1, x2, y2", boxes((2, 3, 30, 20), (20, 10, 38, 28), (25, 3, 40, 9), (1, 1, 9, 9)), "x1, y1, x2, y2"),
    ("fractions", boxes((0.1, 0.2, 0.3, 0.4), (0, 0, 1, 1)), "fractions of the image"),
    ("an id twice", [BOX, BOX | {"bbox": [9, 2, 5, 5]}], "annotations share the id 1"),
]


@pytest.mark.parametrize(("annotations", "told"), [row[1:] for row in SUSPECT], ids=[row[0] for row in SUSPECT])
def test_what_looks_wrong_is_remarked_upon(write, annotations, told):
    (remark,) = read_coco(*write(annotations=annotations)).remarks
    assert told in remark and "\n" not in remark


def test_right_boxes_are_not_suspected(write):
    right = boxes((0, 0, 40, 30), (1, 1, 39, 29), (30, 20, 10, 10), (5, 5, 5, 5))
    assert read_coco(*write(annotations=right)).remarks == ()
    assert read_coco(MINI / "train.json", MINI / "images").remarks == ()


CLASSES = [
    ("fewer", ("cell",), "without other"),
    ("more", ("cell", "other", "third"), "also third"),
    ("others", ("cell", "else"), "without other and also else"),
    ("another order", ("other", "cell"), "the same in another order (other, cell, not cell, other)"),
]


@pytest.mark.parametrize(("names", "told"), [row[1:] for row in CLASSES], ids=[row[0] for row in CLASSES])
def test_other_classes_are_explained(write, names, told):
    train = read_coco(*write(categories=[CLASS, {"id": 2, "name": "other"}]))
    other = read_coco(*write(categories=[{"id": i, "name": name} for i, name in enumerate(names, 1)]))
    with pytest.raises(DataError, match="other classes than in") as error:
        same_classes(train, other)
    assert told in str(error.value)


def test_the_same_classes_may_have_other_ids(write):
    train = read_coco(*write())
    same_classes(train, read_coco(*write(categories=[CLASS | {"id": 5}], annotations=[BOX | {"category_id": 5}])))


# -- samples


def mini(resize="stretch", size=(256, 192)):
    """The small data set, and what a network of three classes expects."""
    data = read_coco(MINI / "train.json", MINI / "images")
    width, height = size
    spec = replace(SPECS["res_18"], resize=resize, class_names=data.class_names, input_width=width, input_height=height)
    return data, spec


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_without_augmentation_a_sample_is_what_preprocess_makes(resize):
    data, spec = mini(resize)
    dataset = DetectionDataset(data, spec)
    assert len(dataset) == 8
    for place in (0, 5):
        sample, image = dataset[0, place], data.images[place]
        rgb = np.ascontiguousarray(cv2.imread(str(image.path))[:, :, ::-1])
        unnormalised = replace(spec, mean_rgb=(0, 0, 0), std_rgb=(1, 1, 1), channel_order="rgb")
        prepared = preprocess(rgb, unnormalised)
        assert sample.image_rgb_hwc.dtype == np.uint8 and sample.problem is None
        assert (sample.image_rgb_hwc == prepared.images_bchw[0].permute(1, 2, 0).numpy()).all()
        back = prepared.to_image(torch.from_numpy(sample.boxes_xyxy) / spec.stride)
        assert np.allclose(back, image.boxes_xyxy, atol=1e-3)
        assert (sample.class_ids == image.class_ids).all()


def test_augmented_boxes_lie_in_the_input_and_black_stays_black():
    data, spec = mini("letterbox")
    dataset = DetectionDataset(data, spec, AugmentSettings(scale_low=2, scale_high=2, crop=False), seed=3)
    kept = 0
    for epoch in range(3):
        for place in range(8):
            sample = dataset[epoch, place]
            assert sample.image_rgb_hwc.shape == (192, 256, 3)
            sides = sample.boxes_xyxy[:, 2:] - sample.boxes_xyxy[:, :2]
            assert sides.min() >= 1 and sample.boxes_xyxy.min() >= 0
            assert (sample.boxes_xyxy <= [256, 192, 256, 192]).all()
            assert len(sample.class_ids) == len(sample.boxes_xyxy)
            assert not sample.image_rgb_hwc[:40].any() and sample.image_rgb_hwc[60:130, 80:180].any()
            kept += len(sample.class_ids)
    assert kept == 3 * 104


def as_bytes(sample):
    return b"".join(np.ascontiguousarray(part).tobytes() for part in (sample.image_rgb_hwc, sample.boxes_xyxy))


def test_a_sample_follows_from_seed_epoch_and_place_alone():
    data, spec = mini()
    dataset = DetectionDataset(data, spec, AugmentSettings(), seed=7)
    first = as_bytes(dataset[2, 3])
    dataset[0, 0]
    assert as_bytes(dataset[2, 3]) == first
    assert as_bytes(DetectionDataset(data, spec, AugmentSettings(), seed=7)[2, 3]) == first
    others = [dataset[1, 3], dataset[3, 2], DetectionDataset(data, spec, AugmentSettings(), seed=8)[2, 3]]
    assert first not in [as_bytes(other) for other in others]


def load(dataset, keys, workers):
    loader = DataLoader(
        dataset,
        batch_sampler=keys,
        num_workers=workers,
        multiprocessing_context=LOADER_START if workers else None,
        collate_fn=Collate(*mini()),
        worker_init_fn=loader_process,
    )
    return list(loader)


class Collate:
    def __init__(self, data, spec):
        self.spec = spec

    def __call__(self, samples):
        return collate(samples, spec=self.spec, size_channels=2, settings=TargetSettings())


def test_batches_are_the_same_however_many_processes_load_them():
    data, spec = mini()
    dataset = DetectionDataset(data, spec, AugmentSettings(), seed=1)
    keys = [[(epoch, place) for place in (0, 3)] for epoch in range(4)]
    alone, one, two = (load(dataset, keys, workers) for workers in (0, 1, 2))
    for batches in (one, two):
        for got, expected in zip(batches, alone, strict=True):
            assert torch.equal(got.images_bhwc, expected.images_bhwc)
            assert torch.equal(got.targets.cells, expected.targets.cells)
            assert got.image_ids == expected.image_ids == (1, 4)
    # neighbouring batches come from different processes: the same image twice, differently
    different = {batch.images_bhwc.numpy().tobytes() for batch in two}
    assert len(different) == 4


# -- batches


def test_a_batch_holds_images_and_targets_on_the_grid():
    data, spec = mini("letterbox")
    samples = [DetectionDataset(data, spec)[0, place] for place in range(8)]
    batch = collate(samples, spec=spec, size_channels=2, settings=TargetSettings(max_objects=20))
    assert batch.images_bhwc.shape == (8, 192, 256, 3) and batch.images_bhwc.dtype == torch.uint8
    assert (batch.images_bhwc[2].numpy() == samples[2].image_rgb_hwc).all()
    assert batch.image_ids == tuple(range(1, 9)) and batch.problems == ()
    assert batch.targets.cells.shape == (8, 20)
    for place, boxes_xyxy in enumerate(batch.boxes_xyxy):
        columns, rows = ((boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) // 8).T  # the middle, 4 pixels to a cell
        cells = batch.targets.cells[place, batch.targets.weights[place] > 0].numpy()
        assert len(cells) == len(data.images[place].class_ids)
        # a box at the last column is cut there, which moves its middle by half a cell at most
        assert (np.abs(cells % 64 - columns) <= 1).all() and (np.abs(cells // 64 - rows) <= 1).all()
    assert sum(map(len, batch.class_ids)) == 104


@pytest.fixture
def damaged(tmp_path):
    """The small data set with its first image damaged, its second of another size and its third turned by EXIF."""
    folder = tmp_path / "images"
    shutil.copytree(MINI / "images", folder)
    data = read_coco(MINI / "train.json", folder)
    first, second, third = (image.path for image in data.images[:3])
    first.write_bytes(first.read_bytes()[:100])
    cv2.imwrite(str(second), np.zeros((60, 80, 3), np.uint8))
    turned = third.read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    third.write_bytes(turned[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + turned[2:])
    return data


def test_images_that_cannot_be_used_say_why(damaged):
    dataset = DetectionDataset(damaged, mini()[1], AugmentSettings())
    problems = [dataset[0, place].problem for place in range(4)]
    assert "BloodImage_00004.jpg: not an image that OpenCV decodes" in problems[0]
    assert "BloodImage_00107.jpg: 80×60 pixels, but annotated as 320×240" in problems[1]
    assert "240×320 pixels, but annotated as 320×240: its EXIF data turns it" in problems[2]
    assert problems[3] is None
    assert all("\n" not in problem for problem in problems[:3])
    assert dataset[0, 0].boxes_xyxy.shape == (0, 4)


def test_a_file_that_vanished_is_a_problem_of_its_image_alone(damaged):
    damaged.images[4].path.unlink()
    sample = DetectionDataset(damaged, mini()[1])[0, 4]
    assert sample.problem is not None and "cannot be read (No such file or directory)" in sample.problem


@pytest.mark.parametrize("size_channels", [2, 4])
def test_a_batch_leaves_out_what_cannot_be_used_and_may_be_empty(damaged, size_channels):
    spec = mini()[1]
    dataset = DetectionDataset(damaged, spec)
    options = {"spec": spec, "size_channels": size_channels, "settings": TargetSettings()}
    some = collate([dataset[0, place] for place in (0, 3, 1)], **options)
    assert some.image_ids == (4,) and len(some.problems) == 2 and len(some.images_bhwc) == 1
    none = collate([dataset[0, place] for place in (0, 1)], **options)
    assert none.images_bhwc.shape == (0, 192, 256, 3) and none.image_ids == () and len(none.problems) == 2
    assert none.targets.cells.shape == (0, 128) and none.boxes_xyxy == ()


def test_a_pipe_is_told_of_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: cannot be read \(not a regular file\); give a COCO json file"):
        read_coco(tmp_path / "pipe", tmp_path)
    with pytest.raises(StateError, match=r"pipe: cannot be read"):
        load_state(tmp_path / "pipe")
