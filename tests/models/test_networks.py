"""The paper's networks: they fit public checkpoints key by key, and give the outputs of the reference.

What is expected lies in `../shared/parity`; for a clone without it `tests/data` has all keys and shapes, and of the
outputs `wh` and `reg` whole and `hm` in every fourth row from 1 and every fourth column from 3.
"""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import create_model, list_models
from models.backbones.parts import bilinear_upsampling
from models.heads import Head, detection_heads
from tests.kit.drawn_weights import drawn_state_dict
from tests.kit.places import DATA, ROOT, SHARED

EXCERPTS = DATA
PARITY = SHARED.parent / "parity"
KEYS = json.loads(gzip.decompress((EXCERPTS / "models_networks_keys.json.gz").read_bytes()))
HEATMAP_SAMPLE = np.s_[:, :, 1::4, 3::4]
TOLERANCE = 1e-3  # of the largest value
ALL_DEPTHS = [f"{kind}_{depth}" for kind in ("res", "resdcn") for depth in (18, 34, 50, 101, 152)]
SMALL = ["res_18", "resdcn_18", "dla_34", "hourglass"]
POSE = Head("hps", 34, "l1")


def on_meta(name, **options):
    """The network without memory for its weights."""
    with torch.device("meta"):
        return create_model(name, **options).eval()


@pytest.fixture(scope="module", params=list(KEYS))
def network(request):
    model = on_meta(request.param)
    model.load_state_dict(drawn_state_dict(model, request.param), assign=True)
    return model


@pytest.fixture(scope="module")
def outputs(network):
    images = np.random.default_rng(0).standard_normal((1, 3, 128, 128)).astype(np.float32)
    return {head: output.numpy() for head, output in run(network, torch.from_numpy(images)).items()}


def run(model, images):
    with torch.inference_mode():
        return model(images)


def shapes(model):
    return {key: list(value.shape) for key, value in model.state_dict().items()}


def smallest_images(model, count):
    step = model.spec.size_multiple
    return torch.randn(count, 3, step, step, generator=torch.Generator().manual_seed(1))


def assert_near(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


def test_keys_and_shapes_are_those_of_public_checkpoints(network):
    assert shapes(network) == KEYS[network.spec.name]


def test_outputs_are_those_of_the_reference(network, outputs):
    excerpt = np.load(EXCERPTS / "models_networks_excerpt.npz")
    assert_near(outputs["hm"][HEATMAP_SAMPLE], excerpt[f"{network.spec.name}.hm"])
    for head in ("wh", "reg"):
        assert_near(outputs[head], excerpt[f"{network.spec.name}.{head}"])


@pytest.mark.skipif(not PARITY.is_dir(), reason=f"full fixtures not here: {PARITY}")
def test_keys_and_outputs_are_those_of_the_full_fixtures(network, outputs):
    name = network.spec.name
    assert shapes(network) == json.loads((PARITY / f"{name}.keys.json").read_text())
    full = np.load(PARITY / f"{name}_seed0_128x128.npz")
    assert set(full) == set(outputs)
    for head in full:
        assert_near(outputs[head], full[head])


def test_batch_equals_single(network):
    images = smallest_images(network, 2)
    together = run(network, images)
    for i in range(2):
        alone = run(network, images[i : i + 1])
        for head, output in together.items():
            assert_near(output[i : i + 1].numpy(), alone[head].numpy())


@pytest.mark.parametrize("change", [(-1, 0, 0), (0, 16, 0), (0, 0, -8)], ids=["empty batch", "height", "width"])
def test_other_shapes_are_refused_in_one_line(network, change):
    step = network.spec.size_multiple
    shape = (1 + change[0], 3, step + change[1], step + change[2])
    with pytest.raises(ValueError, match=f"multiples of {step}") as error:
        network(torch.zeros(shape))
    assert str(shape) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", list_models())
def test_every_network_gives_its_heads_at_stride_4(name):
    model = on_meta(name)
    outputs = run(model, torch.empty(2, 3, 512, 384, device="meta"))
    assert model.spec.name == name
    assert outputs.keys() == {head.name for head in model.head_specs}
    for head in model.head_specs:
        assert outputs[head.name].shape == (2, head.channels, 128, 96)


def test_without_heads_and_upsampling_the_resnets_have_the_published_sizes():
    """Table 1 of the ResNet paper, less the classifier's 1000 × (channels + 1) weights."""
    published = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160, 152: 58_143_808}
    for name in ALL_DEPTHS:
        weights = on_meta(name).named_parameters()
        backbone = sum(value.numel() for key, value in weights if key.startswith(("conv1", "bn1", "layer")))
        assert backbone == published[int(name.partition("_")[2])], name


@pytest.mark.parametrize("name", ["mobilenetv3", "resdcn_101", *SMALL])
def test_a_declared_head_appears_in_every_network(name):
    model = on_meta(name, heads=(*detection_heads(2), POSE))
    outputs = run(model, torch.empty(1, 3, 128, 128, device="meta"))
    assert {head: output.shape[1] for head, output in outputs.items()} == {"hm": 2, "wh": 2, "reg": 2, "hps": 34}


@pytest.mark.parametrize("name", SMALL)
def test_a_head_that_would_hide_a_part_of_the_network_is_refused(name):
    a_layer = next(on_meta(name).named_children())[0]
    for head in ("", "a.b", "features", "hm", a_layer):
        with pytest.raises(ValueError, match=f"^head '{head}': give"):
            on_meta(name, heads=(*detection_heads(2), Head(head, 1, "l1")))


@pytest.mark.parametrize("name", SMALL)
def test_training_gives_a_dictionary_for_each_stack_and_gradients_everywhere(name):
    torch.manual_seed(0)
    model = create_model(name, heads=(*detection_heads(3), POSE)).train()
    side = model.spec.size_multiple // 4
    stacks = model(smallest_images(model, 2))
    assert len(stacks) == (2 if name == "hourglass" else 1)
    for outputs in stacks:
        assert {head: tuple(output.shape) for head, output in outputs.items()} == {
            "hm": (2, 3, side, side),
            "wh": (2, 2, side, side),
            "reg": (2, 2, side, side),
            "hps": (2, 34, side, side),
        }
        assert 0.05 < outputs["hm"].sigmoid().mean() < 0.2  # the start that focal loss needs
        assert outputs["hps"].abs().mean() < 1
    sum(output.square().mean() for outputs in stacks for output in outputs.values()).backward()
    for key, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad.isfinite().all(), key
            assert weight.grad.any(), key
        else:
            assert key.startswith(("base.level3.project", "base.level4.project")), key


@pytest.mark.parametrize(("factor", "groups"), [(2, 1), (2, 3), (4, 3)])
def test_deconvolutions_start_as_bilinear_interpolation(factor, groups):
    """Away from the border, beyond which a deconvolution sees zeros."""
    x = torch.randn(1, 3, 5, 6)
    inner = np.s_[:, :, factor:-factor, factor:-factor]
    expected = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    torch.testing.assert_close(bilinear_upsampling(3, factor, groups)(x)[inner], expected[inner])


def test_the_model_that_ships_does_not_wait_for_torchvision():
    code = "import sys, models; models.create_model('mobilenetv3'); print({'torch', 'torchvision'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "{'torch'}"


@pytest.mark.parametrize("name", ["mobilenetv3", *SMALL])
def test_the_first_layers_bring_the_image_down_to_a_quarter_of_its_sides(name):
    model = create_model(name).eval()
    seen: list[tuple[str, int]] = []
    for at, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, __, out, at=at: seen.append((f"{at}.", out.shape[-1])))
    images = smallest_images(model, 1)
    run(model, images)
    is_first = [at.startswith(model.first_layers) for at, _ in seen]
    count = sum(is_first)
    assert is_first == [True] * count + [False] * (len(seen) - count)
    width = images.shape[-1]
    assert all(side >= width // 4 for _, side in seen[:count]) and seen[count - 1][1] == width // 4
    assert all(any(key.startswith(start) for key in model.state_dict()) for start in model.first_layers)
