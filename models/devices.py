"""The devices of this machine, by the names that users give them. Knows no network."""

import platform
import re
from pathlib import Path

import torch


def choose_device(name: str, setting: str, usual_index: int = 0) -> torch.device:
    """The device called `name`: auto, cpu, cuda or cuda:N; "cuda" without a number is the one of `usual_index`.

    Raises ValueError, which names the `setting` that the name was given for, for one that this machine does not have.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::([0-9]+))?", name)
    if not match:
        raise ValueError(f"{setting}: got {name}; give auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    index = int(match[1] or usual_index)
    if index >= count:
        raise ValueError(f"{setting}: got {name}, this machine has {count} CUDA devices; use cpu or auto")
    return torch.device("cuda", index)


def processor_name() -> str:
    """What its maker calls this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
