"""Filters as lengths and directions: nothing changes by it, a training needs it; folded again they are weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import register_parametrization

from models import create_model, load_model
from models.centernet import CenterNet
from models.normalise import Normalise
from train.weight_norm import WeightNorm, folded, put_on


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


def test_a_network_of_lengths_and_directions_computes_what_it_did(shipped) -> None:
    network, some = copy.deepcopy(shipped), images()
    assert put_on(network) > 50
    assert_alike(outputs(shipped, some), outputs(network, some))
    assert_alike(shipped.state_dict(), folded(network))


@pytest.mark.parametrize("length", [0.0, 1e-9, 1e-4, 1e-3, 2e-3, 1.0, 1e4])
def test_a_filter_of_any_length_is_what_it_was_and_learns(length) -> None:
    weight = torch.full((2, 4, 1, 1), 0.5)
    weight[1] *= length
    layer = nn.Conv2d(4, 2, 1)
    layer.weight.data.copy_(weight)
    register_parametrization(layer, "weight", WeightNorm(layer.weight))
    torch.testing.assert_close(layer.weight.detach(), weight, rtol=1e-6, atol=0.0)
    (layer.weight * torch.arange(8.0).reshape(2, 4, 1, 1)).sum().backward()
    gradient = layer.parametrizations["weight"].original.grad
    assert gradient.isfinite().all() and 0 < gradient[1].norm() < 12 * max(length, 1)


def test_a_filter_turns_by_the_rate_whatever_its_length(shipped) -> None:
    """What keeps a rate from tearing a network apart: one step of Adam turns long and short filters equally far."""

    def turned(network: CenterNet) -> torch.Tensor:
        step = torch.optim.Adam(network.parameters(), lr=1e-3)
        network.train()(images())[0]["hm"].square().mean().backward()
        before = {name: weight.clone() for name, weight in folded(network).items()}
        step.step()
        after = folded(network)
        angles = []
        for name, weight in before.items():
            if weight.dim() == 4 and name.startswith("backbone") and "attention" not in name:
                cosine = nn.functional.cosine_similarity(weight.flatten(1), after[name].flatten(1))
                angles.append(torch.acos(cosine[weight.flatten(1).norm(dim=1) > 0.05].clamp(max=1.0)))
        return torch.cat(angles)

    def spread(angles: torch.Tensor) -> float:
        low, high = angles[angles > 1e-3].quantile(torch.tensor([0.1, 0.9])).tolist()
        return high / low

    network = copy.deepcopy(shipped)
    put_on(network)
    assert spread(turned(network)) < 0.5 * spread(turned(copy.deepcopy(shipped)))


def test_after_training_the_weights_multiplied_are_the_trained_network(shipped) -> None:
    network, some = copy.deepcopy(shipped), images()
    put_on(network)
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


def test_a_network_that_has_norms_keeps_its_weights() -> None:
    network = create_model("res_18", 2)
    names = list(network.state_dict())
    assert put_on(network) == 0
    assert list(network.state_dict()) == names == list(folded(network))
