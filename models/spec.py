"""What a model expects and what it finds: size, normalisation, stride, class names. Knows no torch and no network.

`SPECS` holds the models this package can build; `DEFAULT_MODEL` is the one that ships with weights.
"""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import msgspec

RESIZE_MODES = ("stretch", "letterbox")
CHANNEL_ORDERS = ("rgb", "bgr")
NUMBERED_CLASS = "class_"
WEIGHTS_DIR = Path(__file__).parent / "weights"

COCO_CLASSES: tuple[str, ...] = tuple(
    """person|bicycle|car|motorcycle|airplane|bus|train|truck|boat|traffic light|fire hydrant|stop sign|parking meter|
    bench|bird|cat|dog|horse|sheep|cow|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|tie|suitcase|frisbee|skis|
    snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|tennis racket|bottle|wine glass|cup|
    fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|donut|cake|chair|couch|
    potted plant|bed|dining table|toilet|tv|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|
    refrigerator|book|clock|vase|scissors|teddy bear|hair drier|toothbrush""".replace("\n    ", "").split("|")
)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The facts about a model that its callers need.

    name                 a name `models.create_model` takes
    input_height, _width pixels of the image the network sees; multiples of `size_multiple`
    stride               input pixels per output cell
    mean_rgb, std_rgb    normalisation `(x - mean) / std` of RGB values 0 to 255
    channel_order        in which the network takes the normalised colours: "rgb" or "bgr"
    resize               how a frame becomes the input: "stretch" (to width × height) or "letterbox" (aspect kept)
    class_names          one per heat map channel
    size_multiple        what input height and width must be divisible by
    score_threshold      from which score on objects are best reported, where that was measured
    weights_file         the checkpoint with these facts, or None where nothing ships

    Raises ValueError where a value is not allowed.
    """

    name: str
    input_height: int
    input_width: int
    stride: int
    mean_rgb: tuple[float, float, float]
    std_rgb: tuple[float, float, float]
    resize: str
    class_names: tuple[str, ...]
    size_multiple: int = 32
    channel_order: str = "rgb"
    score_threshold: float | None = None
    weights_file: Path | None = None

    def __post_init__(self) -> None:
        height, width = self.input_height, self.input_width
        if self.stride < 1 or self.size_multiple < 1:
            raise ValueError(f"stride {self.stride}, size_multiple {self.size_multiple}: give 1 or more")
        if height < 1 or width < 1 or height % self.size_multiple or width % self.size_multiple:
            raise ValueError(f"input {width}×{height}: both sides must be multiples of {self.size_multiple}")
        if len(self.mean_rgb) != 3 or len(self.std_rgb) != 3 or not all(std > 0 for std in self.std_rgb):
            raise ValueError(f"mean {self.mean_rgb}, std {self.std_rgb}: give three numbers each, std above 0")
        if self.resize not in RESIZE_MODES:
            raise ValueError(f"resize '{self.resize}': allowed are {' and '.join(RESIZE_MODES)}")
        if self.channel_order not in CHANNEL_ORDERS:
            raise ValueError(f"channel_order '{self.channel_order}': allowed are {' and '.join(CHANNEL_ORDERS)}")
        if self.score_threshold is not None and not 0 <= self.score_threshold <= 1:
            raise ValueError(f"score_threshold {self.score_threshold}: allowed is 0 to 1")
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError("class_names must be at least one name, each only once")

    def with_classes(self, num_classes: int) -> Self:
        """The spec for another number of classes, named class_0, class_1, … until a checkpoint names them."""
        if num_classes == len(self.class_names):
            return self
        names = tuple(f"{NUMBERED_CLASS}{i}" for i in range(num_classes))
        return replace(self, class_names=names, weights_file=None)

    def to_json(self) -> str:
        """One line that `from_json` reads; where the weights lie is left out, and a threshold that nobody measured."""
        facts = asdict(self)
        del facts["weights_file"]
        if self.score_threshold is None:
            del facts["score_threshold"]
        return json.dumps(facts, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, weights_file: Path | None = None) -> Self:
        """Raises ValueError with one line where `text` is not a spec; entries it does not know are passed over."""
        try:
            spec = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from None
        return replace(spec, weights_file=weights_file)


DEFAULT_MODEL = "mobilenetv3"
RESNET_DEPTHS = (18, 34, 50, 101, 152)


def _paper_spec(name: str, size_multiple: int = 32) -> ModelSpec:
    """The paper's networks see 512×512, aspect kept, in OpenCV's order of colours, normalised by COCO's statistics."""
    return ModelSpec(
        name=name,
        input_height=512,
        input_width=512,
        stride=4,
        mean_rgb=(119.91660, 114.03422, 104.01362),
        std_rgb=(70.915079, 69.890818, 73.602761),
        resize="letterbox",
        class_names=COCO_CLASSES,
        size_multiple=size_multiple,
        channel_order="bgr",
    )


_SHIPPED = ModelSpec(
    name=DEFAULT_MODEL,
    input_height=512,
    input_width=512,
    stride=4,
    mean_rgb=(0.0, 0.0, 0.0),
    std_rgb=(1.0, 1.0, 1.0),
    resize="stretch",
    class_names=COCO_CLASSES,
    weights_file=WEIGHTS_DIR / "mobilenetv3_coco.safetensors",
)

# A network: what it takes, and the module of `models.backbones` whose `build(spec, heads)` makes it.
_ALL = (
    (_SHIPPED, "mobilenetv3"),
    *((_paper_spec(f"{kind}_{depth}"), "resnet") for kind in ("res", "resdcn") for depth in RESNET_DEPTHS),
    (_paper_spec("dla_34"), "dla"),
    (_paper_spec("hourglass", size_multiple=128), "hourglass"),
)

SPECS: dict[str, ModelSpec] = {spec.name: spec for spec, _ in _ALL}
BACKBONES: dict[str, str] = {spec.name: f"models.backbones.{module}" for spec, module in _ALL}
