"""Sequences in MOTChallenge's columns: read, split by class, thinned to a lower rate, written again.

Knows no tracker and no measure. A folder holds `GROUP/SEQUENCE/{det.txt,gt.txt,info.json}`; info.json tells the frames
per second and the classes, if there are several. Frames count from 1.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ONE_CLASS = {1: "object"}
# Of MOT17's truth: a person on a vehicle, one who only stands or sits, a distractor, a reflection.
DISTRACTORS = (2, 7, 8, 12)
REGION = 0  # the class of a region of the truth in which nobody looked
# Beside each family its like with every so manyth frame, as a camera of a lower rate sends it.
SLOWER = {"mot17": {"third": 3, "sixth": 6}, "pets": {"third": 3}}


class Frame(NamedTuple):
    """What every tracker is given of a frame, best score first."""

    boxes_xyxy: NDArray[np.float32]  # (N, 4)
    scores: NDArray[np.float32]  # (N,)
    class_ids: NDArray[np.int32]  # (N,)
    pts_seconds: float


@dataclass(frozen=True, slots=True)
class Sequence:
    """
    classes     number to name, of those that count
    detections  (N, 7) frame, left, top, width, height, score, class
    truth       (M, 8) frame, id, left, top, width, height, 1 if it counts, class
    """

    group: str
    name: str
    frames_per_second: float
    frame_count: int
    classes: dict[int, str]
    detections: Array
    truth: Array

    def frames(self, least_score: float) -> Iterator[Frame]:
        """Every frame, empty ones too, with its detections from `least_score` on."""
        rows = self.detections[self.detections[:, 5] >= least_score]
        rows = rows[np.lexsort((-rows[:, 5], rows[:, 0]))]
        for number, some in enumerate(by_frame(rows, self.frame_count)):
            boxes = to_xyxy(some[:, 1:5]).astype(np.float32)
            scores, class_ids = some[:, 5].astype(np.float32), some[:, 6].astype(np.int32)
            yield Frame(boxes, scores, class_ids, number / self.frames_per_second)

    def neutral(self, classes: Array) -> NDArray[np.bool_]:
        """Which of the truth's classes (M,) are neither right nor wrong to find."""
        distracting = np.isin(classes, [each for each in DISTRACTORS if each not in self.classes])
        return (classes < REGION) | distracting


def by_frame(rows: Array, frame_count: int) -> list[Array]:
    """Rows whose first column is their frame, for each frame, in the order they came in."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return np.split(rows, np.searchsorted(rows[:, 0], np.arange(2, frame_count + 1)))[:frame_count]


def to_xyxy(boxes_xywh: Array) -> Array:
    return np.hstack([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]])


def prepared(folder: Path) -> Iterator[Sequence]:
    """All that is measured on in `folder`: its groups, several classes apart, PETS beside it, and slower cameras.

    Raises ValueError for a folder without sequences, and for a sequence that cannot be read.
    """
    found = [one for sequence in [*read_all(folder), *pets(folder.parent)] for one in by_class(sequence)]
    yield from found
    for sequence in found:
        for name, step in SLOWER.get(sequence.group, {}).items():
            yield replace(thinned(sequence, step), group=f"{sequence.group}-{name}")


def read_all(folder: Path) -> list[Sequence]:
    """Raises ValueError where there are none."""
    found = [read(each.parent) for each in sorted(folder.glob("*/*/det.txt"))]
    if not found:
        raise ValueError(f"{folder}: no GROUP/SEQUENCE/det.txt in it; name a folder of sequences")
    return found


def read(folder: Path) -> Sequence:
    """Raises ValueError, which names the file, for one that is missing or not as it should be."""
    told = _info(folder / "info.json")
    classes = {int(number): name for number, name in told.get("classes", {}).items()} or ONE_CLASS
    detections, truth = _table(folder / "det.txt", 7), _table(folder / "gt.txt", 7)
    last = max((int(table[:, 0].max()) for table in (detections, truth) if len(table)), default=0)
    return Sequence(
        folder.parent.name,
        folder.name,
        float(told["fps"]),
        int(told.get("frames", last)),
        classes,
        np.delete(_with_class(detections, min(classes)), 1, axis=1),
        _with_class(truth, min(classes)),
    )


def _info(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not (isinstance(told, dict) and isinstance(told.get("fps"), int | float) and told["fps"] > 0):
        raise ValueError(f'{path}: no "fps" above 0, the frames per second, in it')
    return told


def _table(path: Path, least_columns: int) -> Array:
    """The first 8 columns, or 7; words may follow, as KITTI's do."""
    try:
        with path.open() as file:
            columns = min(8, max(least_columns, file.readline().count(",") + 1))
        table = np.loadtxt(path, delimiter=",", ndmin=2, usecols=range(columns)) if path.stat().st_size else np.empty(0)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return table.reshape(-1, columns)


def _with_class(table: Array, only: int) -> Array:
    """8 columns; where no row has a class (MOT15 writes -1), each has the only one there is."""
    if table.shape[1] == 8 and not (table[:, 7] == -1).all():
        return table
    return np.hstack([table[:, :7], np.full((len(table), 1), float(only))])


def pets(folder: Path) -> list[Sequence]:
    """PETS 2009 S2.L1 with its public detections, where shared data has it; it lies in files of its own."""
    truth, detections = folder / "pets09/gt.txt", folder / "mot15/PETS09-S2L1.det.txt"
    if not (truth.exists() and detections.exists()):
        return []
    found, true = (_with_class(_table(path, 7), 1) for path in (detections, truth))
    return [Sequence("pets", "PETS09-S2L1", 10.0, 795, ONE_CLASS, np.delete(found, 1, axis=1), true)]


def by_class(sequence: Sequence) -> list[Sequence]:
    """One for each class, as of a detector that knows only that; what is neutral stays in all."""
    if len(sequence.classes) == 1:
        return [sequence]
    found, true = sequence.detections[:, 6], sequence.truth[:, 7]
    return [
        replace(
            sequence,
            group=f"{sequence.group}-{name}",
            classes={number: name},
            detections=sequence.detections[found == number],
            truth=sequence.truth[(true == number) | (true <= REGION)],
        )
        for number, name in sequence.classes.items()
    ]


def thinned(sequence: Sequence, step: int) -> Sequence:
    """Every step-th frame, from the first on: the same seconds at a lower rate."""

    def kept(rows: Array) -> Array:
        rows = rows[(rows[:, 0] - 1) % step == 0]
        return np.hstack([(rows[:, :1] - 1) // step + 1, rows[:, 1:]])

    return replace(
        sequence,
        frames_per_second=sequence.frames_per_second / step,
        frame_count=-(-sequence.frame_count // step),
        detections=kept(sequence.detections),
        truth=kept(sequence.truth),
    )


def write(sequence: Sequence, folder: Path) -> None:
    """As `read` reads it, into folder/GROUP/SEQUENCE."""
    place = folder / sequence.group / sequence.name
    place.mkdir(parents=True, exist_ok=True)
    told = {
        "fps": sequence.frames_per_second,
        "frames": sequence.frame_count,
        "classes": {str(number): name for number, name in sequence.classes.items()},
    }
    (place / "info.json").write_text(json.dumps(told))
    detections = np.insert(sequence.detections, 1, -1, axis=1)
    np.savetxt(place / "det.txt", detections, fmt=["%d", "%d", *["%.3f"] * 4, "%.4f", "%d"], delimiter=",")
    np.savetxt(place / "gt.txt", sequence.truth, fmt=["%d", "%d", *["%.3f"] * 4, "%d", "%d"], delimiter=",")
