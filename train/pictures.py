"""Pictures for the eye: what a network is shown as right and what it finds, one row for each image; and images with
their objects and detections. Knows neither a training nor files.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from models.centernet import CenterNet
from models.decode import decode
from models.detect import FONT, Colour, class_colour, describe, draw, line_width
from models.normalise import Normalise
from train.average_precision import SHOWN_SCORE
from train.coco import CocoData
from train.dataset import Batch, DetectionDataset, collate
from train.evaluate import in_eval_mode
from train.recipe import TargetSettings

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

PANELS = ("objects", "what the heat map should say", "what it says", "what was found")
PANEL_WIDTH = 400
GAP = 3
STRIP_HEIGHT = 24
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
HEAT_OPACITY = 0.85  # of heat 1; the image shines through
IMAGE_BRIGHTNESS = 0.5  # of the image below
NOT_LEARNT = 200  # half of it


def epoch_pictures(model: CenterNet, coco: CocoData, settings: TargetSettings, count: int) -> Pixels:
    """`training_pictures` of `count` images, the same each time, from all over the data; without those not readable.

    The network stays where it is and in the modes it was in.
    """
    spec = model.spec
    dataset = DetectionDataset(coco, spec)
    places = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int).tolist()
    size_channels = next(head.channels for head in model.head_specs if head.name == "wh")
    samples = [dataset[0, place] for place in places]
    batch = collate(samples, spec=spec, size_channels=size_channels, settings=settings)
    if not batch.image_ids:
        return _strip(PANELS)
    heatmap_bchw, detections = _look(model, batch)
    return training_pictures(
        batch.images_bhwc.numpy(),
        batch.boxes_xyxy,
        batch.class_ids,
        batch.targets.heatmaps["hm"].draw().numpy(),
        heatmap_bchw,
        detections,
        spec.class_names,
    )


def _look(model: CenterNet, batch: Batch) -> tuple[Floats, list[Floats]]:
    """Scores of the heat maps (B, C, h, w), and detections in pixels of the input, (N, 6) of each image."""
    device = next(model.parameters()).device
    normalise = Normalise(model.spec).to(device)
    with in_eval_mode(model), torch.no_grad():
        heads = model(normalise(batch.images_bhwc.to(device)))
        assert isinstance(heads, dict)
        detections = decode(heads["hm"], heads["wh"], heads.get("reg"))
    detections[..., :4] *= model.spec.stride
    return heads["hm"].sigmoid().cpu().numpy(), list(detections.cpu().numpy())


def training_pictures(
    images_bhwc: Pixels,
    boxes_xyxy: Sequence[Floats],
    class_ids: Sequence[NDArray[np.int64]],
    target_bchw: Floats,
    heatmap_bchw: Floats,
    detections: Sequence[Floats],
    class_names: tuple[str, ...],
) -> Pixels:
    """RGB (H, W, 3): for each image a row of its objects, the heat map as it should be (lighter where nothing is to be
    learnt), as it is, and the detections that score `SHOWN_SCORE` or more. The last line names the classes' colours.

    images_bhwc   (B, H, W, 3) uint8, RGB, as the network sees them; boxes and detections are in its pixels
    boxes_xyxy    (N, 4) of each image, and their classes (N,)
    target_bchw   (B, C, h, w), and `heatmap_bchw` scores 0 to 1
    detections    (N, 6) of each image: box, score, class
    """
    rows, seen = [_strip(PANELS)], set()
    for i, image_rgb in enumerate(images_bhwc):
        image_bgr = np.ascontiguousarray(image_rgb[:, :, ::-1])
        shown = detections[i][detections[i][:, 4] >= SHOWN_SCORE]
        seen |= {*class_ids[i].tolist(), *shown[:, 5].astype(int).tolist()}
        panels = (
            with_objects(image_bgr, boxes_xyxy[i], class_ids[i]),
            with_heat(image_bgr, target_bchw[i]),
            with_heat(image_bgr, heatmap_bchw[i]),
            with_detections(image_bgr, shown, class_names),
        )
        rows.append(np.concatenate([_panel(panel) for panel in panels], axis=1))
    rows.append(_legend(sorted(seen), class_names))
    return np.concatenate(rows)[:, :, ::-1]


def with_objects(image_bgr: Pixels, boxes_xyxy: Floats, class_ids: NDArray[np.int64]) -> Pixels:
    """A copy with boxes (N, 4) in the colours of their classes."""
    picture = image_bgr.copy()
    for box, class_id in zip(boxes_xyxy, class_ids.tolist(), strict=True):
        _rectangle(picture, box, class_colour(class_id), line_width(picture))
    return picture


def with_heat(image_bgr: Pixels, heatmap_chw: Floats) -> Pixels:
    """A dark copy in grey with heat maps (C, h, w) over it, each cell in the colour of its hottest class."""
    classes, hottest = heatmap_chw.argmax(axis=0), heatmap_chw.max(axis=0)
    colours = np.array([class_colour(class_id) for class_id in range(len(heatmap_chw))], np.float32)
    size = image_bgr.shape[1::-1]
    heat = cv2.resize(hottest.clip(0, 1), size, interpolation=cv2.INTER_NEAREST)[..., None] * HEAT_OPACITY
    colour = cv2.resize(colours[classes], size, interpolation=cv2.INTER_NEAREST)
    below = cv2.cvtColor(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) * IMAGE_BRIGHTNESS
    passed_over = cv2.resize((heatmap_chw.min(axis=0) < 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    below[passed_over] = (below[passed_over] + NOT_LEARNT) / 2
    return (below * (1 - heat) + colour * heat).astype(np.uint8)


def with_detections(image_bgr: Pixels, detections: Floats, class_names: tuple[str, ...]) -> Pixels:
    """A copy with those detections (N, 6) that score `SHOWN_SCORE` or more, named."""
    picture = image_bgr.copy()
    draw(picture, describe(torch.from_numpy(detections), class_names, SHOWN_SCORE, *picture.shape[:2]))
    return picture


def compared(image_bgr: Pixels, boxes_xyxy: Floats, detections: Floats, class_names: tuple[str, ...]) -> Pixels:
    """`with_detections`, below them the objects (N, 4), white with a dark edge: what is left of them was missed."""
    picture = image_bgr.copy()
    for wider, colour in ((2, BLACK), (0, WHITE)):
        for box in boxes_xyxy:
            _rectangle(picture, box, colour, line_width(picture) + wider)
    return with_detections(picture, detections, class_names)


def _rectangle(picture: Pixels, box: Floats, colour: Colour, width: int) -> None:
    left, top, right, bottom = (round(float(value)) for value in box)
    cv2.rectangle(picture, (left, top), (right, bottom), colour, width)


def _panel(picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    size = PANEL_WIDTH, max(1, round(height * PANEL_WIDTH / width))
    shrinks = width > PANEL_WIDTH
    panel = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)
    panel[:, -GAP:] = panel[-GAP:] = 0
    return panel.astype(np.uint8, copy=False)


def _strip(titles: Sequence[str]) -> Pixels:
    strip = np.zeros((STRIP_HEIGHT, PANEL_WIDTH * len(PANELS), 3), np.uint8)
    for i, title in enumerate(titles):
        cv2.putText(strip, title, (i * PANEL_WIDTH + 6, STRIP_HEIGHT - 8), FONT, 0.45, WHITE, 1, cv2.LINE_AA)
    return strip


def _legend(class_ids: Sequence[int], class_names: tuple[str, ...]) -> Pixels:
    """The names, as many as there is room for."""
    strip, left = _strip(()), 6
    for class_id in class_ids:
        (width, _), _ = cv2.getTextSize(class_names[class_id], FONT, 0.45, 1)
        cv2.putText(
            strip, class_names[class_id], (left, STRIP_HEIGHT - 8), FONT, 0.45, class_colour(class_id), 1, cv2.LINE_AA
        )
        left += width + 18
    return strip
