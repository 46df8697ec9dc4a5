"""The devices of this machine, by the names that users give them. Knows no network; torch only where CUDA may be."""

import ctypes
import importlib.util
import platform
import re
from pathlib import Path
from typing import NamedTuple


def choose_device(name: str, setting: str, usual_index: int = 0) -> str:
    """The device called `name`, "cpu" or "cuda:N": auto, cpu, cuda or cuda:N; "cuda" without a number is the one of
    `usual_index`.

    Raises ValueError, which names the `setting` that the name was given for, for one that this machine does not have.
    """
    match = re.fullmatch(r"auto|cpu|cuda(?::([0-9]+))?", name)
    if not match:
        raise ValueError(f"{setting}: got {name}; give auto, cpu, cuda or cuda:N")
    count = 0 if name == "cpu" else _cuda_devices()
    if name == "cpu" or (name == "auto" and not count):
        return "cpu"
    index = int(match[1] or usual_index)
    if index >= count:
        raise ValueError(f"{setting}: got {name}, this machine has {count} CUDA devices; use cpu or auto")
    return f"cuda:{index}"


def _cuda_devices() -> int:
    """How many torch can use; without a driver it need not be asked, which takes seconds."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


class CudaUse(NamedTuple):
    """Bytes that torch has allocated and reserved there in this process, those in use and in all of the whole device;
    the share of the last moments in which it computed, None where nothing is installed that tells."""

    allocated_bytes: int
    reserved_bytes: int
    used_bytes: int
    total_bytes: int
    utilization: float | None


def cuda_use(device: str) -> CudaUse | None:
    """How a device "cuda:N" is used now; None where it does not tell."""
    import torch

    try:
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        allocated_bytes, reserved_bytes = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
        used_bytes = total_bytes - free_bytes
        return CudaUse(allocated_bytes, reserved_bytes, used_bytes, total_bytes, _cuda_utilization(device))
    except RuntimeError:  # it is lost; whoever computes there says so
        return None


def _cuda_utilization(device: str) -> float | None:
    import torch

    if importlib.util.find_spec("pynvml") is None:
        return None
    try:
        return torch.cuda.utilization(device) / 100
    except Exception:  # what NVIDIA's library raises is its own, and differs with its version
        return None


def processor_name() -> str:
    """What its maker calls this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
