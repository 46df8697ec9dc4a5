"""What `infer.still` saves on a scene that stands still, and what it misses.

    python benchmarks/bench_still.py [--frames N] [--rounds N] [--still N] [--audit M] [--noise LEVELS] [--engine E]

A clip is made: people who stand and, in a tenth of the time, walk, with a camera's noise and H.264's on all of it. Runs
over it without and with `infer.still` take turns; frames a second are of a run from when all is loaded to its end. What
is missed is measured in one more run in which every frame that could take over is computed all the same and compared
(`infer.still_audit=1`). Where PETS 2009 is at hand ($CENTERSTREAM_DATA/pets09), in which people walk all the time, the
tracks of it are judged without and with.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from accuracy_pets09 import CLIP as PETS
from accuracy_pets09 import TRUTH, read_mot, tracking
from common import finish, machine

from pipeline.flow.ledger import Page
from pipeline.run.supervisor import Supervisor
from pipeline.settings import (
    DeliverSettings,
    InferSettings,
    PostprocessSettings,
    RunSettings,
    Settings,
    SourceSettings,
)
from tests.kit.still import write_still_clip

TARGETS = {"ratio": 4.0, "missed_percent": 1.0, "idf1_points": 1.0}


def run(
    video: Path, infer: InferSettings, deliver: DeliverSettings, classes: tuple[str, ...] = ()
) -> tuple[float, Page]:
    """Frames a second, and what became of them. Raises RuntimeError where not all were delivered."""
    settings = Settings(
        sources={"bench": SourceSettings(uri=str(video))},
        infer=infer,
        postprocess=PostprocessSettings(classes=classes),
        deliver=deliver,
        run=RunSettings(start_seconds=600),
    )
    state = Supervisor(settings, lambda state: None).run()
    page = state.ledger().get("bench", Page())
    if not page.captured or page.delivered != page.captured or not state.started_at or not state.ended_at:
        raise RuntimeError(f"{video}: {page}; {state.problems}")
    return page.captured / (state.ended_at - state.started_at), page


def speed(video: Path, lines: Path, plain: InferSettings, still: InferSettings, rounds: int) -> dict[str, Any]:
    """In turn; the ratio is the median of the rounds' own."""
    deliver = DeliverSettings(jsonl=str(lines))
    run(video, plain, deliver)  # an engine that is measured is remembered
    without, having = [], []
    for number in range(rounds):
        rate, _ = run(video, plain, deliver)
        without.append(rate)
        rate, page = run(video, still, deliver)
        having.append(rate)
        print(f"round {number + 1}: {without[-1]:.1f} frames/s without, {rate:.1f} with", flush=True)
    return {
        "rounds": rounds,
        "frames": page.captured,
        "without": round(statistics.median(without), 1),
        "with": round(statistics.median(having), 1),
        "ratio": round(statistics.median(b / a for a, b in zip(without, having, strict=True)), 2),
        "least_and_most_ratio": [
            round(edge(b / a for a, b in zip(without, having, strict=True)), 2) for edge in (min, max)
        ],
        "taken_over_percent": round(100 * page.taken_over / page.captured, 1),
    }


def missed(video: Path, lines: Path, still: InferSettings) -> dict[str, Any]:
    _, page = run(video, still, DeliverSettings(jsonl=str(lines)))
    return {
        "audits": page.audits,
        "objects": page.audited_objects,
        "missed": page.missed_objects,
        "missed_percent": round(100 * page.missed_objects / max(1, page.audited_objects), 3),
    }


def tracks(folder: Path, plain: InferSettings, still: InferSettings) -> dict[str, Any]:
    truth = read_mot(TRUTH)
    told: dict[str, Any] = {}
    for name, infer in {"without": plain, "with": still}.items():
        # The truth knows nothing of the cars that stand there.
        _, page = run(PETS, infer, DeliverSettings(mot=str(folder / "tracks.txt")), classes=("person",))
        told[name] = tracking(read_mot(folder / "tracks.txt"), truth) | {"taken_over": page.taken_over}
    told["idf1_points"] = round(100 * (told["without"]["idf1"] - told["with"]["idf1"]), 2)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--still", type=int, default=50, help="infer.still")
    parser.add_argument("--audit", type=int, default=100, help="infer.still_audit, where speed is measured")
    parser.add_argument("--noise", type=float, default=4.0, help="standard deviation of each pixel, in grey levels")
    parser.add_argument("--engine", default="auto")
    given = parser.parse_args()
    here = machine("torch", "numba", "av")
    print(here)
    plain = InferSettings(engine=given.engine)
    still = InferSettings(engine=given.engine, still=given.still, still_audit=given.audit)
    every = InferSettings(engine=given.engine, still=given.still, still_audit=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = write_still_clip(folder / "still.mp4", given.frames, given.noise)
        lines = folder / "lines.jsonl"
        result: dict[str, Any] = {"speed": speed(clip, lines, plain, still, given.rounds)}
        result["audit"] = missed(clip, lines, every)
        result["pets09"] = tracks(folder, plain, still) if TRUTH.exists() else None
    for key, value in result.items():
        print(f"{key}: {value}")
    wishes = {"still": given.still, "still_audit": given.audit, "noise_levels": given.noise, "engine": given.engine}
    finish({"benchmark": "still", "machine": here, **wishes, **result, "targets": TARGETS})


if __name__ == "__main__":
    main()
