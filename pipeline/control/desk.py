"""What is asked of a run from outside, checked and answered. Knows the run by a few methods, and no process.

Nothing is changed unless all of it can be: whoever asks for what cannot be is told why in one line.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Protocol

import msgspec
from msgspec.structs import replace

from pipeline.control.runstate import RunState, SourceState
from pipeline.control.save import save_layout
from pipeline.control.view import row, view
from pipeline.control.words import (
    Add,
    Answer,
    Done,
    End,
    Hold,
    List,
    Look,
    Refused,
    Remove,
    Request,
    Save,
    Sources,
    Tune,
    decode_request,
    encode,
)
from pipeline.errors import SourceError, StageError, UsageError
from pipeline.flow.messages import ModelCard, Retune
from pipeline.flow.transport import Replier
from pipeline.settings import MOST_SOURCES, Settings, SourceSettings

# Looks whether a source can be added: all settings with it among the others, and its id. Raises UsageError,
# OutputError or SourceError.
Check = Callable[[Settings, str], None]


class Run(Protocol):
    """What can be changed of a run while it goes on."""

    state: RunState
    settings: Settings
    stop: Callable[[], None]

    def add(self, source_id: str, settings: SourceSettings) -> None: ...
    def remove(self, source_id: str) -> None: ...
    def hold(self, source_id: str, paused: bool) -> None: ...
    def tune(self, source_id: str, changes: Retune) -> None: ...
    def adopt(self, score_threshold: float, classes: tuple[str, ...]) -> None: ...


class Desk:
    """Takes one word at a time, by whatever way it came."""

    def __init__(self, run: Run, check: Check, config: str | None = None) -> None:
        """`config`: the file that the run was started with."""
        self._run, self._check, self._config = run, check, config

    def serve(self, replier: Replier) -> None:
        """Answer what has come there."""
        while (body := replier.receive()) is not None:
            replier.answer(encode(self._answer(body)))

    def _answer(self, body: bytes) -> Answer:
        try:
            return self.do(decode_request(body))
        except msgspec.DecodeError:
            return Refused("the request cannot be read: it is of another version")
        except (UsageError, SourceError, StageError) as error:
            return Refused(str(error))

    def do(self, request: Request) -> Answer:
        """Raises UsageError, SourceError or StageError for what cannot be done; then nothing was changed."""
        match request:
            case List():
                return Sources([row(self._run.state, *each) for each in self._run.state.sources.items()])
            case Look():
                return view(self._run.state, self._run.settings)
            case End():
                self._run.stop()
                return Done("the run stops")
        self._check_ready()
        match request:
            case Add():
                return Done(f"{self._add(request)} was added")
            case Remove():
                self._known(request.source_id)
                self._run.remove(request.source_id)
                return Done(f"{request.source_id} was removed")
            case Hold():
                self._going_on(request.source_id)
                self._run.hold(request.source_id, request.paused)
                return Done(f"{request.source_id} {'is paused' if request.paused else 'goes on'}")
            case Save():
                return Done(save_layout(self._config, request.source_id, self._known(request.source_id).layout))
            case Tune():
                self._tune(request)
        return Done(f"{request.source_id} was changed")

    def _check_ready(self) -> None:
        if not self._run.state.started_at:
            raise UsageError("the run is still being started; ask again when it is ready")
        if self._run.state.is_stopping:
            raise UsageError("the run is about to end")

    def _known(self, source_id: str) -> SourceState:
        sources = self._run.state.sources
        if source_id not in sources:
            listed = f"those it has: {', '.join(sources)}" if sources else "it has none"
            raise UsageError(f"the run has no source {source_id}; {listed}")
        return sources[source_id]

    def _going_on(self, source_id: str) -> None:
        source = self._known(source_id)
        if source.is_leaving or source.state == "ended":
            raise UsageError(f"{source_id} has ended")

    # -- one more source

    def _add(self, request: Add) -> str:
        source_id = request.source_id or self._free_id(request.source)
        self.check_addition(source_id, request.source)
        self._run.add(source_id, request.source)
        return source_id

    def _free_id(self, source: SourceSettings) -> str:
        usual = source.uri.name
        ids = (f"{usual}-{number}" if number > 1 else usual for number in count(1))
        return next(source_id for source_id in ids if source_id not in self._run.state.sources)

    def check_addition(self, source_id: str, source: SourceSettings) -> None:
        """Raises as `do`."""
        sources = self._run.state.sources
        if source_id in sources:
            how = "is about to be gone; ask again then" if sources[source_id].is_leaving else "is there already"
            raise UsageError(f"{source_id} {how}")
        all_sources = {name: state.settings for name, state in sources.items()} | {source_id: source}
        self.check_sources(all_sources, [source_id])

    def check_sources(self, sources: dict[str, SourceSettings], new: Iterable[str]) -> None:
        """All that there are to be, of which some are `new`. Raises as `do`."""
        if len(sources) > MOST_SOURCES:
            raise UsageError(
                f"that would be {len(sources)} sources, at most {MOST_SOURCES} run at the same time; remove some first"
            )
        self.check_counted({source_id: sources[source_id] for source_id in new})
        for source_id in new:
            self._check(replace(self._run.settings, sources=sources), source_id)

    # -- what is looked for

    def _tune(self, request: Tune) -> None:
        self._going_on(request.source_id)
        self.check_classes(request.classes)
        then = replace(
            self._run.state.sources[request.source_id].settings, zones=request.zones or {}, lines=request.lines or {}
        )
        self.check_counted({request.source_id: then})
        changes = Retune(request.score, request.classes, request.max_rate, request.every, request.zones, request.lines)
        self._run.tune(request.source_id, changes)

    def check_classes(self, classes: tuple[str, ...] | None) -> None:
        """Raises as `do`."""
        model = self._run.state.model
        if classes is None or model is None:
            return
        self._run.settings.postprocess.class_ids(model.class_names, classes)
        computed = _computed(model)
        if not set(classes or model.class_names) <= set(computed):
            raise UsageError(
                f"only the classes that the run was started with are computed: {', '.join(computed)}; "
                "start it with all that you will want"
            )

    def check_counted(self, sources: Mapping[str, SourceSettings], classes: tuple[str, ...] = ()) -> None:
        """Do their zones and lines count what is looked for: `classes`, or all that is computed? Raises as `do`."""
        if model := self._run.state.model:
            for source_id, source in sources.items():
                source.check_counted(source_id, classes or _computed(model))


def _computed(model: ModelCard) -> list[str]:
    return [model.class_names[class_id] for class_id in model.class_of()]
