"""In which order people count files. Knows no file."""

import re


def natural(name: str) -> list[tuple[int, str]]:
    """To sort by: frame2 before frame10, for runs of digits compare as numbers."""
    return [(int(run), run) if run.isdecimal() else (-1, run) for run in re.split(r"(\d+)", name)]
