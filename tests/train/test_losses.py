"""Losses: the reference's figures and gradients, a slow plain rule, and one batch as the mean of its parts."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import generalized_box_iou_loss

from models.decode import decode
from models.heads import Head, detection_heads, ltrb_heads
from tests.kit.places import DATA
from train.losses import CenterNetLoss, giou_sum
from train.targets import HeatMaps, Targets, reference_radii, render_targets

SHAPE = (3, 12, 16)
ALL_BUT_HM = ("wh", "reg")


def targets_of(boxes, class_ids, crowds=None, crowd_ids=None, shape=SHAPE, **options):
    none = [()] * len(boxes)
    arrays = [[np.reshape(one, (-1, 4)) for one in image_boxes] for image_boxes in (boxes, crowds or none)]
    ids = [[np.array(one, np.int64) for one in image_ids] for image_ids in (class_ids, crowd_ids or none)]
    sizes = dict(zip(("classes", "height", "width"), shape, strict=True))
    return render_targets(arrays[0], ids[0], arrays[1], ids[1], **sizes, **options)


def outputs_for(batch, seed=0, heads=None, shape=SHAPE):
    """Raw outputs of a network that is often wrong, to be differentiated."""
    generator = torch.Generator().manual_seed(seed)
    heads = heads or detection_heads(shape[0])
    return {
        head.name: torch.randn(batch, head.channels, *shape[1:], generator=generator).mul_(4).requires_grad_()
        for head in heads
    }


def gradients(outputs):
    return {name: output.grad for name, output in outputs.items()}


TWO_IMAGES = targets_of(
    [[(1, 1, 9, 8), (4, 2, 15, 11), (0, 0, 3, 3)], [(2, 2, 6, 9)]], [[0, 1, 0], [2]], [(), [(8, 0, 16, 6)]], [(), [2]]
)


# -- the reference


def fixture_targets(fixture):
    """The objects behind the figures: a heat map is 1 in an object's cell, the radius follows from its size."""
    images, slots = np.nonzero(fixture["mask"])
    y, x = np.divmod(fixture["ind"][images, slots], fixture["shape"][3])
    class_ids = (fixture["target_hm"][images, :, y, x] == 1).argmax(axis=1)
    radii = reference_radii(fixture["target_wh"][images, slots])
    peaks = torch.from_numpy(np.column_stack((images, class_ids, x, y, radii)))
    none, count = torch.empty(0, 6, dtype=torch.int64), torch.tensor(len(images))
    heatmaps = HeatMaps(tuple(fixture["shape"]), peaks, none, count, int(radii.max(initial=0)))
    values = {name: torch.from_numpy(fixture[f"target_{name}"]) for name in ALL_BUT_HM}
    mask = torch.from_numpy(fixture["mask"]).bool()
    return Targets({"hm": heatmaps}, values, torch.from_numpy(fixture["ind"]), mask)


def fixture_outputs(fixture):
    batch, classes, height, width = fixture["shape"]
    rng = np.random.default_rng(int(fixture["seed"]))
    drawn = {
        "hm": 1.5 * rng.standard_normal((batch, classes, height, width)).astype(np.float32) - 3,
        "wh": 10 * np.abs(rng.standard_normal((batch, 2, height, width)).astype(np.float32)),
        "reg": rng.uniform(0, 1, (batch, 2, height, width)).astype(np.float32),
    }
    return {name: torch.from_numpy(array).requires_grad_() for name, array in drawn.items()}


@pytest.mark.parametrize("name", ["train_loss_empty", "train_loss"])
def test_gives_the_losses_and_gradients_of_the_reference(name):
    fixture = np.load(DATA / f"{name}.npz")
    targets, outputs = fixture_targets(fixture), fixture_outputs(fixture)
    np.testing.assert_allclose(targets.heatmaps["hm"].draw(), fixture["target_hm"], rtol=0, atol=1e-6)
    losses = CenterNetLoss(detection_heads(5))([outputs], targets)
    losses["loss"].backward()
    for head in ("hm", *ALL_BUT_HM):
        assert losses[head].item() == pytest.approx(float(fixture[f"loss_{head}"]), rel=1e-5)
        assert outputs[head].grad.norm().item() == pytest.approx(float(fixture[f"grad_{head}_l2"]), rel=1e-5)
    assert losses["loss"].item() == pytest.approx(float(fixture["loss"]), rel=1e-5)
    expected = fixture["grad_hm_sample"]
    np.testing.assert_allclose(outputs["hm"].grad[:, :3, ::4, ::4], expected, rtol=1e-5, atol=1e-6 * expected.max())


# -- a slow, plain rule


def plain_losses(heads, outputs, targets):
    """Equation by equation, cell by cell, in double precision."""
    losses = {head.name: 0.0 for head in heads}
    for stack in outputs:
        for head in heads:
            output = stack[head.name]
            if head.loss == "focal":
                one = plain_focal(output, targets.heatmaps[head.name].draw().double())
            else:
                one = plain_l1(output, targets.values[head.name], targets)
            losses[head.name] = losses[head.name] + one / len(outputs)
    return {"loss": sum(head.weight * losses[head.name] for head in heads), **losses}


def plain_focal(logits, heatmap):
    scores = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    positive, negative = heatmap == 1, (heatmap >= 0) & (heatmap < 1)
    found = ((1 - scores) ** 2 * scores.log())[positive].sum()
    imagined = ((1 - heatmap) ** 4 * scores**2 * (1 - scores).log())[negative].sum()
    return -(found + imagined) / max(1, int(positive.sum()))


def plain_l1(output, values, targets):
    total, count = torch.zeros((), dtype=torch.float64), 0
    for image, slot in (targets.weights > 0).nonzero().tolist():
        cell = int(targets.cells[image, slot])
        for channel in range(values.shape[2]):
            total = total + (output[image, channel].flatten()[cell] - values[image, slot, channel].double()).abs()
            count += 1
    return total / (count + 1e-4)


NUMBERS = st.integers(-8, 72).map(lambda quarters: quarters / 4)
BOXES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=4)


@settings(max_examples=60)
@given(
    images=st.lists(st.tuples(BOXES, BOXES), min_size=1, max_size=2),
    heads=st.sampled_from([detection_heads(3), ltrb_heads(3), (Head("hm", 3, "focal", 0.5), Head("wh", 2, "l1", 2.0))]),
    stacks=st.integers(1, 2),
    seed=st.integers(0, 1000),
)
def test_equals_the_plain_rule(images, heads, stacks, seed):
    boxes, crowds = zip(*images, strict=True)
    ids = [[[i % 3 for i in range(len(one))] for one in kind] for kind in (boxes, crowds)]
    size_channels = next(head.channels for head in heads if head.name == "wh")
    targets = targets_of(boxes, ids[0], crowds, ids[1], size_channels=size_channels, max_objects=3)
    outputs = [outputs_for(len(images), seed + stack, heads) for stack in range(stacks)]
    exact = [{name: value.detach().double().requires_grad_() for name, value in stack.items()} for stack in outputs]
    losses, expected = CenterNetLoss(heads)(outputs, targets), plain_losses(heads, exact, targets)
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {name: float(loss.detach()) for name, loss in expected.items()}, rel=1e-5
    )
    losses["loss"].backward()
    expected["loss"].backward()
    for stack, exact_stack in zip(outputs, exact, strict=True):
        for name, output in stack.items():
            wanted = torch.zeros_like(output) if exact_stack[name].grad is None else exact_stack[name].grad
            largest = wanted.abs().max().item()
            np.testing.assert_allclose(output.grad, wanted, rtol=1e-4, atol=1e-6 * largest + 1e-12)


# -- parts of a batch


IMAGES = {
    "both without objects": ([[], []], [[], []]),
    "one without": ([[(1, 1, 9, 8)], []], [[0], []]),
    "one object and three": ([[(1, 1, 9, 8)], [(4, 2, 15, 11), (0, 0, 3, 3), (5, 5, 8, 8)]], [[0], [1, 0, 2]]),
}


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_the_mean_of_the_parts_is_the_whole(images):
    boxes, class_ids = images
    loss = CenterNetLoss(detection_heads(3))
    whole, outputs = targets_of(boxes, class_ids), outputs_for(2)
    expected = loss([outputs], whole)
    expected["loss"].backward()

    parts = [targets_of(boxes[i : i + 1], class_ids[i : i + 1]) for i in (0, 1)]
    of_parts = [{n: o.detach()[i : i + 1].requires_grad_() for n, o in outputs.items()} for i in (0, 1)]
    count = torch.stack([part.count() for part in parts]).mean(0)
    results = [loss([out], part, count, parts=2) for out, part in zip(of_parts, parts, strict=True)]
    for result in results:
        (result["loss"] / 2).backward()
    for name, value in expected.items():
        assert (results[0][name] + results[1][name]).item() / 2 == pytest.approx(value.item(), rel=1e-6)
    for name, gradient in gradients(outputs).items():
        together = torch.cat([part[name].grad for part in of_parts])
        np.testing.assert_allclose(together, gradient, rtol=1e-5, atol=1e-9)


# -- numbers


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_lose_nothing_but_their_own_digits(dtype):
    loss = CenterNetLoss(detection_heads(3))
    halves = {name: output.detach().to(dtype).requires_grad_() for name, output in outputs_for(2).items()}
    exact = {name: output.detach().float().requires_grad_() for name, output in halves.items()}
    with torch.autocast("cpu", dtype):
        losses = loss([halves], TWO_IMAGES)
    expected = loss([exact], TWO_IMAGES)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-6)
    losses["loss"].backward()
    expected["loss"].backward()
    for name, gradient in gradients(halves).items():
        assert gradient.dtype == dtype
        np.testing.assert_allclose(gradient.float(), exact[name].grad, rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("logit", [-60000.0, 60000.0])
def test_logits_without_measure_give_a_finite_loss(dtype, logit):
    outputs = {name: torch.full_like(o, logit, dtype=dtype).requires_grad_() for name, o in outputs_for(2).items()}
    losses = CenterNetLoss(detection_heads(3))([outputs], TWO_IMAGES)
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert all(torch.isfinite(gradient).all() for gradient in gradients(outputs).values())


def test_in_a_crowd_nothing_is_learnt():
    outputs = outputs_for(2)
    before = CenterNetLoss(detection_heads(3))([outputs], TWO_IMAGES)
    before["hm"].backward()
    crowd = TWO_IMAGES.heatmaps["hm"].draw() < 0
    assert crowd.any()
    assert not outputs["hm"].grad[crowd].any()
    assert outputs["hm"].grad[~crowd].any()


def test_only_the_cells_of_objects_teach_sizes_and_offsets():
    outputs = outputs_for(2)
    CenterNetLoss(detection_heads(3))([outputs], TWO_IMAGES)["loss"].backward()
    cells = {(image, int(cell)) for image in (0, 1) for cell in TWO_IMAGES.cells[image][TWO_IMAGES.weights[image] > 0]}
    for name in ALL_BUT_HM:
        taught = outputs[name].grad.flatten(2).abs().sum(1).nonzero().tolist()
        assert set(map(tuple, taught)) == cells


def test_what_falls_down_the_loss_decodes_to_the_boxes():
    boxes = [(1.25, 2.0, 6.5, 9.0), (6.0, 3.0, 15.0, 10.5)]
    targets, heads = targets_of([boxes], [[0, 2]]), detection_heads(3)
    outputs = {head.name: torch.zeros(1, head.channels, *SHAPE[1:]).requires_grad_() for head in heads}
    for rate in np.linspace(0.5, 0.01, 60):
        slopes = torch.autograd.grad(CenterNetLoss(heads)([outputs], targets)["loss"], list(outputs.values()))
        for output, slope in zip(outputs.values(), slopes, strict=True):
            output.data -= rate * slope.sign()
    found = decode(outputs["hm"], outputs["wh"], outputs["reg"], k=2).detach()[0]
    found = found[found[:, 5].argsort()]
    np.testing.assert_allclose(found[:, :4], boxes, atol=0.1)
    assert found[:, 5].tolist() == [0, 2]
    assert (found[:, 4] > 0.9).all()


# -- heads by declaration


def test_a_further_head_learns_from_its_own_values():
    heads = (*detection_heads(3), Head("depth", 1, "l1", 3.0))
    outputs = outputs_for(2, heads=heads)
    depth = torch.rand(2, TWO_IMAGES.weights.shape[1], 1)
    targets = dataclasses.replace(TWO_IMAGES, values=TWO_IMAGES.values | {"depth": depth})
    losses = CenterNetLoss(heads)([outputs], targets)
    without = CenterNetLoss(heads[:-1])([outputs], TWO_IMAGES)
    assert losses["depth"].item() == pytest.approx(plain_l1(outputs["depth"], depth, TWO_IMAGES).item(), rel=1e-5)
    assert losses["loss"].item() == pytest.approx((without["loss"] + 3 * losses["depth"]).item(), rel=1e-6)


def test_weights_of_the_sum_can_be_others():
    heads, outputs = detection_heads(3), outputs_for(2)
    losses = CenterNetLoss(heads, {"wh": 2.0, "hm": 0.0})([outputs], TWO_IMAGES)
    expected = 2 * losses["wh"] + losses["reg"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    with pytest.raises(ValueError, match="loss_weights: no head hps, size; the network has hm, wh, reg"):
        CenterNetLoss(heads, {"size": 1.0, "hm": 1.0, "hps": 1.0})


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ((Head("hps", 34, "l1"),), r"head 'hps' \(loss l1\) has no targets; there are some for wh, reg"),
        ((Head("hm_hp", 17, "focal"),), r"head 'hm_hp' \(loss focal\) has no targets; there are some for hm"),
        (ltrb_heads(3), "head 'wh' has 4 channels, its targets 2"),
        (detection_heads(80), r"head 'hm' gives \(2, 80, 12, 16\), its targets are \(2, 3, 12, 16\)"),
        ((Head("loss", 2, "l1"),), "head 'loss'"),
        ((Head("wh", 2, "huber"),), "head 'wh' with loss 'huber': give 'focal', 'l1' or 'giou'"),
    ],
)
def test_what_does_not_fit_is_said(heads, message):
    with pytest.raises(ValueError, match=message):
        CenterNetLoss(heads)([outputs_for(2, heads=heads)], TWO_IMAGES)


# -- sizes by how much boxes overlap

SIDES = st.floats(0.5, 9.0)
# Of the point from the middle of the box, by its side: of a small object the cell's corner may lie outside.
PLACES = st.floats(-0.7, 0.7)
DISTANCES = st.tuples(SIDES, SIDES, PLACES, PLACES).map(
    lambda box: tuple(
        side * (0.5 + sign * place) for sign in (1, -1) for side, place in zip(box[:2], box[2:], strict=True)
    )
)


def giou(predicted, wanted) -> float:
    """Of one object."""
    one = torch.ones(1, 1, dtype=torch.bool)
    return float(giou_sum(torch.tensor([[predicted]]), torch.tensor([[wanted]]), one))


def boxes_of(distances) -> torch.Tensor:
    left, up, right, down = distances
    return torch.tensor([[-left, -up, right, down]])


@given(DISTANCES, DISTANCES)
def test_overlap_is_that_of_torchvision(predicted, wanted) -> None:
    expected = float(generalized_box_iou_loss(boxes_of(predicted), boxes_of(wanted)))
    inner_wh = [min(predicted[i], wanted[i]) + min(predicted[i + 2], wanted[i + 2]) for i in (0, 1)]
    if min(inner_wh) > 0:
        assert giou(predicted, wanted) == pytest.approx(expected, abs=1e-5)
    else:
        assert giou(predicted, wanted) >= expected - 1e-5


@given(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_sizes_are_distances_from_the_middle(predicted, wanted) -> None:
    halves = [(width / 2, height / 2) * 2 for width, height in (predicted, wanted)]
    assert giou(predicted, wanted) == pytest.approx(giou(*halves), abs=1e-5)


@given(DISTANCES, DISTANCES, st.sampled_from([0.125, 8.0]))
def test_large_and_small_objects_count_alike(predicted, wanted, scale) -> None:
    scaled = [tuple(scale * side for side in sides) for sides in (predicted, wanted)]
    assert giou(*scaled) == pytest.approx(giou(predicted, wanted), abs=1e-5)


@given(st.tuples(*[st.floats(-50.0, 50.0)] * 4), DISTANCES)
def test_every_prediction_but_the_right_one_learns_also_a_negative_one(predicted, wanted) -> None:
    """Towards what is wanted: a small step along the gradient is no loss."""
    one, aim = torch.ones(1, 1, dtype=torch.bool), torch.tensor([[wanted]])
    start = torch.tensor([[predicted]], requires_grad=True)
    loss = giou_sum(start, aim, one)
    loss.backward()
    assert torch.isfinite(start.grad).all()
    if (start.detach() - aim).abs().max() > 1.0:
        assert start.grad.abs().max() > 0
        after = giou_sum(start.detach() - 1e-4 * start.grad / start.grad.norm(), aim, one)
        assert float(after) <= float(loss.detach()) + 1e-5


def test_objects_that_are_absent_count_for_nothing_and_their_gradient_is_none() -> None:
    predicted = torch.tensor([[(1.0, 2.0, 3.0, 4.0), (0.0, 0.0, 0.0, 0.0)]], requires_grad=True)
    wanted, weights = torch.tensor([[(2.0, 2.0, 2.0, 2.0), (0.0, 0.0, 0.0, 0.0)]]), torch.tensor([[1.0, 0.0]])
    loss = giou_sum(predicted, wanted, weights)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(giou((1.0, 2.0, 3.0, 4.0), (2.0, 2.0, 2.0, 2.0)))
    assert predicted.grad[0, 0].abs().max() > 0 and not predicted.grad[0, 1].any()


def test_a_loss_of_overlap_is_the_mean_over_objects() -> None:
    heads = ltrb_heads(SHAPE[0])
    targets = targets_of([[(1, 1, 9, 8), (4, 2, 15, 11)], [(2, 2, 6, 9)]], [[0, 1], [2]], size_channels=4)
    outputs = outputs_for(2, heads=heads)
    losses = CenterNetLoss(heads, sizes="giou")([outputs], targets)
    flat = outputs["wh"].flatten(2)
    each = []
    for image, (cells, present) in enumerate(zip(targets.cells, targets.weights > 0, strict=True)):
        for slot in torch.nonzero(present).flatten().tolist():
            each.append(giou(flat[image, :, cells[slot]].tolist(), targets.values["wh"][image, slot].tolist()))
    assert float(losses["wh"].detach()) == pytest.approx(np.mean(each), rel=1e-3) and len(each) == 3
