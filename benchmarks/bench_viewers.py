"""What looking costs: whole runs of a file with nobody at the page, with a viewer, and with one more that has stalled.

    python benchmarks/bench_viewers.py [--source VIDEO] [--rounds N]

In each round four runs, in turn: without a page; with one at which nobody looks; with a viewer of full pictures that
says at once that it has shown each; with the same viewer and one that asks for pictures, reads nothing and shows
nothing. The viewers are processes of their own, which take their share of the machine.

Frames a second are those of the summary, and swing with the machine. What a run computes beside its network swings
with it as the network does, so their ratio hardly moves: CPU of all its other processes, ms a frame, by the summary
and, of the page's own process, by the kernel. What one kind of run computes more than another for as much of the
network is how much fewer frames a second a machine gives that is full. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from bench_options import usual_source
from common import ROOT, finish, frames_and_seconds, machine, middle_and_ends

from pipeline.stage import CHAIN, SERVE
from tests.kit.harness import worker_pids

KINDS = NO_PAGE, NOBODY, VIEWER, STALLED = "no page", "nobody looks", "a viewer", "and a stalled one"
COMPARED = ((NO_PAGE, NOBODY), (NOBODY, VIEWER), (VIEWER, STALLED))
SOURCE = "clip"


class Ran(NamedTuple):
    """Frames a second, and CPU ms a frame of the network and of all else."""

    rate: float
    network_ms: float
    beside_ms: float


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
        await websocket.send_json({"type": "look", "pictures": {SOURCE: 4000}})
        with suppress(ClientError, ConnectionError):
            if stalled:
                await asyncio.sleep(3600)
            async for message in websocket:
                if message.type == WSMsgType.BINARY:
                    (length,) = struct.unpack(">I", message.data[:4])
                    line = json.loads(message.data[4 : 4 + length])
                    await websocket.send_json({"type": "shown", "source": SOURCE, "seq": line["seq"]})


def run(kind: str, source: str) -> Ran:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = [] if kind == NO_PAGE else ["--serve", f"127.0.0.1:{port}"]
    stalls = {VIEWER: [False], STALLED: [False, True]}.get(kind, [])
    viewers = [get_context("spawn").Process(target=look, args=(port, each), daemon=True) for each in stalls]
    for viewer in viewers:
        viewer.start()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "run_pipeline.py", source, "--name", SOURCE, "--jsonl", f"{folder}/o.jsonl", *page]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        page_seconds = watch_page(process, port) if page else 0.0
        summary = process.communicate()[1]
    for viewer in viewers:
        viewer.kill()
        viewer.join()
    told = frames_and_seconds(summary)
    if process.returncode or not told:
        sys.exit(f"a run ended with {process.returncode}: {summary.strip()}")
    found = re.findall(rf"^({'|'.join(CHAIN)}) .* ([\d.]+)$", summary, re.MULTILINE)
    cpu_ms = {stage: float(ms) for stage, ms in found}
    network_ms = cpu_ms.pop("infer")
    return Ran(told[0] / told[1], network_ms, sum(cpu_ms.values()) + 1e3 * page_seconds / told[0])


def watch_page(run: subprocess.Popen[str], port: int) -> float:
    """CPU seconds of the page's process, from when it answers to the last look at it."""
    while not answers(port) and run.poll() is None:
        time.sleep(0.1)
    page = worker_pids(run.pid).get(SERVE)
    began = last = cpu_seconds(page) if page else 0.0
    while page and run.poll() is None:
        last = cpu_seconds(page) or last
        time.sleep(0.2)
    return last - began


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def cpu_seconds(pid: int) -> float:
    """0 once it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default=usual_source())
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    print(machine("aiohttp", "opencv-python-headless", "openvino"))
    runs: dict[str, list[Ran]] = {kind: [] for kind in KINDS}
    for turn in range(given.rounds + 1):
        for kind in KINDS:
            ran = run(kind, given.source)
            shown = (
                f"{ran.rate:.1f} frames/s, CPU ms a frame: network {ran.network_ms:.2f}, all else {ran.beside_ms:.3f}"
            )
            print(f"{'warm-up' if not turn else f'round {turn}'}: {kind}: {shown}", flush=True)
            if turn:
                runs[kind].append(ran)
    figures = {f"{other} / {base}": compared(runs[base], runs[other]) for base, other in COMPARED}
    for name, each in figures.items():
        print(
            f"{name}: {each['rate']['median']:.3f} times the frames a second ({each['rate']['min']:.3f} to "
            f"{each['rate']['max']:.3f}); {each['more']['median']:+.2%} computed ({each['more']['min']:+.2%} to "
            f"{each['more']['max']:+.2%})"
        )
    finish(
        {
            "benchmark": "viewers",
            "machine": machine("aiohttp", "openvino"),
            "source": Path(given.source).name,
            "runs": {kind: [[round(x, 3) for x in ran] for ran in each] for kind, each in runs.items()},
            "compared": figures,
        }
    )


def compared(base: list[Ran], other: list[Ran]) -> dict[str, dict[str, float]]:
    """Round by round: frames a second, and how much more is computed for as much of the network."""
    pairs = list(zip(base, other, strict=True))
    rate = [b.rate / a.rate for a, b in pairs]
    more = [(1 + b.beside_ms / b.network_ms) / (1 + a.beside_ms / a.network_ms) - 1 for a, b in pairs]
    return {"rate": middle_and_ends(rate), "more": middle_and_ends(more, 5)}


if __name__ == "__main__":
    main()
