"""How far two ways to compute a network agree, against a slow, plain reference and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import load_model
from models.agreement import Agreement, agreement, average_precision, detections_of, matches
from models.engines import Job, create_engine
from models.samples import sample_images


def found(*rows: tuple[float, ...]) -> np.ndarray:
    """x1, y1, x2, y2, score, class."""
    return np.array(rows, np.float32).reshape(-1, 6)


A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
NEAR_A = (2.0, 0.0, 12.0, 10.0)  # IoU 8 / 12


@pytest.mark.parametrize(
    ("truth", "other", "ap50", "ap75"),
    [
        ([], [], 0.0, 0.0),
        ([], [(*A, 0.9, 0)], 0.0, 0.0),
        ([(*A, 0.9, 0)], [], 0.0, 0.0),
        ([(*A, 0.9, 0)], [(*A, 0.2, 0)], 1.0, 1.0),
        ([(*A, 0.9, 0)], [(*A, 0.9, 1)], 0.0, 0.0),
        ([(*A, 0.9, 0)], [(*NEAR_A, 0.9, 0)], 1.0, 0.0),
        ([(*A, 0.9, 0), (*B, 0.8, 0)], [(*A, 0.9, 0)], 0.5, 0.5),
        ([(*A, 0.9, 0)], [(*A, 0.9, 0), (*A, 0.8, 0)], 1.0, 1.0),  # a second one behind costs nothing
        ([(*A, 0.9, 0)], [(*B, 0.9, 0), (*A, 0.8, 0)], 0.5, 0.5),  # one that is wrong before it does
        ([(*A, 0.9, 0), (*B, 0.2, 0)], [(*A, 0.9, 0)], 1.0, 1.0),  # what is not reported is no object
    ],
    ids=[
        "nothing at all",
        "no object",
        "nothing found",
        "the same with a lower score",
        "another class",
        "another box",
        "one of two",
        "found twice",
        "a wrong one first",
        "a weak one",
    ],
)
def test_agreement_is_average_precision(truth, other, ap50, ap75) -> None:
    assert agreement([found(*truth)], [found(*other)]) == Agreement(
        ap50, ap75, sum(1 for row in truth if row[4] >= 0.3)
    )


def plain_iou(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / both if both > 0 else 0.0


def plain_average_precision(truth, other, least_iou: float) -> float:
    """One detection after the other, best first; each takes what it overlaps most, if nothing better has."""
    ranked = sorted(
        ((-row[4], image, place) for image, rows in enumerate(other) for place, row in enumerate(rows)),
        key=lambda each: each[0],
    )
    taken, hits = set(), []
    for _, image, place in ranked:
        row = other[image][place]
        free = [
            (plain_iou(row, one), number)
            for number, one in enumerate(truth[image])
            if (image, number) not in taken and one[5] == row[5]
        ]
        best = max(free, key=lambda each: (each[0], -each[1]), default=(0.0, -1))
        hits.append(best[0] >= least_iou)
        if hits[-1]:
            taken.add((image, best[1]))
    objects = sum(map(len, truth))
    area = 0.0
    for rank, hit in enumerate(hits):
        if hit:
            area += max(sum(hits[: end + 1]) / (end + 1) for end in range(rank, len(hits)))
    return area / objects if objects else 0.0


corner = st.integers(0, 12)
side = st.integers(1, 8)
rows = st.lists(st.tuples(corner, corner, side, side, st.integers(1, 10_000), st.integers(0, 1)), max_size=6)


def boxes(drawn) -> np.ndarray:
    return found(*((x, y, x + w, y + h, score / 10_000, kind) for x, y, w, h, score, kind in drawn))


@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=3), st.sampled_from([0.3, 0.5, 0.75]))
def test_average_precision_is_what_the_plain_way_gives(images, least_iou) -> None:
    truth, other = [boxes(one) for one, _ in images], [boxes(two) for _, two in images]
    scores = np.concatenate([each[:, 4] for each in other])
    if len(np.unique(scores)) < len(scores):  # the order of equals is nobody's promise
        return
    expected = plain_average_precision(truth, other, least_iou)
    assert average_precision(truth, other, least_iou) == pytest.approx(expected, abs=1e-6)


def test_a_match_is_the_object_that_nothing_better_has_taken() -> None:
    truth = found((*A, 0.9, 0), (*NEAR_A, 0.9, 0))
    assert matches(truth, found((*NEAR_A, 0.5, 0), (*NEAR_A, 0.9, 0)), 0.5).tolist() == [0, 1]


@pytest.fixture(scope="module")
def shipped():
    return load_model("mobilenetv3")


def test_the_shipped_pictures_show_enough_to_judge_by(shipped) -> None:
    job = Job(height=512, width=512)
    images = sample_images(shipped.spec, job.height, job.width)
    assert images.shape[1:] == (512, 512, 3) and images.dtype == np.uint8
    engine = create_engine("eager", shipped, job)
    exact = []
    for image in images:
        out = engine.allocate()
        engine.run(image[None], out)
        exact += detections_of(out)
    same = agreement(exact, exact)
    assert same.objects >= 20 and same.holds and (same.ap50, same.ap75) == (1.0, 1.0)
