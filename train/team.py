"""The processes of one training: one alone, or those that torchrun started. Knows nothing of what they do."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from models.devices import choose_device


@dataclass(frozen=True, slots=True)
class Team:
    """This process among its equals; `rank` 0 speaks and writes for all."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of all processes' `value`."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        """Whether one of them says so: all hear the same at the same step."""
        return bool(self.mean(torch.tensor(float(flag), device=self.device)) > 0) if self.size > 1 else flag

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


def join(device_name: str) -> Team:
    """The team that torchrun's environment tells of, or one alone. Raises ValueError for a device that is not there."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = torch.device(choose_device(device_name, "loop.device", int(os.environ.get("LOCAL_RANK", 0))))
    if size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Team(rank, size, device)
