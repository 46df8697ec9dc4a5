"""Norms put back where they were folded: nothing changes by it, a training needs them; folded again they are gone."""

import copy

import pytest
import torch

from models import create_model, load_model
from models.centernet import CenterNet
from models.normalise import Normalise
from train.norms import folded, put_back


@pytest.fixture(scope="module")
def shipped() -> CenterNet:
    return load_model("mobilenetv3")


def images(count: int = 4) -> torch.Tensor:
    """Smooth colours with noise, as unlike each other as photographs."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, size=(96, 96), mode="bilinear") * 255
    noisy = smooth + 12 * torch.randn(smooth.shape, generator=random)
    return Normalise(load_model("mobilenetv3").spec)(noisy.clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8))


def outputs(network: CenterNet, images_bchw: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return network.eval()(images_bchw)


def assert_alike(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name, expected in a.items():
        assert (b[name] - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max())), name


def test_a_network_with_its_norms_put_back_computes_what_it_did_also_of_other_images(shipped) -> None:
    network, some = copy.deepcopy(shipped), images()
    assert put_back(network, [some[:2], some[2:3]]) > 50
    assert_alike(outputs(shipped, some), outputs(network, some))


def test_in_training_what_follows_a_norm_has_the_size_it_had_whatever_the_weights(shipped) -> None:
    """What keeps a rate from tearing a network apart."""
    network, some = copy.deepcopy(shipped), images()
    put_back(network, [some])
    before = outputs(network, some)["hm"]
    torn = network.backbone.blocks[3].depthwise
    with torch.no_grad():
        torn.weight *= 100
        after = network.train()(some)[0]["hm"]
        bare = copy.deepcopy(shipped)
        bare.backbone.blocks[3].depthwise.weight *= 100
        unheld = bare.train()(some)[0]["hm"]
    assert (after - before).abs().mean() < 0.2 * (unheld - before).abs().mean()


def test_after_training_the_folded_weights_are_the_trained_network_without_norms(shipped) -> None:
    network, some = copy.deepcopy(shipped), images()
    put_back(network, [some])
    step = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(3):
        network.train()(some)[0]["hm"].square().mean().backward()
        step.step()
        step.zero_grad()
    trained = outputs(network, some)
    assert (trained["hm"] - outputs(shipped, some)["hm"]).abs().max() > 0.01
    plain = create_model("mobilenetv3")
    plain.load_state_dict(folded(network))
    assert_alike(trained, outputs(plain, some))


def test_a_network_that_has_norms_keeps_those_it_has() -> None:
    network = create_model("res_18", 2)
    names = list(network.state_dict())
    assert put_back(network, []) == 0
    assert list(network.state_dict()) == names == list(folded(network))
