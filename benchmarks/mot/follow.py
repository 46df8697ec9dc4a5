"""One tracker over all sequences of a folder, or timed, in a process and a Python of its own.

    python -m benchmarks.mot.follow NAME follow SEQUENCES TRACKS [--set KEY=VALUE ...]
    python -m benchmarks.mot.follow NAME time

Writes its tracks in MOTChallenge's columns into TRACKS/GROUP/SEQUENCE.txt. The last line is a JSON object: the version
of its package, or why it cannot run. Knows the harness' interface, and of the trackers no more.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.mot import speed
from benchmarks.mot.sequences import Sequence, read_all
from benchmarks.mot.trackers import OURS, Make, Thresholds, Tracks, make_of


def follow(sequence: Sequence, make: Make) -> list[Tracks]:
    """The tracks of every frame. Raises ValueError where two in a frame have the same id."""
    tracker, told = make(sequence.frames_per_second), []
    for number, frame in enumerate(sequence.frames(tracker.least_score), 1):
        tracks = tracker.told(tracker.update(tracker.given(frame)))
        if len(np.unique(tracks.ids)) < len(tracks.ids):
            raise ValueError(f"{sequence.group}/{sequence.name}, frame {number}: an id is given twice")
        told.append(tracks)
    return told


def write(told: list[Tracks], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{number},{track_id},{box[0]:.3f},{box[1]:.3f},{box[2] - box[0]:.3f},{box[3] - box[1]:.3f},1,-1,-1,-1\n"
        for number, tracks in enumerate(told, 1)
        for track_id, box in zip(tracks.ids.tolist(), tracks.boxes_xyxy.tolist(), strict=True)
    ]
    path.write_text("".join(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name")
    parser.add_argument("job", choices=("follow", "time"))
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--thresholds", nargs=3, type=float, required=True)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    package, thresholds = given.name.partition("-")[0], Thresholds(*given.thresholds)
    try:
        make = make_of(given.name, thresholds, tuple(given.set))
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    told = {"package": "" if package.startswith(OURS) else f"{package} {version(package)}"}
    if given.job == "time":
        print(json.dumps(told | {"times": speed.measure(given.name, make, twin_of(given.name, thresholds, given.set))}))
        return
    sequences, tracks = given.folders
    for sequence in read_all(sequences):
        write(follow(sequence, make), tracks / sequence.group / f"{sequence.name}.txt")
    print(json.dumps(told))


def twin_of(name: str, thresholds: Thresholds, assignments: list[str]) -> Make | None:
    """Ours has one, which must give the same ids."""
    if name.partition(":")[0] != OURS:
        return None
    from benchmarks.mot.ours import make_twin

    return make_twin(thresholds, tuple(assignments))


if __name__ == "__main__":
    main()
