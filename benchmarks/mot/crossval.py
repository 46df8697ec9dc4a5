"""Which of our settings wins on what it was not chosen on: leave one family out.

    python -m benchmarks.mot --only ours --variant a KEY=VALUE --variant b KEY=VALUE --no-speed --json FILE
    python -m benchmarks.mot.crossval FILE [FILE ...] [--by HOTA|IDF1|...]

For every family the variant is chosen by the mean over the groups of all other families, and told on the one held out.
A family is what stands before the first "-" of a group's name: a family at a lower rate, and a class of it, is held out
with it. Of several files the variants of all are taken. Beside it what each variant does alone, which was chosen on
what it is told on. The last line is one JSON object. Knows no tracker, only figures.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.mot.trackers import OURS

Figures = dict[str, dict[str, float]]  # of a variant, by group


class HeldOut(NamedTuple):
    family: str
    chosen: str  # on all other families
    figures: Figures  # of the chosen one, on this family


def family_of(group: str) -> str:
    return group.partition("-")[0]


def held_out(variants: dict[str, Figures], by: str) -> list[HeldOut]:
    """For each family; of variants that are equally good, the first. Raises ValueError for fewer than two families, or
    where the variants have not the same groups."""
    groups = [list(figures) for figures in variants.values()]
    if not groups or any(sorted(some) != sorted(groups[0]) for some in groups):
        raise ValueError("the variants must have the same groups; run all with the same --groups")
    families = list(dict.fromkeys(map(family_of, groups[0])))
    if len(families) < 2:
        raise ValueError(f"{len(families)} families; to choose on others there must be two or more")
    told = []
    for family in families:
        others = [group for group in groups[0] if family_of(group) != family]
        chosen = max(variants, key=lambda name: mean(variants[name][group][by] for group in others))
        own = {group: figures for group, figures in variants[chosen].items() if family_of(group) == family}
        told.append(HeldOut(family, chosen, own))
    return told


def over_groups(figures: Figures, key: str) -> float:
    return mean(some[key] for some in figures.values())


def read_variants(paths: list[Path]) -> dict[str, Figures]:
    """Ours only. Raises ValueError for a file that is no result of the harness."""
    variants: dict[str, Figures] = {}
    for path in paths:
        try:
            trackers: dict[str, Any] = json.loads(path.read_text().splitlines()[-1])["trackers"]
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise ValueError(f"{path}: not a result of benchmarks.mot ({error})") from None
        variants |= {name: told["groups"] for name, told in trackers.items() if name.partition(":")[0] == OURS}
    return variants


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--by", default="HOTA", help="what is chosen by")
    given = parser.parse_args()
    try:
        variants = read_variants(given.files)
        told = held_out(variants, given.by)
    except ValueError as error:
        sys.exit(str(error))
    except KeyError:
        sys.exit(f"no {given.by} in these results")
    keys = [key for key in ("HOTA", "IDF1", "MOTA") if key in next(iter(told[0].figures.values()))]
    for family, chosen, figures in told:
        print(f"{family:12} {chosen:24} {shown(figures, keys)}")
    whole = {group: figures for each in told for group, figures in each.figures.items()}
    print(f"{'held out':12} {'':24} {shown(whole, keys)}")
    for name in sorted(variants, key=lambda name: -over_groups(variants[name], given.by)):
        print(f"{'in sample':12} {name:24} {shown(variants[name], keys)}")
    result = {key: round(over_groups(whole, key), 3) for key in keys}
    chosen_by_family = {each.family: each.chosen for each in told}
    print(json.dumps({"benchmark": "mot.crossval", "by": given.by, "chosen": chosen_by_family, "held_out": result}))


def shown(figures: Figures, keys: list[str]) -> str:
    return "  ".join(f"{key} {over_groups(figures, key):.2f}" for key in keys)


if __name__ == "__main__":
    main()
