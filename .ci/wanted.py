"""Prints what `pyproject.toml` asks for, a line each: what every run needs, and the optional groups that are named."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
groups = [project["optional-dependencies"][name] for name in sys.argv[1:]]
print(*dict.fromkeys(each for group in (project["dependencies"], *groups) for each in group), sep="\n")
