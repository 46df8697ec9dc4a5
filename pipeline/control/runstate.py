"""What is known of a run while it lasts and when it is over: the last report of each worker, each source, the ledger.

The supervisor writes it; the console and the summary read it. Knows no process and no socket.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec.structs import replace

from pipeline.errors import EXIT_DONE, EXIT_INTERRUPTED, CenterStreamError
from pipeline.flow.fates import Drop
from pipeline.flow.ledger import Ledger, Page
from pipeline.flow.messages import (
    EndOfStream,
    ModelCard,
    Outage,
    OutputCounts,
    Report,
    Retune,
    SignalChange,
    SourceWord,
    StreamStart,
)
from pipeline.flow.metrics import tally_lines
from pipeline.settings import SourceSettings
from pipeline.shapes import Layout

LAST_OUTAGES = 20
LAST_WRITTEN = 200
# Of sources that were removed so many are told of one by one, in the end; of all before them the sum.
LAST_GONE = 20
LAST_NOTES = 20
LAST_PROBLEMS = 20


@dataclass
class SourceState:
    """One source.

    start, signal, end  what was told of it last
    outages             how many, and the last of them
    since_unix          since when its `state` is what it is
    is_done             the fate of its last frame is told, or there never was one
    leave_until         it was removed: so long (monotonic) its decoder may take to end by itself; None while it stays
    paused, tuning      what was asked for from outside, for a decoder that is started anew
    outputs             what its own outputs took, once they are closed
    page                its page of the ledger, once its place has gone to another
    """

    settings: SourceSettings
    place: int
    since_unix: float = field(default_factory=time.time)
    start: StreamStart | None = None
    signal: SignalChange | None = None
    end: EndOfStream | None = None
    outage_count: int = 0
    outages: deque[Outage] = field(default_factory=lambda: deque(maxlen=LAST_OUTAGES))
    is_done: bool = False
    leave_until: float | None = None
    paused: bool = False
    tuning: Retune | None = None
    outputs: dict[str, OutputCounts] = field(default_factory=dict)
    page: Page | None = None

    def hear(self, word: SourceWord) -> None:
        before = self.state
        self._keep(word)
        if self.state != before:
            self.since_unix = word.at_unix if isinstance(word, SignalChange) else time.time()

    def _keep(self, word: SourceWord) -> None:
        match word:
            case StreamStart():
                self.start = word
            case EndOfStream():
                self.end = word
            case SignalChange():
                self.signal = word
                if word.outage:
                    self.outage_count += 1
                    self.outages.append(word.outage)

    def told(self) -> list[SourceWord]:
        """What the others know of it, as far as it still matters to them."""
        return [] if self.is_done else self.heard()

    def heard(self) -> list[SourceWord]:
        return [word for word in (self.start, self.signal, self.end) if word]

    @property
    def layout(self) -> Layout:
        """The zones and lines that were asked for last."""
        asked = self.tuning or Retune()
        return Layout(
            self.settings.zones if asked.zones is None else asked.zones,
            self.settings.lines if asked.lines is None else asked.lines,
        )

    @property
    def is_leaving(self) -> bool:
        return self.leave_until is not None

    @property
    def state(self) -> str:
        if self.end or self.is_done:
            return "ended"
        return self.signal.state if self.signal else "live" if self.start else "opening"

    @property
    def cause(self) -> str:
        """Why its state is what it is; empty where that needs no reason."""
        if self.state == "ended":
            return (self.end and self.end.failure) or ""
        return self.signal.cause if self.signal else ""


@dataclass
class RunState:
    """A run, seen from outside.

    statuses     what each worker is doing, by its id, in the order of the plan
    *_at         on the monotonic clock: launched, all stages ready, all over
    restarts     of workers, with how they were lost, the last ones
    written      what outputs took whose process, or whose source, has gone, the last ones
    lost         how frames came to be lost that no stage could account for, when it is over
    gone         sources that were removed, the last ones; `earlier` is the sum of those before, `earlier_count` of them
    problems     what went wrong, in order: the first, which decides the exit code, and the last ones
    notes        what the user is warned of once, the last ones
    is_stopping  no more frames are taken, of any source
    interrupted  the user stopped it
    tally        what the supervisor met more than once and warns of, with its count
    endless      no source has an end as far as its address tells; once opened, its stream knows better
    """

    statuses: dict[str, str] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    sources: dict[str, SourceState] = field(default_factory=dict)
    gone: dict[str, SourceState] = field(default_factory=dict)
    earlier: Page = field(default_factory=Page)
    earlier_count: int = 0
    book: Ledger | None = None
    model: ModelCard | None = None
    problems: list[CenterStreamError] = field(default_factory=list)
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_NOTES))
    restarts: dict[str, int] = field(default_factory=dict)
    is_stopping: bool = False
    interrupted: bool = False
    tally: dict[str, int] = field(default_factory=dict)
    endless: bool = False
    lost: str | None = None
    written: deque[OutputCounts] = field(default_factory=lambda: deque(maxlen=LAST_WRITTEN))
    launched_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def streams(self) -> dict[str, StreamStart]:
        return {name: source.start for name, source in self.sources.items() if source.start}

    @property
    def warnings(self) -> list[str]:
        ours = tally_lines(self.tally, is_last=self.ended_at is not None)
        return [*self.notes, *ours] + [warning for report in self.reports.values() for warning in report.warnings]

    def count(self, text: str) -> int:
        """One more of what `text` warns of; how many there were before."""
        before = self.tally.get(text, 0)
        self.tally[text] = before + 1
        return before

    def page(self, source: SourceState) -> Page:
        """The ledger of a source that has not gone."""
        return self.book.page(source.place) if self.book else Page()

    def ledger(self) -> dict[str, Page]:
        """A page for each source of which a frame was captured; those that were removed first."""
        pages = {f"{self.earlier_count} sources removed earlier": self.earlier} if self.earlier.captured else {}
        pages |= {name: source.page for name, source in self.gone.items() if source.page and source.page.captured}
        for name, source in self.sources.items():
            page = self.page(source)
            if page.captured:
                pages[name] = self._settled(page).plus(pages.get(name, Page()))
        return pages

    def forget(self, source_id: str, decoder: str) -> SourceState:
        """A source has gone, with its decoder: of it stays what the summary tells."""
        for told in (self.statuses, self.reports, self.restarts):
            told.pop(decoder, None)
        source = self.sources.pop(source_id)
        source.page = self.page(source)
        if before := self.gone.pop(source_id, None):
            source.page = source.page.plus(self._forgotten(before))
        self.written.extend(source.outputs.values())
        self.gone[source_id] = source
        if len(self.gone) > LAST_GONE:
            self.earlier = self.earlier.plus(self._forgotten(self.gone.pop(next(iter(self.gone)))))
            self.earlier_count += 1
        return source

    @staticmethod
    def _forgotten(source: SourceState) -> Page:
        return source.page or Page()

    def _settled(self, page: Page) -> Page:
        if self.lost and page.in_flight > 0:
            page.dropped[Drop("run", self.lost)] = page.in_flight
        return page

    def add_problem(self, problem: CenterStreamError) -> None:
        """A source of thousands that come and go may fail each day."""
        self.problems.append(problem)
        del self.problems[1:-LAST_PROBLEMS]

    @property
    def exit_code(self) -> int:
        """As documented for the command: 0 done, 130 stopped before the end of a file, else that of the first problem.

        A live source has no end, so stopping one is how it is done, also while it is being opened.
        """
        if self.problems:
            return self.problems[0].exit_code
        endless = all(stream.is_live for stream in self.streams.values()) if self.streams else self.endless
        return EXIT_INTERRUPTED if self.interrupted and not endless else EXIT_DONE


def by_path(many: Iterable[OutputCounts]) -> dict[str, OutputCounts]:
    """What was written to each path in all, by one process after the other."""
    told: dict[str, OutputCounts] = {}
    for counts in many:
        earlier = told.get(counts.path, OutputCounts(counts.path))
        totals = {name: getattr(earlier, name) + getattr(counts, name) for name in ("segments", "frames", "missed")}
        told[counts.path] = replace(counts, **totals, problem=earlier.problem or counts.problem)
    return told
