"""The network a training starts with: its weights from a checkpoint, from ImageNet or drawn, its heads for the data's
classes, how its filters learn, and which of it is trained."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import nn

from models import create_model, load_checkpoint, load_model
from models.centernet import CenterNet
from models.classes import HEAT_MAP, heat_map_layers
from models.normalise import Normalise
from models.spec import ModelSpec
from models.zoo import resolve_weights
from train.coco import CocoData
from train.dataset import Batch, DetectionDataset, collate
from train.recipe import ModelSettings, TargetSettings
from train.weight_norm import put_on

Tell = Callable[[str], None]

# Images that tell of classes, evenly from all, and how many go through the network at a time.
SOME_IMAGES, AT_A_TIME = 96, 8
# A known class that answers less than this where new objects are says nothing of them.
LEAST_ANSWER = 0.05


def start_network(settings: ModelSettings, data: CocoData, tell: Tell) -> CenterNet:
    """A network for these classes; `tell` hears what was taken from where. Raises ValueError with one line."""
    class_names = data.class_names
    network = create_model(settings.name, len(class_names))
    if settings.start == "none":
        if settings.freeze:
            raise ValueError("model.freeze: what is drawn anew would never learn; give it a start, or freeze: []")
        tell(f"{settings.name}: weights drawn anew")
    elif settings.start == "imagenet":
        _load_imagenet(network, settings.name)
        tell(f"{settings.name}: the backbone starts from torchvision's ImageNet weights, the rest is drawn anew")
    else:
        _load(network, settings, tell)
    network.spec = _spec(network.spec, settings, class_names)
    if settings.new_classes == "nearest":
        _take_nearest(network, settings, data, tell)
    if settings.weight_norm and (normed := put_on(network)):
        tell(f"{normed} convolutions learn lengths and directions of their filters")
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
    if loaded.reinitialised and settings.new_classes == "drawn":
        tell(f"drawn anew, for the classes differ: {', '.join(loaded.reinitialised)}")


def _take_nearest(network: CenterNet, settings: ModelSettings, data: CocoData, tell: Tell) -> None:
    """The heat maps of classes that the start does not know begin as those of known ones."""
    if settings.start in ("none", "imagenet"):
        raise ValueError(
            f"model.new_classes nearest: start {settings.start} knows no classes; give a checkpoint, or drawn"
        )
    known = load_model(settings.name, None if settings.start == "shipped" else settings.start)
    names = known.spec.class_names
    if names == data.class_names:
        return
    known.spec = replace(known.spec, input_width=network.spec.input_width, input_height=network.spec.input_height)
    answers = _answers(known, data)
    nearest = answers.argmax(1)
    for new, old in zip(heat_map_layers(network), heat_map_layers(known), strict=True):
        assert new.bias is not None and old.bias is not None
        with torch.no_grad():
            for place, row in enumerate(nearest):
                if answers[place, row] >= LEAST_ANSWER:
                    new.weight[place], new.bias[place] = old.weight[row], old.bias[row]
    for place, row in enumerate(nearest):
        answer = answers[place, row]
        how = (
            f"starts from {names[row]}"
            if answer >= LEAST_ANSWER
            else f"drawn anew, no class answers (best {names[row]})"
        )
        tell(f"{data.class_names[place]}: {how}, score {answer:.2f} where its objects are")


def _answers(known: CenterNet, data: CocoData) -> NDArray[np.float64]:
    """(new classes, known classes): the mean score of each known class in the cells of each new one's objects."""
    sums = np.zeros((len(data.class_names), len(known.spec.class_names)))
    counts = np.zeros((len(data.class_names), 1))
    normalise = Normalise(known.spec)
    for batch in _some_batches(known.spec, data):
        with torch.no_grad():
            heatmap_bchw = known.eval()(normalise(batch.images_bhwc))[HEAT_MAP].sigmoid()
        for image, class_id, x, y, _ in batch.targets.heatmaps[HEAT_MAP].peaks.tolist():
            sums[class_id] += heatmap_bchw[image, :, y, x].numpy()
            counts[class_id] += 1
    return sums / np.maximum(counts, 1)


def _some_batches(spec: ModelSpec, data: CocoData) -> Iterator[Batch]:
    """A part of the images, unchanged; those that cannot be read are left out."""
    spec = replace(spec, class_names=data.class_names)
    dataset = DetectionDataset(data, spec)
    places = np.unique(np.linspace(0, len(data.images) - 1, SOME_IMAGES).round().astype(int)).tolist()
    for start in range(0, len(places), AT_A_TIME):
        samples = [dataset[0, place] for place in places[start : start + AT_A_TIME]]
        batch = collate(samples, spec=spec, size_channels=4, settings=TargetSettings())
        if len(batch.images_bhwc):
            yield batch


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
