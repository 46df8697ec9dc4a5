"""Checkpoints: ours and PyTorch's are read; every bad file is turned away in one line, and nothing in it runs."""

import json
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import SPECS, CheckpointError, create_model, load_checkpoint, read_spec, save_checkpoint
from models.heads import Head
from models.loading import read_weights

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


def assert_refused(model, path, says, **options):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    spec = model.spec
    with pytest.raises(CheckpointError, match=says) as error:
        load_checkpoint(model, path, **options)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.spec is spec
    return error.value


# Our own files.


def test_round_trip_keeps_weights_and_spec(model, checkpoint):
    other = create_model("mobilenetv3", num_classes=2)
    loaded = load_checkpoint(other, checkpoint)
    assert_same_weights(model, other)
    assert (loaded.reinitialised, loaded.dropped) == ((), ())
    assert loaded.spec.weights_file == checkpoint
    assert (loaded.spec.name, loaded.spec.class_names) == ("mobilenetv3", ("class_0", "class_1"))
    assert loaded.spec == other.spec == read_spec(str(checkpoint))


def test_the_same_weights_are_the_same_bytes(model, checkpoint, tmp_path):
    again = tmp_path / "again.safetensors"
    save_checkpoint(model.state_dict(), again, SPEC)
    assert again.read_bytes() == checkpoint.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.safetensors", "model.safetensors"]


def test_channels_last_weights_are_read_back_the_same(model, tmp_path):
    path = tmp_path / "channels_last.safetensors"
    turned = {k: v.to(memory_format=torch.channels_last) if v.ndim == 4 else v for k, v in model.state_dict().items()}
    save_checkpoint(turned, path, SPEC)
    other = create_model("mobilenetv3", num_classes=2).to(memory_format=torch.channels_last)
    load_checkpoint(other, path)
    assert_same_weights(model, other)


# The files of others: what torch.save writes, and safetensors that say nothing about themselves.

ZIP, LEGACY = True, False


def save_torch(content, path, as_zip=ZIP):
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)


def trained(name, num_classes=80):
    """A network whose batch norms have seen something."""
    torch.manual_seed(7)
    model = create_model(name, num_classes).train()
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    return model.eval()


def training_state(model, prefix="", extra=None):
    """As the official training writes it: epoch, weights and a used optimizer."""
    optimizer = torch.optim.Adam(model.hm.parameters())
    sum(weight.sum() for weight in model.hm.parameters()).backward()
    optimizer.step()
    weights = {prefix + key: value for key, value in (model.state_dict() | (extra or {})).items()}
    return {"epoch": 140, "state_dict": OrderedDict(weights), "optimizer": optimizer.state_dict()}


@pytest.mark.parametrize(
    ("name", "as_zip", "prefix"), [("res_18", LEGACY, "module."), ("dla_34", LEGACY, ""), ("dla_34", ZIP, "module.")]
)
def test_an_official_checkpoint_gives_the_outputs_it_was_saved_with(tmp_path, name, as_zip, prefix):
    path = tmp_path / "model_last.pth"
    model = trained(name)
    unused = {"base.fc.weight": torch.ones(1000, 512), "base.fc.bias": torch.ones(1000)} if name == "dla_34" else {}
    save_torch(training_state(model, prefix, unused), path, as_zip)
    assert zipfile.is_zipfile(path) == as_zip
    other = create_model(name).eval()
    loaded = load_checkpoint(other, path)
    assert (loaded.reinitialised, loaded.dropped) == ((), tuple(unused))
    assert (loaded.spec.name, len(loaded.spec.class_names), loaded.spec.weights_file) == (name, 80, path)
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        expected, got = model(images), other(images)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[head], got[head]) for head in expected)


@pytest.mark.parametrize("as_zip", [ZIP, LEGACY])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_a_state_dict_is_found_bare_and_in_its_usual_wrappers(model, tmp_path, wrapper, as_zip):
    weights = model.state_dict()
    save_torch({wrapper: weights, "epoch": 3} if wrapper else weights, tmp_path / "a", as_zip)
    other = create_model("mobilenetv3", num_classes=2)
    load_checkpoint(other, tmp_path / "a")
    assert_same_weights(model, other)


def test_only_some_keys_may_have_the_prefix_but_none_may_be_there_twice(model, tmp_path):
    weights = {"module." * (i % 2) + key: value for i, (key, value) in enumerate(model.state_dict().items())}
    torch.save(weights, tmp_path / "some.pth")
    other = create_model("mobilenetv3", num_classes=2)
    load_checkpoint(other, tmp_path / "some.pth")
    assert_same_weights(model, other)
    both = {prefix + key: value for key, value in model.state_dict().items() for prefix in ("", "module.")}
    torch.save(both, tmp_path / "both.pth")
    error = assert_refused(model, tmp_path / "both.pth", r"with and without 'module\.': .* more")
    assert error.keys["twice"] == tuple(sorted(model.state_dict()))


def test_safetensors_of_others_are_read_but_have_no_spec(model, tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({f"module.{key}": value for key, value in model.state_dict().items()}, path)
    other = create_model("mobilenetv3", num_classes=2)
    assert load_checkpoint(other, path).spec.class_names == ("class_0", "class_1")
    assert_same_weights(model, other)
    with pytest.raises(CheckpointError, match="not of CenterStream"):
        read_spec(path)


def test_counters_that_old_files_lack_are_not_missed(tmp_path):
    model, path = trained("res_18"), tmp_path / "old.pth"
    torch.save({key: value for key, value in model.state_dict().items() if "num_batches" not in key}, path)
    other = create_model("res_18")
    load_checkpoint(other, path)
    assert torch.equal(other.bn1.running_mean, model.bn1.running_mean)
    assert int(other.bn1.num_batches_tracked) == 0


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_the_precision_of_the_model(model, tmp_path, dtype, suffix):
    path = tmp_path / f"other.{suffix}"
    weights = {key: value.to(dtype) for key, value in model.state_dict().items()}
    torch.save(weights, path) if suffix == "pth" else safetensors.torch.save_file(weights, path)
    other = create_model("mobilenetv3", num_classes=2)
    load_checkpoint(other, path)
    assert {value.dtype for value in other.state_dict().values()} == {torch.float32}
    key = "heads.wh.pointwise.weight"
    assert torch.equal(other.state_dict()[key], weights[key].float())


# Files that do not fit.


def test_another_number_of_classes_is_explained(model, checkpoint, tmp_path):
    wider = create_model("mobilenetv3", num_classes=3)
    error = assert_refused(
        wider,
        checkpoint,
        r"holds 2 classes, the model was made for 3: create_model\('mobilenetv3', num_classes=2\), or",
    )
    assert "allow_head_mismatch=True" in str(error)
    assert error.keys == {"other shape": ("heads.hm.pointwise.weight", "heads.hm.pointwise.bias")}


def test_heads_that_do_not_fit_can_be_started_anew(model, checkpoint):
    wider = create_model("mobilenetv3", num_classes=3)
    fresh = {key: value.clone() for key, value in wider.state_dict().items()}
    loaded = load_checkpoint(wider, checkpoint, allow_head_mismatch=True)
    assert loaded.reinitialised == ("heads.hm.pointwise.weight", "heads.hm.pointwise.bias")
    assert loaded.spec.class_names == wider.spec.class_names == ("class_0", "class_1", "class_2")
    for key, value in wider.state_dict().items():
        assert torch.equal(value, fresh[key] if key in loaded.reinitialised else model.state_dict()[key]), key


@pytest.fixture(scope="module")
def posing():
    """With one head more than a detector, one less, and one that has other channels."""
    return create_model("res_18", 1, (Head("hm", 1, "focal"), Head("wh", 4, "l1"), Head("hps", 34, "l1")))


def test_missing_surplus_and_other_heads_are_told_or_let_go(posing, tmp_path):
    path = tmp_path / "pose.pth"
    torch.save(posing.state_dict(), path)
    detector = create_model("res_18", 1)
    error = assert_refused(
        detector, path, r"other heads .*missing: reg\.0\.weight.*surplus: hps\.0.*allow_head_mismatch"
    )
    assert error.keys == {
        "missing": ("reg.0.weight", "reg.0.bias", "reg.2.weight", "reg.2.bias"),
        "surplus": ("hps.0.weight", "hps.0.bias", "hps.2.weight", "hps.2.bias"),
        "other shape": ("wh.2.weight", "wh.2.bias"),
    }
    loaded = load_checkpoint(detector, path, allow_head_mismatch=True)
    assert set(loaded.reinitialised) == {*error.keys["missing"], *error.keys["other shape"]}
    assert loaded.dropped == error.keys["surplus"]
    assert torch.equal(detector.conv1.weight, posing.conv1.weight)
    assert torch.equal(detector.wh[0].weight, posing.wh[0].weight)


def test_what_is_no_head_must_fit_in_any_case(model, checkpoint, tmp_path):
    weights = dict(model.state_dict())
    del weights["backbone.stem.bias"]
    torch.save(weights, tmp_path / "less.pth")
    torch.save(model.state_dict() | {"neck.extra": torch.ones(1)}, tmp_path / "more.pth")
    for allow in (False, True):
        assert_refused(model, tmp_path / "less.pth", r"missing: backbone\.stem\.bias$", allow_head_mismatch=allow)
        assert_refused(model, tmp_path / "more.pth", r"surplus: neck\.extra$", allow_head_mismatch=allow)


def test_an_architecture_that_is_known_is_named(posing, tmp_path):
    torch.save(posing.state_dict(), tmp_path / "a.pth")
    assert_refused(create_model("resdcn_18"), tmp_path / "a.pth", "looks like res_18, and the model is resdcn_18$")


def test_an_older_architecture_is_refused_with_every_key(tmp_path):
    """Deformable convolutions without a mask have 18 channels here, those with one 27."""
    model, path = create_model("resdcn_18"), tmp_path / "unmasked.pth"
    offsets = [key for key in model.state_dict() if "conv_offset_mask" in key]
    torch.save(model.state_dict() | {key: model.state_dict()[key][:18] for key in offsets}, path)
    shapes = (
        r"other shape: deconv_layers\.0\.conv_offset_mask\.weight \(18, .* where the model has \(27, .* and 1 more$"
    )
    error = assert_refused(model, path, shapes)
    assert error.keys == {"other shape": tuple(offsets)}
    assert len(offsets) == 6


def test_numbers_of_another_kind_do_not_fit(model, tmp_path):
    key = "heads.wh.pointwise.bias"
    torch.save(model.state_dict() | {key: torch.ones(4, dtype=torch.int64)}, tmp_path / "a.pth")
    assert_refused(model, tmp_path / "a.pth", r"wh\.pointwise\.bias \(4,\) int64 where the model has \(4,\)")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_that_are_no_number_in_the_models_precision_are_refused(model, tmp_path, suffix, value):
    weight = model.state_dict()["heads.wh.pointwise.bias"].double()
    weight[1] = value
    weights, path = model.state_dict() | {"heads.wh.pointwise.bias": weight}, tmp_path / f"a.{suffix}"
    torch.save(weights, path) if suffix == "pth" else save_checkpoint(weights, path, SPEC)
    assert_refused(model, path, r"NaN or infinity in heads\.wh\.pointwise\.bias$")


def test_a_description_that_its_own_heads_deny_is_refused(model, tmp_path):
    save_checkpoint(model.state_dict(), tmp_path / "a.safetensors", SPECS["mobilenetv3"])
    assert_refused(model, tmp_path / "a.safetensors", "names 80 classes, but its heat maps are 2")


def test_from_which_score_on_it_is_best_is_said_where_it_was_measured(model, tmp_path):
    for name, score in (("measured", 0.41), ("unknown", None)):
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(model.state_dict(), path, replace(SPEC, score_threshold=score))
        assert read_spec(path).score_threshold == score
        assert (b"score_threshold" in path.read_bytes()) == (score is not None)


# Files that are damaged, or meant to do damage.


def metadata_of(spec_json):
    return {"centerstream": spec_json}


def spec_with(**values):
    return safetensors.torch.save({}, metadata_of(json.dumps(json.loads(SPEC.to_json()) | values)))


BAD_BYTES = {
    "empty": (lambda good: b"", "empty"),
    "one byte": (lambda good: b"x", "no weights file"),
    "text": (lambda good: b"epoch,loss\n1,0.5\n", "no weights file"),
    "header only": (lambda good: good[:100], "damaged, cut short"),
    "cut in half": (lambda good: good[: len(good) // 2], "damaged, cut short"),
    "one byte short": (lambda good: good[:-1], "damaged, cut short"),
    "bytes at the end": (lambda good: good + b"x", "damaged, cut short"),
    "header beyond the file": (lambda good: struct.pack("<Q", 10**7) + good[8:], "damaged, cut short"),
    "header beyond all memory": (lambda good: struct.pack("<Q", 2**60) + good[8:], "damaged, cut short"),
    "start of a pickle": (lambda good: b"\x80\x02}q\x00.", "not a file of torch.save"),
    "start of a zip": (lambda good: b"PK\x03\x04" + bytes(40), "not a file of torch.save"),
    "no json": (lambda good: safetensors.torch.save({}, metadata_of("{")), "description is not valid"),
    "no spec": (lambda good: safetensors.torch.save({}, metadata_of("[]")), "description is not valid"),
    "half a spec": (lambda good: safetensors.torch.save({}, metadata_of('{"name": "x"}')), "description is not valid"),
    "wrong value": (lambda good: spec_with(resize="x"), "stretch and letterbox"),
    "no score": (lambda good: spec_with(score_threshold=1.5), "score_threshold 1.5: allowed is 0 to 1"),
    "wrong type": (lambda good: spec_with(stride="4"), "stride"),
    "no weights": (lambda good: safetensors.torch.save({}, metadata_of(SPEC.to_json())), "missing: .* more"),
}


@pytest.mark.parametrize(("make", "says"), BAD_BYTES.values(), ids=BAD_BYTES)
def test_bad_bytes_are_refused_in_one_line(model, checkpoint, tmp_path, make, says):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(make(checkpoint.read_bytes()))
    assert_refused(model, path, says)


def test_what_is_no_readable_file_is_refused(model, tmp_path):
    assert_refused(model, tmp_path / "none.pth", "No such file")
    assert_refused(model, tmp_path, "a directory")
    os.mkfifo(tmp_path / "pipe.pth")
    assert_refused(model, tmp_path / "pipe.pth", "not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission_is_said(model, checkpoint):
    checkpoint.chmod(0)
    assert_refused(model, checkpoint, "cannot be read .Permission denied")


class Code:
    """A pickle of it leaves a file behind when it is read."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("as_zip", [ZIP, LEGACY])
def test_code_in_a_pickle_does_not_run(model, tmp_path, as_zip):
    mark = tmp_path / "mark"
    called, arguments = Code(mark).__reduce__()  # as whoever reads the pickle would
    called(*arguments)
    assert mark.exists()
    mark.unlink()
    save_torch({"state_dict": model.state_dict(), "x": Code(mark)}, tmp_path / "a.pth", as_zip)
    assert_refused(model, tmp_path / "a.pth", r"asks for .*pathlib.*Path.*nothing of it was run")
    assert not mark.exists()


def saved(content):
    return lambda path, model: save_torch(content(model), path)


def torchscript(path, model):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))


def cut(as_zip, keep):
    def write(path, model):
        save_torch(model.state_dict(), path, as_zip)
        size = path.stat().st_size
        os.truncate(path, size + keep if keep < 0 else int(size * keep))

    return write


def claiming_zip(path, model):
    """Nothing is compressed, but the table of contents speaks of a terabyte."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, 2))
        archive.writestr("a/data/0", bytes(8))
        archive.filelist[1].file_size = archive.filelist[1].compress_size = 2**40


COUNT = 70_001  # of a tensor; a number that is nowhere else in its file


def inflated(content, count):
    """A pickle that claims `count` numbers instead of COUNT."""
    count_bytes = count.to_bytes(count.bit_length() // 8 + 1, "little")
    assert content.count(struct.pack("<cI", b"J", COUNT)) == 2
    return content.replace(struct.pack("<cI", b"J", COUNT), b"\x8a" + bytes([len(count_bytes)]) + count_bytes)


def claiming_tensor(as_zip, count, compression=zipfile.ZIP_STORED):
    """A tensor of `count` floats, of which there are only COUNT; compressed there are as many as are claimed."""

    def write(path, model):
        save_torch({"a": torch.zeros(COUNT)}, path, as_zip)
        if not as_zip:
            path.write_bytes(inflated(path.read_bytes(), count))
            return
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", compression, compresslevel=1) as archive:
            for name, content in members.items():
                content = inflated(content, count) if name.endswith(".pkl") else content
                content = bytes(4 * count) if name.endswith("data/0") and compression else content
                archive.writestr(name, content)

    return write


def unfilled(path, model):
    """A legacy file that announces eight gigabytes and a list of what follows, which is empty."""
    claiming_tensor(LEGACY, 2**31)(path, model)
    content = path.read_bytes()
    head, _, _ = content.rpartition(b"\x80\x02]q\x00")
    path.write_bytes(head + b"\x80\x02]q\x00.")


DAMAGE = {
    "half a zip": (cut(ZIP, 0.5), "damaged or cut short"),
    "a zip one byte short": (cut(ZIP, -1), "damaged or cut short"),
    "half a legacy file": (cut(LEGACY, 0.5), "damaged or cut short"),
    "a legacy file one byte short": (cut(LEGACY, -1), "damaged or cut short"),
    "a legacy file without its weights": (cut(LEGACY, 0.0005), "damaged or cut short"),
    "256 MB in a compressed zip": (claiming_tensor(ZIP, 2**26, zipfile.ZIP_DEFLATED), r"compressed members .*data/0"),
    "a zip of a terabyte": (claiming_zip, r"claims to hold 10995116\d+ bytes in a file of \d{3}$"),
    "a tensor of 8 GB in a zip": (claiming_tensor(ZIP, 2**31), "damaged or cut short"),
    "a tensor of 4 TB in a zip": (claiming_tensor(ZIP, 2**40), "damaged or cut short"),
    "a tensor of 8 GB in a legacy file": (claiming_tensor(LEGACY, 2**31), "damaged or cut short"),
    "a tensor of 4 TB in a legacy file": (claiming_tensor(LEGACY, 2**40), "damaged or cut short"),
    "8 GB that nothing fills": (unfilled, "claims to hold more than its"),
    "a tensor repeated": (saved(lambda model: {"a": torch.zeros(1).expand(2**40)}), "claims to hold more .*: a$"),
    "a bytearray of any size": (saved(lambda model: {"a": bytearray(5)}), r"asks for .*bytearray"),
    "a whole network": (saved(lambda model: model), r"asks for .*; save the network's state_dict\(\) alone"),
    "a TorchScript archive": (torchscript, "a TorchScript archive, which is a program"),
    "numpy numbers": (saved(lambda model: {"best": np.float64(1)}), "asks for .*numpy"),
    "a sparse tensor": (saved(lambda model: {"a": torch.eye(3).to_sparse()}), "asks for .*sparse"),
    "a list": (saved(lambda model: [torch.ones(1)]), "holds a list, not a state_dict"),
    "a tensor": (saved(lambda model: torch.ones(1)), "holds a Tensor, not a state_dict"),
    "other things than tensors": (
        saved(lambda model: {"a": 1, 2: torch.ones(1), "c": "x"}),
        r"plain tensors only, this one a \(int\), 2 \(Tensor\), c \(str\)$",
    ),
    "a key of two lines": (saved(lambda model: model.state_dict() | {"a\nb": torch.ones(1)}), r"surplus: 'a\\nb'$"),
    "nothing": (saved(lambda model: {}), "missing: .* more"),
}


def peak_memory_kb(anew=False):
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # TorchScript is deprecated, its archives are still around
@pytest.mark.parametrize(("write", "says"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_refused_in_one_line_and_takes_no_memory(model, tmp_path, write, says):
    write(tmp_path / "bad.pth", model)
    before = peak_memory_kb(anew=True)
    assert_refused(model, tmp_path / "bad.pth", says)
    assert peak_memory_kb() - before < 100_000


def small_file(path, form):
    weights = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}
    if form == "safetensors":
        safetensors.torch.save_file(weights, path, {"centerstream": SPEC.to_json()})
    else:
        save_torch({"epoch": 1, "state_dict": weights}, path, as_zip=form == "zip")
    return path.read_bytes()


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_file_with_any_bytes_changed_is_read_or_refused(tmp_path_factory, form, data):
    path = tmp_path_factory.getbasetemp() / f"changed.{form}"
    content = bytearray(small_file(path, form))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        _, weights = read_weights(path)
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, torch.Tensor) for value in weights.values())
