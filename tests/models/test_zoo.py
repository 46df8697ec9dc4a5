"""The zoo: names become files, files become networks, and the table is counted, not typed."""

import json

import pytest
import safetensors.torch
import torch

from models import DEFAULT_MODEL, SPECS, CheckpointError, create_model, list_models, load_model, save_checkpoint
from models.spec import COCO_CLASSES
from models.zoo import ZOO, count, find_weights, main, resolve_weights, weights_folders

SHIPPED = SPECS[DEFAULT_MODEL].weights_file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where weights of a user lie; the home folder is another."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CENTERSTREAM_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


# From a name to a file.


def test_nothing_said_takes_what_ships():
    assert resolve_weights(None, DEFAULT_MODEL) == SHIPPED
    with pytest.raises(CheckpointError, match="res_18 ships without weights; give a file of them"):
        resolve_weights(None, "res_18")
    with pytest.raises(CheckpointError, match="name of public ones: ctdet_coco_dla_1x or ctdet_coco_dla_2x"):
        resolve_weights(None, "dla_34")


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "a.pth").touch()
    assert resolve_weights(str(tmp_path / "a.pth"), "res_18") == tmp_path / "a.pth"
    assert resolve_weights(tmp_path / "a.pth", "res_18") == tmp_path / "a.pth"


def test_a_name_is_looked_for_in_every_folder_in_turn(folder):
    cache = folder.parent / "home" / ".cache" / "centerstream" / "weights"
    assert weights_folders() == [SHIPPED.parent, folder, cache]
    cache.mkdir(parents=True)
    (cache / "ctdet_coco_hg.pth").touch()
    assert resolve_weights("ctdet_coco_hg", "hourglass") == cache / "ctdet_coco_hg.pth"
    (folder / "ctdet_coco_hg.safetensors").touch()
    assert resolve_weights("ctdet_coco_hg", "hourglass") == folder / "ctdet_coco_hg.safetensors"
    assert find_weights("mobilenetv3_coco") == SHIPPED
    assert find_weights("ctdet_coco_resdcn18") is None


@pytest.mark.parametrize(
    ("name", "model", "says"),
    [
        ("ctdet_coco_dla_2x", "dla_34", r"not on this machine: put ctdet_coco_dla_2x\.pth of the model zoo .* into "),
        ("ctdet_coco_dla_2x", "res_18", "ctdet_coco_dla_2x is for dla_34, and the model is res_18$"),
        (
            "ctdet_coco_dla_3x",
            "dla_34",
            "ctdet_coco_dla_3x: no such file, nor a name of known weights: mobilenetv3_coco,",
        ),
        ("a/b.pth", "dla_34", "a/b.pth: no such file"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(folder, name, model, says):
    with pytest.raises(CheckpointError, match=says) as error:
        resolve_weights(name, model)
    assert "\n" not in str(error.value)
    assert "is for" in says or name == "a/b.pth" or str(folder) in str(error.value)


# From a file to a network.


def test_a_network_is_ready_with_what_ships():
    model = load_model(DEFAULT_MODEL)
    assert (model.spec, model.training) == (SPECS[DEFAULT_MODEL], False)
    shipped = safetensors.torch.load_file(SHIPPED)
    assert model.state_dict().keys() == shipped.keys()
    assert all(torch.equal(value, shipped[key].float()) for key, value in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(
    ("classes", "names"), [(1, ("class_0",)), (2, ("class_0", "class_1")), (80, COCO_CLASSES)], ids=["1", "2", "80"]
)
def test_the_number_of_classes_is_what_the_file_holds(tmp_path, classes, names):
    made = create_model("mobilenetv3", classes)
    torch.save({"epoch": 1, "state_dict": made.state_dict()}, tmp_path / "a.pth")
    model = load_model("mobilenetv3", tmp_path / "a.pth")
    assert (model.spec.class_names, model.spec.weights_file) == (names, tmp_path / "a.pth")
    assert all(torch.equal(value, made.state_dict()[key]) for key, value in model.state_dict().items())


def test_a_file_that_describes_itself_names_its_classes(tmp_path):
    cells = ("RBC", "WBC", "Platelets")
    spec = SPECS["mobilenetv3"].from_json(
        json.dumps(json.loads(SPECS["mobilenetv3"].to_json()) | {"class_names": cells})
    )
    save_checkpoint(create_model("mobilenetv3", 3).state_dict(), tmp_path / "cells.safetensors", spec)
    assert load_model("mobilenetv3", tmp_path / "cells.safetensors").spec.class_names == cells


def test_a_number_of_classes_that_is_asked_for_must_be_held():
    assert len(load_model(DEFAULT_MODEL, SHIPPED, num_classes=80).spec.class_names) == 80
    with pytest.raises(CheckpointError, match="holds 80 classes, the model was made for 3"):
        load_model(DEFAULT_MODEL, SHIPPED, num_classes=3)


def test_a_name_of_the_zoo_is_enough(folder):
    made = create_model("resdcn_18")
    torch.save({"state_dict": made.state_dict()}, folder / "ctdet_coco_resdcn18.pth")
    model = load_model("resdcn_18", "ctdet_coco_resdcn18")
    assert torch.equal(model.hm[2].weight, made.hm[2].weight)
    assert model.spec.class_names == COCO_CLASSES


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("", None), "allowed are dla_34"),
        (("yolo", SHIPPED), "allowed are dla_34"),
        (("mobilenetv3", SHIPPED, 0), "give 1 or more"),
        (("res_18", SHIPPED), "looks like mobilenetv3, and the model is res_18"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, says):
    with pytest.raises(ValueError, match=says) as error:
        load_model(*arguments)
    assert "\n" not in str(error.value)


# The table.


def test_the_shipped_network_has_as_many_parameters_as_its_file_and_2_6_gflop():
    parameters, flop = count("mobilenetv3")
    assert parameters == sum(value.numel() for value in safetensors.torch.load_file(SHIPPED).values())
    assert 2.5e9 < flop < 2.7e9


def test_deformable_convolutions_count_as_convolutions_and_their_offsets_on_top():
    """resdcn_18 against res_18: only the way back up and the heads' input differ."""

    def way_up(layers):  # (in, out, kernel, cells): at 512 pixels the backbone ends with 16×16 cells
        return sum(2 * inputs * outputs * kernel**2 * cells for inputs, outputs, kernel, cells in layers)

    plain = way_up([(512, 256, 4, 16**2), (256, 256, 4, 32**2), (256, 256, 4, 64**2)])
    plain_heads = way_up([(256, 64, 3, 128**2)] * 3)
    deformable = way_up(
        layer
        for inputs, outputs, cells in ((512, 256, 16**2), (256, 128, 32**2), (128, 64, 64**2))
        for layer in ((inputs, 27, 3, cells), (inputs, outputs, 3, cells), (outputs, outputs, 4, cells))
    )
    deformable_heads = way_up([(64, 64, 3, 128**2)] * 3)
    assert count("res_18")[1] - count("resdcn_18")[1] == plain + plain_heads - deformable - deformable_heads


def test_the_table_lists_every_model_and_where_its_weights_are(folder, capsys):
    (folder / "ctdet_coco_dla_2x.pth").touch()
    assert main([]) == 0
    table = capsys.readouterr().out
    rows = [line.split() for line in table.partition("\n\n")[0].splitlines()[1:]]
    assert {row[0] if row[0] in SPECS else row[1] for row in rows} == set(list_models())
    assert {row[0] for row in rows if row[0] not in SPECS} == set(ZOO)
    dla = next(row for row in rows if row[0] == "ctdet_coco_dla_2x")
    assert dla[1:] == [
        "dla_34",
        "19.7",
        "66.1",
        "37.4",
        "39.2",
        "41.7",
        "52",
        f"{folder}/ctdet_coco_dla_2x.pth",
    ]
    assert "BSD-3-Clause" in table and str(folder) in table.splitlines()[-1]


def test_machines_get_the_same_as_json(folder, capsys):
    assert main(["--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["folders"] == [str(folder) for folder in weights_folders()]
    models = {entry["model"]: entry for entry in listed["models"]}
    assert sorted(models) == list_models()
    (shipped,) = models["mobilenetv3"]["weights"]
    assert (shipped["file"], shipped["ap"], shipped["licence"]) == (
        str(SHIPPED),
        None,
        "MIT; see models/weights/NOTICE",
    )
    (hourglass,) = models["hourglass"]["weights"]
    assert (hourglass["ap"], hourglass["frames_per_s"], hourglass["gpu"]) == ([40.3, 42.2, 45.1], 14, "Titan Xp")
    assert models["res_50"]["weights"] == []
    assert models["hourglass"]["parameters"] == count("hourglass")[0]
