"""Test-time augmentation: the mirror, the scales, and soft-NMS against its paper, read slowly."""

import math

import av
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models import DEFAULT_MODEL, create_model, load_model
from models.decode import decode
from models.preprocess import preprocess
from models.soft_nms import iou, soft_nms
from models.tta import PAPER_SCALES, merge_scales, predict, unmirror_sizes
from tests.kit.places import CLIP

PERSON = 0


@pytest.fixture(scope="module")
def model():
    return load_model(DEFAULT_MODEL).eval()


@pytest.fixture(scope="module")
def street():
    """One frame of the clip: (576, 768, 3) uint8 RGB."""
    with av.open(str(CLIP)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


def soft_nms_of_the_paper(boxes, scores, sigma, threshold):
    """Figure 2 of arXiv 1704.04503 as it stands, Gaussian: B is what is left, D what is taken."""

    def overlap(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        common = max(width, 0) * max(height, 0)
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
        return common / union if union else 0

    B, S, D = list(range(len(boxes))), list(scores), []
    while B:
        m = max(B, key=lambda i: S[i])
        B.remove(m)
        if S[m] >= threshold:
            D.append((m, S[m]))
        for i in B:
            S[i] *= math.exp(-(overlap(boxes[m], boxes[i]) ** 2) / sigma)
        B = [i for i in B if S[i] >= threshold]
    return D


coordinates = st.integers(0, 30)
some_boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(some_boxes, st.floats(0.0005, 1)), max_size=12),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from([0.001, 0.2]),
)
def test_soft_nms_does_what_its_paper_says(rows, sigma, threshold):
    boxes, scores = np.array([box for box, _ in rows], float).reshape(-1, 4), np.array([score for _, score in rows])
    expected = soft_nms_of_the_paper(boxes.tolist(), scores.tolist(), sigma, threshold)
    told = [score for _, score in expected]
    # Two that are equal but for the last digit may be taken in another order, and one at the threshold may go.
    assume(all(a == b or not math.isclose(a, b, rel_tol=1e-9) for a in told for b in [*told, threshold]))
    kept, decayed = soft_nms(boxes, scores, sigma, threshold)
    assert kept.tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(decayed, told, rtol=1e-12)


def test_soft_nms_of_nothing_is_nothing():
    kept, decayed = soft_nms(np.zeros((0, 4)), np.zeros(0))
    assert (len(kept), len(decayed), iou(np.zeros((0, 4))).shape) == (0, 0, (0, 0))


def test_overlapped_boxes_lose_score_and_discarded_ones_are_gone():
    boxes = np.array([(0, 0, 10, 10), (20, 0, 30, 10), (0, 0, 10, 10), (0, 5, 10, 15)])
    kept, decayed = soft_nms(boxes, np.array([0.9, 0.3, 0.005, 0.6]))
    assert kept.tolist() == [0, 3, 1]
    np.testing.assert_allclose(decayed, [0.9, 0.6 * math.exp(-2 / 9), 0.3])


def detections(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)


def test_scales_without_detections_have_none_together():
    assert merge_scales(detections()).shape == (0, 6)


def test_scales_are_merged_within_a_class_and_the_best_stay():
    box = (0.0, 0.0, 10.0, 10.0)
    twice, other_class, apart = (*box, 0.8, 1), (*box, 0.7, 2), (50.0, 0.0, 60.0, 10.0, 0.2, 1)
    found = detections((*box, 0.5, 1), twice, other_class, apart)
    merged = merge_scales(found, k=3)
    expected = detections(twice, other_class, apart)
    torch.testing.assert_close(merged, expected)
    assert merge_scales(found)[3, 4] == pytest.approx(0.5 * math.exp(-2))
    torch.testing.assert_close(found[0], torch.tensor((*box, 0.5, 1)))  # what was given is as it was


def size_maps(boxes_cells, width, channels, has_offset):
    """What a perfect size head says of `boxes_cells` in a grid of `width`: at each centre's cell, from its point."""
    size, offset = torch.zeros(1, channels, 40, width), torch.zeros(1, 2, 40, width)
    for x1, y1, x2, y2 in boxes_cells:
        column, row = int((x1 + x2) / 2), int((y1 + y2) / 2)
        offset[0, :, row, column] = torch.tensor(((x1 + x2) / 2 - column, (y1 + y2) / 2 - row))
        x, y = (offset[0, :, row, column] * has_offset).tolist()
        x, y = column + x, row + y
        told = (x2 - x1, y2 - y1) if channels == 2 else (x - x1, y - y1, x2 - x, y2 - y)
        size[0, :, row, column] = torch.tensor(told)
    return size, offset


@settings(max_examples=100)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(*[st.floats(0.01, 0.99)] * 2, st.floats(0, 30), st.floats(0, 30)), max_size=3),
    st.sampled_from([2, 4]),
    st.booleans(),
)
def test_the_sizes_of_mirrored_boxes_are_those_of_the_boxes(width, drawn, channels, has_offset):
    boxes, taken = [], set()
    for x, y, w, h in drawn:  # one box to a cell, and none between two cells
        cell = int(x * width), int(y * 40)
        assume(cell not in taken and all(0.01 < middle % 1 < 0.99 for middle in (x * width, y * 40)))
        taken.add(cell)
        boxes.append((x * width - w / 2, y * 40 - h / 2, x * width + w / 2, y * 40 + h / 2))
    mirrored = [(width - x2, y1, width - x1, y2) for x1, y1, x2, y2 in boxes]
    seen, offset = size_maps(boxes, width, channels, has_offset)
    back = unmirror_sizes(size_maps(mirrored, width, channels, has_offset)[0], has_offset)
    at_objects = offset.any(dim=1, keepdim=True).expand_as(seen)
    torch.testing.assert_close(back[at_objects], seen[at_objects], rtol=0, atol=1e-4)


def test_one_view_is_the_plain_decoding(model, street):
    prepared = preprocess(street, model.spec)
    with torch.inference_mode():
        heads = model(prepared.images_bchw)
    expected = decode(heads["hm"], heads["wh"], k=30)[0]
    found = predict(model, street, k=30)
    torch.testing.assert_close(found[:, 4:], expected[:, 4:])
    torch.testing.assert_close(found[:, :4], prepared.to_image(expected[:, :4]))


@pytest.mark.parametrize("keep_res", [False, True])
def test_with_the_mirrored_image_beside_it_an_image_and_its_mirror_image_give_the_same_boxes(model, street, keep_res):
    street = street[100:356, 100:612]  # of even width, or a kept resolution would lie askew
    found, mirrored = (predict(model, image, flip=True, keep_res=keep_res, k=40) for image in (street, street[:, ::-1]))
    torch.testing.assert_close(mirrored[:, 4:], found[:, 4:], rtol=1e-3, atol=1e-4)
    expected = torch.stack((512 - found[:, 2], found[:, 1], 512 - found[:, 0], found[:, 3]), dim=1)
    torch.testing.assert_close(mirrored[:, :4], expected, rtol=0, atol=0.05)


def test_offsets_are_of_the_image_alone(street):
    torch.manual_seed(0)
    model = create_model("res_18", num_classes=2).eval()
    prepared = preprocess(street, model.spec, input_wh=(64, 64))
    with torch.inference_mode():
        heads, mirrored = model(prepared.images_bchw), model(prepared.images_bchw.flip(3))
    scores = (heads["hm"].sigmoid() + mirrored["hm"].flip(3).sigmoid()) / 2
    sizes = (heads["wh"] + mirrored["wh"].flip(3)) / 2
    expected = decode(scores.logit(), sizes, heads["reg"], k=5)[0]
    found = predict(model, street, flip=True, input_wh=(64, 64), k=5)
    torch.testing.assert_close(found[:, :4], prepared.to_image(expected[:, :4]), rtol=0, atol=1e-2)


def sure_people(found, score):
    return found[(found[:, 5] == PERSON) & (found[:, 4] >= score)][:, :4].numpy()


@pytest.mark.parametrize(
    "options",
    [{"flip": True}, {"scales": PAPER_SCALES}, {"flip": True, "scales": (0.75, 1.0, 1.25), "keep_res": True}],
    ids=["flip", "scales", "all"],
)
def test_augmentation_finds_the_people_that_one_view_finds(model, street, options):
    before, after = sure_people(predict(model, street), 0.5), sure_people(predict(model, street, **options), 0.4)
    assert len(before) >= 5
    overlaps = iou(np.concatenate((before, after)))[: len(before), len(before) :]
    assert (overlaps.max(axis=1) > 0.6).all()
    assert len(after) <= len(before) + 4  # five scales do not find everybody five times


def test_rows_without_a_peak_are_left_out(model):
    found = predict(model, np.zeros((40, 40, 3), np.uint8), input_wh=(32, 32), k=10**6)
    assert len(found) < 80 * 8 * 8
    assert (found[:, 4] > 0).all()


def test_a_model_in_training_mode_and_no_scale_are_told(model, street):
    with pytest.raises(ValueError, match="no scales"):
        predict(model, street, scales=())
    with pytest.raises(ValueError, match=r"call model\.eval\(\)"):
        predict(create_model(DEFAULT_MODEL), street)
