"""Batch norms put back where they were folded into convolutions, and folded again. Knows no data set and no recipe.

A network that ships has no norms: they were made part of its weights, which is right for a pipeline and bad for a
training. Nothing holds the size of its activations, and a rate at which it would learn tears it apart (Ioffe and
Szegedy 2015, arXiv 1502.03167, section 3.3). What a convolution gives has some mean and variance in each channel; a
norm that takes these away and then gives them back (its weight the deviation, its bias the mean) changes nothing, and
is what was folded but for a factor that cancels.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from models.layers import Activation, Conv, SqueezeExcite


class Normed(nn.Module):
    """A norm that takes away a mean and a variance and gives them back, and the activation that follows."""

    def __init__(self, activation: Activation | None, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self._activation = activation
        self.norm = nn.BatchNorm2d(len(mean))
        self.norm.load_state_dict(
            {
                "running_mean": mean,
                "running_var": variance,
                "weight": (variance + self.norm.eps).sqrt(),
                "bias": mean,
                "num_batches_tracked": torch.tensor(0),
            }
        )

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        x = self.norm(x)
        return x if self._activation is None else self._activation(x, inplace=inplace)

    def folded_into(self, layer: Conv) -> tuple[Tensor, Tensor]:
        """The weight and the bias of `layer` with this norm made part of them."""
        norm = {name: value.double() for name, value in self.norm.state_dict().items()}
        scale = norm["weight"] / (norm["running_var"] + self.norm.eps).sqrt()
        assert layer.bias is not None
        weight = layer.weight.double() * scale[:, None, None, None]
        bias = (layer.bias.double() - norm["running_mean"]) * scale + norm["bias"]
        return weight.float(), bias.float()


class _Measure(nn.Module):
    """Counts what comes by, and lets it pass."""

    def __init__(self, channels: int, activation: Activation | None) -> None:
        super().__init__()
        self.activation = activation
        self._sums, self._squares = torch.zeros(2, channels, dtype=torch.float64)
        self._count = 0

    def forward(self, x: Tensor, inplace: bool = False) -> Tensor:
        values = x.detach().double()
        self._sums += values.sum((0, 2, 3)).cpu()
        self._squares += (values**2).sum((0, 2, 3)).cpu()
        self._count += x.numel() // x.shape[1]
        return x if self.activation is None else self.activation(x, inplace=inplace)

    def moments(self) -> tuple[Tensor, Tensor]:
        mean = self._sums / self._count
        return mean.float(), (self._squares / self._count - mean**2).clamp(min=0).float()


def put_back(network: nn.Module, batches_bchw: Iterable[Tensor]) -> int:
    """Puts norms behind the folded convolutions of `network`, with the statistics of these images; how many.

    A network that has norms is left as it is. In eval mode it then computes what it did.
    """
    convolutions = list(_folded(network))
    measures = [_Measure(layer.out_channels, layer.activation) for layer in convolutions]
    for layer, measure in zip(convolutions, measures, strict=True):
        layer.activation = measure
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for images_bchw in batches_bchw:
            network(images_bchw)
    for layer, measure in zip(convolutions, measures, strict=True):
        layer.activation = Normed(measure.activation, *measure.moments()).to(layer.weight.device)
    network.train(was_training)
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
    """The weights of `network` under the names they had before `put_back`, with the norms made part of them."""
    normed = {
        name: layer
        for name, layer in network.named_modules()
        if isinstance(layer, Conv) and isinstance(layer.activation, Normed)
    }
    inside = tuple(f"{name}.activation." for name in normed)
    weights = {key: value for key, value in network.state_dict().items() if not key.startswith(inside)}
    for name, layer in normed.items():
        assert isinstance(layer.activation, Normed)
        weights[f"{name}.weight"], weights[f"{name}.bias"] = layer.activation.folded_into(layer)
    return weights
