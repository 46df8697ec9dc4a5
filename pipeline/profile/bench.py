"""Each stage by itself, on the source's own frames: how many it could do, and what one costs.

The real stages with real pools and a real queue, but no supervisor and no other stage at work: what a worker would do
around a stage is done here. Knows no process but its own.

What is light is measured cold: in a run the network has used the caches between two frames.
"""

import threading
import time
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from pipeline.errors import SourceError, StageError
from pipeline.flow.frame import Frame, Message, from_parts, to_parts
from pipeline.flow.lines import BUNDLE, Inlet, Outlet
from pipeline.flow.messages import Free, Slot, Start, StreamStart
from pipeline.flow.metrics import Meter
from pipeline.flow.sharedmem import Lessor
from pipeline.kernels import compiled
from pipeline.profile import clocks
from pipeline.profile.clocks import NOTHING, Reading
from pipeline.profile.parts import Measured, Part, Request
from pipeline.run.house import House, house
from pipeline.run.plan import Plan
from pipeline.run.worker import stage_class
from pipeline.settings import usable_cores
from pipeline.stage import CHAIN, FRAMES, HEATMAPS, Kit, QueueStage, RoundStage, SourceStage, Stage

if TYPE_CHECKING:
    from pipeline.still import Scene

# So many frames are kept, and given to the stages again and again.
KEPT_FRAMES = 8
# Of its pool, for a stage that leases.
SLOTS = 64
FEWEST_CALLS = 5
MOST_CALLS = 60
# Larger than what a core has for itself; it is written before each cold call.
CACHE_BYTES = 16 << 20
OURS, NEXT_ONE = 1, 2
# What is proposed for a scene that stands still.
STILL_IN_A_ROW = 25
# Of a camera that sends nothing, no more is waited for.
LONGEST_DECODE_SECONDS = 60.0


def measure(request: Request) -> Measured:
    """Raises CenterStreamError as the stages do."""
    settings, threads = request.settings, request.settings.run.placement == "threads"
    before = clocks.free_cores()
    with house(Plan(settings).pools, threads) as home:
        bench = _Bench(request, home)
        try:
            return replace(bench.measured(), free_cores=(before, clocks.free_cores()))
        finally:
            bench.close()


class _Bench:
    """The stages of a run of one source, one at a time."""

    def __init__(self, request: Request, home: House) -> None:
        self._settings, self._wanted, self._seconds = request.settings, request.stages, request.seconds
        self._home, self._plan = home, Plan(request.settings)
        self._source_id = next(iter(request.settings.sources))
        self._stopped = threading.Event()
        self._cache = np.zeros(CACHE_BYTES, np.uint8)
        self._made: list[Stage] = []
        self._parts: dict[str, Part] = {}
        self._stream: StreamStart | None = None
        self._stillness = 0.0, 0.0

    def close(self) -> None:
        self._stopped.set()
        for stage in list(self._made):
            self._close(stage)

    def _close(self, stage: Stage) -> None:
        self._made.remove(stage)
        stage.close()

    def measured(self) -> Measured:
        infer = self._make("infer", HEATMAPS)
        card = infer.prepare()
        assert card is not None
        self._card = card
        self._limits = self._plan.limits(self._card)
        infer.begin(self._start)
        assert isinstance(infer, RoundStage)
        pictures = self._decode()
        heads = self._infer(infer, pictures)
        last = max((CHAIN.index(stage) for stage in self._wanted), default=0)
        if last >= CHAIN.index("postprocess"):
            found = self._postprocess(heads)
            tracked = self._track(found)
            self._deliver(tracked, pictures)
        if "gather" in self._wanted:
            self._gather(pictures)
        return Measured(
            {stage: self._parts[stage] for stage in self._wanted},
            self._card,
            self._limits,
            self._stream,
            *(self._hand_over(heads) if "gather" in self._wanted else (0.0, 0.0)),
            *self._stillness,
        )

    @property
    def _start(self) -> Start:
        return Start(self._card, self._limits, [])

    def _make(self, name: str, leases_from: str = "") -> Stage:
        pool = self._home.pools.get(leases_from)
        kit = Kit(
            settings=self._settings,
            source_id=self._source_id,
            place=0,
            is_patient=False,
            incarnation=0,
            endpoints="",
            pools=self._home.pools,
            lessor=Lessor(pool, 0, min(pool.spec.slots, SLOTS), OURS) if pool else None,
            ledger=self._home.ledger,
            meter=Meter(owns_process=True),
            tell=lambda doing: None,
            say_model=lambda model: None,
            say_ended=lambda source_id: None,
            want_pictures=lambda wanted: None,
            ask_stop=lambda by_user: None,
            stopped=self._stopped.is_set,
        )
        stage = stage_class(name)(kit)
        self._made.append(stage)
        return stage

    # -- decode: it feeds itself

    def _decode(self) -> list[Frame]:
        """A few frames with their pixels."""
        stage = self._make("decode", FRAMES)
        assert isinstance(stage, SourceStage)
        stage.prepare()
        stage.begin(replace(self._start, limits=replace(self._limits, of_source=SLOTS, spare=0)))
        looks = "gather" in self._wanted and self._settings.infer.still is None
        heard = _Heard(self._seconds if "decode" in self._wanted else 0.0, self._stopped, _scene() if looks else None)
        patience = threading.Timer(LONGEST_DECODE_SECONDS, self._stopped.set)
        patience.start()
        before = Reading.before()
        stage.run(heard)
        spent = before.passed().less(heard.looking)
        patience.cancel()
        self._stopped.clear()
        self._close(stage)
        self._stream = heard.start
        if not heard.kept or not heard.start:
            raise stage.problem or SourceError(f"{self._source_id}: no frame of it could be decoded")
        # What a camera sends is waited for; that is not the decoder's doing.
        self._parts["decode"] = _part("decode", 1, heard.count, spent, waits_for_others=heard.start.is_live)
        self._stillness = heard.still / heard.count, 1e3 * heard.looking.cpu / heard.count
        return heard.kept

    # -- infer: all lanes side by side

    def _infer(self, stage: RoundStage, pictures: list[Frame]) -> list[Frame]:
        """The frames with their raw heads."""
        stage.process_round([self._again(pictures[0])])
        heads = [self._heads_of(stage, frame) for frame in pictures]
        stage.settle()  # what lasts is measured, not what a first start does with its first frames
        if "infer" in self._wanted:
            single = self._rounds_of(stage, pictures, 1)
            # Lanes that wait for each other are not idle for that: it shows with one of them alone.
            one = self._rounds_of(stage, pictures, 1, lanes=1)
            single = replace(single, idle_ms=min(single.idle_ms, one.idle_ms), parallel=one.parallel)
            most = max(self._limits.round, 1)
            self._parts["infer"] = single
            if most > 1:
                full = self._rounds_of(stage, pictures, most)
                each = max(0.0, (full.cpu_ms * most - single.cpu_ms) / (most - 1))
                self._parts["infer"] = replace(
                    single, cpu_ms=each, round_ms=max(0.0, single.cpu_ms - each), frames=single.frames + full.frames
                )
        return heads

    def _heads_of(self, stage: RoundStage, frame: Frame) -> Frame:
        """With its heads in the message itself: a slot is good for one lease only."""
        computed = self._again(frame)
        stage.process_round([computed])
        if computed.header.failure:
            raise StageError(computed.header.failure)
        plain = Frame(replace(computed.header, leases=[], arrays=[]), self._home.pools)
        for ref in computed.header.arrays:
            if ref.name != "image_bgr":
                plain.put(ref.name, computed.array(ref.name).copy())
        computed.give_back(HEATMAPS)
        return plain

    def _rounds_of(self, stage: RoundStage, pictures: list[Frame], size: int, lanes: int | None = None) -> Part:
        """With all lanes at work, or so many."""
        calls: list[int] = []  # frames of each
        deadline = time.perf_counter() + self._seconds / (1 if lanes is None else 4)
        lanes = lanes or stage.lanes

        def lane() -> None:
            done = 0
            while done < FEWEST_CALLS or time.perf_counter() < deadline:
                round_ = [self._again(pictures[n % len(pictures)]) for n in range(size)]
                stage.process_round(round_)
                calls.append(size)
                for frame in round_:
                    if frame.header.failure:
                        raise StageError(frame.header.failure)
                    frame.give_back(HEATMAPS)
                done += 1

        before = Reading.before()
        failures = _side_by_side(lane, lanes)
        spent = before.passed()
        if failures:
            raise failures[0]
        return _part("infer", lanes, sum(calls), spent)

    # -- what comes after the network, cold

    def _postprocess(self, heads: list[Frame]) -> list[Frame]:
        stage = self._ready("postprocess")
        found = [self._again(frame) for frame in heads]
        for frame in found:
            stage.process(frame)
        self._cold("postprocess", stage, heads)
        return found

    def _track(self, found: list[Frame]) -> list[Frame]:
        stage = self._ready("track")
        self._cold("track", stage, found)
        tracked = [self._again(frame) for frame in found]
        for n, frame in enumerate(tracked):
            frame.header.seq = 2 * MOST_CALLS + n
            stage.process(frame)
        return tracked

    def _again(self, frame: Frame) -> Frame:
        """The frame as it came, however often: the same pixels, a header of its own."""
        messages = from_parts(to_parts(frame), self._home.pools)
        assert isinstance(messages, list) and isinstance(messages[0], Frame)
        return messages[0]

    def _ready(self, name: str) -> Stage:
        stage = self._make(name)
        stage.prepare()
        stage.begin(self._start)
        assert self._stream
        stage.stream_started(replace(self._stream, policy="block"))
        return stage

    def _cold(self, name: str, stage: Stage, frames: list[Frame]) -> None:
        if name in self._wanted:
            self._calls(name, stage.process, frames)

    def _calls(self, name: str, work: Callable[[Frame], object], frames: list[Frame]) -> None:
        def one(seq: int) -> Reading:
            frame = self._again(frames[seq % len(frames)])
            frame.header.seq = seq
            before = Reading.before()
            work(frame)
            return before.passed()

        spent, each, warm = self._timed(one, MOST_CALLS)
        self._parts[name] = _part(name, 1, len(each), spent, each, warm=warm)

    def _timed(
        self, one: Callable[[int], Reading], most: int, in_pairs: bool = True
    ) -> tuple[Reading, list[float], float]:
        """At most so many calls: what they took together, and CPU seconds of each. `in_pairs` each is cold, and
        last comes what as many straight behind them took together."""
        deadline, number = time.perf_counter() + self._seconds, count()
        spent, each, warm = NOTHING, list[float](), 0.0
        while len(each) < FEWEST_CALLS or (time.perf_counter() < deadline and len(each) < most):
            if in_pairs:
                self._cache += 1
            first = one(next(number))
            spent = spent.plus(first)
            each.append(first.cpu)
            if in_pairs:
                warm += one(next(number)).cpu
        return spent, each, warm

    def _deliver(self, tracked: list[Frame], pictures: list[Frame]) -> None:
        """Drawn, and taken by every output; with pictures in one go, for encoders work on several frames at a time."""
        if "deliver" not in self._wanted:
            return
        stage = self._ready("deliver")
        slots = self._home.pools[FRAMES]
        lessor = Lessor(slots, SLOTS, 16, OURS)
        has_pictures = self._settings.deliver.has_pictures()

        def one(seq: int) -> Reading:
            frame = self._leased(tracked, pictures, seq, lessor, has_pictures)
            before = Reading.before()
            stage.process(frame)
            while not has_pictures and slots.leased(SLOTS, 16):  # until it is taken
                time.sleep(0.0005)
            return before.passed()

        spent, each, warm = self._timed(one, 10 * MOST_CALLS, in_pairs=not has_pictures)
        before = Reading.before()
        self._close(stage)
        spent = spent.plus(before.passed())
        self._parts["deliver"] = _part("deliver", 1, len(each), spent, [] if has_pictures else each, warm=warm)

    def _leased(self, tracked: list[Frame], pictures: list[Frame], n: int, lessor: Lessor, picture: bool) -> Frame:
        slot: Slot | None = None
        while (slot := lessor.lease(0, n)) is None:
            time.sleep(0.001)
        found, of = tracked[n % len(tracked)], pictures[n % len(pictures)]
        header = replace(found.header, seq=n, leases=[slot], arrays=[], trace=list(found.header.trace))
        header.captured_ns, header.may_wait = time.monotonic_ns(), True
        frame = Frame(header, self._home.pools)
        if picture:
            frame.place("image_bgr", slot, "uint8", of.array("image_bgr").shape)[:] = of.array("image_bgr")
        frame.put_detections(found.detections())
        return frame

    # -- the queue before the network, and the way from stage to stage

    def _gather(self, pictures: list[Frame]) -> None:
        stage = self._make("gather")
        assert isinstance(stage, QueueStage) and self._stream
        stage.begin(self._start)
        stage.take(replace(self._stream, policy="block"))

        def one(frame: Frame) -> None:
            stage.take(frame)
            stage.take(Free(OURS))
            stage.rounds()
            stage.passing()

        bare = [Frame(replace(f.header, leases=[], arrays=[], trace=[]), self._home.pools) for f in pictures]
        self._calls("gather", one, bare)

    def _hand_over(self, heads: list[Frame]) -> tuple[float, float]:
        """CPU ms of a frame's way through a queue to a thread that waits for it, by a run's own means, and of each
        further one in the same message."""
        pools = self._home.pools
        endpoint = f"{self._home.endpoints}/hand-over"
        inlet = Inlet(self._home.transport.receiver(endpoint), pools, NEXT_ONE, None)
        outlet = Outlet(self._home.transport.sender(endpoint), NEXT_ONE, lambda: False)
        came = threading.Semaphore(0)

        def receive() -> None:
            for _ in range(2 * MOST_CALLS):
                while inlet.take(1.0) is None and not self._stopped.is_set():
                    pass
                came.release()

        receiver = threading.Thread(target=receive, daemon=True)
        receiver.start()
        header = replace(heads[0].header, leases=[], arrays=[])
        spent = {1: 0.0, BUNDLE: 0.0}
        for n in range(MOST_CALLS):
            for size in spent:
                frames = [Frame(replace(header, seq=n), pools) for _ in range(size)]
                self._cache += 1
                before = time.process_time()
                outlet.send_all(frames)
                came.acquire(timeout=10.0)
                spent[size] += time.process_time() - before if n else 0.0  # the first connects
        receiver.join(10.0)
        one, bundle = (seconds * 1e3 / (MOST_CALLS - 1) for seconds in spent.values())
        return one, max(0.0, (bundle - one) / (BUNDLE - 1))


class _Heard:
    """What a decoder emits: a few frames are kept, the others' slots given back, and after `seconds` it is stopped.

    scene    looks at each frame as `infer.still` would: `still` of them look as one before, and `looking` took so long
    """

    def __init__(self, seconds: float, stopped: threading.Event, scene: "Scene | None") -> None:
        self.start: StreamStart | None = None
        self.kept: list[Frame] = []
        self.count = self.still = 0
        self.looking = NOTHING
        self._scene = scene
        self._seconds, self._stopped = seconds, stopped
        self._began = time.perf_counter()

    def __call__(self, message: Message) -> None:
        if isinstance(message, StreamStart):
            self.start = message
        if not isinstance(message, Frame) or message.header.dropped:
            return
        self.count += 1
        if self._scene:
            self._look(self._scene, message)
        if len(self.kept) < KEPT_FRAMES and not message.header.unseen:
            self.kept.append(message)
        else:
            message.give_back()
        is_time = time.perf_counter() - self._began >= self._seconds
        if len(self.kept) == KEPT_FRAMES and is_time:
            self._stopped.set()

    def _look(self, scene: "Scene", frame: Frame) -> None:
        wall, cpu = time.perf_counter(), time.thread_time()
        if scene.as_computed(frame.header.seq, frame.array("input_rgb"), 0) is None:
            scene.compute(frame.header.seq)
        else:
            self.still += 1
        self.looking = self.looking.plus(Reading(time.perf_counter() - wall, time.thread_time() - cpu, 0.0))


def _scene() -> "Scene":
    """Ready to look; Numba is imported where frames are looked at, and not by who only asks."""
    from pipeline import still

    compiled(still.warm_up)
    return still.Scene(STILL_IN_A_ROW, None)


def _side_by_side(work: Callable[[], None], lanes: int) -> list[Exception]:
    failures: list[Exception] = []

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def _part(
    stage: str,
    lanes: int,
    frames: int,
    spent: Reading,
    calls: list[float] | None = None,
    waits_for_others: bool = False,
    warm: float = 0.0,
) -> Part:
    """`spent` in all for so many frames; `calls` are CPU seconds of single ones, `warm` of as many right behind."""
    count = max(1, frames)
    at_work = lanes * spent.wall
    idle = 0.0 if waits_for_others else max(0.0, at_work - spent.cpu - spent.wait)
    # Threads that computed or wanted to, while any did.
    parallel = min(float(usable_cores()), max(1.0, (spent.cpu + spent.wait) / max(at_work - idle, 1e-9)))
    mean = float(np.mean(calls)) if calls else 0.0
    spread = tuple(round(one / mean, 3) for one in (calls or [])[:256]) if mean > 0 else ()
    share = warm / sum(calls or ()) if mean > 0 else 1.0
    return Part(stage, lanes, frames, 1e3 * spent.cpu / count, 1e3 * idle / count, 0.0, parallel, spread, share)
