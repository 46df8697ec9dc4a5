"""The witness: whether every frame that a run captured has exactly one fate, by what came out of the run alone.

    python -m tests.whole.witness --video out/cam0.mp4 --video out/cam0.1.mp4 --lines out/all.jsonl --source cam0

It reads the bar codes in the overlay videos (of cameras as `publish` makes them) and the JSON lines, imports nothing of
the product and knows nothing of its ledger. A video belongs to the source that its name begins with, up to the first
dot; with one source, all belong to it. `--sent` is what `publish --sent` wrote: with it, what was lost on the way to
the product is counted, in outages and outside of them. `--source cam0=7` says which camera it is; without, that of its
first picture. Without `--source`, all that the lines name.

Exit code 0 and ALL FRAMES ACCOUNTED FOR, or 1 and a list of those that are not.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.whole.witness.account import NOTHING, Account, Allowed, account
from tests.whole.witness.pictures import read_pictures
from tests.whole.witness.records import read_lines

MOST_SHOWN = 20
COLUMNS = (
    "frames",
    "ok",
    "failed",
    "dropped",
    "silent",
    "pictures",
    "grey",
    "unreadable",
    "outages",
    "lost",
    "network",
)


def witness(
    lines_paths: Sequence[Path],
    video_paths: Sequence[Path],
    sources: dict[str, int | None],
    sent_path: Path | None = None,
    allowed: Allowed = NOTHING,
) -> tuple[list[Account], list[str]]:
    """The account of each source, and what is wrong with the files themselves."""
    lines, problems = read_lines(lines_paths)
    sources = sources or {line.source: None for line in lines}
    accounts = []
    for source, code in sources.items():
        videos = videos_of(source, video_paths, len(sources) == 1)
        pictures, unreadable = read_pictures(videos)
        problems += unreadable
        own = [line for line in lines if line.source == source]
        shown = pictures if videos else None
        codes = [picture.code.source for picture in pictures if picture.code]
        camera = code if code is not None else next(iter(codes), None)
        sent = numbers_of(sent_path, camera) if sent_path else None
        accounts.append(account(source, own, shown, camera, sent, allowed))
    strangers = {line.source for line in lines} - set(sources)
    problems += [f"there are lines of {source}, which was not asked for" for source in sorted(strangers)]
    return accounts, problems


def videos_of(source: str, paths: Sequence[Path], is_only: bool) -> list[Path]:
    return [path for path in paths if is_only or path.name.partition(".")[0] == source]


def numbers_of(path: Path, camera: int | None) -> list[int]:
    """What the site wrote; its last line may be cut off by a kill."""
    records = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [record["number"] for record in records if record["source"] == camera]


def table(accounts: Sequence[Account]) -> str:
    rows = [("source", *COLUMNS), *map(_row, accounts)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for one in accounts:
        lines += [f"{one.source}: {count} dropped at {why}" for why, count in one.dropped.most_common()]
    return "\n".join(lines)


def _row(one: Account) -> tuple[str, ...]:
    status = one.by_status
    cells = [one.frames, status["ok"], status["failed"], status["dropped"], one.silent]
    cells += [one.pictures, one.grey, one.unreadable, one.outages, one.lost_in_outages, one.lost_on_network]
    return one.source, *map(str, cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, action="append", default=[])
    parser.add_argument("--lines", type=Path, action="append", required=True)
    parser.add_argument("--source", action="append", default=[], metavar="NAME[=CAMERA]")
    parser.add_argument("--sent", type=Path, help="what the site of cameras wrote")
    parser.add_argument("--may-miss", type=int, default=0, help="pictures that a video may have missed")
    parser.add_argument("--damage", action="store_true", help="packets were lost: pictures may be damaged")
    given = parser.parse_args()
    sources = {name: int(code) if code else None for name, _, code in (text.partition("=") for text in given.source)}
    accounts, problems = witness(given.lines, given.video, sources, given.sent, Allowed(given.may_miss, given.damage))
    print(table(accounts))
    problems += [f"{one.source}: {problem}" for one in accounts for problem in one.problems]
    if not problems:
        print("ALL FRAMES ACCOUNTED FOR")
        return 0
    print(*problems[:MOST_SHOWN], sep="\n")
    if len(problems) > MOST_SHOWN:
        print(f"… and {len(problems) - MOST_SHOWN} more")
    print(f"NOT ALL FRAMES ACCOUNTED FOR: {len(problems)} findings")
    return 1


if __name__ == "__main__":
    sys.exit(main())
