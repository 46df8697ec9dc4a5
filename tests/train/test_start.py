"""What a training starts with: weights from a checkpoint or from ImageNet, heads for the data's classes."""

import json
import shutil
from pathlib import Path

import cv2
import pytest
import torch
import torchvision

from models import load_model, save_checkpoint
from models.samples import FOLDER as SAMPLES
from models.tta import predict
from train.coco import CocoData, read_coco
from train.recipe import ModelSettings
from train.start import start_network


def test_a_checkpoint_of_other_classes_starts_its_heads_anew(tmp_path) -> None:
    told: list[str] = []
    network = start_network(ModelSettings(freeze=("backbone.",)), CocoData(("red", "white"), (1, 2), []), told.append)
    shipped = load_model("mobilenetv3").state_dict()
    kept = network.state_dict()
    assert torch.equal(kept["neck.attention.reduce.weight"], shipped["neck.attention.reduce.weight"])
    assert kept["heads.hm.pointwise.weight"].shape[0] == 2 and (kept["heads.hm.pointwise.bias"] < -2).all()
    assert any("heads.hm.pointwise" in line for line in told) and any("not trained" in line for line in told)
    assert network.spec.class_names == ("red", "white")
    trained = {name.split(".")[0] for name, weight in network.named_parameters() if weight.requires_grad}
    assert trained == {"neck", "heads"}
    save_checkpoint(network.state_dict(), tmp_path / "a.safetensors", network.spec)
    assert load_model("mobilenetv3", tmp_path / "a.safetensors").spec.class_names == ("red", "white")


def test_a_backbone_starts_from_imagenet(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    weights = torchvision.models.resnet18().state_dict()
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    cached = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    cached.parent.mkdir(parents=True)
    torch.save(weights, cached)
    network = start_network(
        ModelSettings(name="resdcn_18", start="imagenet"), CocoData(("a",), (1,), []), lambda text: None
    )
    assert torch.equal(network.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])


def test_the_heat_map_of_a_new_class_starts_from_the_known_one_that_answers_most(tmp_path) -> None:
    """People in a street, called otherwise; what nothing known looks like is drawn anew."""
    told: list[str] = []
    network = start_network(ModelSettings(new_classes="nearest", input_size="512x384"), people(tmp_path), told.append)
    shipped = load_model("mobilenetv3")
    person = shipped.spec.class_names.index("person")
    kept, known = network.state_dict(), shipped.state_dict()
    for part in ("weight", "bias"):
        kept_rows, known_rows = kept[f"heads.hm.pointwise.{part}"], known[f"heads.hm.pointwise.{part}"]
        assert torch.equal(kept_rows[0], known_rows[person]) and len(kept_rows) == 2
    assert kept["heads.hm.pointwise.bias"][1] == pytest.approx(-2.19)
    assert any("walker: starts from person" in line for line in told), told
    assert any("grass: drawn anew, no class answers" in line for line in told), told


def test_classes_that_are_known_stay_what_they_are(tmp_path) -> None:
    shipped = load_model("mobilenetv3")
    names = shipped.spec.class_names
    network = start_network(
        ModelSettings(new_classes="nearest"), CocoData(names, tuple(range(80)), []), lambda text: None
    )
    assert all(torch.equal(value, shipped.state_dict()[key]) for key, value in network.state_dict().items())


def test_where_no_class_is_known_none_is_near() -> None:
    settings = ModelSettings(name="res_18", start="none", new_classes="nearest")
    with pytest.raises(ValueError, match="knows no classes; give a checkpoint"):
        start_network(settings, CocoData(("a",), (1,), []), lambda text: None)


def test_what_is_drawn_anew_is_not_kept_from_learning() -> None:
    settings = ModelSettings(start="none", freeze=("backbone.",))
    with pytest.raises(ValueError, match=r"model\.freeze: what is drawn anew would never learn"):
        start_network(settings, CocoData(("a",), (1,), []), lambda text: None)


def people(folder: Path) -> CocoData:
    """A picture that ships, with the people that the shipped network finds in it as walkers; and some grass."""
    picture = sorted(SAMPLES.glob("*.jpg"))[0]
    image_bgr = cv2.imread(str(picture))
    (folder / "images").mkdir()
    shutil.copy(picture, folder / "images")
    shipped = load_model("mobilenetv3")
    person = shipped.spec.class_names.index("person")
    found = predict(shipped, image_bgr).numpy()
    boxes = [row[:4] for row in found if row[4] > 0.4 and row[5] == person]
    assert len(boxes) > 2
    height, width = image_bgr.shape[:2]
    walkers = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [float(x) for x in (*box[:2], *(box[2:] - box[:2]))]}
        for i, box in enumerate(boxes)
    ]
    grass = {"id": 99, "image_id": 1, "category_id": 2, "bbox": [2, height - 30, 20, 20]}
    tree = {
        "images": [{"id": 1, "file_name": picture.name, "width": width, "height": height}],
        "categories": [{"id": 1, "name": "walker"}, {"id": 2, "name": "grass"}],
        "annotations": [*walkers, grass],
    }
    (folder / "train.json").write_text(json.dumps(tree))
    return read_coco(folder / "train.json", folder / "images")
