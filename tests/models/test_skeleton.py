"""The graph that ships without weights: filled in, it computes what the network does; and it is today's code's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models import create_model, load_model, skeleton
from models.classes import keep_classes
from models.export import export_onnx
from models.pixels import PixelDetector, PixelNetwork

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIDE = 512
IMAGES = np.random.default_rng(0).integers(0, 255, (2, SIDE, SIDE, 3), dtype=np.uint8)


def heads_of(path: Path) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"images_bhwc": IMAGES})


def test_filled_in_it_is_what_the_exporter_writes(tmp_path: Path) -> None:
    network = load_model("mobilenetv3")
    keep_classes(network, (0, 2))
    module = PixelNetwork(network)
    assert skeleton.fill(module, SIDE, SIDE, tmp_path / "filled.onnx")
    export_onnx(module, tmp_path / "exported.onnx", SIDE, SIDE, batch=None)
    for ours, theirs in zip(heads_of(tmp_path / "filled.onnx"), heads_of(tmp_path / "exported.onnx"), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    filled, exported = (onnx.load(tmp_path / f"{name}.onnx") for name in ("filled", "exported"))
    assert filled.metadata_props == exported.metadata_props and filled.metadata_props
    onnx.checker.check_model(filled, full_check=True)


def test_other_weights_of_the_same_network_fit_too(tmp_path: Path) -> None:
    module = PixelNetwork(create_model("mobilenetv3"))
    assert skeleton.fill(module, SIDE, SIDE, tmp_path / "filled.onnx")
    with torch.no_grad():
        expected = module(torch.from_numpy(IMAGES))
    for ours, theirs in zip(heads_of(tmp_path / "filled.onnx"), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max()))


def test_what_it_is_not_made_for_is_left_to_the_exporter(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    network = create_model("mobilenetv3")
    assert not skeleton.fill(PixelNetwork(network), SIDE, 256, path)
    assert not skeleton.fill(PixelDetector(network, 10), SIDE, SIDE, path)
    assert not skeleton.fill(PixelNetwork(create_model("res_18")), SIDE, SIDE, path)
    module = PixelNetwork(network)
    module.network.neck.extra = torch.nn.Conv2d(1, 1, 1)
    assert not skeleton.fill(module, SIDE, SIDE, path)
    del module.network.neck.extra
    module.network.neck.attention.reduce = torch.nn.Conv2d(64, 32, 1)
    assert not skeleton.fill(module, SIDE, SIDE, path)
    assert not path.exists()


def test_it_is_the_graph_of_todays_code(tmp_path: Path) -> None:
    """After a change of the network or the exporter: `python -m models.skeleton`."""
    made = onnx.load(skeleton.make("mobilenetv3", tmp_path))
    kept = onnx.load(skeleton.FOLDER / "mobilenetv3-512x512.onnx")
    assert kept.graph.node == made.graph.node
    assert kept.graph.initializer == made.graph.initializer
    assert kept.graph.output == made.graph.output
