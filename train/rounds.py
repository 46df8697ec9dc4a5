"""The mean of the weights with which several trainings from one start end (model soup, Wortsman et al. 2022, arXiv
2203.05482). Knows no recipe and no loop.

What a few images teach beyond some passes they teach by heart. Trainings that begin with the same weights and see the
images in another order end in one valley, in whose middle, the mean, new images are seen better than by most of them.
"""

from collections.abc import Mapping

from torch import Tensor

from models import create_model
from models.spec import ModelSpec


class MeanOfRounds:
    """`network` has the mean of the weights of so many `rounds`; before the first it is not to be used."""

    def __init__(self, name: str, spec: ModelSpec) -> None:
        """An empty one, of a model by its name and what it finds."""
        self.network = create_model(name, len(spec.class_names)).eval()
        self.network.spec = spec
        self.rounds = 0

    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Those of one more round, by their names in a checkpoint."""
        self.rounds += 1
        for name, mean in self.network.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(weights[name], 1 / self.rounds)
            else:
                mean.copy_(weights[name])
