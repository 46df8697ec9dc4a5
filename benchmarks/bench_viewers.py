"""What looking costs: whole runs of a file with nobody at the page, with a viewer, and with one more that has stalled.

    python benchmarks/bench_viewers.py [--source VIDEO] [--rounds N]

Four kinds of run: without a page; with one at which nobody looks; with a viewer of full pictures that says at once that
it has shown each; with the same viewer and one that asks for pictures, reads nothing and shows nothing. The viewers are
processes of their own, which take their share of the machine.

Each kind runs beside the one before it, at the same moment, on one half of the cores each, and then once more with the
halves exchanged: what the machine does meanwhile, and what is wrong with a core, is in both. A ratio is the geometric
mean of the two. The first comparison is of a kind with itself: what it is away from 1 is what cannot be told. Frames a
second are those of the summary. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from bench_options import usual_source
from common import ROOT, finish, frames_and_seconds, machine

NO_PAGE, NOBODY, VIEWER, STALLED = "no page", "nobody looks", "a viewer", "and a stalled one"
COMPARED = ((NO_PAGE, NO_PAGE), (NO_PAGE, NOBODY), (NOBODY, VIEWER), (VIEWER, STALLED))
SOURCE = "clip"


def look(port: int, stalled: bool, cores: set[int]) -> None:
    """As a viewer, until the run ends."""
    os.sched_setaffinity(0, cores)
    asyncio.run(_look(port, stalled))


async def _look(port: int, stalled: bool) -> None:
    from aiohttp import ClientError, ClientSession, WSMsgType

    async with ClientSession() as client:
        while True:
            try:
                websocket = await client.ws_connect(f"http://127.0.0.1:{port}/live", max_msg_size=0)
                break
            except ClientError:
                await asyncio.sleep(0.05)
        await websocket.send_json({"type": "look", "pictures": {SOURCE: "full"}})
        with suppress(ClientError, ConnectionError):
            if stalled:
                await asyncio.sleep(3600)
            async for message in websocket:
                if message.type == WSMsgType.BINARY:
                    (length,) = struct.unpack(">I", message.data[:4])
                    line = json.loads(message.data[4 : 4 + length])
                    await websocket.send_json({"type": "shown", "source": SOURCE, "seq": line["seq"]})


def start(kind: str, source: str, cores: set[int], folder: Path) -> Callable[[], float]:
    """A run on these cores alone, its viewers with it; what waits for its end, and tells its frames a second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = [] if kind == NO_PAGE else ["--serve", f"127.0.0.1:{port}"]
    stalls = {VIEWER: [False], STALLED: [False, True]}.get(kind, [])
    viewers = [get_context("spawn").Process(target=look, args=(port, each, cores), daemon=True) for each in stalls]
    for viewer in viewers:
        viewer.start()
    command = [
        sys.executable,
        "run_pipeline.py",
        source,
        "--name",
        SOURCE,
        "--jsonl",
        str(folder / "lines.jsonl"),
        *page,
    ]
    run = subprocess.Popen(
        ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def end() -> float:
        _, summary = run.communicate()
        for viewer in viewers:
            viewer.kill()
            viewer.join()
        told = frames_and_seconds(summary)
        if run.returncode or not told:
            sys.exit(f"a run ended with {run.returncode}: {summary.strip()}")
        return told[0] / told[1]

    return end


def side_by_side(kinds: tuple[str, str], source: str, halves: list[set[int]]) -> list[float]:
    """Frames a second of both, run at once."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        places = zip(kinds, halves, (Path(one), Path(other)), strict=True)
        return [end() for end in [start(kind, source, cores, folder) for kind, cores, folder in places]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=usual_source())
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("two runs side by side need two cores: this process may use one")
    halves = [set(cores[::2]), set(cores[1::2])]
    print(machine("aiohttp", "opencv-python-headless", "openvino"))
    side_by_side((NO_PAGE, VIEWER), given.source, halves)  # caches fill
    rates: dict[str, list[list[float]]] = {f"{other} / {base}": [] for base, other in COMPARED}
    for turn in range(1, given.rounds + 1):
        for base, other in COMPARED:
            there = side_by_side((base, other), given.source, halves)
            back = side_by_side((base, other), given.source, halves[::-1])
            rates[f"{other} / {base}"].append(there + back)
            shown = ", ".join(f"{rate:.2f}" for rate in there + back)
            print(f"round {turn}: {base}, {other}, there and back: {shown} frames/s", flush=True)
    ratios = {name: [sqrt(b * d / (a * c)) for a, b, c, d in each] for name, each in rates.items()}
    for name, values in ratios.items():
        print(f"{name}: {median(values):.4f} times the frames a second ({min(values):.4f} to {max(values):.4f})")
    finish(
        {
            "benchmark": "viewers",
            "machine": machine("aiohttp", "openvino"),
            "source": Path(given.source).name,
            "frames_per_second": {name: [[round(x, 2) for x in four] for four in each] for name, each in rates.items()},
            "ratios": {name: [round(value, 4) for value in values] for name, values in ratios.items()},
        }
    )


if __name__ == "__main__":
    main()
