"""Checkpoints: written and read back the same; every bad file turned away in one line that names it."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from models import SPECS, CheckpointError, create_model, load_checkpoint, read_spec, save_checkpoint

SPEC = SPECS["mobilenetv3"].with_classes(2)


@pytest.fixture(scope="module")
def model():
    return create_model("mobilenetv3", num_classes=2)


@pytest.fixture
def checkpoint(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(model.state_dict(), path, SPEC)
    return path


def assert_same_weights(a, b):
    for (key, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), key


def test_round_trip_keeps_weights_and_spec(model, checkpoint):
    other = create_model("mobilenetv3", num_classes=2)
    spec = load_checkpoint(other, checkpoint)
    assert_same_weights(model, other)
    assert spec.weights_file == checkpoint
    assert (spec.name, spec.class_names) == ("mobilenetv3", ("class_0", "class_1"))
    assert spec == read_spec(str(checkpoint))


def test_the_same_weights_are_the_same_bytes(model, checkpoint, tmp_path):
    again = tmp_path / "again.safetensors"
    save_checkpoint(model.state_dict(), again, SPEC)
    assert again.read_bytes() == checkpoint.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.safetensors", "model.safetensors"]


def test_half_floats_become_the_precision_of_the_model(model, tmp_path):
    path = tmp_path / "half.safetensors"
    save_checkpoint({key: value.half() for key, value in model.state_dict().items()}, path, SPEC)
    other = create_model("mobilenetv3", num_classes=2)
    load_checkpoint(other, path)
    assert {value.dtype for value in other.state_dict().values()} == {torch.float32}
    assert torch.equal(other.heads["wh"].pointwise.weight, model.heads["wh"].pointwise.weight.half().float())


def test_channels_last_weights_are_read_back_the_same(model, tmp_path):
    path = tmp_path / "channels_last.safetensors"
    turned = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in model.state_dict().items()}
    save_checkpoint(turned, path, SPEC)
    other = create_model("mobilenetv3", num_classes=2).to(memory_format=torch.channels_last)
    load_checkpoint(other, path)
    assert_same_weights(model, other)


def metadata_of(spec_json):
    return {"centerstream": spec_json}


BAD_FILES = {
    "empty": (lambda good: b"", "empty"),
    "one byte": (lambda good: b"x", "not a safetensors file"),
    "text": (lambda good: b"epoch,loss\n1,0.5\n", "not a safetensors file"),
    "header only": (lambda good: good[:100], "damaged, cut short"),
    "cut in half": (lambda good: good[: len(good) // 2], "damaged, cut short"),
    "one byte short": (lambda good: good[:-1], "damaged, cut short"),
    "bytes at the end": (lambda good: good + b"x", "damaged, cut short"),
    "pickle": (lambda good: b"\x80\x02}q\x00.", "PyTorch pickle"),
    "zip": (lambda good: b"PK\x03\x04" + bytes(40), "PyTorch pickle"),
    "foreign": (lambda good: safetensors.torch.save({"a": torch.ones(2)}), "not of CenterStream"),
    "no json": (lambda good: safetensors.torch.save({}, metadata_of("{")), "description is not valid"),
    "no spec": (lambda good: safetensors.torch.save({}, metadata_of("[]")), "description is not valid"),
    "half a spec": (lambda good: safetensors.torch.save({}, metadata_of('{"name": "x"}')), "description is not valid"),
    "wrong value": (
        lambda good: safetensors.torch.save({}, metadata_of(json.dumps(json.loads(SPEC.to_json()) | {"resize": "x"}))),
        "stretch and letterbox",
    ),
    "wrong type": (
        lambda good: safetensors.torch.save({}, metadata_of(json.dumps(json.loads(SPEC.to_json()) | {"stride": "4"}))),
        "stride",
    ),
    "no weights": (lambda good: safetensors.torch.save({}, metadata_of(SPEC.to_json())), "missing: .* more"),
}


@pytest.mark.parametrize(("make", "says"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(model, checkpoint, tmp_path, make, says):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(make(checkpoint.read_bytes()))
    assert_refused(model, path, says)


def assert_refused(model, path, says):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=says) as error:
        load_checkpoint(model, path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_missing_file_and_folder(model, tmp_path):
    assert_refused(model, tmp_path / "none.safetensors", "No such file")
    assert_refused(model, tmp_path, "directory")


def test_pth_is_named_as_such(model, tmp_path):
    path = tmp_path / "model.pth"
    torch.save(model.state_dict(), path)
    assert_refused(model, path, r"only \.safetensors")


def replaced(model, key, value):
    return {**model.state_dict(), key: value}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_number_are_refused(model, tmp_path, value):
    weight = model.state_dict()["heads.wh.pointwise.bias"].clone()
    weight[1] = value
    save_checkpoint(replaced(model, "heads.wh.pointwise.bias", weight), tmp_path / "a.safetensors", SPEC)
    assert_refused(model, tmp_path / "a.safetensors", r"NaN or infinity in heads\.wh\.pointwise\.bias")


def test_keys_that_do_not_fit_are_named(model, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(replaced(model, "extra", torch.ones(1)), path, SPEC)
    assert_refused(model, path, "surplus: extra$")
    save_checkpoint({k: v for k, v in model.state_dict().items() if k != "backbone.stem.bias"}, path, SPEC)
    assert_refused(model, path, r"missing: backbone\.stem\.bias$")


def test_another_number_of_classes_is_named_with_both_shapes(checkpoint):
    model = create_model("mobilenetv3", num_classes=3)
    assert_refused(model, checkpoint, r"heads\.hm\.pointwise\.bias \(2,\) where the model has \(3,\)")
