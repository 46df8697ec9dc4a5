"""The ONNX graph of a network without its weights. That of the default network ships with the package: exporting takes
half of a first start, and this is filled in at once. `python -m models.skeleton` makes it anew.

Knows no runtime, and of a network only its keys and shapes: where they are not those of the graph, it is not taken.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from configs import startup
from models import DEFAULT_MODEL, load_model
from models.pixels import PixelNetwork

if TYPE_CHECKING:
    from onnx import ModelProto

FOLDER = Path(__file__).parent / "skeletons"


def fill(module: PixelNetwork, height: int, width: int, path: Path) -> bool:
    """Writes the graph of `module` for images of one size, any number of them, as `models.export` would; whether there
    was one to fill in. Raises ImportError without the package onnx."""
    skeleton = _path(module.network.spec.name, height, width)
    if type(module) is not PixelNetwork or not skeleton.exists():
        return False
    import onnx

    graph = onnx.load(skeleton)
    if not _put_weights(graph, module):
        return False
    shapes = module.output_shapes(height, width)
    for output in graph.graph.output:
        output.type.tensor_type.shape.dim[1].dim_value = shapes[output.name][0]
    onnx.helper.set_model_props(graph, {"centerstream": module.network.spec.to_json()})
    onnx.save(graph, path)
    return True


def _put_weights(model: "ModelProto", module: PixelNetwork) -> bool:
    """Whether they are those that the graph has room for; of heat maps there may be fewer."""
    weights = dict(module.state_dict())
    for room in model.graph.initializer:
        if room.HasField("raw_data"):
            continue  # a constant of the graph's own
        weight = weights.pop(room.name, None)
        if weight is None or tuple(weight.shape[1:]) != tuple(room.dims[1:]):
            return False
        if weight.shape[0] != room.dims[0] and ".heads.hm." not in room.name:
            return False
        room.dims[0] = weight.shape[0]
        room.raw_data = weight.detach().cpu().contiguous().numpy().tobytes()
    return not weights


def strip(model: "ModelProto", keys: set[str]) -> None:
    """Takes out the weights, known by their `keys`, and what the exporter notes of itself."""
    for weight in model.graph.initializer:
        if weight.name in keys:
            weight.ClearField("raw_data")
    del model.graph.value_info[:], model.metadata_props[:]
    model.ClearField("doc_string")
    notes = (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer)
    for noted in notes:
        del noted.metadata_props[:]
        noted.ClearField("doc_string")


def make(name: str, folder: Path) -> Path:
    """The skeleton of a network at its own size."""
    import onnx

    from models.export import export_onnx

    module = PixelNetwork(load_model(name))
    spec = module.network.spec
    with TemporaryDirectory() as temporary:
        whole = Path(temporary, "whole.onnx")
        export_onnx(module, whole, spec.input_height, spec.input_width, batch=None)
        graph = onnx.load(whole)
    strip(graph, set(module.state_dict()))
    path = folder / _path(name, spec.input_height, spec.input_width).name
    onnx.save(graph, path)
    return path


def _path(name: str, height: int, width: int) -> Path:
    return FOLDER / f"{name}-{width}x{height}.onnx"


def main() -> None:
    print(f"wrote {make(DEFAULT_MODEL, FOLDER)}")


if __name__ == "__main__":
    startup.run(main)
