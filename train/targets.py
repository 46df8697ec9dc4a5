"""What a network of the CenterNet design is shown as right, for a batch of boxes (arXiv 1904.07850, section 3).

Knows neither images nor losses. All lengths are in output cells. As the published models were trained, an object lies
in the cell of its box's centre, after the box is cut to x from 0 to width - 1 and y from 0 to height - 1.

80 heat maps of 128 × 128 for 32 images are 168 MB, nearly all of it zeros. What is to be drawn is some kilobytes: that
goes from process to process and to the device, and the maps are drawn there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.kernels.gaussian import block, splat
from train.kernels.inner import inner_cells

MIN_OVERLAP = 0.7
# Cells drawn at once on a device that is no CPU: bounds the memory it takes to some 100 MB.
CELLS_AT_ONCE = 1 << 22

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Radius = Literal["reference", "corrected"]
SizeCells = Literal["centre", "inner"]
Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class HeatMaps:
    """The heat maps of a batch, to be drawn.

    shape      B, C, H, W
    peaks      (N, 5) int64: image, class, x, y, radius of the Gaussian, of each object
    blocked    (K, 6) int64: image, class, left, top, right, bottom of regions where nothing is to be learnt
    positives  () int64, cells at 1: two objects of a class in one cell count once
    reach      the greatest radius
    """

    shape: tuple[int, int, int, int]
    peaks: Tensor
    blocked: Tensor
    positives: Tensor
    reach: int

    def draw(self) -> Tensor:
        """(B, C, H, W) float32 on the device of `peaks`, new each time.

        1 in the cells of objects, Gaussians around them, -1 where nothing is to be learnt, else 0.
        """
        if self.peaks.device.type != "cpu":
            return draw_in_torch(self)
        heatmap_bchw = np.zeros(self.shape, np.float32)  # its memory is made only where it is written
        block(heatmap_bchw, self.blocked.numpy())
        splat(heatmap_bchw, self.peaks.numpy())
        return torch.from_numpy(heatmap_bchw)

    def each(self, change: Change) -> Self:
        """The same with its tensors changed."""
        return type(self)(self.shape, change(self.peaks), change(self.blocked), change(self.positives), self.reach)


@dataclass(frozen=True, slots=True)
class Targets:
    """What the heads should say for B images, by the heads' names, with at most M cells in each that tell of an object.

    heatmaps  of heads with loss "focal"
    values    of the other heads: (B, M, channels) float32, what they should say in each cell; a pose is one more entry
    cells     (B, M) int64, y * W + x; 0 where there is none
    weights   (B, M) float32, how much each counts: 1 for an object in all; 0 where there is none
    left_out  objects for which there is no room, of all images: without values, but in the heat maps, or they would be
              unlearnt
    """

    heatmaps: dict[str, HeatMaps]
    values: dict[str, Tensor]
    cells: Tensor
    weights: Tensor
    left_out: int = 0

    def count(self) -> Tensor:
        """(len(heatmaps) + 1,) float32: cells at 1 of each kind of heat map, and last the objects with values."""
        return torch.stack([*(maps.positives for maps in self.heatmaps.values()), self.weights.sum()]).float()

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """What DataLoader calls."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Change) -> Self:
        heatmaps = {name: maps.each(change) for name, maps in self.heatmaps.items()}
        values = {name: change(value) for name, value in self.values.items()}
        return type(self)(heatmaps, values, change(self.cells), change(self.weights), self.left_out)


def render_targets(
    boxes_cells: Sequence[NDArray[Any]],
    class_ids: Sequence[NDArray[Any]],
    crowd_boxes_cells: Sequence[NDArray[Any]],
    crowd_class_ids: Sequence[NDArray[Any]],
    *,
    classes: int,
    height: int,
    width: int,
    size_channels: int = 2,
    max_objects: int = 128,
    radius: Radius = "reference",
    size_cells: SizeCells = "centre",
) -> Targets:
    """Targets of B images of `height` × `width` cells, each with boxes (N, 4) xyxy in cells and their classes (N,).

    size_channels  2: "wh" is width and height, "reg" where in its cell the centre lies.
                   4: "wh" is the distances from the cell's corner to left, top, right and bottom; there is no "reg"
    max_objects    of one image; the first so many get values
    radius         "reference" as the published models were trained, "corrected" as it was meant:
                   see `reference_radii` and `corrected_radii`
    size_cells     "centre" as the paper has it: an object's own cell tells its size. "inner", for distances alone: so
                   do those around it, each the distances from itself; see `train.kernels.inner`

    A box without area inside the grid is no object. Every cell that a crowd box touches may hold the centre of an
    object that nobody annotated: the map of its class is -1 there, neither right nor wrong, as COCO's evaluation does
    not count what is found in a crowd. Under the Gaussian of an annotated object more is known, and the Gaussian stays.

    Raises ValueError where lists do not fit each other, a box is not finite, or a class or an option is not allowed.
    """
    if size_channels not in (2, 4) or radius not in RADII:
        raise ValueError(f"size_channels {size_channels}, radius {radius!r}: give 2 or 4, and {' or '.join(RADII)}")
    if size_cells == "inner" and size_channels != 4:
        raise ValueError("size_cells 'inner': the network tells widths and heights, only distances are learnt so")
    batch = len(boxes_cells)
    boxes, labels, images = _joined(boxes_cells, class_ids, batch, classes)
    boxes, inside = _cut(boxes, height, width)
    labels, images = labels[inside], images[inside]
    points = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
    cells_xy = points.astype(np.int64)
    peaks = np.column_stack((images, labels, cells_xy, RADII[radius](boxes[:, 2:] - boxes[:, :2])))
    crowds, crowd_labels, crowd_images = _joined(crowd_boxes_cells, crowd_class_ids, batch, classes)
    blocked = np.column_stack((crowd_images, crowd_labels, _touched_cells(crowds, height, width)))

    fits = _places(images) < max_objects
    boxes, points, cells_xy, images = boxes[fits], points[fits], cells_xy[fits], images[fits]
    weights, room = np.ones(len(images), np.float32), max_objects
    if size_cells == "inner":
        inner, weights = inner_cells(boxes, cells_xy, images, (batch, height, width))
        objects, cells_xy = inner[:, 0], inner[:, 1:]
        boxes, points, images = boxes[objects], points[objects], images[objects]
        room = int(np.bincount(images, minlength=1).max())
    values = _values(boxes, points, cells_xy.astype(np.float32), size_channels)
    places = _places(images)

    def table(column: NDArray[Any]) -> Tensor:
        rows = np.zeros((batch, room, *column.shape[1:]), column.dtype)
        rows[images, places] = column
        return torch.from_numpy(rows)

    return Targets(
        heatmaps={"hm": _heatmaps((batch, classes, height, width), peaks, blocked)},
        values={name: table(column) for name, column in values.items()},
        cells=table(cells_xy[:, 1] * width + cells_xy[:, 0]),
        weights=table(weights),
        left_out=int(np.count_nonzero(~fits)),
    )


def reference_radii(sizes_wh: Floats) -> Ints:
    """(N,) whole cells, for boxes (N, 2): as the published models were trained.

    Law and Deng 2018 (arXiv 1808.01244, section 3.2) want the radius within which both corners may move while the box
    still overlaps the true one by a share. Of three cases (a corner in and a corner out, both in, both out) the least
    holds. The reference takes the greater root where the smaller is wanted, and never divides by the leading
    coefficient. What is left is always the third case, 4 × 0.7 times too large: a box whose corners move so far may
    overlap by a fifth, or not at all.
    """
    width, height = np.ceil(sizes_wh.astype(np.float64)).T
    # The operations and their order are the reference's: where the root is a whole number, its last bit decides.
    b, c = -2 * MIN_OVERLAP * (height + width), (MIN_OVERLAP - 1) * width * height
    return ((b + np.sqrt(b**2 - 4 * (4 * MIN_OVERLAP) * c)) / 2).astype(np.int64)


def corrected_radii(sizes_wh: Floats) -> Ints:
    """(N,) whole cells, for boxes (N, 2): corners that move no further leave an overlap of at least 0.7.

    Worst is the box that shrinks on all sides: (w - 2r)(h - 2r) = 0.7 w h, of which this is the smaller root. Before
    both are rounded down, the reference's is 3.3 to 4 times as large.
    """
    width, height = sizes_wh.astype(np.float64).T
    b, c = width + height, (1 - MIN_OVERLAP) * width * height
    return (c / (b + np.sqrt(b**2 - 4 * c))).astype(np.int64)


RADII: dict[str, Callable[[Floats], Ints]] = {"reference": reference_radii, "corrected": corrected_radii}


def draw_in_torch(maps: HeatMaps) -> Tensor:
    """What `HeatMaps.draw` gives, on any device, without waiting for it."""
    batch, classes, height, width = maps.shape
    planes = torch.zeros(batch * classes, height, width, device=maps.peaks.device)
    _block_in_torch(planes, maps.blocked, classes)
    for peaks in maps.peaks.split(max(1, CELLS_AT_ONCE // (2 * maps.reach + 1) ** 2)):
        _splat_in_torch(planes, peaks, classes, maps.reach)
    return planes.view(maps.shape)


def _splat_in_torch(planes: Tensor, peaks: Tensor, classes: int, reach: int) -> None:
    """Every object draws a square of the greatest radius: beyond its own or the map's end -1, which changes no cell."""
    height, width = planes.shape[1:]
    image, channel, x, y, radius = peaks[:, :, None].unbind(1)
    steps = torch.arange(-reach, reach + 1, device=planes.device)
    profile = torch.exp(-(steps**2) * 18 / (2 * radius + 1).double() ** 2).float()
    columns, rows = x + steps, y + steps
    near = steps.abs() <= radius
    across, down = near & (columns >= 0) & (columns < width), near & (rows >= 0) & (rows < height)
    values = (profile[:, :, None] * profile[:, None]).masked_fill_(~(down[:, :, None] & across[:, None]), -1.0)
    lines = (image * classes + channel) * height + rows.clamp(0, height - 1)
    cells = lines[:, :, None] * width + columns.clamp(0, width - 1)[:, None]
    planes.view(-1).scatter_reduce_(0, cells.flatten(), values.flatten(), "amax")


def _block_in_torch(planes: Tensor, blocked: Tensor, classes: int) -> None:
    rows, columns = (torch.arange(count, device=planes.device) for count in planes.shape[1:])
    image, channel, left, top, right, bottom = blocked[:, :, None].unbind(1)
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    regions = -(down[:, :, None] & across[:, None]).float()
    plane = (image * classes + channel)[:, :, None].expand_as(regions)
    planes.scatter_reduce_(0, plane, regions, "amin")


def _places(images: Ints) -> Ints:
    """Which of its image each is, of those that are sorted by images."""
    return np.arange(len(images)) - np.searchsorted(images, images)


def _values(boxes: Floats, points: Floats, corners: Floats, size_channels: int) -> dict[str, Floats]:
    """What the heads say of each object, in the units of `models.heads`, in the cells with these `corners`."""
    if size_channels == 4:
        return {"wh": np.concatenate((corners - boxes[:, :2], boxes[:, 2:] - corners), axis=1)}
    return {"wh": boxes[:, 2:] - boxes[:, :2], "reg": points - corners}


def _heatmaps(shape: tuple[int, int, int, int], peaks: Ints, blocked: Ints) -> HeatMaps:
    positives = len(np.unique(np.ravel_multi_index(peaks[:, [0, 1, 3, 2]].T, shape)))
    reach = int(peaks[:, 4].max(initial=0))
    return HeatMaps(shape, torch.from_numpy(peaks), torch.from_numpy(blocked), torch.tensor(positives), reach)


def _joined(
    boxes: Sequence[NDArray[Any]], class_ids: Sequence[NDArray[Any]], batch: int, classes: int
) -> tuple[Floats, Ints, Ints]:
    """The boxes (N, 4) of all images, their classes, and which image each is of."""
    if not len(boxes) == len(class_ids) == batch:
        raise ValueError(f"boxes of {len(boxes)} and classes of {len(class_ids)} images in a batch of {batch}")
    counts = [len(of_image) for of_image in boxes]
    if counts != [len(of_image) for of_image in class_ids]:
        raise ValueError("an image has not as many classes as boxes")
    images = np.repeat(np.arange(batch), counts)
    joined = np.concatenate([np.empty((0, 4)), *(np.reshape(one, (-1, 4)) for one in boxes)]).astype(np.float32)
    labels = np.concatenate([np.empty(0), *class_ids]).astype(np.int64)
    if not (finite := np.isfinite(joined).all(axis=1)).all():
        raise ValueError(f"image {images[~finite][0]} of the batch: box {joined[~finite][0].tolist()} is not finite")
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(f"class ids from {labels.min()} to {labels.max()}: allowed are 0 to {classes - 1}")
    return joined, labels, images


def _cut(boxes: Floats, height: int, width: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Boxes cut to the range of centres, without those that are left no area; and which those with area are."""
    corners = boxes.reshape(-1, 2, 2).clip(0, np.array([width - 1, height - 1], np.float32))
    inside = _has_area(corners)
    return corners[inside].reshape(-1, 4), inside


def _touched_cells(boxes: Floats, height: int, width: int) -> Ints:
    """(K, 4): first column and row that a box touches, and those after the last; none for a box without area."""
    corners = boxes.reshape(-1, 2, 2).clip(0, np.array([width, height], np.float32))
    first, end = np.floor(corners[:, 0]), np.ceil(corners[:, 1])
    end = np.where(_has_area(corners)[:, None], end, first)
    return np.concatenate((first, end), axis=1).astype(np.int64)


def _has_area(corners: Floats) -> NDArray[np.bool_]:
    width, height = (corners[:, 1] - corners[:, 0]).T
    return np.logical_and(width > 0, height > 0)
