"""Which network a name stands for. Knows no file.

A backbone is imported when it is asked for: whoever runs one network need not wait for the others.
"""

from collections.abc import Sequence
from importlib import import_module

from models.centernet import CenterNet
from models.heads import Head
from models.spec import BACKBONES, ModelSpec


def build(spec: ModelSpec, heads: Sequence[Head] | None = None) -> CenterNet:
    """The network of `spec.name`, with `heads` or those of a detector of 2D boxes."""
    network: CenterNet = import_module(BACKBONES[spec.name]).build(spec, heads)
    return network
