"""A network cut to the wanted classes computes what it did before, of those."""

import numpy as np
import pytest
import torch

from models import create_model
from models.classes import keep_classes


@pytest.mark.parametrize("arch", ["mobilenetv3", "res_18", pytest.param("hourglass", marks=pytest.mark.slow)])
def test_what_is_left_is_as_before(arch: str) -> None:
    torch.manual_seed(0)
    network = create_model(arch, 5).eval()
    images = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        whole = network(images)
        keep_classes(network, [3, 1])
        cut = network(images)
    assert cut["hm"].shape[1] == 2 and network.spec.class_names == ("class_3", "class_1")
    assert {head.name: head.channels for head in network.head_specs}["hm"] == 2
    expected = whole["hm"][:, [3, 1]]
    assert np.abs(cut["hm"] - expected).max() < 1e-5 * np.abs(expected).max()
    for name in whole.keys() - {"hm"}:
        np.testing.assert_array_equal(cut[name], whole[name])


@pytest.mark.parametrize("class_ids", [[], [5], [-1], [0, 7]])
def test_classes_that_there_are_not_are_refused(class_ids) -> None:
    with pytest.raises(ValueError, match="give one or more of 0 to 4"):
        keep_classes(create_model("mobilenetv3", 5), class_ids)
