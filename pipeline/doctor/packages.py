"""Python, the packages that the project asks for, and OpenCV, of which there must be exactly one. Knows what
`pyproject.toml` says, and nothing of what the packages do.
"""

import operator
import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from pipeline.doctor.finding import Finding, Question, note, ok, problem

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
SETUP = "run `make setup`, or pip install"
# They all bring the same module, and overwrite each other's files.
OPENCV = ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")

_REQUIREMENT = re.compile(r"\s*([\w.-]+)\s*([^;\[]*)")
_BOUND = re.compile(r"(>=|<=|==|!=|>|<)\s*([\w.]+)")
_HOLDS = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


class Declared(NamedTuple):
    """What the project asks for: of Python (">=3.11"), and of packages ("torch>=2.6")."""

    python: str
    packages: list[str]


class Wanted(NamedTuple):
    """A package with its bounds, and its version here, None where it is missing."""

    name: str
    bounds: str
    version: str | None

    @property
    def suffices(self) -> bool:
        return self.version is not None and is_within(self.version, self.bounds)


def python(question: Question) -> Iterator[Finding]:
    wanted, found = declared().python, platform.python_version()
    if is_within(found, wanted):
        yield ok("Python", f"{found} on {platform.system()} {platform.machine()}, in {sys.prefix}")
    else:
        yield problem(
            "Python", f"{found}, and {wanted} is needed", "make an environment with a newer one: `make setup`"
        )


def packages(question: Question) -> Iterator[Finding]:
    found = [_wanted(requirement) for requirement in declared().packages]
    for each in found:
        if not each.suffices:
            has = f"{each.name} {each.version}" if each.version else f"{each.name} is missing"
            yield problem(
                "packages", f"{has}, and {each.bounds or 'any'} is needed", f"{SETUP} '{each.name}{each.bounds}'"
            )
    if all(each.suffices for each in found):
        yield ok("packages", ", ".join(f"{each.name} {each.version}" for each in found))


def opencv(question: Question) -> Iterator[Finding]:
    there = {name: version for name in OPENCV if (version := _version(name))}
    told = " and ".join(f"{name} {version}" for name, version in there.items())
    if len(there) > 1:
        every = " ".join(there)
        how = f"pip uninstall {every}, then pip install one of them"
        yield problem("OpenCV", f"{told}: two in one environment overwrite each other", how)
    elif not there:
        yield problem("OpenCV", "there is none", f"{SETUP} opencv-python-headless (opencv-python for --show)")
    else:
        yield from _imported(told)


def _imported(told: str) -> Iterator[Finding]:
    try:
        import cv2
    except ImportError as error:
        missing = str(error).partition(":")[0]
        how = "install what it names, or take opencv-python-headless, which needs no such library"
        yield problem("OpenCV", f"{told} cannot be imported: {missing}", how)
        return
    if is_within(cv2.__version__, ">=4.10"):
        yield ok("OpenCV", told)
    else:
        yield note("OpenCV", f"{told}: older than what is tested, 4.10", f"{SETUP} 'opencv-python-headless>=4.10'")


def declared() -> Declared:
    """Of the checkout that runs, else of the package that is installed."""
    if PROJECT.is_file():
        project = tomllib.loads(PROJECT.read_text())["project"]
        return Declared(project["requires-python"], project["dependencies"])
    told = metadata.metadata("centerstream")
    needed = [each for each in told.get_all("Requires-Dist") or [] if "extra ==" not in each]
    return Declared(told["Requires-Python"] or "", needed)


def is_within(version: str, bounds: str) -> bool:
    """Whether `2.11.0+cpu` is within `>=2.6,<3`. What comes after the numbers of a version counts for nothing."""
    return all(_HOLDS[how](*_alike(version, bound)) for how, bound in _BOUND.findall(bounds))


def _alike(a: str, b: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of two versions, as many of each."""
    one, other = _numbers(a), _numbers(b)
    length = max(len(one), len(other))
    return one + (0,) * (length - len(one)), other + (0,) * (length - len(other))


def _numbers(version: str) -> tuple[int, ...]:
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def _wanted(requirement: str) -> Wanted:
    found = _REQUIREMENT.match(requirement)
    assert found, requirement
    return Wanted(found[1], found[2].strip(), _version(found[1]))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
