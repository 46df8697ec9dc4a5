"""From one image to detections, also with test-time augmentation: flipped, at several scales (section 5 of the paper,
Zhou et al. 2019, arXiv 1904.07850). For measuring and looking, not for speed. Knows neither files nor drawing.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.centernet import CenterNet
from models.decode import decode_scores
from models.preprocess import preprocess
from models.soft_nms import soft_nms

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)


@torch.no_grad()
def predict(
    model: CenterNet,
    image_rgb_hwc: NDArray[np.uint8],
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    keep_res: bool = False,
    input_wh: tuple[int, int] | None = None,
    k: int = 100,
) -> Tensor:
    """At most `k` detections of an image, (H, W, 3) uint8, best first: (N, 6) float32 of x1, y1, x2, y2 in image
    pixels (they may reach beyond the image), score, class. On the CPU, whatever the model's device.

    flip      average the heat maps and sizes with those of the mirrored image
    scales    of the input, `PAPER_SCALES` for example; the detections of several are merged by soft-NMS, class by class
    keep_res  each image at its own resolution instead of the model's input size
    input_wh  see `preprocess`

    Raises ValueError for what `preprocess` does not take, for no scale, and for a model in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    if not scales:
        raise ValueError("no scales: give at least one, as (1.0,)")
    found = []
    for scale in scales:
        prepared = preprocess(image_rgb_hwc, model.spec, keep_res=keep_res, scale=scale, input_wh=input_wh)
        detections = decode_scores(*_read_heads(model, prepared.images_bchw, flip), k)[0].cpu()
        detections[:, :4] = prepared.to_image(detections[:, :4])
        found.append(detections[detections[:, 4] > 0])
    return found[0] if len(found) == 1 else merge_scales(torch.cat(found), k)


def merge_scales(detections: Tensor, k: int = 100) -> Tensor:
    """Detections (N, 6) of one image from several scales as one set: soft-NMS within each class, then the `k` best."""
    kept = [detections[:0]]
    for class_id in detections[:, 5].unique():
        of_class = detections[detections[:, 5] == class_id]
        rows, scores = soft_nms(of_class[:, :4].numpy(), of_class[:, 4].numpy())
        of_class = of_class[torch.from_numpy(rows)]
        of_class[:, 4] = torch.from_numpy(scores)
        kept.append(of_class)
    merged = torch.cat(kept)
    return merged[merged[:, 4].argsort(descending=True, stable=True)[:k]]


def unmirror_sizes(size_bchw: Tensor, has_offset: bool) -> Tensor:
    """The size maps of mirrored images as seen from the image: cell j of W takes what cell W - 1 - j said.

    Width and height stay. Of four distances left and right change places; and where they are measured from the cell's
    corner, because no offset tells the point, the mirror puts that corner on the other side of the cell. An edge at x
    lies at W - x in the mirror, so from the right distance r there, measured from W - 1 - j, the left edge is
    W - (W - 1 - j + r) = j - (r - 1): one less to the left, and likewise one more to the right.
    """
    mirrored = size_bchw.flip(3)
    if mirrored.shape[1] == 2:
        return mirrored
    left, top, right, bottom = mirrored.unbind(1)
    cell = 0 if has_offset else 1
    return torch.stack((right - cell, top, left + cell, bottom), dim=1)


def _read_heads(model: CenterNet, images_bchw: Tensor, flip: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Scores, sizes and offsets, if there are any, of one image (1, 3, H, W)."""
    weight = next(model.parameters())
    images = torch.cat((images_bchw, images_bchw.flip(3))) if flip else images_bchw
    heads = model(images.to(weight.device, weight.dtype))
    assert isinstance(heads, dict)
    scores, sizes, offset = heads["hm"].float().sigmoid(), heads["wh"].float(), heads.get("reg")
    offset = None if offset is None else offset[:1].float()  # of the image alone, as in the paper's figures
    if flip:
        scores = (scores[:1] + scores[1:].flip(3)) / 2
        sizes = (sizes[:1] + unmirror_sizes(sizes[1:], offset is not None)) / 2
    return scores, sizes, offset
