"""The losses of the CenterNet design (arXiv 1904.07850, equations 1 to 4), by the heads' declarations.

Knows no network and no box: outputs and targets meet under the heads' names.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.decode import gather_cells
from models.heads import Head
from train.targets import Targets

# Scores are kept 0.0001 away from 0 and 1. A score is the sigmoid of a logit, so that is a limit to logits.
LOGIT_LIMIT = math.log(0.9999 / 0.0001)
# As in the reference: keeps a batch without objects from dividing by 0.
L1_EPSILON = 1e-4
# Of the side that is wanted.
NEXT_TO_NOTHING = 0.05


SizeLoss = Literal["l1", "giou"]


class CenterNetLoss(nn.Module):
    """The weighted sum of the heads' losses, each averaged over the stacks.

    "focal"  equation 1, summed over all cells that are not -1, divided by the number of cells at 1, or 1
    "l1"     equations 2 and 3, at the objects' cells, by the cells' weights, divided by the number of values + 0.0001
    "giou"   `giou_sum` at the objects' cells, divided by the number of objects + 0.0001: an object counts the same
             whatever its size, where with L1 large ones drown the others and the heat map

    `weights` are those of the sum, by head, where a head's own is not wanted; `sizes` is the loss of "wh" where
    its own is not. Raises ValueError for a head named "loss" or with another loss, and for a weight of no head.
    """

    def __init__(
        self,
        head_specs: Sequence[Head],
        weights: Mapping[str, float] = MappingProxyType({}),
        sizes: SizeLoss | None = None,
    ) -> None:
        super().__init__()
        head_specs = [replace(head, loss=sizes) if sizes and head.name == "wh" else head for head in head_specs]
        names = [head.name for head in head_specs]
        if unknown := sorted(set(weights) - set(names)):
            raise ValueError(f"loss_weights: no head {', '.join(unknown)}; the network has {', '.join(names)}")
        self.head_specs = tuple(replace(head, weight=weights.get(head.name, head.weight)) for head in head_specs)
        for head in self.head_specs:
            if head.name == "loss" or head.loss not in ("focal", *OF_OBJECTS):
                raise ValueError(
                    f"head '{head.name}' with loss '{head.loss}': give 'focal', 'l1' or 'giou', and no name 'loss'"
                )

    def forward(
        self, outputs: Sequence[Mapping[str, Tensor]], targets: Targets, count: Tensor | None = None, parts: int = 1
    ) -> dict[str, Tensor]:
        """{"loss": the weighted sum, and by the name of each head its loss before the weight}, float32.

        outputs  of each stack, raw: heat maps as logits; of any floating type, computed in float32
        count    `targets.count()`; where this batch is one of `parts` of a greater one (as with several processes),
                 the mean of all parts' counts. The mean of the parts' losses is then the loss of the whole, and the
                 mean of their gradients its gradient

        Raises ValueError where a head has no targets, or its output does not fit them.
        """
        counts = targets.count() if count is None else count
        *positives, objects = (counts * parts).unbind()
        positives_of = dict(zip(targets.heatmaps, positives, strict=True))
        losses = {}
        for head in self.head_specs:
            of_stacks = [stack[head.name] for stack in outputs]
            if head.loss == "focal":
                total = _focal_total(head, of_stacks, targets)
                divisor = positives_of[head.name].clamp(min=1)
            else:
                total = _total_of_objects(head, of_stacks, targets)
                divisor = objects * (head.channels if head.loss == "l1" else 1) + L1_EPSILON
            losses[head.name] = total / len(of_stacks) / divisor * parts
        weighted = [head.weight * losses[head.name] for head in self.head_specs]
        return {"loss": torch.stack(weighted).sum(), **losses}


def focal_sum(logits_bchw: Tensor, heatmap_bchw: Tensor) -> Tensor:
    """The penalty-reduced focal loss (equation 1, α = 2, β = 4) before it is divided; cells below 0 do not count.

    The logit of "wrong here" is -x in a cell at 1 and x in any other, so that both cases are one:
    -log(1 - p) p² with p = sigmoid(x), and log(1 - p) = -softplus(x) loses no digits.
    """
    positive = heatmap_bchw == 1
    weight = (1 - heatmap_bchw) ** 4 * (heatmap_bchw >= 0) + positive
    wrong = torch.where(positive, -logits_bchw, logits_bchw).float().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    return (F.softplus(wrong) * wrong.sigmoid() ** 2 * weight).sum()


def l1_sum(predicted_bmc: Tensor, wanted_bmc: Tensor, weights_bm: Tensor) -> Tensor:
    """The absolute differences, times the weights, summed; where a weight is 0 anything may be predicted."""
    difference = (predicted_bmc.float() - wanted_bmc).abs()
    return _weighted_sum(difference, weights_bm[:, :, None])


def giou_sum(predicted_bmc: Tensor, wanted_bmc: Tensor, weights_bm: Tensor) -> Tensor:
    """1 - GIoU (Rezatofighi et al. 2019, arXiv 1902.09630, algorithm 1), times the weights, summed: 0 where boxes are
    the same, up to 2 where they are far apart.

    Sizes (…, 2) are of boxes with the same centre; distances (…, 4) go left, up, right and down from the same point.
    Boxes that do not meet, are turned inside out or next to nothing have no overlap to learn from: for them, how far
    they are from it is added, by what is wanted.
    """
    half = predicted_bmc.shape[2] == 2
    predicted, wanted = ((x.float() / 2).repeat(1, 1, 2) if half else x.float() for x in (predicted_bmc, wanted_bmc))
    wanted = wanted.masked_fill((weights_bm == 0)[:, :, None], 1.0)
    inner_wh, outer_wh = _sides(torch.minimum(predicted, wanted)), _sides(torch.maximum(predicted, wanted))
    predicted_wh, wanted_wh = _sides(predicted), _sides(wanted)
    shared = inner_wh.clamp(min=0).prod(-1)
    union = predicted_wh.clamp(min=0).prod(-1) + wanted_wh.prod(-1) - shared
    loss = 2 - shared / union - union / outer_wh.prod(-1)
    far = (-inner_wh).clamp(min=0) + (NEXT_TO_NOTHING * wanted_wh - predicted_wh).clamp(min=0)
    loss = loss + (far / wanted_wh).sum(-1)
    return _weighted_sum(loss, weights_bm)


def _weighted_sum(loss: Tensor, weights: Tensor) -> Tensor:
    return (loss.masked_fill(weights == 0, 0.0) * weights).sum()


def _sides(distances: Tensor) -> Tensor:
    return distances[..., :2] + distances[..., 2:]


# Losses of a head at the objects' cells.
OF_OBJECTS = {"l1": l1_sum, "giou": giou_sum}


def _focal_total(head: Head, of_stacks: Sequence[Tensor], targets: Targets) -> Tensor:
    _check_given(head, targets.heatmaps)
    maps = targets.heatmaps[head.name]
    for logits_bchw in of_stacks:
        if logits_bchw.shape != maps.shape:
            raise ValueError(f"head '{head.name}' gives {tuple(logits_bchw.shape)}, its targets are {maps.shape}")
    heatmap_bchw = maps.draw()
    return torch.stack([focal_sum(logits_bchw, heatmap_bchw) for logits_bchw in of_stacks]).sum()


def _total_of_objects(head: Head, of_stacks: Sequence[Tensor], targets: Targets) -> Tensor:
    _check_given(head, targets.values)
    values_bmc = targets.values[head.name]
    if head.channels != values_bmc.shape[2]:
        raise ValueError(f"head '{head.name}' has {head.channels} channels, its targets {values_bmc.shape[2]}")
    predicted = [gather_cells(output_bchw, targets.cells) for output_bchw in of_stacks]
    sum_of = OF_OBJECTS[head.loss]
    return torch.stack([sum_of(predicted_bmc, values_bmc, targets.weights) for predicted_bmc in predicted]).sum()


def _check_given(head: Head, given: Mapping[str, object]) -> None:
    if head.name not in given:
        raise ValueError(
            f"head '{head.name}' (loss {head.loss}) has no targets; there are some for {', '.join(given) or 'none'}"
        )
