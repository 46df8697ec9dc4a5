"""Compares the plan with what runs: starts the workers, watches over them, starts anew who is lost, and stops them.

A run goes: start all workers; when each is ready, let the decoders take their first frames; watch until the fate of
each source's last frame is told. A stop (Ctrl-C, a closed window, no output left) lets frames on their way through for
a bounded time. How workers are started and buried is `crew`'s, what they live in `house`'s. Knows no frame.
"""

import signal
import time
from collections.abc import Callable

import msgspec

from pipeline.control.desk import Check, Desk
from pipeline.control.follow import Follower, Watched
from pipeline.control.runstate import RunState
from pipeline.errors import CenterStreamError, SourceError, StageError, UsageError
from pipeline.flow import messages
from pipeline.flow.fates import UNHEARD, WORKER_LOST
from pipeline.flow.messages import (
    AskStop,
    Ended,
    EndOfStream,
    Failed,
    Finished,
    ModelChange,
    Ready,
    Report,
    SignalChange,
    Start,
    Status,
    Stop,
    StreamStart,
    WantPixels,
    control_name,
)
from pipeline.flow.transport import POLL_SECONDS
from pipeline.run.crew import KILL_SECONDS, Crew, Post
from pipeline.run.heartbeat import Heartbeats
from pipeline.run.house import house, signals
from pipeline.run.nursery import Nursery
from pipeline.run.plan import Plan
from pipeline.run.roster import Roster
from pipeline.run.worker import stranger_line
from pipeline.settings import Settings
from pipeline.source_address import has_no_end
from pipeline.stage import SERVE

# Before the first frame there is nothing to drain: a worker busy loading is not waited for.
UNSTARTED_SECONDS = 0.3
# Three reports missed: such a stage is what a stop waits for in vain.
QUIET_SECONDS = 3.0

Watcher = Callable[[RunState], None]


class Supervisor:
    """One run of the pipeline. `run` returns when it is over; `state` tells how it went."""

    def __init__(
        self,
        settings: Settings,
        watcher: Watcher,
        check: Check = lambda settings, source_id: None,
        watched: Watched | None = None,
        config: str | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        """`check` looks at sources that are added while it runs; a `watched` file may bring some at any time; zones
        and lines are saved to `config`; a `nursery` that is there already is used, and closed."""
        self._settings = settings
        self._watcher = watcher
        self._threads = settings.run.placement == "threads"
        self._plan = Plan(settings)
        self.state = RunState(launched_at=time.monotonic())
        self._heartbeats = Heartbeats()
        self._stop_signals = 0
        self._has_enough = False
        self._is_ending = False
        self._deadline = float("inf")
        self._check, self._watched, self._config = check, watched, config
        self._nursery = nursery

    def run(self) -> RunState:
        """Raises UsageError when this machine cannot hold the run; all else is in the state's `problems`."""
        with signals(self._on_signal), house(self._plan.pools, self._threads) as self._house:
            self._hire()
            try:
                self._launch()
                self._watch()
                self.state.ended_at = time.monotonic()
            finally:
                self._crew.end_all(KILL_SECONDS)
                while self._listen(0.0):
                    pass
            is_empty = not self._threads or self._crew.have_ended()
        if is_empty:
            self._house.context.term()
        self._settle()
        return self.state

    def _hire(self) -> None:
        self.state.book = self._house.ledger
        nursery = None if self._threads else self._nursery or Nursery()
        self._crew = crew = Crew(self._settings, self._plan, self._house, self.state, nursery)
        self._roster = Roster(
            self._settings, self._plan, self._house, crew, self.state, self._lose, self.stop, bool(self._watched)
        )
        self._desk = Desk(self._roster, self._check, self._config)
        self._follower = Follower(self._watched, self._roster, self._desk) if self._watched else None

    def _launch(self) -> None:
        self._crew.launch_all()
        self._deadline = time.monotonic() + self._settings.run.start_seconds

    # -- watching

    def _watch(self) -> None:
        while self._crew.running():
            self._listen(POLL_SECONDS)
            while self._listen(0.0):
                pass
            if self._house.replier:
                self._desk.serve(self._house.replier)
            if self._follower and self.state.started_at and not self.state.is_stopping:
                self._follower.look(time.monotonic())
            for queue in self._house.transport.refused():
                self.state.count(stranger_line(queue))
            self._check_start()
            self._check_deaths()
            self._check_silence()
            self._check_restarts()
            self._check_signals()
            self._check_leaving()
            self._check_end()
            if time.monotonic() > self._deadline:
                self._give_up()
                return
            self._watcher(self.state)

    def _listen(self, timeout_seconds: float) -> bool:
        """Hear one message; whether there was one. What is none is the failure of the worker who sent it."""
        heard = self._house.hub.receive(timeout_seconds)
        if heard is None:
            return False
        name, body = heard
        post = self._crew.posts.get(name.rpartition("#")[0])
        if post is None:
            self.state.count("queue control: messages from no stage of this run, dropped")
        elif name == control_name(post.id, post.incarnation) and post.is_alive:  # of the dead we hear nothing more
            try:
                self._hear(messages.decode_from_worker(body), post)
            except msgspec.DecodeError as error:
                self._hear_garbage(post, error)
        return True

    def _hear_garbage(self, post: Post, error: msgspec.DecodeError) -> None:
        if not self.state.count(f"queue control: what stage {post.id} sent and is no message, dropped"):
            self._lose(post, f"sent what is no message: {error}")

    def _hear(self, word: messages.FromWorker, post: Post) -> None:
        self._heartbeats.heard(post.id)
        match word:
            case Status():
                self.state.statuses[post.id] = word.doing
            case Ready():
                self._mark_ready(post, word)
            case ModelChange():
                self.state.model = word.model
            case Report():
                self.state.reports[post.id] = word
                self._check_stuck(post, word)
            case StreamStart() | SignalChange() | EndOfStream():
                self.state.sources[word.source_id].hear(word)
            case Ended():
                self._roster.ended(word)
            case WantPixels():
                self._roster.show(word)
            case AskStop():
                self.state.interrupted |= word.by_user
                self._stop_sources()
            case Failed():
                self._hear_failure(post, _error(word.exit_code, word.message, word.detail))
            case Finished():
                self._mark_finished(post, word)

    def _mark_ready(self, post: Post, word: Ready) -> None:
        post.state = "ready"
        post.restarts.was_ready()
        self.state.statuses[post.id] = "ready"
        self.state.model = word.model or self.state.model
        if self.state.started_at:
            self._start(post)

    def _check_start(self) -> None:
        """When all are ready; a source that could not be opened keeps none of the others waiting."""
        posts = self._crew.posts.values()
        waiting = [p for p in posts if p.state == "starting" or (p.state == "over" and not p.plan.source_id)]
        if self.state.started_at or self.state.is_stopping or not self.state.model or waiting:
            return
        self._deadline = float("inf")
        self.state.started_at = time.monotonic()
        for post in posts:
            if post.state == "ready":
                self._start(post)

    def _start(self, post: Post) -> None:
        assert self.state.model
        post.state = "running"
        self.state.statuses[post.id] = "running"
        self._heartbeats.heard(post.id)  # loading was under another rule
        is_anew = post.incarnation and post.plan.stage in ("gather", "postprocess", "track", "deliver")
        told = [word for source in self.state.sources.values() for word in source.told()] if is_anew else []
        limits = self._plan.limits(self.state.model)
        self._crew.tell(Start(self.state.model, limits, told), [post])
        if self._is_ending:
            self._crew.tell(Stop(), [post])
        else:
            self._roster.start(post)

    def _mark_finished(self, post: Post, word: Finished) -> None:
        post.state = "over"
        self.state.statuses[post.id] = "finished"
        self.state.reports[post.id] = word.report
        if post.plan.source_id:
            self._roster.finished(post)
        if word.exit_code:
            self.state.add_problem(_error(word.exit_code, word.problem))

    def _check_end(self) -> None:
        """When all sources are done, the others are told to stop, unless there may be more."""
        may_end = self.state.is_stopping or not self._roster.may_be_given_more
        if may_end and self._roster.have_ended and not self._is_ending:
            self._is_ending = self.state.is_stopping = True
            self._crew.tell(Stop(drained=True), self._crew.running())

    def _check_leaving(self) -> None:
        if not self.state.is_stopping:
            for decoder in self._roster.let_go():
                self._heartbeats.forget(decoder)

    # -- who is lost

    def _hear_failure(self, post: Post, error: CenterStreamError) -> None:
        """A worker says itself that it cannot go on."""
        if post.plan.source_id and isinstance(error, SourceError):
            self.state.add_problem(error)
            if self.state.sources[post.plan.source_id].settings.required:
                self._stop_sources()
            return  # its Finished follows
        if self._is_fatal():
            self._lose_frames(f"lost when stage {post.id} failed")
            self._fail(error)
            return
        self._replace(post, str(error))

    def _is_fatal(self) -> bool:
        """Before the start, in threads, and on the way to the end nobody is started anew."""
        return not self.state.started_at or self._threads or self.state.is_stopping

    def _check_deaths(self) -> None:
        for post in self._crew.alive():
            death = post.launched.death() if post.launched else None
            # What it said before its end may still be on its way to us: hear it first.
            if death and not self._listen(0.0) and post.is_alive:
                self._lose(post, death)

    def _check_silence(self) -> None:
        """Only of processes: a thread shares our fate. Before the start it is `start_seconds` that rules."""
        if not self.state.started_at or self._threads:
            return
        now = time.monotonic()
        self._heartbeats.look(now)
        limit, start_limit = self._settings.run.silent_seconds, self._settings.run.start_seconds
        for post in self._crew.alive():
            if post.state == "running" and self._heartbeats.silence(post.id) >= limit:
                self._lose(post, f"was not heard for {limit:g} s, it hangs or was stopped")
            elif post.state == "starting" and now - post.since > start_limit:
                self._lose(post, f"was not ready after {start_limit:g} s")

    def _check_stuck(self, post: Post, report: Report) -> None:
        limit = self._settings.run.stuck_seconds
        if report.busy_seconds >= limit and not self._threads and not self.state.is_stopping:
            self._lose(post, f"has worked on one frame for {report.busy_seconds:.0f} s, it hangs")

    def _lose(self, post: Post, how: str) -> None:
        if self._is_fatal():
            post.state = "over"
            if post.launched and not self._threads:
                post.launched.kill()
            elif self._threads:  # it cannot be killed
                self._crew.tell(Stop(), [post])
            self._lose_frames(f"lost when stage {post.id} {how}")
            self._fail(StageError(f"stage {post.id} {how}; the others were stopped and their outputs closed"))
        else:
            self._replace(post, f"stage {post.id} {how}")

    def _replace(self, post: Post, how: str) -> None:
        """With those who share its process: they are ended, and once they are gone what they had is reclaimed, and they
        are started anew."""
        for mate in self._crew.sharing(post):
            if mate is post:
                self._end(post, how)
            elif mate.is_alive:
                self._end(mate, f"stage {mate.id} went with {post.id}, whose process it shares")

    def _end(self, post: Post, how: str) -> None:
        self.state.statuses[post.id] = "lost, to be started anew"
        post.how_lost = how
        if self._crew.kill(post):
            self._bury(post)

    def _bury(self, post: Post) -> None:
        self._crew.reclaim(post)
        if post.plan.stage == "deliver" and post.id in self.state.reports:
            self.state.written.extend(self.state.reports.pop(post.id).outputs.values())
        source = self.state.sources.get(post.plan.source_id)
        if source and source.is_leaving:
            self._roster.end_for(post)
            return
        wait_seconds = post.restarts.died(time.monotonic())
        if wait_seconds is None:
            self._write_off(post)
            return
        self.state.count(f"{post.how_lost}; it was started anew")
        self.state.restarts[post.id] = post.restarts.count
        post.state, post.since = "waiting", time.monotonic() + wait_seconds
        post.incarnation += 1

    def _write_off(self, post: Post) -> None:
        """It is down for good. With the last of its stage the run is over; with a decoder only its source; with the
        page nothing."""
        post.state = "over"
        self.state.statuses[post.id] = "down for good"
        problem = StageError(f"{post.how_lost}, again and again; it is not started any more")
        if post.plan.source_id:
            self.state.add_problem(problem)
            self._roster.end_for(post)
        elif post.plan.stage != SERVE and all(p.state == "over" for p in self._crew.of_stage(post.plan.stage)):
            self._fail(problem)
        else:
            self.state.add_problem(problem)

    def _check_restarts(self) -> None:
        now = time.monotonic()
        for post in self._crew.running():
            if post.state in ("waiting", "dying") and self.state.is_stopping:
                post.state = "over"
                self._lose_frames(f"lost when stage {post.id} was lost")
            elif post.state == "dying" and post.launched and post.launched.death():
                self._bury(post)
            elif post.state == "waiting" and now >= post.since:
                self._crew.launch(post)

    def _lose_frames(self, why: str) -> None:
        """Those that will not arrive; the first trouble is the reason, what follows is its consequence."""
        self.state.lost = self.state.lost or why

    # -- stopping

    def _check_signals(self) -> None:
        if self._has_enough:
            self._stop_sources()
        if not self._stop_signals:
            return
        self.state.interrupted = True
        if self._stop_signals > 1 or not self.state.started_at:
            self._deadline = 0.0  # nothing to drain yet, or the user will not wait
        self._stop_sources()

    def stop(self) -> None:
        """As by Ctrl-C: take no more frames, deliver those on their way."""
        self._stop_signals = max(self._stop_signals, 1)

    def finish(self) -> None:
        """The same, but nobody has interrupted anything: there is enough."""
        self._has_enough = True

    def _on_signal(self, number: int) -> None:
        # Of a closed terminal the kernel and the shell may both tell: the second is no impatience.
        if number == signal.SIGHUP:
            self.stop()
        else:
            self._stop_signals += 1

    def _stop_sources(self) -> None:
        """Take no more frames; the ends of the streams then flow through all stages."""
        if self.state.is_stopping:
            return
        self.state.is_stopping = True
        self.state.endless = all(has_no_end(source.settings) for source in self.state.sources.values())
        self._deadline = min(self._deadline, time.monotonic() + self._settings.run.drain_seconds)
        self._crew.tell(Stop(), [post for post in self._crew.decoders() if post.is_alive])

    def _fail(self, problem: CenterStreamError) -> None:
        """A stage is lost: the others finish with what they have, for there may be no end of stream to come."""
        self.state.add_problem(problem)
        self.state.is_stopping = self._is_ending = True
        patience_seconds = self._settings.run.drain_seconds if self.state.started_at else UNSTARTED_SECONDS
        self._deadline = min(self._deadline, time.monotonic() + patience_seconds)
        self._crew.tell(Stop(), self._crew.running())

    def _give_up(self) -> None:
        """The time is over: those who are still at it are ended."""
        waiting_for = ", ".join(post.id for post in self._crew.running())
        if not self.state.is_stopping:
            seconds = self._settings.run.start_seconds
            text = f"not ready after {seconds:g} s: {waiting_for}; a slow disk or machine may need run.start_seconds"
            self.state.add_problem(StageError(text))
        elif self.state.started_at and self._stop_signals < 2:
            self._blame_silent()
            self._lose_frames(f"not delivered within {self._settings.run.drain_seconds:g} s of the stop")
        self._lose_frames("the run was ended before it was delivered")
        self._crew.tell(Stop(), self._crew.running())

    def _blame_silent(self) -> None:
        """A stage that says nothing is a problem; one that is merely slow is not, nor one that is loading once more."""
        for post in self._crew.running():
            if post.state == "running" and (seconds := self._heartbeats.silence(post.id)) >= QUIET_SECONDS:
                text = f"stage {post.id} did not answer the stop and was not heard for {seconds:.0f} s: it was ended"
                self.state.add_problem(StageError(text))

    def _settle(self) -> None:
        """What was lost of a recording is a failure; a live source goes on without it."""
        for source_id, page in self.state.ledger().items():
            lost = sum(n for drop, n in page.dropped.items() if drop.reason == WORKER_LOST or drop == UNHEARD)
            stream = self.state.streams.get(source_id)
            if lost and stream and not stream.is_live and not self.state.problems:
                how = "; ".join(text for text in self.state.tally if "started anew" in text)
                self.state.add_problem(StageError(f"{source_id}: {lost} frames were lost: {how}"))


def _error(exit_code: int, message: str, detail: str = "") -> CenterStreamError:
    """The error that a worker told of, as it was raised there; its traceback is a note."""
    kinds = {kind.exit_code: kind for kind in (UsageError, SourceError, StageError)}
    error = kinds.get(exit_code, StageError)(message)
    if detail:
        error.add_note(detail)
    return error
