"""What a run says of itself as JSON lines on standard error, for whoever collects logs (`run.log=json`).

Each line has `at_unix`, `level` (info, warning, error), `event`, and a `text` that says the same as the terminal would.
Knows the run's state, no process.
"""

import sys
import time
from types import TracebackType
from typing import Any, Self

from pipeline.command.console import LINE_SECONDS, has_rate, model_line, plain_line, state_line
from pipeline.command.logline import log_line
from pipeline.command.unhurried import Unhurried
from pipeline.control.runstate import RunState
from pipeline.control.view import view
from pipeline.settings import Settings


class Log:
    """The same in lines as `pipeline.command.console.Console` in a terminal."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._out = Unhurried(sys.stderr)
        self._next = 0.0
        self._told: set[str] = set()
        self._states: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.wait()

    def update(self, state: RunState) -> None:
        """Called often; says what has changed, and how it goes every few seconds."""
        self._tell_warnings(state)
        self._tell_states(state)
        if state.started_at is None:
            for worker, doing in state.statuses.items():
                if doing not in ("starting", "ready"):
                    self._tell_once("info", "doing", f"{worker}: {doing}", worker=worker)
            return
        if "ready" not in self._told:
            self._told.add("ready")
            seconds = state.started_at - state.launched_at
            self._tell("info", "ready", f"ready after {seconds:.1f} s: {model_line(state)}", seconds=round(seconds, 3))
            self._next = time.monotonic() + 1.0
        if time.monotonic() >= self._next and has_rate(state):
            self._next = time.monotonic() + LINE_SECONDS
            self._tell("info", "progress", plain_line(state), **self._figures(state))

    def summarise(self, state: RunState) -> None:
        """What became of each frame, and what went wrong."""
        self._tell_warnings(state)
        if state.started_at is not None and state.ended_at is not None:
            seconds = state.ended_at - state.started_at
            self._tell(
                "info", "summary", f"over after {seconds:.1f} s", seconds=round(seconds, 3), **self._figures(state)
            )
        for problem in state.problems:
            self._tell("error", "error", str(problem))
        if state.interrupted:
            self._tell("info", "stopped", "stopped on request")
        self._out.wait()

    def _figures(self, state: RunState) -> dict[str, Any]:
        """The ledger of each source, and how late frames are."""
        now = view(state, self._settings)
        kept = (
            "state",
            "captured",
            "delivered",
            "without_result",
            "in_flight",
            "drops",
            "outages",
            "frames_per_second",
        )
        pages = {name: page for name, page in state.ledger().items() if name not in state.sources}
        gone = {
            name: {
                "state": "removed",
                "captured": page.captured,
                "delivered": page.delivered,
                "dropped": page.dropped_frames,
            }
            for name, page in pages.items()
        }
        sources = {each.source_id: {key: getattr(each, key) for key in kept} for each in now.sources}
        return {"sources": gone | sources, "latency": now.latency}

    def _tell_states(self, state: RunState) -> None:
        for name, source in state.sources.items():
            if self._states.get(name) != source.state:
                self._states[name] = source.state
                level = "warning" if source.state in ("lost", "frozen", "grey") else "info"
                self._tell(level, "source", f"{name}: {state_line(source)}", source=name, state=source.state)

    def _tell_warnings(self, state: RunState) -> None:
        for warning in state.warnings:
            self._tell_once("warning", "warning", warning)

    def _tell_once(self, level: str, event: str, text: str, **more: Any) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(level, event, text, **more)

    def _tell(self, level: str, event: str, text: str, **more: Any) -> None:
        self._out.write(log_line(level, event, text, **more) + "\n")
