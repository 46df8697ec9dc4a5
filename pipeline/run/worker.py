"""Runs one stage: takes messages from its queue, has the stage work on them, sends them on, and keeps the supervisor
informed. `python -m pipeline.run.worker ID…` runs one or several as a process of their own, with the `WorkerSpec` of
each as a line on standard input (the names are only there for `ps`; what else they are told holds the run's key, and
maybe a camera's password).
"""

import importlib
import os
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
from setproctitle import setproctitle, setthreadtitle

from configs import startup
from pipeline.errors import CenterStreamError, StageError, place_of, way_of
from pipeline.flow import messages
from pipeline.flow.frame import Frame, Message
from pipeline.flow.ledger import Ledger, LedgerSpec
from pipeline.flow.lines import Bundle, Inlet, Outlet, Progress, Rounds
from pipeline.flow.messages import EndOfStream, Failed, Finished, Lost, Ready, SignalChange, Start, Stop, StreamStart
from pipeline.flow.metrics import Meter, hop
from pipeline.flow.order import InOrder
from pipeline.flow.sharedmem import Lessor, Pool, PoolSpec
from pipeline.flow.transport import POLL_SECONDS, Bell, Context, RunKey, Spoke, Transport
from pipeline.run.lanes import Lanes
from pipeline.run.plan import WorkerPlan
from pipeline.settings import Settings
from pipeline.stage import CHAIN, FRAMES, NEXT, PAST_NETWORK, Kit, QueueStage, RoundStage, SourceStage, Stage

# Of this file, also where it is the main one.
MODULE = "pipeline.run.worker"
REPORT_SECONDS = 1.0
# So often a stage is asked whether there is something to do beside frames.
LOOK_SECONDS = 0.2
ORPHAN_SECONDS = 5.0


class WorkerSpec(msgspec.Struct, frozen=True):
    """All that a worker is told before it starts.

    incarnation  how often it was started before
    is_patient   its source is waited for where it cannot be opened
    endpoints    the prefix of every queue's name
    key          the run's secret; None where the stages share a process
    numbers      of the workers that can be sent to, by id
    mates        the ids of all in the same process
    owns_process whether it tells what the process takes
    """

    plan: WorkerPlan
    incarnation: int
    is_patient: bool
    settings: Settings
    endpoints: str
    key: RunKey | None
    pools: list[PoolSpec]
    ledger: LedgerSpec
    numbers: dict[str, int]
    mates: tuple[str, ...]
    owns_process: bool


def stranger_line(queue: str) -> str:
    return f"queue {queue}: connections without this run's key, refused"


def stage_class(name: str) -> type[Stage]:
    """The stage's class, imported only where it runs, so that only inference pays for torch."""
    module = importlib.import_module(f"pipeline.stages.{name}")
    kind: type[Stage] = getattr(module, name.capitalize())
    return kind


class Worker:
    """One stage with its queues. `run` returns when it was told to stop, its source ended, or it failed."""

    def __init__(self, spec: WorkerSpec, transport: Transport) -> None:
        self._spec, self._plan, self._transport = spec, spec.plan, transport
        self._bell, self._last_bell = Bell(), Bell()  # something is to be said; nothing comes any more
        self._control: Spoke = transport.spoke(
            f"{spec.endpoints}/control", messages.control_name(spec.plan.id, spec.incarnation), self._bell
        )
        self._stopping = threading.Event()
        self._to_say: deque[messages.FromWorker] = deque()
        self.orphaned = False
        self._meter = Meter(spec.owns_process)
        self._lanes = Lanes(self._bell.ring)
        self._stage: Stage | None = None
        self._depth: Callable[[], int] = lambda: 0
        self._next_report = self._next_look = 0.0

    def run(self) -> None:
        try:
            self._pools = {pool.name: Pool(pool) for pool in self._spec.pools}
            self._ledger = Ledger(self._spec.ledger)
            stage = self._stage = stage_class(self._plan.stage)(self._make_kit())
            self._connect(stage)
            model = stage.prepare()
            self._say(Ready(model))
            if (start := self._await_start()) is not None:
                stage.begin(start)
                self._meter.begin()
                self._serve(stage, start)
        except CenterStreamError as error:
            self._say(Failed(error.exit_code, str(error), way_of(error)))
        except Exception as error:
            # Where a source is opened a library's words may hold its address, or a part of it.
            words = "" if self._plan.stage == CHAIN[0] else f": {error}"
            text = f"stage {self._plan.id} failed: {place_of(error)}{words}"
            self._say(Failed(StageError.exit_code, text, way_of(error)))
        finally:
            self._finish()

    def stop(self) -> None:
        """The supervisor is gone: finish with what has arrived."""
        self.orphaned = True
        self._stopping.set()

    # -- setting up

    def _make_kit(self) -> Kit:
        plan = self._plan
        pool = self._pools.get(plan.pool)
        return Kit(
            settings=self._spec.settings,
            source_id=plan.source_id,
            place=plan.place,
            is_patient=self._spec.is_patient,
            incarnation=self._spec.incarnation,
            endpoints=self._spec.endpoints,
            pools=self._pools,
            lessor=Lessor(pool, plan.first_slot, plan.slots, plan.number) if pool else None,
            ledger=self._ledger,
            meter=self._meter,
            tell=lambda doing: self._say(messages.Status(doing)),
            say_model=lambda model: self._say_soon(messages.ModelChange(model)),
            say_ended=self._say_ended,
            want_pictures=self._say_soon,
            ask_stop=lambda by_user: self._say_soon(messages.AskStop(by_user)),
            stopped=self._stopping.is_set,
        )

    def _connect(self, stage: Stage) -> None:
        self._outlet = self._outlet_to(NEXT[self._plan.stage]) if self._plan.stage in NEXT else None
        self._lanes_of: dict[int, Outlet] = {}
        if isinstance(stage, QueueStage):
            self._past_network = self._outlet_to(PAST_NETWORK)
            for worker, number in self._spec.numbers.items():
                if worker.startswith("infer:"):
                    self._lanes_of[number] = self._outlet_to(worker)
        if not isinstance(stage, SourceStage):
            receiver = self._transport.receiver(
                f"{self._spec.endpoints}/{self._plan.id}", self._last_bell, has_mates=len(self._spec.mates) > 1
            )
            order = None
            if stage.in_order:
                order = InOrder(Progress(self._ledger, self._pools[FRAMES], self._plan.stage))
            self._inlet = Inlet(receiver, self._pools, self._plan.number, order)
            self._depth = lambda: self._inlet.depth
        if isinstance(stage, RoundStage):
            self._rounds = Rounds(self._inlet, self._outlet_to("gather"), self._plan.number)
            assert self._outlet
            self._bundle = Bundle(self._outlet)

    def _outlet_to(self, worker: str) -> Outlet:
        sender = self._transport.sender(f"{self._spec.endpoints}/{worker}", is_mate=worker in self._spec.mates)
        return Outlet(sender, self._spec.numbers[worker], self._stopping.is_set)

    def _say_ended(self, source_id: str) -> None:
        self._say_soon(messages.Ended(source_id, self._meter.close_outputs(source_id)))

    # -- the control path: this thread only

    def _say(self, message: messages.FromWorker) -> None:
        self._control.send(messages.encode(message))

    def _say_soon(self, message: messages.FromWorker) -> None:
        """From any thread."""
        self._to_say.append(message)
        self._bell.ring()

    def _listen(self, timeout_seconds: float) -> messages.ToWorker | None:
        body = self._control.receive(timeout_seconds)
        return None if body is None else messages.decode_to_worker(body)

    def _await_start(self) -> Start | None:
        while not self._stopping.is_set():
            word = self._listen(POLL_SECONDS)
            if isinstance(word, Start):
                return word
            if isinstance(word, Stop):
                self._stop(word)
        return None

    def _serve(self, stage: Stage, start: Start) -> None:
        """Start the lanes; report and listen until they end. Raises what a lane raised."""
        if isinstance(stage, SourceStage):
            self._lanes.start(lambda: stage.run(self._pass_on), 1)
        elif isinstance(stage, QueueStage):
            self._depth = lambda: stage.depth
            self._lanes.start(lambda: self._queue(stage, start), 1)
        elif isinstance(stage, RoundStage):
            self._lanes.start(lambda: self._rounds_lane(stage), stage.lanes)
        else:
            for word in start.told:  # an end waits, as if it came now, for the frames before it
                for told in self._inlet.sorted(word):
                    self._work(stage, [told])
            self._lanes.start(lambda: self._lane(stage), stage.lanes)
        self._keep_in_touch(self._lanes)
        self._lanes.join()

    def _keep_in_touch(self, lanes: Lanes) -> None:
        """Report and listen until `lanes` end: who says nothing for long is taken for dead."""
        while not lanes.have_ended:
            word = self._listen(max(0.0, self._next_report - time.monotonic()))
            self._bell.hush()
            while word is not None:
                self._hear(word)
                word = self._listen(0.0)
            while self._to_say:
                self._say(self._to_say.popleft())
            if time.monotonic() >= self._next_report:
                self._next_report = time.monotonic() + REPORT_SECONDS
                self._say(self._report())

    def _hear(self, word: messages.ToWorker) -> None:
        match word:
            case Stop():
                self._stop(word)
            case Lost() if isinstance(self._stage, QueueStage):
                self._stage.lost(word.worker)
            case Lost():
                self._rounds.gather_lost()
            case messages.Pause() | messages.Pixels() | messages.Retune() if isinstance(self._stage, SourceStage):
                self._stage.hear(word)
            case messages.Heat() if self._stage:
                self._stage.show_heat(word)

    def _stop(self, word: Stop) -> None:
        self._stopping.set()
        if word.drained:
            self._last_bell.ring()

    def _report(self) -> messages.Report:
        for queue in self._transport.refused():
            self._meter.tally(stranger_line(queue))
        return self._meter.report(self._depth(), self._lanes.busy_seconds())

    def _finish(self) -> None:
        self._stopping.set()
        stage = self._stage
        closing = Lanes(self._bell.ring)
        closing.start(lambda: stage.close() if stage else None, 1)  # a large file on a slow disk takes its time
        self._keep_in_touch(closing)
        problem = stage.problem if stage else None
        try:
            closing.join()
        except Exception as error:
            problem = problem or StageError(f"stage {self._plan.id} could not close: {error}")
        while self._to_say:
            self._say(self._to_say.popleft())
        self._meter.is_over = True
        code, text = (problem.exit_code, str(problem)) if problem else (0, "")
        self._say(Finished(self._report(), code, text))

    # -- the data path: the lanes

    def _pass_on(self, message: Message) -> None:
        if self._plan.stage == CHAIN[0] and not isinstance(message, Frame):
            self._say_soon(message)
        if self._outlet:
            self._outlet.send(message)

    def _lane(self, stage: Stage) -> None:
        while not self._lanes.over:
            with self._lanes.taking:
                taken = self._take(stage)
            with self._lanes.busy():
                self._work(stage, taken)

    def _rounds_lane(self, stage: RoundStage) -> None:
        has_asked = False
        while not self._lanes.over:
            if not has_asked:
                has_asked = True
                self._rounds.lane_is_free()
            if self._lanes.taking.locked():  # by a lane that has nothing to do
                self._bundle.send()
            with self._lanes.taking:
                frames = self._take_round(stage)
            if not frames:
                continue
            has_asked = self._rounds.lane_is_at(frames)
            entered_ns = time.monotonic_ns()
            with self._lanes.busy():
                self._process(stage, frames)
                self._bundle.add(frames)
            self._rounds.lane_took(len(frames), time.monotonic_ns() - entered_ns)
        self._bundle.send()

    def _take_round(self, stage: RoundStage) -> list[Frame]:
        if self._lanes.over:
            return []
        came = self._rounds.take(0.0)
        if came is None:
            self._bundle.send()
            came = self._rounds.take(POLL_SECONDS)
        if came is None and self._stopping.is_set():
            self._lanes.over = True
        self._look_up(stage)
        return came or []

    def _take(self, stage: Stage) -> list[Message]:
        """What there is to do; when there is nothing and no more is to come, the lanes are over."""
        if self._lanes.over:
            return []
        came = self._inlet.take(POLL_SECONDS)
        if came is None and self._stopping.is_set():
            self._lanes.over = True
        taken = came if isinstance(came, list) else []
        if self._look_up(stage):
            taken += self._inlet.look(time.monotonic())
        return taken

    def _look_up(self, stage: Stage) -> bool:
        """Whether it is time for what is done beside frames."""
        now = time.monotonic()
        if is_due := now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            stage.idle()
        return is_due

    def _work(self, stage: Stage, taken: list[Message]) -> None:
        """Frames that came together go on together, those before one that fails as well."""
        done: list[Frame] = []
        try:
            for message in taken:
                if isinstance(message, Frame):
                    self._inlet.taken(message)
                    self._process(stage, [message])
                    done.append(message)
                else:
                    self._send_all(done)
                    done = []
                    self._word(stage, message)
        finally:
            self._send_all(done)

    def _send_all(self, frames: list[Frame]) -> None:
        if self._outlet:
            self._outlet.send_all(frames)

    def _word(self, stage: Stage, word: messages.SourceWord) -> None:
        match word:
            case StreamStart():
                stage.stream_started(word)
            case SignalChange():
                stage.signal_changed(word)
            case EndOfStream():
                stage.stream_ended(word)
        self._pass_on(word)

    def _process(self, stage: Stage, frames: list[Frame]) -> None:
        entered_ns = time.monotonic_ns()
        wanted = [frame for frame in frames if stage.sees_all or _is_good(frame)]
        if isinstance(stage, RoundStage):
            stage.process_round(wanted)
        else:
            for frame in wanted:
                stage.process(frame)
        for frame in frames:
            if frame.header.dropped is None:
                self._stamp(frame, entered_ns)

    def _queue(self, stage: QueueStage, start: Start) -> None:
        for word in start.told:
            stage.take(word)
        while not self._stopping.is_set() or stage.depth:
            came = self._inlet.take(min(stage.wait_seconds(), POLL_SECONDS))
            while came is not None:
                for message in came if isinstance(came, list) else [came]:
                    stage.take(message)
                came = self._inlet.take(0.0)
            rounds = stage.rounds()
            for message in stage.passing():
                self._pass_by(message)
            for worker, frames in rounds:
                self._give(worker, frames)

    def _pass_by(self, message: Message) -> None:
        if not isinstance(message, Frame):
            self._pass_on(message)
            return
        if message.header.dropped is None:
            self._stamp(message, time.monotonic_ns())
        self._past_network.send(message)

    def _give(self, worker: int, frames: list[Frame]) -> None:
        for frame in frames:
            self._stamp(frame, time.monotonic_ns())
        self._meter.round_given(len(frames))
        self._lanes_of[worker].send_all(frames)

    def _stamp(self, frame: Frame, entered_ns: int) -> None:
        """It leaves this stage."""
        frame.header.trace.append(hop(self._plan.stage, entered_ns))
        self._meter.passed(frame.header)


def _is_good(frame: Frame) -> bool:
    return frame.header.failure is None and frame.header.dropped is None


def _watch_over(workers: Sequence[Worker], run_folder: str) -> None:
    """Standard input stays open as long as the supervisor lives. When it ends, these workers end their outputs and
    themselves, and clear away the sockets' folder, which nobody else is left to do."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    for worker in workers:
        worker.stop()
    time.sleep(ORPHAN_SECONDS)
    shutil.rmtree(run_folder, ignore_errors=True)
    os._exit(StageError.exit_code)


def ignore_signals() -> None:
    """A terminal's Ctrl-C and a service manager's SIGTERM go to every process; the supervisor decides how all stop."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def be_called(ids: list[str]) -> None:
    """As one that is started with these words."""
    sys.argv[1:] = ids
    setproctitle(" ".join([sys.executable, "-P", "-m", MODULE, *ids]))


def main() -> int | None:
    ignore_signals()
    setthreadtitle(" ".join(sys.argv[1:]))  # what `top` shows, and the kernel's log when memory runs out
    lines = [sys.stdin.buffer.readline() for _ in sys.argv[1:]]
    if not all(lines):
        return StageError.exit_code  # who started it is gone
    decode = msgspec.json.Decoder(WorkerSpec, dec_hook=lambda kind, text: kind(text)).decode
    specs = [decode(line) for line in lines]
    context = Context()
    transports = [Transport(context, spec.key) for spec in specs]
    workers = [Worker(spec, transport) for spec, transport in zip(specs, transports, strict=True)]
    run_folder = specs[0].endpoints.removeprefix("ipc://")
    watch = threading.Thread(target=_watch_over, args=(workers, run_folder), daemon=True)
    watch.start()
    _run_all(workers, transports)
    context.term()
    if workers[0].orphaned:
        watch.join()
    return None


def _run_all(workers: Sequence[Worker], transports: Sequence[Transport]) -> None:
    """Each in a thread of its own, one of them in this one; what it has sent is out when it has ended."""

    def run(worker: Worker, transport: Transport) -> None:
        worker.run()
        transport.close()

    pairs = list(zip(workers, transports, strict=True))
    threads = [threading.Thread(target=run, args=pair) for pair in pairs[1:]]
    for thread in threads:
        thread.start()
    run(*pairs[0])
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    startup.run(main)
