"""The sources of a run, which come and go: added, changed, removed, and forgotten once nothing of them is on its way.

Knows their decoders' posts and their places in the ledger, and no frame.
"""

import time
from collections.abc import Callable

import msgspec

from pipeline.control.runstate import RunState, SourceState
from pipeline.flow.frame import to_parts
from pipeline.flow.messages import Ended, EndOfStream, Heat, Pause, Pixels, Retune, Stop, WantPixels
from pipeline.run.crew import Crew, Post
from pipeline.run.house import House
from pipeline.run.plan import Plan
from pipeline.settings import Settings, SourceSettings
from pipeline.stage import CHAIN

Lose = Callable[[Post, str], None]


class Roster:
    """What can be changed of a run from outside (`pipeline.control.desk.Run`).

    `lose(post, how)` is what becomes of a decoder that does not end, `stop()` asks for the end of the run. One that
    `follows` a file may be given sources at any time; else it ends with its last.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        house: House,
        crew: Crew,
        state: RunState,
        lose: Lose,
        stop: Callable[[], None],
        follows: bool,
    ) -> None:
        self.settings, self.state, self.stop = settings, state, stop
        self._plan, self._house, self._crew, self._lose = plan, house, crew, lose
        self._waits = self._follows = follows
        self._shown = WantPixels()
        for source_id, source in settings.sources.items():
            place = plan.workers[f"{CHAIN[0]}:{source_id}"].place
            state.sources[source_id] = SourceState(source, place)

    # -- from outside

    def add(self, source_id: str, settings: SourceSettings) -> None:
        """One more source; its decoder waits for it if it cannot be opened."""
        worker = self._plan.add_source(source_id)
        self.state.sources[source_id] = SourceState(settings, worker.place)
        self._waits = self._follows
        self._crew.launch(self._crew.hire(worker))

    def remove(self, source_id: str) -> None:
        """Its decoder takes no more frames; those on their way still arrive, and then it is forgotten."""
        source, post = self.state.sources[source_id], self._crew.decoder(source_id)
        patience_seconds = self.settings.run.drain_seconds + source.settings.open_timeout_seconds
        source.leave_until = source.leave_until or time.monotonic() + patience_seconds
        source.since_unix = time.time()
        if post.is_alive:
            self._crew.tell(Stop(), [post])
        elif post.state == "waiting":
            self.end_for(post)

    def hold(self, source_id: str, paused: bool) -> None:
        self.state.sources[source_id].paused = paused
        self._crew.tell_running(Pause(paused), [self._crew.decoder(source_id)])

    def tune(self, source_id: str, changes: Retune) -> None:
        source = self.state.sources[source_id]
        source.tuning = merged(source.tuning, changes)
        self._crew.tell_running(source.tuning, [self._crew.decoder(source_id)])

    def adopt(self, score_threshold: float, classes: tuple[str, ...]) -> None:
        """For sources that come from now on."""
        infer = msgspec.structs.replace(self.settings.infer, score_threshold=score_threshold)
        postprocess = msgspec.structs.replace(self.settings.postprocess, classes=classes)
        self.settings = msgspec.structs.replace(self.settings, infer=infer, postprocess=postprocess)
        self._crew.settings = self.settings

    # -- for the supervisor

    def show(self, wanted: WantPixels) -> None:
        """Somebody looks at these, and at no others."""
        before, self._shown = self._shown, wanted
        for source_id in (before.source_ids ^ wanted.source_ids) & self.state.sources.keys():
            self._crew.tell_running(Pixels(source_id in wanted.source_ids), [self._crew.decoder(source_id)])
        if wanted.heat != before.heat:
            self._crew.tell_running(Heat(wanted.heat), self._crew.of_stage("postprocess"))

    def start(self, post: Post) -> None:
        """What was asked for is told a worker that starts, perhaps not for the first time."""
        if post.plan.source_id:
            self._start_decoder(post)
        elif post.plan.stage == "postprocess":
            self._crew.tell(Heat(self._shown.heat), [post])

    def _start_decoder(self, post: Post) -> None:
        source = self.state.sources[post.plan.source_id]
        if self.state.is_stopping or source.is_leaving:
            self._crew.tell(Stop(), [post])
            return
        if source.tuning:
            self._crew.tell(source.tuning, [post])
        if source.paused:
            self._crew.tell(Pause(True), [post])
        if post.plan.source_id in self._shown.source_ids:
            self._crew.tell(Pixels(True), [post])

    def finished(self, post: Post) -> None:
        source = self.state.sources[post.plan.source_id]
        if not source.heard():
            source.is_done = True  # nothing was told of it, so no end of a stream is on its way to the others

    def ended(self, word: Ended) -> None:
        if source := self.state.sources.get(word.source_id):  # told again by a worker that was started anew
            source.is_done = True
            source.outputs |= word.outputs

    def end_for(self, post: Post) -> None:
        """A decoder that is down can tell no end of its source any more."""
        post.state = "over"
        source = self.state.sources[post.plan.source_id]
        captured = self._house.ledger.captured(source.place)
        end = EndOfStream(post.plan.source_id, source.place, captured, "its decoder is down")
        source.is_done = not captured and not source.heard()
        source.hear(end)
        if not source.is_done:
            self._house.send("gather", to_parts(end))

    @property
    def have_ended(self) -> bool:
        """All sources, and their decoders."""
        decoding = any(post.state != "over" for post in self._crew.decoders())
        return not decoding and all(source.is_done for source in self.state.sources.values())

    @property
    def may_be_given_more(self) -> bool:
        return self._waits or any(source.is_leaving for source in self.state.sources.values())

    def let_go(self) -> list[str]:
        """Forget those that were removed and are gone by now: their decoders' ids."""
        forgotten = []
        for source_id, source in list(self.state.sources.items()):
            if source.leave_until is None:
                continue
            post = self._crew.decoder(source_id)
            if time.monotonic() > source.leave_until:
                self._make_leave(post)
            if source.is_done and post.state == "over" and not self._crew.still_has(post):
                self._forget(source_id)
                forgotten.append(post.id)
        return forgotten

    def _make_leave(self, post: Post) -> None:
        if post.is_alive:
            self._lose(post, "did not end when its source was removed")
        elif post.launched:
            post.launched.kill()

    def _forget(self, source_id: str) -> None:
        post = self._crew.posts.pop(f"{CHAIN[0]}:{source_id}")
        place = self.state.forget(source_id, post.id).place
        self._plan.remove_source(source_id)
        self._house.ledger.clear(place)
        self._waits |= all(source.is_done for source in self.state.sources.values())


def merged(before: Retune | None, changes: Retune) -> Retune:
    """All that has changed since the start."""
    told = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not None}
    return msgspec.structs.replace(before or Retune(), **told)
