"""Every setting of a training, with its default and its range. `configs/train_*.yaml` are such recipes."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Scale = Annotated[float, Meta(ge=0.01, le=100.0)]
Weight = Annotated[float, Meta(ge=0.0, le=1000.0)]
Images = Annotated[int, Meta(ge=1, le=1_000_000)]
Batch = Annotated[int, Meta(ge=1, le=4096)]
Epochs = Annotated[int, Meta(ge=1, le=1_000_000)]
Size = Annotated[
    str, Meta(pattern=r"^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$", description="WIDTHxHEIGHT in pixels, as in 512x512")
]
LARGEST_INPUT_SIDE = 4096


class DataSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """COCO json files, and the folders that their file names start from."""

    train_json: str
    train_images: str
    # Chooses the best epoch; empty: the last is the best
    val_json: str = ""
    val_images: str = ""
    # Reported once, at the end, with the best epoch
    test_json: str = ""
    test_images: str = ""


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is trained, and what it starts from. Raises ValueError for an input beyond LARGEST_INPUT_SIDE."""

    name: str = "mobilenetv3"
    # A checkpoint or its name in `python -m models.zoo`; "shipped", "imagenet" (torchvision's, for ResNets), "none"
    start: str = "shipped"
    # What the network sees; None: what it was made for
    input_size: Size | None = None
    # Heat maps of classes that the start does not know: "drawn" anew, or from the "nearest", the known class that
    # answers most where the new one's objects are
    new_classes: Literal["drawn", "nearest"] = "drawn"
    # Layers whose names start so are not trained
    freeze: tuple[str, ...] = ()
    # Where batch norms were folded into the weights, as in what ships, filters learn a length and a direction
    # (weight normalisation); what is kept has weights as before
    weight_norm: bool = False

    def __post_init__(self) -> None:
        if max(self.input_wh((0, 0))) > LARGEST_INPUT_SIDE:
            raise ValueError(f"input_size {self.input_size}: a side has at most {LARGEST_INPUT_SIDE} pixels")

    def input_wh(self, usual: tuple[int, int]) -> tuple[int, int]:
        """Width and height of `input_size`, or the `usual`."""
        if self.input_size is None:
            return usual
        width, _, height = self.input_size.partition("x")
        return int(width), int(height)


class AugmentSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """As in section 5 of the CenterNet paper. Raises ValueError for a scale range upside down."""

    # The side of what is seen of an image, relative to the image, drawn evenly between the two: below 1 is closer
    scale_low: Scale = 0.6
    scale_high: Scale = 1.3
    # Crops are drawn anywhere in the image, rather than centred
    crop: bool = True
    flip: Fraction = 0.5
    # Top to bottom: for images that know no up, as through a microscope
    flip_vertical: Fraction = 0.0
    # Each multiplies by 1 ± so much
    brightness: Fraction = 0.4
    contrast: Fraction = 0.4
    saturation: Fraction = 0.4
    # Standard deviation of the shift along the colours' principal components
    lighting: Fraction = 0.1

    def __post_init__(self) -> None:
        if self.scale_low > self.scale_high:
            raise ValueError(f"scale_low {self.scale_low} must not exceed scale_high {self.scale_high}")


class TargetSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the network is shown as right."""

    # Of one image; more are left out, and counted
    max_objects: Annotated[int, Meta(ge=1, le=10_000)] = 128
    # How the Gaussian's radius follows from the box: as the published models were trained, or as it was meant
    radius: Literal["reference", "corrected"] = "reference"
    # Where distances to the sides are learnt: in the cell of an object's centre, or in its inner part, where the peak
    # of its heat map may come to lie. Widths and heights only in the centre
    size_cells: Literal["centre", "inner"] = "centre"


class OptimiserSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a step is made."""

    kind: Literal["adam", "adamw"] = "adam"
    # For `for_batch` images a step; scaled in proportion to what a step really has
    learning_rate: Annotated[float, Meta(gt=0.0, le=100.0)] = 5e-4
    for_batch: Images | None = None
    weight_decay: Weight = 0.0
    # Batches added up before a step
    accumulate: Batch = 1
    # The gradient's norm is held below; None: as it comes
    clip_norm: Annotated[float, Meta(gt=0.0, le=1e9)] | None = None
    # Weights are evaluated and kept as their running mean with this decay; None: as they are
    ema_decay: Fraction | None = None
    # A training whose loss rises for good goes back to the last good weights, at half the rate, instead of to its end
    guard: bool = False


class ScheduleSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the learning rate goes. Raises ValueError for a drop after the end."""

    kind: Literal["step", "one_cycle", "cosine"] = "step"
    # Of a round
    epochs: Epochs = 140
    # So often all this is done, each time from the start; what is kept is the mean of the weights that rounds end with
    rounds: Annotated[int, Meta(ge=1, le=1000)] = 1
    # Of "step": after these epochs the rate is a tenth
    drops: tuple[Epochs, ...] = (90, 120)
    # The rate rises from 0 over so many steps
    warm_up_steps: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0

    def __post_init__(self) -> None:
        if self.kind == "step" and any(drop >= self.epochs for drop in self.drops):
            raise ValueError(f"drops {list(self.drops)} must come before the last of {self.epochs} epochs")

    @property
    def all_epochs(self) -> int:
        """Of all rounds."""
        return self.epochs * self.rounds


class LoopSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How it is run."""

    # Images of a batch, in each process
    batch: Batch = 32
    # Processes that load images; None: one less than there are cores
    loaders: Annotated[int, Meta(ge=0, le=256)] | None = None
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$", description="auto, cpu, cuda or cuda:N")] = (
        "auto"
    )
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    # Batch norms see the batches of all processes
    sync_batch_norm: bool = False
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    evaluate_every: Epochs = 1
    # Images shown after each epoch with targets, heat maps and detections
    pictures: Annotated[int, Meta(ge=0, le=1000)] = 4


class Recipe(Struct, frozen=True, forbid_unknown_fields=True):
    """One training. `out` is the folder for all that it leaves."""

    data: DataSettings
    out: str = "runs/train"
    model: ModelSettings = field(default_factory=ModelSettings)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    targets: TargetSettings = field(default_factory=TargetSettings)
    # By the head's name, in place of what it declares: {wh: 0.1}
    loss_weights: dict[str, Weight] = field(default_factory=dict)
    # Of sizes: the paper's, by which a large object counts more than a small one, or by how much boxes overlap
    size_loss: Literal["l1", "giou"] = "l1"
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
