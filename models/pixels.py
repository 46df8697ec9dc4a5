"""From the pixels of frames to raw heads, or on to candidates, as one module: what engines run and what is exported.

Whoever has a frame hands over its bytes.
"""

from torch import Tensor, nn

from models.centernet import CenterNet
from models.decode import decode
from models.normalise import Normalise

# Of the input of an exported module, and of its first axis where any number of images may come.
INPUT_NAME, BATCH_NAME = "images_bhwc", "batch"


class PixelNetwork(nn.Module):
    """`network` with the normalisation of its spec in front.

    In: uint8 RGB (B, H, W, 3). Out: the raw heads in the order of `names`, (B, C, H / stride, W / stride).
    """

    def __init__(self, network: CenterNet) -> None:
        super().__init__()
        self.normalise = Normalise(network.spec)
        self.network = network.eval().requires_grad_(False)
        self.names = tuple(head.name for head in network.head_specs)

    def output_shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        """Of what comes out for one image of this size, by name."""
        cells = (height // self.network.spec.stride, width // self.network.spec.stride)
        return {head.name: (head.channels, *cells) for head in self.network.head_specs}

    def heads(self, images_bhwc: Tensor) -> dict[str, Tensor]:
        """The raw heads by name."""
        heads: dict[str, Tensor] = self.network(self.normalise(images_bhwc))
        return heads

    def forward(self, images_bhwc: Tensor) -> tuple[Tensor, ...]:
        heads = self.heads(images_bhwc)
        return tuple(heads[name] for name in self.names)


class PixelDetector(PixelNetwork):
    """A `PixelNetwork` with the peak search behind it, for devices from which heat maps would be a long way.

    Out: `candidates` (B, top_k, 6) float32, as `models.decode.decode` gives them.
    """

    def __init__(self, network: CenterNet, top_k: int) -> None:
        super().__init__(network)
        self.names = ("candidates",)
        self._top_k = top_k

    def output_shapes(self, height: int, width: int) -> dict[str, tuple[int, ...]]:
        spec = self.network.spec
        cells = (height // spec.stride) * (width // spec.stride)
        return {"candidates": (min(self._top_k, cells * len(spec.class_names)), 6)}

    def forward(self, images_bhwc: Tensor) -> tuple[Tensor, ...]:
        # Half floats would make neighbours equal that are not, and place boxes to a sixteenth of a cell.
        heads = {name: head.float() for name, head in self.heads(images_bhwc).items()}
        return (decode(heads["hm"], heads["wh"], heads.get("reg"), self._top_k),)
