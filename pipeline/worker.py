"""Runs one stage: takes messages from its inbox, has the stage work on them, sends them on, and keeps the supervisor
informed. `python -m pipeline.worker STAGE` runs it as a process of its own, with its `WorkerSpec` on standard input
(the name is only there for `ps`; what else it is told holds the run's key, and maybe a camera's password).

Results leave in the order in which their frames came, however many lanes work at the same time.
"""

import importlib
import itertools
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from configs import startup
from pipeline import messages
from pipeline.errors import CenterStreamError, StageError, place_of, way_of
from pipeline.frame import NOT_ITS_OWN, Frame, Message, from_parts, to_parts
from pipeline.messages import EndOfStream, Failed, Finished, ModelCard, Ready, Slot, Start, Status, StreamStart
from pipeline.metrics import Meter, hop
from pipeline.settings import Settings
from pipeline.sharedmem import Leases, Pool, PoolSpec
from pipeline.stage import CHAIN, LENT_BY, Kit, SourceStage, Stage
from pipeline.transport import POLL_SECONDS, Inbox, RunKey, Spoke, Transport

REPORT_SECONDS = 1.0
CONTROL_SECONDS = 0.2
ORPHAN_SECONDS = 5.0


class WorkerSpec(msgspec.Struct, frozen=True):
    """All that a worker is told before it starts.

    endpoints  the prefix of every queue's name
    key        the run's secret; None where the stages share a process
    """

    stage: str
    settings: Settings
    endpoints: str
    key: RunKey | None
    pools: list[PoolSpec]
    owns_process: bool


def stranger_line(queue: str) -> str:
    return f"queue {queue}: connections without this run's key, refused"


def stage_class(name: str) -> type[Stage]:
    """The stage's class, imported only where it runs, so that only inference pays for torch."""
    module = importlib.import_module(f"pipeline.stages.{name}")
    kind: type[Stage] = getattr(module, name.capitalize())
    return kind


class Worker:
    """One stage with its queues. `run` returns when every stream ended, or it was told to stop, or it failed."""

    def __init__(self, spec: WorkerSpec, transport: Transport) -> None:
        self._spec = spec
        self._name = spec.stage
        self._transport = transport
        self._control: Spoke = transport.spoke(f"{spec.endpoints}/control", spec.stage)
        self._stopping = threading.Event()
        self._wants_stop: messages.AskStop | None = None
        self.orphaned = False
        self._meter = Meter(spec.stage, spec.owns_process)
        self._inbox: Inbox | None = None
        self._lanes = Lanes()
        self._next_report = 0.0

    def run(self) -> None:
        stage: Stage | None = None
        try:
            stage = stage_class(self._name)(self._make_kit())
            self._connect()
            model = stage.prepare()
            self._say(Ready(self._name, model))
            if (model := self._await_start()) is not None:
                stage.begin(model)
                self._meter.begin()
                self._serve(stage)
        except CenterStreamError as error:
            self._say(Failed(self._name, error.exit_code, str(error), way_of(error)))
        except Exception as error:
            # Where a source is opened a library's words may hold its address, or a part of it.
            words = "" if self._name == CHAIN[0] else f": {error}"
            text = f"stage {self._name} failed: {place_of(error)}{words}"
            self._say(Failed(self._name, StageError.exit_code, text, way_of(error)))
        finally:
            self._finish(stage)

    def stop(self) -> None:
        """The supervisor is gone: finish with what has arrived."""
        self.orphaned = True
        self._stopping.set()

    # -- setting up

    def _make_kit(self) -> Kit:
        spec, transport = self._spec, self._transport
        pools = {pool.name: Pool(pool) for pool in spec.pools}
        lent = LENT_BY.get(spec.stage)
        leases = None
        if lent:
            returns = transport.slot_returns(f"{spec.endpoints}/free-{lent}", lent)
            leases = Leases(pools[lent], returns, self._count_refused)
        returners = {
            pool: transport.slot_returner(f"{spec.endpoints}/free-{pool}") for pool in LENT_BY.values() if pool != lent
        }

        def give_back(slots: Iterable[Slot]) -> None:
            for slot in slots:
                if slot.pool in returners:
                    returners[slot.pool].give_back(slot)
                elif leases:
                    leases.restore(slot)

        return Kit(
            settings=spec.settings,
            pools=pools,
            leases=leases,
            meter=self._meter,
            give_back=give_back,
            tell=lambda doing: self._say(Status(self._name, doing)),
            ask_stop=self._ask_stop,
            stopped=self._stopping.is_set,
        )

    def _count_refused(self, slot: Slot) -> None:
        self._meter.tally(f"{slot.pool}: slots given back that were not on loan, refused")

    def _count_strangers(self) -> None:
        for queue in self._transport.refused():
            self._meter.tally(stranger_line(queue))

    def _connect(self) -> None:
        place = CHAIN.index(self._name)
        following = CHAIN[place + 1] if place + 1 < len(CHAIN) else None
        self._outbox = self._transport.sender(f"{self._spec.endpoints}/{following}") if following else None
        self._receiver = self._transport.receiver(f"{self._spec.endpoints}/{self._name}") if place else None

    # -- the control path: this thread only

    def _say(self, message: messages.FromWorker) -> None:
        self._control.send(messages.encode(message))

    def _listen(self, timeout_seconds: float) -> messages.ToWorker | None:
        body = self._control.receive(timeout_seconds)
        return None if body is None else messages.decode_to_worker(body)

    def _await_start(self) -> ModelCard | None:
        while not self._stopping.is_set():
            word = self._listen(POLL_SECONDS)
            if isinstance(word, Start):
                return word.model
            if word is not None:
                self._stopping.set()
        return None

    def _ask_stop(self, by_user: bool) -> None:
        self._wants_stop = messages.AskStop(self._name, by_user)

    def _serve(self, stage: Stage) -> None:
        """Start the lanes; report and listen until they end. Raises what a lane raised."""
        if isinstance(stage, SourceStage):
            self._lanes.start(lambda: stage.run(self._send), 1)
        else:
            assert self._receiver is not None
            pools, capacity = stage.kit.pools, self._spec.settings.queue.capacity
            drop = partial(self._drop, stage) if stage.drops_late else None
            self._inbox = Inbox(self._receiver, lambda parts: from_parts(parts, pools), capacity, drop)
            self._lanes.start(lambda: self._lane(stage), stage.lanes)
        self._keep_in_touch(self._lanes)
        self._lanes.join()

    def _keep_in_touch(self, lanes: "Lanes") -> None:
        """Report and listen until `lanes` end: who says nothing for long is taken for dead."""
        while not lanes.ended(CONTROL_SECONDS):
            if self._listen(0.0) is not None:
                self._stopping.set()
            if self._wants_stop:
                word, self._wants_stop = self._wants_stop, None
                self._say(word)
            if time.monotonic() >= self._next_report:
                self._next_report = time.monotonic() + REPORT_SECONDS
                self._count_strangers()
                self._say(self._report())

    def _report(self, is_last: bool = False) -> messages.Report:
        return self._meter.report(self._inbox.depth if self._inbox else 0, is_last)

    def _finish(self, stage: Stage | None) -> None:
        self._stopping.set()
        closing = Lanes()
        closing.start(lambda: self._close(stage), 1)  # a large file on a slow disk takes its time
        self._keep_in_touch(closing)
        problem = stage.problem if stage else None
        try:
            closing.join()
        except Exception as error:
            problem = problem or StageError(f"stage {self._name} could not close: {error}")
        self._count_strangers()
        code, text = (problem.exit_code, str(problem)) if problem else (0, "")
        self._say(Finished(self._report(is_last=True), code, text))

    def _close(self, stage: Stage | None) -> None:
        if self._inbox:
            self._inbox.close()
        if stage:
            stage.close()

    # -- the data path: the lanes

    def _send(self, message: Message) -> None:
        if isinstance(message, StreamStart):
            self._meter.opened(message)
        if self._outbox:
            self._outbox.send(to_parts(message), given_up=self._stopping.is_set)

    def _drop(self, stage: Stage, frame: Frame) -> None:
        self._meter.dropped(frame.header.source_id, frame.header.seq, "queue full, a newer frame took its place")
        stage.kit.end_frame(frame)

    def _lane(self, stage: Stage) -> None:
        while (taken := self._take(stage)) is not None:
            ticket, message = taken
            if isinstance(message, Frame):
                self._work(stage, message)
            self._lanes.hand_over(ticket, message, lambda done: self._pass_on(stage, done))

    def _pass_on(self, stage: Stage, message: Message) -> None:
        if isinstance(message, EndOfStream):
            stage.stream_ended(message)
        self._send(message)

    def _take(self, stage: Stage) -> tuple[int, Message] | None:
        """The next message with its place in the order; None when there is no more to come."""
        assert self._inbox is not None
        with self._lanes.taking:
            while not self._lanes.over:
                message = self._inbox.take(POLL_SECONDS)
                if isinstance(message, StreamStart):
                    stage.stream_started(message)
                if isinstance(message, EndOfStream):
                    self._lanes.end_stream(message.source_id, set(self._spec.settings.sources))
                if message is not None:
                    return self._lanes.ticket(), message
                if self._stopping.is_set():
                    self._lanes.over = True
            return None

    def _work(self, stage: Stage, frame: Frame) -> None:
        entered_ns, failure = time.monotonic_ns(), frame.header.failure
        frame.check_slots()
        if frame.header.failure is None or stage.sees_failed_frames:
            stage.process(frame)
            frame.check_slots()
        if frame.header.failure == NOT_ITS_OWN != failure:
            self._meter.tally(f"{self._name}: frames without a result, for {NOT_ITS_OWN}")
        frame.header.trace.append(hop(self._name, entered_ns))
        self._meter.passed(frame.header)


class Lanes:
    """Threads that work side by side; what they made leaves in the order in which they took it.

    The first exception ends all and is raised by `join`.
    """

    def __init__(self) -> None:
        self.taking = threading.Lock()
        self.over = False
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._all_ended = threading.Event()
        self._tickets = itertools.count()
        self._ended: set[str] = set()
        self._leaving = threading.Lock()
        self._made: dict[int, Message] = {}
        self._next = 0
        self._failure: BaseException | None = None

    def start(self, work: Callable[[], None], count: int) -> None:
        self._running = count
        for number in range(count):
            thread = threading.Thread(target=self._guard, args=(work,), name=f"lane-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failure = self._failure or error
            self.over = True
        with self._leaving:
            self._running -= 1
            if not self._running:
                self._all_ended.set()

    def ended(self, timeout_seconds: float) -> bool:
        """Whether all lanes have come to their end, waiting for it at most so long."""
        return self._all_ended.wait(timeout_seconds)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
        if self._failure:
            raise self._failure

    def ticket(self) -> int:
        return next(self._tickets)

    def end_stream(self, source_id: str, all_sources: set[str]) -> None:
        self._ended.add(source_id)
        self.over = self._ended >= all_sources

    def hand_over(self, ticket: int, message: Message, pass_on: Callable[[Message], None]) -> None:
        """Pass on what is ready and next in order. A lane does not wait for a slower one: that one passes on both."""
        with self._leaving:
            self._made[ticket] = message
            while self._next in self._made:
                pass_on(self._made.pop(self._next))
                self._next += 1


def _watch_over(worker: Worker, run_folder: str) -> None:
    """Standard input stays open as long as the supervisor lives. When it ends, this worker ends its outputs and
    itself, and clears away the sockets' folder, which nobody else is left to do."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    worker.stop()
    time.sleep(ORPHAN_SECONDS)
    shutil.rmtree(run_folder, ignore_errors=True)
    os._exit(StageError.exit_code)


def main() -> None:
    # A terminal's Ctrl-C and a service manager's SIGTERM go to every process; the supervisor decides how all stop.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=WorkerSpec, dec_hook=lambda kind, text: kind(text))
    transport = Transport(key=spec.key)
    worker = Worker(spec, transport)
    run_folder = spec.endpoints.removeprefix("ipc://")
    watch = threading.Thread(target=_watch_over, args=(worker, run_folder), daemon=True)
    watch.start()
    worker.run()
    transport.close()
    if worker.orphaned:
        watch.join()


if __name__ == "__main__":
    startup.run(main)
