"""Which images make up which batch: drawn anew for each epoch from the seed, the same for any number of loaders, for
any split among processes, and after a resume. Knows no image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Key = tuple[int, int]  # epoch, place in the data set


@dataclass(frozen=True, slots=True)
class Order:
    """`images` in batches of `batch` for each of `processes`. What does not fill a batch waits for another epoch; fewer
    images than one batch are a smaller batch. Raises ValueError for fewer images than processes."""

    images: int
    batch: int
    processes: int
    seed: int

    def __post_init__(self) -> None:
        if self.images < self.processes:
            raise ValueError(f"{self.images} images for {self.processes} processes: start fewer processes")

    @property
    def images_per_step(self) -> int:
        """Of all processes together."""
        return min(self.batch * self.processes, self.images // self.processes * self.processes)

    @property
    def steps_per_epoch(self) -> int:
        return self.images // self.images_per_step

    def batches(self, rank: int, first_step: int, epochs: int) -> Iterator[list[Key]]:
        """The keys of process `rank`, batch by batch, from `first_step` of the whole training to its end."""
        for epoch in range(first_step // self.steps_per_epoch, epochs):
            places = np.random.default_rng([self.seed, epoch]).permutation(self.images)
            skipped = first_step - epoch * self.steps_per_epoch
            for step in range(max(0, skipped), self.steps_per_epoch):
                whole = places[step * self.images_per_step : (step + 1) * self.images_per_step]
                yield [(epoch, int(place)) for place in whole[rank :: self.processes]]
