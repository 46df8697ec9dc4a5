"""`--watch`: the file of settings is read again when it has changed, and the run follows it. Knows no process.

Sources come and go, are opened anew where their address or the like has changed, and are tuned where only what is
looked for has. A file that is wrong changes nothing.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import asdict, replace

from configs.uri import shown_text
from pipeline.control.desk import Desk, Run
from pipeline.errors import SourceError, StageError, UsageError
from pipeline.flow.messages import Retune
from pipeline.settings import MOST_SOURCES, Settings, SourceSettings

LOOK_SECONDS = 1.0
# Keys that are followed; those of sources are all.
TUNED = {"infer.score_threshold", "postprocess.classes"}

# When it was written last, and how long it is; None while there is none.
Stamp = tuple[int, int] | None


class Watched(NamedTuple):
    """A file of settings, and how the run reads it: with what the command line says on top."""

    path: str
    read: Callable[[], Settings]


class Follower:
    """Call `look` often."""

    def __init__(self, watched: Watched, run: Run, desk: Desk) -> None:
        self._watched, self._run, self._desk = watched, run, desk
        self._told = run.settings
        self._stamp = self._read = stamp_of(watched.path)
        self._next = 0.0
        self._to_come: dict[str, SourceSettings] = {}

    def look(self, now_seconds: float) -> None:
        self._add_again()
        if now_seconds < self._next:
            return
        self._next = now_seconds + LOOK_SECONDS
        before, self._stamp = self._stamp, stamp_of(self._watched.path)
        if self._stamp != before or self._stamp == self._read:  # it is being written, or as it was
            return
        self._read = self._stamp
        try:
            self._follow(self._watched.read())
        except (UsageError, SourceError, StageError) as error:
            self._warn(f"{error}; nothing was changed")

    def _warn(self, text: str) -> None:
        self._run.state.notes.append(f"{time.strftime('%H:%M:%S')} {shown_text(self._watched.path)}: {text}")

    # -- from what the file said to what it says

    def _follow(self, now: Settings) -> None:
        """Raises UsageError, SourceError or StageError; then nothing was changed."""
        before = self._told.sources
        gone = [name for name in before if name not in now.sources]
        new = [name for name in now.sources if name not in before]
        changed = [name for name in before if name in now.sources and _is_another(before[name], now.sources[name])]
        self._check(now, gone, new, changed)
        self._tune(now)
        for name in gone + changed:
            self._remove(name)
        self._to_come |= {name: now.sources[name] for name in new + changed}
        if left := [key for key in _changed_keys(asdict(self._told), asdict(now)) if key not in TUNED]:
            self._warn(f"{', '.join(left)} changed, which takes effect when the run is started anew")
        self._told = now
        self._add_again()

    def _check(self, now: Settings, gone: list[str], new: list[str], changed: list[str]) -> None:
        running = self._run.state.sources
        for name in new:
            if name in running and not running[name].is_leaving:
                raise UsageError(f"sources.{name}: there is a source of this name already, added by ctl")
        self._desk.check_classes(now.postprocess.classes)
        self._desk.check_counted(now.sources, now.postprocess.classes)
        stay = {name: source.settings for name, source in running.items() if name not in gone}
        self._desk.check_sources(stay | {name: now.sources[name] for name in new + changed}, new + changed)

    def _remove(self, name: str) -> None:
        self._to_come.pop(name, None)
        if name in self._run.state.sources:  # else ctl was first
            self._run.remove(name)

    def _add_again(self) -> None:
        """A name that was another source's is free when that has gone."""
        sources = self._run.state.sources
        for name in [name for name in self._to_come if name not in sources]:
            if len(sources) < MOST_SOURCES:  # those that leave have their places still
                self._run.add(name, self._to_come.pop(name))

    def _tune(self, now: Settings) -> None:
        score, classes = now.infer.score(), now.postprocess.classes
        for_all = Retune(
            score if score != self._told.infer.score() else None,
            classes if classes != self._told.postprocess.classes else None,
        )
        if for_all != Retune():
            self._run.adopt(score, classes)
        for name, source in self._run.state.sources.items():
            if (changes := self._changes_of(name, now, for_all)) != Retune() and not source.is_done:
                self._run.tune(name, changes)

    def _changes_of(self, name: str, now: Settings, for_all: Retune) -> Retune:
        before, then = self._told.sources.get(name), now.sources.get(name)
        if not before or not then:
            return for_all
        return replace(
            for_all,
            max_rate=(then.max_rate or 0.0) if then.max_rate != before.max_rate else None,
            every=then.every if then.every != before.every else None,
            zones=then.zones if then.zones != before.zones else None,
            lines=then.lines if then.lines != before.lines else None,
        )


def stamp_of(path: str) -> Stamp:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _is_another(before: SourceSettings, now: SourceSettings) -> bool:
    """Whether the source has to be opened anew."""
    tuned: dict[str, Any] = {"max_rate": None, "every": 1, "zones": {}, "lines": {}}
    return replace(before, **tuned) != replace(now, **tuned)


def _changed_keys(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for part in before:
        if part != "sources":
            old, new = asdict(before[part]), asdict(now[part])
            yield from (f"{part}.{key}" for key in old if old[key] != new[key])
