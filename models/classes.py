"""Only the classes that are wanted: the heat maps of the others are never computed. Knows no engine.

A heat map is one output channel of the last, 1×1 convolution of its head: what is left computes what it did before.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from models.centernet import CenterNet

HEAT_MAP = "hm"


def keep_classes(network: CenterNet, class_ids: Sequence[int]) -> None:
    """Cuts `network` to the heat maps of `class_ids`, in their order; its spec and its heads say so.

    Raises ValueError where they are none, or not of this network.
    """
    names = network.spec.class_names
    if not class_ids or not all(0 <= class_id < len(names) for class_id in class_ids):
        raise ValueError(f"classes {list(class_ids)}: give one or more of 0 to {len(names) - 1}")
    index = torch.tensor(class_ids)
    for layer in heat_map_layers(network):
        assert layer.bias is not None
        layer.weight = nn.Parameter(layer.weight[index].detach(), requires_grad=layer.weight.requires_grad)
        layer.bias = nn.Parameter(layer.bias[index].detach(), requires_grad=layer.bias.requires_grad)
        layer.out_channels = len(class_ids)
    network.spec = replace(network.spec, class_names=tuple(names[class_id] for class_id in class_ids))
    network.head_specs = tuple(
        replace(head, channels=len(class_ids)) if head.name == HEAT_MAP else head for head in network.head_specs
    )


def heat_map_layers(network: CenterNet) -> list[nn.Conv2d]:
    """The last of the heat maps: one, or in a network of several stacks one for each."""
    prefixes = (f"{HEAT_MAP}.", f"heads.{HEAT_MAP}.")
    layers = [layer for name, layer in network.named_modules() if name.startswith(prefixes)]
    classes = len(network.spec.class_names)
    return [layer for layer in layers if isinstance(layer, nn.Conv2d) and _ends_in(layer, classes)]


def _ends_in(layer: nn.Conv2d, channels: int) -> bool:
    return layer.kernel_size == (1, 1) and layer.groups == 1 and layer.out_channels == channels
