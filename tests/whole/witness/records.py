"""Reads JSON lines of schema 1 and 2 as an outsider would: only what `docs/json-lines.md` promises. Knows no video."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUSES = ("ok", "failed", "dropped")


@dataclass(frozen=True)
class FrameLine:
    """One frame's fate."""

    source: str
    seq: int
    status: str  # ok, failed, dropped
    pts_seconds: float
    captured_unix: float
    stage: str | None = None  # of a dropped one
    reason: str | None = None  # of a dropped or failed one

    @property
    def has_picture(self) -> bool:
        return self.status != "dropped"


@dataclass(frozen=True)
class SignalLine:
    """What happened to a source before its frame `seq`."""

    source: str
    seq: int
    state: str  # lost, live, frozen, grey, paused, ended
    cause: str | None


Line = FrameLine | SignalLine


def read_lines(paths: Sequence[Path]) -> tuple[list[Line], list[str]]:
    """All lines in the order of the files, and what is wrong with those that are none."""
    lines: list[Line] = []
    problems = []
    for path in paths:
        for number, text in enumerate(path.read_text().splitlines(), 1):
            try:
                lines.append(parse(json.loads(text)))
            except (ValueError, KeyError, TypeError) as error:
                problems.append(f"{path.name}, line {number} is no line of schema 1 or 2: {error!r}")
    return lines, problems


def parse(line: dict[str, Any]) -> Line:
    """Raises ValueError, KeyError or TypeError for what is neither."""
    if line["schema"] not in (1, 2):
        raise ValueError(f"schema {line['schema']}")
    if line["schema"] == 2 and line["kind"] == "signal":
        return SignalLine(line["source"], int(line["seq"]), line["state"], line.get("cause"))
    if line["schema"] == 2 and line["kind"] != "frame":
        raise ValueError(f"kind {line['kind']}")
    if line["status"] not in STATUSES:
        raise ValueError(f"status {line['status']}")
    return FrameLine(
        source=line["source"],
        seq=int(line["seq"]),
        status=line["status"],
        pts_seconds=float(line["pts_seconds"]),
        captured_unix=float(line["captured_unix"]),
        stage=line.get("stage"),
        reason=line.get("reason"),
    )
