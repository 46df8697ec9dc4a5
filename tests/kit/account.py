"""Whether a run's books agree: what its summary says of each source, and what its JSON lines do."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from pipeline.flow.fates import UNHEARD, WORKER_LOST
from tests.kit.harness import json_lines

PAGE = re.compile(
    r"^(?P<source>[^\n:]+): (?P<captured>\d+) captured = (?P<delivered>\d+) delivered \+ "
    r"(?P<failed>\d+) without result \+ (?P<dropped>\d+) dropped \+ (?P<in_flight>-?\d+) in flight$",
    re.MULTILINE,
)
LOST = (WORKER_LOST, UNHEARD.reason)


class Account(NamedTuple):
    """A source's line of the summary."""

    captured: int
    delivered: int
    failed: int
    dropped: int
    in_flight: int


def accounts(errors: str) -> dict[str, Account]:
    """By source."""
    return {
        found["source"]: Account(*(int(found[name]) for name in Account._fields)) for found in PAGE.finditer(errors)
    }


def account(errors: str) -> Account:
    """Of a run with one source."""
    (only,) = accounts(errors).values()
    return only


def frames_of(path: Path, source: str) -> list[dict]:
    return [line for line in json_lines(path) if line["kind"] == "frame" and line["source"] == source]


def assert_books_agree(path: Path, errors: str, sources: tuple[str, ...]) -> dict[str, int]:
    """Each captured frame of each source has one line and one fate, and nothing is out of order but what a worker had
    when it was lost. How many of each source were lost so."""
    told, lost = accounts(errors), {}
    assert set(told) == set(sources), errors
    for source in sources:
        page, lines = told[source], frames_of(path, source)
        seqs = [line["seq"] for line in lines]
        assert sorted(seqs) == list(range(page.captured)), gaps(source, seqs, page.captured)
        statuses = Counter(line["status"] for line in lines)
        assert (statuses["ok"], statuses["failed"], statuses["dropped"]) == page[1:4] and page.in_flight == 0, errors
        in_order = [line["seq"] for line in lines if line.get("reason") not in LOST]
        assert in_order == sorted(in_order)
        lost[source] = sum(line.get("reason") in LOST for line in lines)
    return lost


def gaps(source: str, seqs: list[int], captured: int) -> str:
    twice = [seq for seq, count in Counter(seqs).items() if count > 1]
    return f"{source}: {captured} captured, missing {sorted(set(range(captured)) - set(seqs))}, twice {twice}"


def missed(errors: str, source: str) -> int:
    """Pictures that its videos, {source}.mkv and those after, went without, for this machine was too slow for them."""
    return sum(map(int, re.findall(rf"/{source}\S*\.mkv: .*, (\d+) missed because", errors)))
