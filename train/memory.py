"""How many images a step has memory for: told by a step with one image and one with two, of which nothing stays."""

from dataclasses import dataclass
from pathlib import Path

import torch
from msgspec.structs import replace

from models.centernet import CenterNet
from train.coco import CocoData
from train.loop import Trainer
from train.recipe import Recipe
from train.team import Team

# Of what is free, for what is measured a little too low and for others on the machine.
USED_SHARE = 0.8
# Files in which a container's limit stands: control groups of version 2, and of version 1.
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Need:
    """The most bytes that this process has in a step with one image, and what each further image adds."""

    first: int
    each: int

    def images(self, room_bytes: int, most: int) -> int:
        """As many as fit, `most` halved as often as it must be; at least one."""
        while most > 1 and self.first + (most - 1) * self.each > USED_SHARE * room_bytes:
            most //= 2
        return most


def need(recipe: Recipe, network: CenterNet, data: CocoData, team: Team) -> Need | None:
    """None where this system does not tell. `network` has learnt a little afterwards. Raises TrainingError."""
    if len(data.images) < 2:
        return None
    peaks = [_step_bytes(recipe, network, data, team, images) for images in (1, 2)]
    if peaks[0] is None or peaks[1] is None:
        return None
    return Need(peaks[0], max(peaks[1] - peaks[0], 1))


def _step_bytes(recipe: Recipe, network: CenterNet, data: CocoData, team: Team, images: int) -> int | None:
    lone = replace(
        recipe,
        loop=replace(recipe.loop, batch=images, loaders=0),
        optimiser=replace(recipe.optimiser, accumulate=1, guard=False),
        schedule=replace(recipe.schedule, epochs=1, drops=()),
    )
    trainer = Trainer(lone, network, data, team)
    if team.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(team.device)
        _make_step(trainer)
        return torch.cuda.max_memory_allocated(team.device)
    try:
        RESET_PEAK.write_text("5")
    except OSError:
        return None
    _make_step(trainer)
    return _kibibytes(STATUS, "VmHWM")


def _make_step(trainer: Trainer) -> None:
    steps = trainer.steps_made(lambda text: None)
    next(steps)
    steps.close()


def room_bytes(device: torch.device) -> int:
    """What this process has and may still take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    limits = [int(text) for path in LIMITS if path.exists() and (text := path.read_text().strip()).isdigit()]
    return min([*limits, _kibibytes(Path("/proc/meminfo"), "MemAvailable") + _kibibytes(STATUS, "VmRSS")])


def _kibibytes(table: Path, name: str) -> int:
    """The bytes that one of Linux's tables tells in kibibytes."""
    return next(int(line.split()[1]) << 10 for line in table.read_text().splitlines() if line.startswith(f"{name}:"))
