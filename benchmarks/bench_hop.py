"""How long until a 1080p frame is in the next process's hands, its pixels readable?

Ours: the pixels lie in a slot of shared memory and a descriptor goes over a ZeroMQ ipc queue into the next worker's
inlet. The peer: the same message with the pixels inside, copied over the same ipc socket. Both with the classes that
the pipeline runs on; the reader sums one row of pixels before the clock is stopped. `written` adds the writer's copy
into the slot, which the decoder's own write takes the place of in the pipeline.
"""

import subprocess
import sys
import tempfile
import time

import numpy as np
from common import finish, machine, percentiles

from pipeline.flow.frame import Frame, to_parts
from pipeline.flow.lines import Inlet
from pipeline.flow.messages import EndOfStream, FrameHeader, Slot
from pipeline.flow.sharedmem import Pool, PoolSpec, create_pool
from pipeline.flow.transport import Transport

SHAPE = (1080, 1920, 3)
COUNT, WARM_UP, SLOTS = 400, 50, 4


def header(seq: int) -> FrameHeader:
    return FrameHeader("bench", 0, seq, seq / 25, time.monotonic_ns(), time.time(), SHAPE[1], SHAPE[0])


def reader(endpoints: str, fd: int, slot_bytes: int) -> None:
    """The next process: answers each frame with the moment its pixels were read."""
    transport = Transport()
    pools = {"frames": Pool(PoolSpec("frames", fd, SLOTS, slot_bytes))}
    inlet = Inlet(transport.receiver(f"{endpoints}/reader"), pools, 1, None)
    answers = transport.sender(f"{endpoints}/writer")
    while isinstance(came := inlet.take(30.0), list) and isinstance(frame := came[0], Frame):
        frame.array("image_bgr")[SHAPE[0] // 2].sum()
        answers.send([time.monotonic_ns().to_bytes(8, "little")])
    transport.close()


def hops(endpoints: str, pool: Pool) -> dict[str, list[float]]:
    """Milliseconds from the writer's hands to the reader's, by way of travelling."""
    transport = Transport()
    answers = transport.receiver(f"{endpoints}/writer")
    queue = transport.sender(f"{endpoints}/reader")
    pixels = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)

    def hop(seq: int, way: str) -> float:
        frame = Frame(header(seq), {"frames": pool})
        if way == "copied over ipc":
            started_ns = time.monotonic_ns()
            frame.put("image_bgr", pixels)
        else:
            slot = frame.place("image_bgr", Slot("frames", seq % SLOTS, 0), "uint8", SHAPE)
            started_ns = time.monotonic_ns()
            if way == "shared memory, written":
                slot[:] = pixels
        queue.send(to_parts(frame))
        parts = answers.receive(30.0)
        assert parts
        return (int.from_bytes(parts[0], "little") - started_ns) / 1e6

    ways: dict[str, list[float]] = {"shared memory": [], "shared memory, written": [], "copied over ipc": []}
    for seq in range(WARM_UP + COUNT):
        for way, times in ways.items():  # in turn, so that all see the same machine
            times.append(hop(seq, way))
    queue.send(to_parts(EndOfStream("bench", 0, COUNT)))
    transport.close()
    return {way: times[WARM_UP:] for way, times in ways.items()}


def main() -> None:
    spec = create_pool("frames", SLOTS, int(np.prod(SHAPE)))
    with tempfile.TemporaryDirectory() as folder:
        endpoints = f"ipc://{folder}"
        child = subprocess.Popen(
            [sys.executable, __file__, endpoints, str(spec.fd), str(spec.slot_bytes)], pass_fds=[spec.fd]
        )
        ways = {way: percentiles(times) for way, times in hops(endpoints, Pool(spec)).items()}
        child.wait()
    ratio = ways["copied over ipc"]["p50"] / ways["shared memory"]["p50"]
    here = machine("pyzmq", "msgspec")
    print(here)
    for way, figures in ways.items():
        print(f"{way:24} p50 {figures['p50']:.3f} ms, p99 {figures['p99']:.3f} ms")
    print(f"copying takes {ratio:.1f} times as long")
    finish({"benchmark": "hop_1080p", "machine": here, "ms": ways, "copied_over_shared": round(ratio, 1)})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        reader(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
