"""The network a training starts with: its weights from a checkpoint, from ImageNet or drawn, its heads for the data's
classes, and which of it is trained."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import torchvision
from torch import nn

from models import create_model, load_checkpoint
from models.centernet import CenterNet
from models.spec import ModelSpec
from models.zoo import resolve_weights
from train.recipe import ModelSettings

Tell = Callable[[str], None]


def start_network(settings: ModelSettings, class_names: tuple[str, ...], tell: Tell) -> CenterNet:
    """A network for these classes; `tell` hears what was taken from where. Raises ValueError with one line."""
    network = create_model(settings.name, len(class_names))
    if settings.start == "none":
        tell(f"{settings.name}: weights drawn anew")
    elif settings.start == "imagenet":
        _load_imagenet(network, settings.name)
        tell(f"{settings.name}: the backbone starts from torchvision's ImageNet weights, the rest is drawn anew")
    else:
        _load(network, settings, tell)
    network.spec = _spec(network.spec, settings, class_names)
    frozen = freeze(network, settings.freeze)
    if settings.freeze:
        tell(f"not trained: {frozen} of {len(list(network.parameters()))} weights")
    return network


def _spec(spec: ModelSpec, settings: ModelSettings, class_names: tuple[str, ...]) -> ModelSpec:
    """What the network will expect and find; with it the checkpoints describe themselves."""
    width, height = settings.input_wh((spec.input_width, spec.input_height))
    try:
        return replace(spec, class_names=class_names, input_width=width, input_height=height, weights_file=None)
    except ValueError as error:
        raise ValueError(f"model.input_size: {error}") from None


def _load(network: CenterNet, settings: ModelSettings, tell: Tell) -> None:
    path = resolve_weights(None if settings.start == "shipped" else settings.start, settings.name)
    loaded = load_checkpoint(network, path, allow_head_mismatch=True)
    tell(f"{settings.name}: starts from {path.name}")
    if loaded.reinitialised:
        tell(f"drawn anew, for the classes differ: {', '.join(loaded.reinitialised)}")


def _load_imagenet(network: CenterNet, name: str) -> None:
    family, _, depth = name.partition("_")
    if family not in ("res", "resdcn"):
        raise ValueError(
            f"model.start imagenet: torchvision has no weights for {name}; it has them for res_* and resdcn_*"
        )
    try:
        weights = torchvision.models.get_model(f"resnet{depth}", weights="DEFAULT").state_dict()
    except OSError as error:
        raise ValueError(
            f"model.start imagenet: the weights could not be fetched ({error}); is there a network?"
        ) from None
    shared = {key: value for key, value in weights.items() if not key.startswith("fc.")}
    network.load_state_dict(shared, strict=False)


def freeze(network: nn.Module, names: Iterable[str]) -> int:
    """Stops the training of weights whose names start so; their count. Raises ValueError for a name of none."""
    count = 0
    for start in names:
        found = [weight for name, weight in network.named_parameters() if name.startswith(start)]
        if not found:
            layers = ", ".join(dict.fromkeys(name.partition(".")[0] for name, _ in network.named_parameters()))
            raise ValueError(f"model.freeze: no weight's name starts with {start!r}; they start with {layers}")
        for weight in found:
            weight.requires_grad_(False)
        count += len(found)
    return count


def train_mode(network: nn.Module) -> None:
    """Training mode, but for frozen batch norms, which keep the statistics they have."""
    network.train()
    for layer in network.modules():
        if (
            isinstance(layer, nn.modules.batchnorm._BatchNorm)
            and layer.weight is not None
            and not layer.weight.requires_grad
        ):
            layer.eval()
