"""What the results of a start depend on, so that the next knows whether they still hold: our code, the versions of
packages, the machine. Knows no torch.
"""

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

SOURCES = Path(__file__).parent


@cache
def code_digest() -> str:
    """Of all that is in this package's files: code, graphs, and the pictures that engines are judged on."""
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted((*SOURCES.rglob("*.py"), *SOURCES.glob("samples/*"), *SOURCES.glob("skeletons/*"))):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def versions(*packages: str) -> list[str]:
    """`torch 2.11.0`, …; packages that are not there are left out."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """What it can, and how many there are of it; another machine with a shared cache folder differs."""
    return f"{platform.machine()} {os.cpu_count()} cores {_flags()}"


def _flags() -> str:
    """A digest of the instruction sets that the system tells of."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    told = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.blake2b(told.encode(), digest_size=6).hexdigest()
