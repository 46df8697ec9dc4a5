"""Starts the stages, watches over them, stops them, and keeps what they report. Knows no frame.

A run goes: start all workers; when each is ready, let decode take the first frame; watch until each has finished.
A stop (Ctrl-C, a closed window, a stage that died) lets frames on their way through for a bounded time.
Whatever happens, no process, socket file or shared memory outlives `run`.
"""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from pipeline import messages
from pipeline.errors import CenterStreamError, SourceError, StageError, UsageError
from pipeline.heartbeat import Heartbeats
from pipeline.launch import Launched, ProcessWorker, ThreadWorker
from pipeline.messages import AskStop, Failed, Finished, Ready, Report, Start, Status, Stop
from pipeline.runstate import RunState
from pipeline.settings import LARGEST_INPUT_SIDE, Settings
from pipeline.sharedmem import PoolSpec, create_pool
from pipeline.sources import has_no_end
from pipeline.stage import CHAIN, FRAMES, HEATMAPS
from pipeline.transport import POLL_SECONDS, Context, Hub, RunKey, Transport
from pipeline.worker import WorkerSpec, stranger_line

# Slots are sparse: these bound what a frame may be, they take no memory.
LARGEST_FRAME_BYTES = 8192 * 8192 * 3
LARGEST_INPUT_BYTES = LARGEST_INPUT_SIDE**2 * 3
LARGEST_HEADS_BYTES = 256 << 20
# A stop during the drain time ends in at most this much more.
KILL_SECONDS = 2.0
# Before the first frame there is nothing to drain: a worker busy loading is not waited for.
UNSTARTED_SECONDS = 0.3
# Three reports missed: such a stage is what a stop waits for in vain.
QUIET_SECONDS = 3.0

Watcher = Callable[[RunState], None]


class Supervisor:
    """One run of the pipeline. `run` returns when it is over; `state` tells how it went."""

    def __init__(self, settings: Settings, watcher: Watcher) -> None:
        self._settings = settings
        self._watcher = watcher
        self.state = RunState(launched_at=time.monotonic())
        self._launched: dict[str, Launched] = {}
        self._finished: set[str] = set()
        self._ready: set[str] = set()
        self._heartbeats = Heartbeats()
        self._stop_signals = 0
        self._stopping = False
        self._deadline = float("inf")

    def run(self) -> RunState:
        """Raises UsageError when this machine cannot hold the run; all else is in the state's `problems`."""
        threads = self._settings.run.placement == "threads"
        with _signals(self._on_signal), _endpoints(threads) as endpoints, _pools(self._pool_sizes()) as pools:
            context = Context()
            key = None if threads else RunKey.new()
            transport = self._transport = Transport(context, key)
            try:
                self._hub: Hub = transport.hub(f"{endpoints}/control")
                self._launch(endpoints, key, pools, context if threads else None)
                self._watch()
                self.state.ended_at = time.monotonic()
            finally:
                self._end_all()
                transport.close()
                if not threads or not self._running():
                    context.term()
        return self.state

    # -- starting

    def _pool_sizes(self) -> list[tuple[str, int, int]]:
        """Name, slots, bytes: so many that every queue can be full and every lane busy."""
        waiting = self._settings.queue.capacity + 1  # the inbox's thread holds one more in its hand
        lanes = self._settings.infer.cpu_workers()
        frames = 1 + (len(CHAIN) - 1) * waiting + lanes + (len(CHAIN) - 2)
        return [
            (FRAMES, frames, LARGEST_FRAME_BYTES + LARGEST_INPUT_BYTES),
            (HEATMAPS, lanes + waiting + 1, LARGEST_HEADS_BYTES),
        ]

    def _launch(self, endpoints: str, key: RunKey | None, pools: list[PoolSpec], context: Context | None) -> None:
        for stage in CHAIN:
            settings = self._settings if stage == CHAIN[0] else self._settings.without_addresses()
            spec = WorkerSpec(stage, settings, endpoints, key, pools, owns_process=context is None)
            self._launched[stage] = ThreadWorker(spec, context) if context else ProcessWorker(spec)
        self._deadline = time.monotonic() + self._settings.run.start_seconds

    # -- watching

    def _watch(self) -> None:
        while self._running():
            self._listen(POLL_SECONDS)
            while self._listen(0.0):
                pass
            for queue in self._transport.refused():
                self.state.count(stranger_line(queue))
            self._check_deaths()
            self._check_silence()
            self._check_signals()
            if time.monotonic() > self._deadline:
                self._give_up()
                return
            self._watcher(self.state)

    def _running(self) -> list[str]:
        return [stage for stage in self._launched if stage not in self._finished]

    def _listen(self, timeout_seconds: float) -> bool:
        """Hear one message; whether there was one. What is none is the failure of the worker who sent it."""
        heard = self._hub.receive(timeout_seconds)
        if heard is None:
            return False
        stage, body = heard
        if stage not in self._launched:
            self.state.count("queue control: messages from no stage of this run, dropped")
            return True
        try:
            self._hear(messages.decode_from_worker(body), stage)
        except msgspec.DecodeError as error:
            self._hear_garbage(stage, error)
        return True

    def _hear_garbage(self, stage: str, error: msgspec.DecodeError) -> None:
        warning = f"queue control: what stage {stage} sent and is no message, dropped"
        if not self.state.count(warning):
            self._lose_frames(f"lost when stage {stage} failed")
            self._fail(StageError(f"stage {stage} sent what is no message: {error}"))

    def _hear(self, word: messages.FromWorker, stage: str) -> None:
        self._heartbeats.heard(stage)
        match word:
            case Status():
                self.state.statuses[stage] = word.doing
            case Ready():
                self._mark_ready(stage, word)
            case Report():
                self.state.reports[stage] = word
            case AskStop():
                self.state.interrupted |= word.by_user
                self._stop_source()
            case Failed():
                self._lose_frames(f"lost when stage {stage} failed")
                self._fail(_error(word.exit_code, word.message, word.detail))
            case Finished():
                self._mark_finished(stage, word)

    def _mark_ready(self, stage: str, word: Ready) -> None:
        self._ready.add(stage)
        self.state.statuses[stage] = "ready"
        self.state.model = word.model or self.state.model
        if self._ready == set(CHAIN) and not self._stopping and self.state.model:
            self._deadline = float("inf")
            self.state.started_at = time.monotonic()
            self.state.statuses = dict.fromkeys(CHAIN, "running")
            for stage in CHAIN:
                self._heartbeats.heard(stage)  # loading was under another rule
            self._tell(Start(self.state.model), CHAIN)

    def _mark_finished(self, stage: str, word: Finished) -> None:
        self._finished.add(stage)
        self.state.statuses[stage] = "finished"
        self.state.reports[stage] = word.report
        if stage == CHAIN[0] and not word.report.streams:
            self._tell(Stop(), CHAIN)  # nothing was opened, so no end of a stream is on its way to the others
        if word.exit_code:
            self.state.problems.append(_error(word.exit_code, word.problem))

    def _check_deaths(self) -> None:
        for stage in self._running():
            death = self._launched[stage].death()
            # What it said before its end may still be on its way to us: hear it first.
            if death and not self._listen(0.0):
                self._lose(stage, death)

    def _check_silence(self) -> None:
        """Only of processes: a thread shares our fate. Before the start it is `start_seconds` that rules."""
        if not self.state.started_at or self._settings.run.placement == "threads":
            return
        self._heartbeats.look(time.monotonic())
        limit = self._settings.run.silent_seconds
        for stage in self._running():
            if self._heartbeats.silence(stage) >= limit:
                self._launched[stage].kill()
                self._lose(stage, f"was not heard for {limit:g} s, it hangs or was stopped")

    def _lose(self, stage: str, how: str) -> None:
        self._finished.add(stage)
        self._lose_frames(f"lost when stage {stage} {how}")
        self._fail(StageError(f"stage {stage} {how}; the others were stopped and their outputs closed"))

    def _lose_frames(self, why: str) -> None:
        """Those that will not arrive; the first trouble is the reason, what follows is its consequence."""
        self.state.lost = self.state.lost or why

    def _check_signals(self) -> None:
        if not self._stop_signals:
            return
        self.state.interrupted = True
        if self._stop_signals > 1 or not self.state.started_at:
            self._deadline = 0.0  # nothing to drain yet, or the user will not wait
        self._stop_source()

    def _on_signal(self, number: int) -> None:
        # Of a closed terminal the kernel and the shell may both tell: the second is no impatience.
        if number == signal.SIGHUP:
            self._stop_signals = max(self._stop_signals, 1)
        else:
            self._stop_signals += 1

    # -- stopping

    def _tell(self, word: messages.ToWorker, stages: tuple[str, ...]) -> None:
        for stage in stages:
            self._hub.send(stage, messages.encode(word))

    def _stop_source(self) -> None:
        """Take no more frames; the ends of the streams then flow through all stages."""
        if not self._stopping:
            self._stopping = True
            self.state.endless = all(map(has_no_end, self._settings.sources.values()))
            self._deadline = min(self._deadline, time.monotonic() + self._settings.run.drain_seconds)
            self._tell(Stop(), CHAIN[:1])

    def _fail(self, problem: CenterStreamError) -> None:
        """A stage is lost: the others finish with what they have, for there may be no end of stream to come."""
        self.state.problems.append(problem)
        self._stopping = True
        patience_seconds = self._settings.run.drain_seconds if self.state.started_at else UNSTARTED_SECONDS
        self._deadline = min(self._deadline, time.monotonic() + patience_seconds)
        self._tell(Stop(), CHAIN)

    def _give_up(self) -> None:
        """The time is over: those who are still at it are ended."""
        waiting_for = ", ".join(self._running())
        if not self._stopping:
            seconds = self._settings.run.start_seconds
            text = f"not ready after {seconds:g} s: {waiting_for}; a slow disk or machine may need run.start_seconds"
            self.state.problems.append(StageError(text))
        elif self.state.started_at and self._stop_signals < 2:
            self._blame_silent()
            self._lose_frames(f"not delivered within {self._settings.run.drain_seconds:g} s of the stop")
        self._lose_frames("the run was ended before it was delivered")
        self._tell(Stop(), CHAIN)

    def _blame_silent(self) -> None:
        """A stage that says nothing is a problem; one that is merely slow is not."""
        for stage in self._running():
            if (seconds := self._heartbeats.silence(stage)) >= QUIET_SECONDS:
                text = f"stage {stage} did not answer the stop and was not heard for {seconds:.0f} s: it was ended"
                self.state.problems.append(StageError(text))

    def _end_all(self) -> None:
        deadline = time.monotonic() + KILL_SECONDS
        for stage in self._launched:
            worker = self._launched[stage]
            patience = deadline - time.monotonic() if stage in self._finished or self.state.started_at else 0.0
            if not worker.join(max(0.0, patience)):
                worker.kill()
        for worker in self._launched.values():
            worker.join(KILL_SECONDS)
        while self._listen(0.0):
            pass


def _error(exit_code: int, message: str, detail: str = "") -> CenterStreamError:
    """The error that a worker told of, as it was raised there; its traceback is a note."""
    kinds = {kind.exit_code: kind for kind in (UsageError, SourceError, StageError)}
    error = kinds.get(exit_code, StageError)(message)
    if detail:
        error.add_note(detail)
    return error


@contextmanager
def _signals(on_signal: Callable[[int], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal are counted, not raised, so that they cannot break in anywhere."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup a run outlives its terminal
        numbers.append(signal.SIGHUP)
    before = [signal.signal(number, lambda number, _: on_signal(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _endpoints(threads: bool) -> Iterator[str]:
    """The prefix of all queues' names: for processes, socket files in a folder that only this user can enter."""
    if threads:
        yield "inproc://centerstream"
        return
    # A socket's path may have little more than 100 bytes.
    try:
        place = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="centerstream-", dir=place if len(os.fsencode(place)) < 60 else "/tmp")
    except OSError as error:
        raise UsageError(f"no folder for temporary files can be written ({error.strerror}); set TMPDIR") from None
    try:
        yield "ipc://" + folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _pools(sizes: list[tuple[str, int, int]]) -> Iterator[list[PoolSpec]]:
    pools: list[PoolSpec] = []
    try:
        for name, slots, slot_bytes in sizes:
            pools.append(_create_pool(name, slots, slot_bytes))
        yield pools
    finally:
        for pool in pools:
            os.close(pool.fd)


def _create_pool(name: str, slots: int, slot_bytes: int) -> PoolSpec:
    try:
        return create_pool(name, slots, slot_bytes)
    except OSError as error:
        raise UsageError(f"cannot reserve shared memory: {error.strerror}") from None
