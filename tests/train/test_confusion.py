"""Which class is taken for which: by hand, and that every object and every detection is told of once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.test_evaluate import BOX, CAT, DOG, ELSEWHERE, data, found, image
from train.confusion import confusion

NEAR = (12, 10, 112, 110)  # IoU 0.96 with BOX
FAR = (70, 10, 170, 110)  # 0.25
LOW, SURE = 0.2, 0.9


@pytest.mark.parametrize(
    ("objects", "crowds", "detections", "table"),
    [
        pytest.param([], [], [], [[0, 0, 0], [0, 0, 0], [0, 0, 0]], id="nothing there and nothing found"),
        pytest.param([(BOX, CAT)], [], [], [[0, 0, 1], [0, 0, 0], [0, 0, 0]], id="not found"),
        pytest.param([(BOX, CAT)], [], [(BOX, LOW, CAT)], [[0, 0, 1], [0, 0, 0], [0, 0, 0]], id="too faint"),
        pytest.param([], [], [(BOX, SURE, DOG)], [[0, 0, 0], [0, 0, 0], [0, 1, 0]], id="nothing there"),
        pytest.param([(BOX, CAT)], [], [(NEAR, SURE, CAT)], [[1, 0, 0], [0, 0, 0], [0, 0, 0]], id="found"),
        pytest.param([(BOX, CAT)], [], [(NEAR, SURE, DOG)], [[0, 1, 0], [0, 0, 0], [0, 0, 0]], id="taken for a dog"),
        pytest.param([(BOX, CAT)], [], [(FAR, SURE, CAT)], [[0, 0, 1], [0, 0, 0], [1, 0, 0]], id="too far away"),
        pytest.param(
            [(BOX, CAT)], [], [(BOX, SURE, DOG), (NEAR, 0.5, CAT)], [[1, 0, 0], [0, 0, 0], [0, 1, 0]],
            id="found as what it is, and as something else too",
        ),
        pytest.param(
            [(BOX, CAT)], [], [(BOX, SURE, CAT), (NEAR, SURE, CAT)], [[1, 0, 0], [0, 0, 0], [1, 0, 0]], id="found twice"
        ),
        pytest.param(
            [(BOX, CAT), (ELSEWHERE, DOG)], [], [(ELSEWHERE, SURE, CAT), (BOX, SURE, CAT)],
            [[1, 0, 0], [1, 0, 0], [0, 0, 0]], id="two",
        ),
        pytest.param(
            [], [(ELSEWHERE, CAT)], [((210, 210, 230, 230), SURE, DOG), (BOX, SURE, CAT)],
            [[0, 0, 0], [0, 0, 0], [1, 0, 0]], id="in a crowd",
        ),
        pytest.param([(BOX, CAT)], [], [((np.nan,) * 4, SURE, CAT)], [[0, 0, 1], [0, 0, 0], [0, 0, 0]], id="no box"),
    ],
)  # fmt: skip
def test_what_it_comes_to_by_hand(objects, crowds, detections, table) -> None:
    truth = data(image(objects=objects, crowds=crowds), image(2))
    assert confusion(truth, [found(*detections), found()], 0.3).tolist() == table


PLACES = st.integers(0, 5).map(lambda at: 30 * at)
SPOTS = st.tuples(PLACES, PLACES).map(lambda at: (*at, at[0] + 60, at[1] + 60))
THINGS = st.lists(st.tuples(SPOTS, st.sampled_from([CAT, DOG])), max_size=8)


@given(THINGS, THINGS)
def test_every_object_and_every_detection_is_told_of_once(objects: list, seen: list) -> None:
    table = confusion(data(image(objects=objects)), [found(*((box, SURE, kind) for box, kind in seen))], 0.3)
    for kind in (CAT, DOG):
        assert table[kind].sum() == sum(each == kind for _, each in objects)
        assert table[:, kind].sum() == sum(each == kind for _, each in seen)
