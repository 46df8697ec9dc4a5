"""Weight normalisation of convolutions for a training, and weights again. Knows no data set and no recipe.

A network that ships has no batch norms: they were made part of its weights, and some of its filters are a hundred times
as long as others. An optimiser that moves each weight equally far (Adam) turns the short ones around while the long
ones stand still, and at a rate at which these would learn, the network is torn apart. A filter as a length times a
direction (Salimans and Kingma 2016, arXiv 1602.07868, section 2) computes the same, and how far it turns follows from
the rate; the further it was turned already, the slower. Batch norms put back hold a network as well, but the statistics
of what each convolution gives make a step on a CPU two thirds longer.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from models.layers import Conv, SqueezeExcite

# What is shorter has no direction; a filter of nothing but zeros can learn one, and its gradient stays what it was.
SHORTEST = 1e-3


class WeightNorm(nn.Module):
    """For `torch.nn.utils.parametrize`: a weight (out, in, height, width) from its directions, each times a length."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.length = nn.Parameter(_lengths(weight.detach()))

    def forward(self, direction: Tensor) -> Tensor:
        return direction * (self.length / _lengths(direction))

    def right_inverse(self, weight: Tensor) -> Tensor:
        lengths = _lengths(weight)
        return torch.where(lengths > SHORTEST, weight / lengths, weight)


def _lengths(weight: Tensor) -> Tensor:
    """(out, 1, 1, 1)"""
    return weight.flatten(1).norm(dim=1).clamp(min=SHORTEST)[:, None, None, None]


def put_on(network: nn.Module) -> int:
    """Makes the filters of folded convolutions of `network` lengths and directions; of how many convolutions.

    A network that has norms is left as it is. It computes what it did.
    """
    convolutions = list(_folded(network))
    for layer in convolutions:
        register_parametrization(layer, "weight", WeightNorm(layer.weight))
    return len(convolutions)


def _folded(network: nn.Module) -> Iterator[Conv]:
    """Convolutions with a bias that no norm follows; those of the heads and of channel attention never had one."""
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules()):
        return
    attention = {
        id(part) for layer in network.modules() if isinstance(layer, SqueezeExcite) for part in layer.modules()
    }
    for name, layer in network.named_modules():
        if (
            isinstance(layer, Conv)
            and layer.bias is not None
            and id(layer) not in attention
            and not name.startswith("heads.")
        ):
            yield layer


def folded(network: nn.Module) -> dict[str, Tensor]:
    """The weights of `network` under the names they had before `put_on`, lengths and directions multiplied."""
    weights = {key: value for key, value in network.state_dict().items() if ".parametrizations." not in key}
    for name, layer in network.named_modules():
        if isinstance(layer, Conv) and is_parametrized(layer, "weight"):
            weights[f"{name}.weight"] = layer.weight.detach()
    return weights
