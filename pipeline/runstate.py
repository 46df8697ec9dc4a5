"""What is known of a run while it lasts and when it is over: the last report of each worker, each source, the ledger.

The supervisor writes it; the console and the summary read it. Knows no process and no socket.
"""

from collections import deque
from dataclasses import dataclass, field

from pipeline.errors import EXIT_DONE, EXIT_INTERRUPTED, CenterStreamError
from pipeline.fates import Drop
from pipeline.ledger import Ledger, Page
from pipeline.messages import EndOfStream, ModelCard, Outage, Report, SignalChange, SourceWord, StreamStart
from pipeline.metrics import tally_lines
from pipeline.settings import SourceSettings

LAST_OUTAGES = 20


@dataclass
class SourceState:
    """One source.

    start, signal, end  what was told of it last
    outages             how many, and the last of them
    is_done             the fate of its last frame is told, or there never was one
    page                its page of the ledger, once its place has gone to another
    """

    settings: SourceSettings
    place: int
    start: StreamStart | None = None
    signal: SignalChange | None = None
    end: EndOfStream | None = None
    outage_count: int = 0
    outages: deque[Outage] = field(default_factory=lambda: deque(maxlen=LAST_OUTAGES))
    is_done: bool = False
    page: Page | None = None

    def hear(self, word: SourceWord) -> None:
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
        return [word for word in (self.start, self.signal, self.end) if word]

    @property
    def state(self) -> str:
        if self.end or self.is_done:
            return "ended"
        return self.signal.state if self.signal else "live" if self.start else "opening"


@dataclass
class RunState:
    """A run, seen from outside.

    statuses     what each worker is doing, by its id, in the order of the plan
    *_at         on the monotonic clock: launched, all stages ready, all over
    restarts     of workers, with how they were lost, the last ones
    lost         how frames came to be lost that no stage could account for, when it is over
    problems     what went wrong, in order; the first decides the exit code
    interrupted  the user stopped it
    tally        what the supervisor met more than once and warns of, with its count
    endless      no source has an end as far as its address tells; once opened, its stream knows better
    """

    statuses: dict[str, str] = field(default_factory=dict)
    reports: dict[str, Report] = field(default_factory=dict)
    sources: dict[str, SourceState] = field(default_factory=dict)
    gone: dict[str, SourceState] = field(default_factory=dict)
    book: Ledger | None = None
    model: ModelCard | None = None
    problems: list[CenterStreamError] = field(default_factory=list)
    restarts: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False
    tally: dict[str, int] = field(default_factory=dict)
    endless: bool = False
    lost: str | None = None
    launched_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def streams(self) -> dict[str, StreamStart]:
        return {name: source.start for name, source in self.sources.items() if source.start}

    @property
    def warnings(self) -> list[str]:
        ours = tally_lines(self.tally, is_last=self.ended_at is not None)
        return ours + [warning for report in self.reports.values() for warning in report.warnings]

    def count(self, text: str) -> int:
        """One more of what `text` warns of; how many there were before."""
        before = self.tally.get(text, 0)
        self.tally[text] = before + 1
        return before

    def ledger(self) -> dict[str, Page]:
        """A page for each source of which a frame was captured; those that were removed first."""
        pages = {name: source.page for name, source in self.gone.items() if source.page}
        for name, source in self.sources.items():
            page = self.book.page(source.place) if self.book else Page()
            if page.captured:
                pages[name] = self._settled(page)
        return pages

    def _settled(self, page: Page) -> Page:
        if self.lost and page.in_flight > 0:
            page.dropped[Drop("run", self.lost)] = page.in_flight
        return page

    @property
    def exit_code(self) -> int:
        """As documented for the command: 0 done, 130 stopped before the end of a file, else that of the first problem.

        A live source has no end, so stopping one is how it is done, also while it is being opened.
        """
        if self.problems:
            return self.problems[0].exit_code
        endless = all(stream.is_live for stream in self.streams.values()) if self.streams else self.endless
        return EXIT_INTERRUPTED if self.interrupted and not endless else EXIT_DONE
