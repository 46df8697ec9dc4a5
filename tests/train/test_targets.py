"""Targets: the reference's figures, a slow plain rule, and what crowds, borders and too many objects do."""

import itertools
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from models.decode import decode
from tests.kit.places import DATA
from train.dataset import LOADER_START
from train.targets import corrected_radii, draw_in_torch, reference_radii, render_targets


def render(boxes, class_ids, crowds=None, crowd_ids=None, **options):
    """Targets of images given as lists; 3 classes and 16 × 12 cells unless told otherwise."""
    arrays = [np.reshape(np.array(one, np.float32), (-1, 4)) for one in boxes]
    crowd_arrays = [np.reshape(np.array(one, np.float32), (-1, 4)) for one in crowds or [[]] * len(boxes)]
    ids = [np.array(one, np.int64) for one in class_ids]
    crowd_classes = [np.array(one, np.int64) for one in crowd_ids or [[]] * len(boxes)]
    options = {"classes": 3, "height": 12, "width": 16, "max_objects": 8} | options
    return render_targets(arrays, ids, crowd_arrays, crowd_classes, **options)


def drawn(targets):
    return targets.heatmaps["hm"].draw().numpy()


# -- nothing


@pytest.mark.parametrize("images", [0, 1, 2])
def test_images_without_objects_have_targets_that_say_so(images):
    targets = render([[]] * images, [[]] * images)
    assert drawn(targets).shape == (images, 3, 12, 16)
    assert not drawn(targets).any()
    assert not targets.weights.any()
    assert targets.values["wh"].shape == targets.values["reg"].shape == (images, 8, 2)
    assert targets.count().tolist() == [0, 0]
    assert targets.left_out == 0


# -- the reference


def fixture_boxes(fixture):
    """In output cells; each step in the type of number that the figures were computed with."""
    x, y, width, height, class_ids = fixture["boxes_xywh_cls"].T
    corners = np.stack((x, y, x + width, y + height), axis=1).astype(np.float32).reshape(-1, 2, 2)
    affine = fixture["affine"]
    return (corners @ affine[:, :2].T + affine[:, 2]).reshape(-1, 4).astype(np.float32), class_ids


def test_gives_the_targets_of_the_reference():
    fixture = np.load(DATA / "train_targets.npz")
    boxes, class_ids = fixture_boxes(fixture)
    width, height = fixture["out_wh"].tolist()
    targets = render([boxes], [class_ids], classes=5, height=height, width=width, max_objects=len(boxes))
    used, *columns = fixture["per_box"].T
    assert used.all() and (targets.weights == 1).all()
    got = (
        *targets.values["wh"][0].T,
        *targets.values["reg"][0].T,
        targets.cells[0],
        targets.heatmaps["hm"].peaks[:, 4],
    )
    for column, expected in zip(got, columns, strict=True):
        np.testing.assert_allclose(column.numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(drawn(targets)[0], fixture["hm"], rtol=0, atol=1e-6)


# -- the radius


def three_cases(width, height, overlap=0.7):
    """Law and Deng's cases as the reference solves them."""
    both, area = width + height, width * height
    slide = (both + math.sqrt(both**2 - 4 * area * (1 - overlap) / (1 + overlap))) / 2
    b, c = 2 * both, (1 - overlap) * area
    shrink = (b + math.sqrt(b**2 - 16 * c)) / 2
    a, b, c = 4 * overlap, -2 * overlap * both, (overlap - 1) * width * height
    grow = (b + math.sqrt(b**2 - 4 * a * c)) / 2
    return slide, shrink, grow


def test_the_references_radius_is_the_least_of_its_three_cases():
    sizes = np.array(list(itertools.product(range(1, 140), repeat=2)), np.float32)
    expected = [max(0, int(min(three_cases(width, height)))) for width, height in sizes.tolist()]
    assert reference_radii(sizes).tolist() == expected
    assert reference_radii(sizes - 0.75).tolist() == expected  # sizes count in whole cells


def overlap_after(size, moves):
    """Of a box (0, 0, width, height) with the one whose left, top, right and bottom moved."""
    (width, height), (left, top, right, bottom) = size, moves
    across = max(0.0, min(width, width + right) - max(0.0, left))
    down = max(0.0, min(height, height + bottom) - max(0.0, top))
    moved = max(0.0, width + right - left) * max(0.0, height + bottom - top)
    return across * down / (width * height + moved - across * down)


SIDES = st.floats(2**-7, 500, width=32)


@settings(max_examples=200)
@given(size=st.tuples(SIDES, SIDES), moves=st.tuples(*[st.floats(-1, 1)] * 4))
def test_within_the_corrected_radius_a_box_overlaps_enough(size, moves):
    radius = int(corrected_radii(np.array([size], np.float32))[0])
    assert overlap_after(size, [radius * move for move in moves]) >= 0.7 - 1e-9
    worst = min(overlap_after(size, [radius * m for m in sides]) for sides in itertools.product((-1, 0, 1), repeat=4))
    assert worst >= 0.7 - 1e-9
    beyond = radius + 1  # no greater radius would do
    assert overlap_after(size, (beyond, beyond, -beyond, -beyond)) < 0.7 + 1e-9


def test_within_the_references_radius_a_box_may_overlap_too_little():
    size = (20.0, 35.0)
    radius = int(reference_radii(np.array([size], np.float32))[0])
    assert overlap_after(size, (radius, radius, radius, radius)) < 0.4
    assert overlap_after(size, (radius, radius, -radius, -radius)) < 0.2


# -- a slow, plain rule


def plain_radius(width, height, radius):
    if radius == "reference":
        return int(min(three_cases(math.ceil(width), math.ceil(height))))
    whole = 0
    while overlap_after((width, height), [whole + 1, whole + 1, -whole - 1, -whole - 1]) >= 0.7 - 1e-12:
        whole += 1
    return whole


def plain_targets(boxes, labels, crowds, crowd_labels, shape, max_objects, radius):
    """Heat maps, and of each object its cell, size, offset and four distances; of one image."""
    _, height, width = shape
    heatmap, rows, left_out = np.zeros(shape), [], 0
    for (x1, y1, x2, y2), label in zip(crowds, crowd_labels, strict=True):
        for y, x in itertools.product(range(height), range(width)):
            touches = max(x, x1) < min(x + 1, x2) and max(y, y1) < min(y + 1, y2)
            heatmap[label, y, x] = -1 if touches else heatmap[label, y, x]
    for box, label in zip(boxes, labels, strict=True):
        x1, x2 = (min(max(x, 0.0), width - 1.0) for x in box[::2])
        y1, y2 = (min(max(y, 0.0), height - 1.0) for y in box[1::2])
        if x2 <= x1 or y2 <= y1:
            continue
        centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
        x, y = math.floor(centre_x), math.floor(centre_y)
        reach = plain_radius(x2 - x1, y2 - y1, radius)
        sigma = (2 * reach + 1) / 6
        for row, column in itertools.product(range(height), range(width)):
            if max(abs(row - y), abs(column - x)) <= reach:
                value = math.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * sigma**2))
                heatmap[label, row, column] = max(heatmap[label, row, column], value)
        left_out += len(rows) == max_objects
        if len(rows) < max_objects:
            ltrb = (x - x1, y - y1, x2 - x, y2 - y)
            rows.append((y * width + x, x2 - x1, y2 - y1, centre_x - x, centre_y - y, *ltrb))
    return heatmap, np.reshape(rows, (-1, 9)), left_out


QUARTERS = st.integers(-24, 88).map(lambda quarters: quarters / 4)  # exact, and often on a border
BOXES = st.lists(st.tuples(st.tuples(QUARTERS, QUARTERS, QUARTERS, QUARTERS), st.integers(0, 2)), max_size=6)


@settings(max_examples=80)
@given(
    images=st.lists(st.tuples(BOXES, BOXES), max_size=3),
    size_channels=st.sampled_from([2, 4]),
    max_objects=st.integers(1, 4),
    radius=st.sampled_from(["reference", "corrected"]),
)
def test_equals_the_plain_rule(images, size_channels, max_objects, radius):
    columns = [[[item[part] for item in image[kind]] for image in images] for kind in (0, 1) for part in (0, 1)]
    targets = render(*columns, size_channels=size_channels, max_objects=max_objects, radius=radius)
    expected = [plain_targets(*image, (3, 12, 16), max_objects, radius) for image in zip(*columns, strict=True)]
    heatmaps = np.reshape([heatmap for heatmap, _, _ in expected], (-1, 3, 12, 16))
    np.testing.assert_allclose(drawn(targets), heatmaps, rtol=0, atol=1e-6)
    np.testing.assert_allclose(draw_in_torch(targets.heatmaps["hm"]), heatmaps, rtol=0, atol=1e-6)
    assert targets.count().tolist() == [(heatmaps == 1).sum(), sum(len(rows) for _, rows, _ in expected)]
    assert targets.left_out == sum(left_out for _, _, left_out in expected)
    values = torch.cat([targets.cells[..., None], *targets.values.values()], dim=2).numpy()
    wanted = [0, *range(1, 5)] if size_channels == 2 else [0, *range(5, 9)]
    for image, (_, rows, _) in enumerate(expected):
        assert targets.weights[image].tolist() == [slot < len(rows) for slot in range(max_objects)]
        np.testing.assert_allclose(values[image, : len(rows)], rows[:, wanted], rtol=0, atol=1e-6)
        assert not values[image, len(rows) :].any()


# -- objects


@pytest.mark.parametrize("size_channels", [2, 4])
def test_what_decodes_boxes_reads_the_boxes_back(size_channels):
    boxes = [(1.25, 2.0, 6.5, 9.0), (0.0, 0.0, 15.0, 11.0), (10.1, 3.2, 10.3, 3.9)]
    targets = render([boxes], [[0, 1, 2]], size_channels=size_channels)
    dense = {name: torch.zeros(1, value.shape[2], 12 * 16) for name, value in targets.values.items()}
    for name, value in targets.values.items():
        dense[name][0, :, targets.cells[0, :3]] = value[0, :3].T
    wh, reg = (dense[name].view(1, -1, 12, 16) if name in dense else None for name in ("wh", "reg"))
    found = decode(targets.heatmaps["hm"].draw().logit(eps=1e-4), wh, reg, k=3)[0]
    found = found[found[:, 5].argsort()]
    np.testing.assert_allclose(found[:, :4], boxes, atol=1e-5)
    assert found[:, 5].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("box", "cell_xy", "size"),
    [
        ((4.0, 4.0, 4.0, 9.0), None, None),
        ((9.0, 4.0, 4.0, 9.0), None, None),
        ((-9.0, 2.0, 0.0, 9.0), None, None),
        ((15.5, 2.0, 30.0, 9.0), None, None),
        ((-50.0, -50.0, 50.0, 50.0), (7, 5), (15, 11)),
        ((0.0, 0.0, 0.5, 0.5), (0, 0), (0.5, 0.5)),
        ((14.5, 10.5, 16.0, 12.0), (14, 10), (0.5, 0.5)),
    ],
    ids=["flat", "inside out", "left", "beyond the last centre", "over all", "first cell", "last corner"],
)
def test_a_box_is_cut_to_the_grid_and_without_area_is_no_object(box, cell_xy, size):
    targets = render([[box]], [[1]])
    assert targets.weights.sum() == (cell_xy is not None)
    assert (drawn(targets) == 1).sum() == (cell_xy is not None)
    if cell_xy is not None:
        assert targets.cells[0, 0] == cell_xy[1] * 16 + cell_xy[0]
        assert drawn(targets)[0, 1, cell_xy[1], cell_xy[0]] == 1
        assert targets.values["wh"][0, 0].tolist() == list(size)


def test_objects_beyond_the_limit_are_seen_but_have_no_values():
    boxes = [(x, 2.0, x + 1.0, 3.0) for x in range(0, 12, 2)]
    targets = render([boxes, boxes[:1]], [[0] * 6, [0]], max_objects=4)
    assert targets.left_out == 2
    assert targets.weights.sum(1).tolist() == [4, 1]
    assert (drawn(targets) == 1).sum() == 7
    assert targets.count().tolist() == [7, 5]


def test_two_objects_in_a_cell_are_one_positive_and_two_with_values():
    targets = render([[(2, 2, 7, 7), (1, 1, 8, 8)]], [[0, 0]])
    assert targets.count().tolist() == [1, 2]


# -- where distances are learnt


def plain_inner(boxes, width, height, max_objects):
    """(object, x, y, weight) of each cell that tells of an object, of one image; and the boxes cut to the grid."""
    objects, parts, highest = [], [], {}
    for box in boxes:
        x1, x2 = (min(max(x, 0.0), width - 1.0) for x in box[::2])
        y1, y2 = (min(max(y, 0.0), height - 1.0) for y in box[1::2])
        if x2 > x1 and y2 > y1:
            objects.append((x1, y1, x2, y2))
    objects = objects[:max_objects]
    for number, (x1, y1, x2, y2) in enumerate(objects):
        own_x, own_y = math.floor((x1 + x2) / 2), math.floor((y1 + y2) / 2)
        part = {}
        for y, x in itertools.product(range(height), range(width)):
            across, down = abs(x - own_x), abs(y - own_y)
            if across <= int(0.54 * (x2 - x1) / 2) and down <= int(0.54 * (y2 - y1) / 2):
                sigmas = across / (0.54 * (x2 - x1) / 6), down / (0.54 * (y2 - y1) / 6)
                part[x, y] = np.float32(math.exp(-(sigmas[0] ** 2 + sigmas[1] ** 2) / 2))
                if part[x, y] > highest.get((x, y), (0, -1))[0]:
                    highest[x, y] = part[x, y], number
        parts.append(((own_x, own_y), part))
    rows = []
    for number, (own, part) in enumerate(parts):
        kept = {cell: value for cell, value in part.items() if cell == own or highest[cell][1] == number}
        rows += [(number, *cell, value / sum(kept.values())) for cell, value in kept.items()]
    return rows, objects


@settings(max_examples=80)
@given(images=st.lists(BOXES, max_size=3), max_objects=st.integers(1, 4))
def test_the_inner_part_of_an_object_tells_its_sides_and_counts_as_one(images, max_objects):
    columns = [[[item[part] for item in image] for image in images] for part in (0, 1)]
    targets = render(*columns, size_channels=4, size_cells="inner", max_objects=max_objects)
    plain = render(*columns, size_channels=4, max_objects=max_objects)
    np.testing.assert_array_equal(drawn(targets), drawn(plain))
    assert targets.left_out == plain.left_out
    np.testing.assert_allclose(targets.count(), plain.count(), rtol=1e-5)
    for image, boxes in enumerate(columns[0]):
        rows, objects = plain_inner(boxes, 16, 12, max_objects)
        count = len(rows)
        assert targets.cells[image, :count].tolist() == [y * 16 + x for _, x, y, _ in rows]
        np.testing.assert_allclose(targets.weights[image, :count], [weight for *_, weight in rows], rtol=1e-5)
        assert not targets.weights[image, count:].any()
        sides = [
            (x - objects[number][0], y - objects[number][1], objects[number][2] - x, objects[number][3] - y)
            for number, x, y, _ in rows
        ]
        np.testing.assert_allclose(targets.values["wh"][image, :count], np.reshape(sides, (-1, 4)), atol=1e-5)


def test_a_small_object_has_its_own_cell_and_a_large_one_those_around_it():
    targets = render([[(2.0, 2.0, 4.0, 4.0)], [(0.0, 0.0, 12.0, 8.0)]], [[0], [0]], size_channels=4, size_cells="inner")
    assert targets.weights[0].tolist() == [1] + [0] * 34  # seven columns, five rows
    assert (targets.weights[1] > 0).all() and int(targets.weights[1].argmax()) == 17  # the middle one


def test_where_two_objects_meet_a_cell_is_that_of_the_nearer_one_by_its_size():
    far, near = (0.0, 0.0, 14.0, 10.0), (4.0, 4.0, 8.0, 8.0)
    alone, both = (
        render([boxes], [[0] * len(boxes)], size_channels=4, size_cells="inner") for boxes in ([far], [far, near])
    )
    of_far = set(alone.cells[0].tolist())
    shared = [cell for cell in both.cells[0].tolist() if both.cells[0].tolist().count(cell) > 1]
    assert not shared and {6 * 16 + x for x in (5, 6, 7)} <= of_far
    sides = dict(zip(both.cells[0].tolist(), both.values["wh"][0].tolist(), strict=True))
    assert sides[6 * 16 + 6] == [2, 2, 2, 2] and sides[5 * 16 + 7] == [7, 5, 7, 5]


def test_widths_and_heights_are_not_learnt_so():
    with pytest.raises(ValueError, match="only distances"):
        render([[]], [[]], size_cells="inner")


# -- crowds


def test_in_a_crowd_nothing_is_learnt_but_what_is_annotated():
    objects = [[(6, 4, 11, 9), (0, 0, 15, 11), (2, 2, 4, 4)]], [[0, 1, 0]]  # of different radii
    targets = render(*objects, [[(2.5, 1.0, 14.0, 10.5)]], [[0]])
    inside = np.zeros((3, 12, 16), bool)
    inside[0, 1:11, 2:14] = True
    without_crowd = drawn(render(*objects))[0]
    expected = np.where(inside & (without_crowd == 0), -1, without_crowd)
    np.testing.assert_array_equal(drawn(targets)[0], expected)
    np.testing.assert_allclose(draw_in_torch(targets.heatmaps["hm"])[0], expected, rtol=0, atol=1e-6)
    assert (expected < 0).any()
    assert expected[0, 6, 8] == expected[1, 5, 7] == expected[0, 3, 3] == 1
    assert targets.count().tolist() == [3, 3]


# -- use


def travelling(index):
    return render([[(2, 2, 9, 9)], []], [[1], []], [[], [(0, 0, 4, 4)]], [[], [2]])


def test_targets_travel_between_processes_undrawn():
    (arrived,) = DataLoader(
        [0], batch_size=1, num_workers=1, multiprocessing_context=LOADER_START, collate_fn=travelling
    )
    expected = travelling(0)
    np.testing.assert_array_equal(drawn(arrived), drawn(expected))
    np.testing.assert_array_equal(arrived.values["wh"], expected.values["wh"])
    moved = arrived.to("cpu", non_blocking=True)
    np.testing.assert_array_equal(drawn(moved), drawn(expected))


def test_two_threads_draw_at_once():
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 100, (2, 200, 2))
    boxes = np.concatenate((starts, starts + rng.uniform(1, 90, (2, 200, 2))), axis=2)
    batches = [render([one], [rng.integers(0, 3, 200)], height=128, width=128) for one in boxes]
    alone = [drawn(batch) for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        for number, together in enumerate(threads.map(drawn, batches * 8)):
            np.testing.assert_array_equal(together, alone[number % 2])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_draws_what_the_cpu_draws():
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(-10, 140, (500, 2, 2)), axis=1).reshape(500, 4)
    crowds = np.sort(rng.uniform(-10, 140, (5, 2, 2)), axis=1).reshape(5, 4)
    targets = render([boxes], [rng.integers(0, 3, 500)], [crowds], [[0, 1, 2, 0, 1]], height=128, width=128)
    on_gpu = targets.pin_memory().to("cuda", non_blocking=True).heatmaps["hm"].draw()
    assert on_gpu.device.type == "cuda"
    np.testing.assert_allclose(on_gpu.cpu(), drawn(targets), atol=1e-6)


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([[]], []), {}, "boxes of 1 and classes of 0 images"),
        (([[]], [[]], [[], []], [[], []]), {}, "boxes of 2 and classes of 2 images in a batch of 1"),
        (([[(1, 1, 2, 2)]], [[0, 1]]), {}, "not as many classes as boxes"),
        (([[], [(1, 1, 2, math.nan)]], [[], [0]]), {}, "image 1 of the batch: .* not finite"),
        (([[(1, 1, 2, 2)]], [[3]]), {}, "class ids from 3 to 3: allowed are 0 to 2"),
        (([[]], [[]], [[(1, 1, 2, 2)]], [[-1]]), {}, "class ids from -1 to -1"),
        (([[]], [[]]), {"size_channels": 3}, "size_channels 3"),
        (([[]], [[]]), {"radius": "paper"}, "radius 'paper': give .* reference or corrected"),
    ],
)
def test_what_does_not_fit_is_said(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        render(*arguments, **options)
