"""Zones and lines in a run of the command: what is told is what the tracks in its own JSON lines have done."""

from collections import Counter, defaultdict
from typing import NamedTuple

import pytest

from configs import plainyaml
from tests.kit import plain_zones as plain
from tests.kit.harness import json_lines, run
from tests.kit.places import CLIP, ROOT

EXAMPLE = ROOT / "docs" / "zones.yaml"
SOURCE = plainyaml.parse(EXAMPLE.read_text())["sources"]["square"]
PATH, GATE = SOURCE["zones"]["path"], SOURCE["lines"]["gate"]
FRAMES = 100
# How long a track is remembered at the clip's rate, if it was found so often, and once with such a score.
LOST_FRAMES, SETTLED_LOOKS, GOOD_SCORE = 15, 6, 0.5


class Sighting(NamedTuple):
    seq: int
    seconds: float
    spot: plain.Spot


@pytest.fixture(scope="module")
def lines(tmp_path_factory) -> list[dict]:
    """The example of the documentation, with everybody who is tracked in each line, whatever the score; and each step
    out of the zone tells."""
    path = tmp_path_factory.mktemp("zones") / "o.jsonl"
    exact = (
        "--engine",
        "eager",
        "--precision",
        "fp32",
        "--score",
        0.1,
        "--set",
        "sources.square.zones.path.settle_seconds=0",
    )
    clip = ("--set", f"sources.square.uri={CLIP}", "--set", f"sources.square.max_frames={FRAMES}")
    done = run("--config", EXAMPLE, *clip, *exact, "--jsonl", path)
    assert done.returncode == 0, done.stderr
    return json_lines(path)


@pytest.fixture(scope="module")
def walks(lines) -> dict[int, list[Sighting]]:
    """Where each person of the lines stood, by track."""
    found = defaultdict(list)
    for line in lines:
        for one in line["objects"]:
            if one["track_id"] and one["class"] == "person":
                left, _, right, bottom = one["box_xyxy"]
                (spot,) = plain.exact([((left + right) / 2 / line["width"], bottom / line["height"])])
                found[one["track_id"]].append(Sighting(line["seq"], line["pts_seconds"], spot))
    assert len(found) >= 5, "the clip has people in it"
    return found


def settled(lines: list[dict]) -> set[int]:
    """The tracks that are remembered for as long as any."""
    scores = defaultdict(list)
    for line in lines:
        for one in line["objects"]:
            scores[one["track_id"]].append(one["score"])
    return {each for each, seen in scores.items() if len(seen) >= SETTLED_LOOKS and max(seen) >= GOOD_SCORE}


def told(lines: list[dict], *keys: str, **of: str) -> set[tuple]:
    """The events with these facts, as a tuple of their `keys` each."""
    events = [event for line in lines for event in line["events"] if of.items() <= event.items()]
    tuples = {tuple(event.get(key) for key in keys) for event in events}
    assert len(tuples) == len(events), "nothing is told twice"
    return tuples


def test_crossings_are_those_of_the_tracks(lines, walks) -> None:
    expected = set()
    for track_id, walk in walks.items():
        crossings = plain.crossings([one.spot for one in walk], plain.exact(GATE["points"]))
        expected |= {(walk[number].seq, track_id, direction) for number, direction in crossings}
    assert told(lines, "seq", "track_id", "direction", event="crossed", line="gate") == expected
    assert {direction for _, _, direction in expected} == {"forward", "backward"}
    so_far = Counter()
    for line in lines:
        so_far.update(event["direction"] for event in line["events"] if event["event"] == "crossed")
        total = {direction: sum(by_class.values()) for direction, by_class in line["lines"]["gate"].items()}
        assert total == {"forward": so_far["forward"], "backward": so_far["backward"]}


def test_stays_are_those_of_the_tracks(lines, walks) -> None:
    entered, left, dwelled = set(), set(), set()
    for track_id, walk in walks.items():
        first = last = None
        for one in walk:
            if plain.is_inside(one.spot, plain.exact(PATH["polygon"])):
                if first is None:
                    entered.add((one.seq, track_id))
                first, last = first or one, one
                stay = round(last.seconds - first.seconds, 6)
                if stay >= PATH["dwell_seconds"] and not any(each[1:] == (track_id, first.seq) for each in dwelled):
                    dwelled.add((one.seq, track_id, first.seq))
            elif first and last:
                left.add((one.seq, track_id, round(last.seconds - first.seconds, 6), None))
                first = last = None
        if first and last and walk[-1].seq + LOST_FRAMES < lines[-1]["seq"]:
            left.add((walk[-1].seq + LOST_FRAMES + 1, track_id, round(last.seconds - first.seconds, 6), True))
    assert told(lines, "seq", "track_id", event="entered") == entered and entered
    told_left = told(lines, "seq", "track_id", "dwell_seconds", "lost", event="left")
    known = settled(lines)  # of the others it depends on more when they are given up
    told_of, expected = ({each for each in some if each[1] in known or not each[3]} for some in (told_left, left))
    assert told_of == expected and left
    assert told(lines, "seq", "track_id", event="dwelled") == {each[:2] for each in dwelled} and dwelled
    inside = lines[-1]["zones"]["path"]["inside"]
    assert inside == ({"person": len(entered) - len(told_left)} if len(entered) > len(told_left) else {})


def test_each_event_is_told_with_its_frame(lines) -> None:
    for line in lines:
        for event in line["events"]:
            assert (event["source"], event["seq"]) == ("square", line["seq"])
            assert (event["pts_seconds"], event["at_unix"]) == (line["pts_seconds"], line["captured_unix"])
