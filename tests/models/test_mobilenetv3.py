"""The shipped model: parity with its origin, shapes and modes, and that its weights can be made again."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import DEFAULT_MODEL, SPECS, create_model, load_checkpoint, read_spec
from models.convert_tfjs import ConversionError, check_leftovers, convert, graph_names, read_constants, read_package
from models.layers import Conv, upsample2x
from tests.kit.places import DATA, ROOT, SHARED

EXCERPT = DATA / "models_mobilenetv3_coco_excerpt.npz"
FULL = SHARED.parent / "parity" / "mobilenetv3_coco.npz"
TOLERANCE = 5e-3  # of the largest value; the fixtures are half floats


@pytest.fixture(scope="module")
def model():
    model = create_model(DEFAULT_MODEL).eval()
    load_checkpoint(model, SPECS[DEFAULT_MODEL].weights_file)
    return model.to(memory_format=torch.channels_last)


def images(*arrays_hwc):
    return torch.from_numpy(np.stack(arrays_hwc)).permute(0, 3, 1, 2).float()


def run(model, batch):
    with torch.inference_mode():
        return model(batch)


def assert_parity(model, image, fixture, cells):
    """`fixture` has the outputs (H, W, C) of every cell, or of `cells`; sizes in input pixels."""
    outputs = run(model, images(image))
    for expected, got in ((fixture["keypoints"], outputs["hm"].sigmoid()), (fixture["wh"], 4 * outputs["wh"])):
        expected = expected.astype(np.float32)
        got = got[0].permute(1, 2, 0).numpy()[cells]
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


def test_gives_the_outputs_of_the_original_graph(model):
    excerpt = np.load(EXCERPT)
    image = excerpt["image_differences"].cumsum(1, dtype=np.uint8).cumsum(2, dtype=np.uint8).transpose(1, 2, 0)
    assert_parity(model, image, excerpt, cells=np.s_[3::8, 3::8])


@pytest.mark.skipif(not FULL.is_file(), reason=f"full fixture not here: {FULL}")
def test_gives_the_outputs_of_the_original_graph_in_every_cell(model):
    full = np.load(FULL)
    assert_parity(model, full["image"], full, cells=np.s_[:, :])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (512, 512)])
def test_heads_have_one_value_per_cell_of_stride_4(model, height, width):
    outputs = run(model, torch.zeros(2, 3, height, width))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "hm": (2, 80, height // 4, width // 4),
        "wh": (2, 4, height // 4, width // 4),
    }


def test_batch_equals_single(model):
    batch = 255 * torch.rand(3, 3, 128, 160, generator=torch.Generator().manual_seed(1))
    together = run(model, batch)
    for i in range(len(batch)):
        alone = run(model, batch[i : i + 1])
        for name in together:
            torch.testing.assert_close(together[name][i], alone[name][0], rtol=1e-4, atol=1e-3)


def test_input_is_not_written_to(model):
    batch = 255 * torch.rand(1, 3, 64, 64)
    before = batch.clone()
    run(model, batch)
    assert torch.equal(batch, before)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 60, 64), (1, 3, 64, 80)])
def test_other_shapes_are_refused_with_the_shape(model, shape):
    with pytest.raises(ValueError, match="multiples of 32") as error:
        model(torch.zeros(shape))
    assert str(shape) in str(error.value)


def test_training_mode_gives_a_list_with_gradients_down_to_the_stem():
    model = create_model("mobilenetv3", num_classes=3).train()
    (outputs,) = model(torch.rand(1, 3, 64, 64))
    assert outputs["hm"].shape == (1, 3, 16, 16)
    sum(output.sum() for output in outputs.values()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
    assert model.backbone.stem.weight.grad.abs().sum() > 0


def test_spec_follows_the_number_of_classes():
    assert create_model("mobilenetv3").spec == SPECS["mobilenetv3"]
    spec = create_model("mobilenetv3", num_classes=2).spec
    assert (spec.class_names, spec.weights_file) == (("class_0", "class_1"), None)


@pytest.mark.parametrize(("name", "classes"), [("", 80), ("yolo", 80), ("mobilenetv3", 0)])
def test_unknown_model_or_no_class_is_refused(name, classes):
    with pytest.raises(ValueError, match=r"allowed are .*mobilenetv3|give 1 or more"):
        create_model(name, num_classes=classes)


def test_shipped_file_describes_the_model():
    spec = SPECS["mobilenetv3"]
    assert read_spec(spec.weights_file) == spec
    assert (len(spec.class_names), spec.class_names[0], spec.class_names[79]) == (80, "person", "toothbrush")
    assert (
        hashlib.sha256(spec.weights_file.read_bytes()).hexdigest() in (spec.weights_file.parent / "NOTICE").read_text()
    )


def test_specs_do_not_import_torch():
    code = (
        "import sys, models; models.read_spec(models.SPECS['mobilenetv3'].weights_file); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


@pytest.mark.parametrize("kernel", [3, 5])
def test_stride_2_pads_as_tensorflow_does(kernel):
    """SAME at an even side: kernel - 2 pixels in all, the odd one after."""
    conv = Conv(2, 3, kernel, stride=2, activation=F.relu)
    x = torch.randn(1, 2, 8, 12)
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    expected = F.relu(F.conv2d(F.pad(x, (before, after, before, after)), conv.weight, conv.bias, stride=2))
    torch.testing.assert_close(conv(x), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (16, 16)])
def test_upsampling_samples_from_the_corner(height, width):
    x = torch.randn(2, 3, height, width)
    rows, columns = torch.arange(2 * height) / 2, torch.arange(2 * width) / 2
    expected = lerp(lerp(x, rows, 2), columns, 3)
    torch.testing.assert_close(upsample2x(x), expected)


def lerp(x, positions, dim):
    """Linear interpolation along one axis, the last sample repeated: the definition, sample by sample."""
    low = positions.floor().long()
    high = (low + 1).clamp(max=x.shape[dim] - 1)
    fraction = (positions - low).reshape([-1 if i == dim else 1 for i in range(4)])
    return x.index_select(dim, low) * (1 - fraction) + x.index_select(dim, high) * fraction


def test_every_weight_has_one_name_in_the_graph():
    names = graph_names()
    assert set(names) == set(create_model("mobilenetv3").state_dict())
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize(
    ("name", "value"), [("x/weights", np.zeros((1, 1, 2, 2), np.float16)), ("a/hard_swish/add/y", np.float16(2))]
)
def test_a_constant_that_nothing_uses_is_an_error(name, value):
    with pytest.raises(ConversionError, match=name):
        check_leftovers({name: np.asarray(value)})


def test_a_package_that_is_another_is_refused(tmp_path):
    with pytest.raises(ConversionError, match=r"no models/centernet\.json"):
        read_package(tmp_path)
    (tmp_path / "models").mkdir()
    for name in ("json", "bin"):
        (tmp_path / "models" / f"centernet.{name}").write_bytes(b"{}")
    with pytest.raises(ConversionError, match="SHA-256 differs"):
        read_package(tmp_path)


def test_constants_must_fill_the_binary():
    manifest = b'{"weightsManifest": [{"weights": [{"name": "a", "shape": [2], "dtype": "int32"}]}]}'
    assert read_constants(manifest, bytes(8))["a"].tolist() == [0, 0]
    with pytest.raises(ConversionError, match="12 bytes"):
        read_constants(manifest, bytes(12))


PACKAGE = os.environ.get("CENTERSTREAM_HUMAN_PACKAGE", "")


@pytest.mark.skipif(not PACKAGE, reason="CENTERSTREAM_HUMAN_PACKAGE does not name @vladmandic/human 3.3.6")
def test_conversion_gives_the_shipped_bytes(tmp_path):
    command = [sys.executable, "-m", "models.convert_tfjs", PACKAGE, str(tmp_path / "out.safetensors")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert (tmp_path / "out.safetensors").read_bytes() == SPECS["mobilenetv3"].weights_file.read_bytes()


@pytest.mark.skipif(not PACKAGE, reason="CENTERSTREAM_HUMAN_PACKAGE does not name @vladmandic/human 3.3.6")
def test_a_missing_or_reshaped_constant_is_an_error():
    files = read_package(Path(PACKAGE))
    constants = read_constants(files["models/centernet.json"], files["models/centernet.bin"])
    name = "CenternetHead/centernet_wh_output/biases"
    for broken in ({**constants, name: constants[name][:3]}, {k: v for k, v in constants.items() if k != name}):
        with pytest.raises(ConversionError, match=name):
            convert(broken)
