"""What looking costs: whole runs of a file with nobody at the page, with a viewer, and with one more that has stalled.

    python benchmarks/bench_viewers.py [--source VIDEO] [--rounds N]

In each round four runs, in turn: without a page; with one at which nobody looks; with a viewer of full pictures that
says at once that it has shown each; with the same viewer and one that asks for pictures, reads nothing and shows
nothing. The viewers are processes of their own, which take their share of the machine. Frames a second are those of the
summary. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from bench_options import usual_source
from common import ROOT, finish, frames_and_seconds, machine

KINDS = ("no page", "nobody looks", "a viewer", "and a stalled one")
SOURCE = "clip"


def look(port: int, stalled: bool) -> None:
    """As a viewer, until the run ends."""
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


def frames_per_second(kind: str, source: str) -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = [] if kind == KINDS[0] else ["--serve", f"127.0.0.1:{port}"]
    stalls = {KINDS[2]: [False], KINDS[3]: [False, True]}.get(kind, [])
    viewers = [get_context("spawn").Process(target=look, args=(port, each), daemon=True) for each in stalls]
    for viewer in viewers:
        viewer.start()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "run_pipeline.py",
            source,
            "--name",
            SOURCE,
            "--jsonl",
            f"{folder}/lines.jsonl",
            *page,
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    for viewer in viewers:
        viewer.kill()
        viewer.join()
    told = frames_and_seconds(done.stderr)
    if done.returncode or not told:
        sys.exit(f"a run ended with {done.returncode}: {done.stderr.strip()}")
    return told[0] / told[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=usual_source())
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    print(machine("aiohttp", "opencv-python-headless", "openvino"))
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for turn in range(given.rounds + 1):
        for kind in KINDS:
            rate = frames_per_second(kind, given.source)
            print(f"{'warm-up' if not turn else f'round {turn}'}: {kind}: {rate:.1f} frames/s", flush=True)
            if turn:
                rates[kind].append(rate)
    ratios = {
        f"{other} / {base}": [b / a for a, b in zip(rates[base], rates[other], strict=True)]
        for base, other in ((KINDS[0], KINDS[1]), (KINDS[1], KINDS[2]), (KINDS[2], KINDS[3]))
    }
    for name, values in ratios.items():
        print(f"{name}: {median(values):.3f} times the frames a second ({min(values):.3f} to {max(values):.3f})")
    finish(
        {
            "benchmark": "viewers",
            "machine": machine("aiohttp", "openvino"),
            "source": Path(given.source).name,
            "frames_per_second": {kind: [round(rate, 2) for rate in values] for kind, values in rates.items()},
            "ratios": {name: [round(value, 4) for value in values] for name, values in ratios.items()},
        }
    )


if __name__ == "__main__":
    main()
