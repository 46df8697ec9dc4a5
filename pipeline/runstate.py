"""What is known of a run while it lasts and when it is over: the last report of each stage, and the ledger.

The supervisor writes it; the console and the summary read it. Knows no process and no socket.
"""

from dataclasses import dataclass, field

from pipeline.errors import EXIT_DONE, EXIT_INTERRUPTED, CenterStreamError
from pipeline.messages import ModelCard, Report, StreamStart
from pipeline.metrics import tally_lines
from pipeline.stage import CHAIN


@dataclass
class Page:
    """The ledger of one source: captured = delivered + failed + dropped + in flight.

    failed   handed to the outputs as "no result", with the reason
    dropped  (stage, reason) → frames
    """

    captured: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        return self.captured - self.delivered - self.failed - sum(self.dropped.values())


@dataclass
class RunState:
    """A run, seen from outside.

    statuses     what each stage is doing before the first frame
    *_at         on the monotonic clock: launched, all stages ready, all over
    lost         how frames came to be lost that no stage could account for, when it is over
    problems     what went wrong, in order; the first decides the exit code
    interrupted  the user stopped it
    tally        what the supervisor met more than once and warns of, with its count
    endless      no source has an end as far as its address tells; once opened, its stream knows better
    """

    statuses: dict[str, str] = field(default_factory=lambda: dict.fromkeys(CHAIN, "starting"))
    reports: dict[str, Report] = field(default_factory=dict)
    model: ModelCard | None = None
    problems: list[CenterStreamError] = field(default_factory=list)
    interrupted: bool = False
    tally: dict[str, int] = field(default_factory=dict)
    endless: bool = False
    lost: str | None = None
    launched_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def streams(self) -> dict[str, StreamStart]:
        return self.reports["decode"].streams if "decode" in self.reports else {}

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
        """A page for each source, added up over the stages' last reports."""
        pages: dict[str, Page] = {}
        for stage, report in self.reports.items():
            for source_id, counts in report.sources.items():
                page = pages.setdefault(source_id, Page())
                # A killed stage's last report may be behind what the others saw; seq is gapless from 0.
                page.captured = max(page.captured, counts.captured, counts.highest + 1)
                page.delivered += counts.delivered
                page.failed += counts.failed
                for reason, frames in counts.dropped.items():
                    page.dropped[stage, reason] = frames
        if self.lost:
            for page in pages.values():
                if (frames := page.in_flight) > 0:
                    page.dropped["run", self.lost] = frames
        return pages

    @property
    def exit_code(self) -> int:
        """As documented for the command: 0 done, 130 stopped before the end of a file, else that of the first problem.

        A live source has no end, so stopping one is how it is done, also while it is being opened.
        """
        if self.problems:
            return self.problems[0].exit_code
        endless = all(stream.is_live for stream in self.streams.values()) if self.streams else self.endless
        return EXIT_INTERRUPTED if self.interrupted and not endless else EXIT_DONE
