"""Sources, lanes and a clock that are only numbers, around the real `Rounds`: a minute passes in a moment."""

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from pipeline.flow.rounds import Dropped, Rounds

MS = 1_000_000
SECOND = 1000 * MS


@dataclass(frozen=True)
class Source:
    """Sends every `interval_ns`, first at `phase_ns`, each time up to `jitter` of the interval early or late, but not
    from `pause_ns` on until `resume_ns`."""

    name: str
    interval_ns: int
    phase_ns: int = 0
    jitter: float = 0.0
    pause_ns: int = 0
    resume_ns: int = 0

    def times_ns(self, until_ns: int) -> Iterator[int]:
        chance = random.Random(self.name)
        for due_ns in range(self.phase_ns, until_ns, self.interval_ns):
            if not self.pause_ns <= due_ns < self.resume_ns:
                yield max(0, due_ns + round(chance.uniform(-self.jitter, self.jitter) * self.interval_ns))


@dataclass(frozen=True)
class File:
    """Has its next item ready whenever one of its `slots` is free."""

    name: str
    slots: int


@dataclass(frozen=True)
class Served:
    """An item's life; items are (source, number, time of capture)."""

    source: str
    number: int
    captured_ns: int
    taken_ns: int
    done_ns: int


@dataclass
class Log:
    """What became of everything, the sizes of the rounds, and how long a lane was free although something waited."""

    served: list[Served] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    busy_ns: int = 0

    def after(self, start_ns: int) -> "Log":
        """Without what was taken before."""
        served = [each for each in self.served if each.taken_ns >= start_ns]
        return Log(served, self.dropped, [each for each in self.sizes if each[0] >= start_ns], self.busy_ns)

    def count(self, name: str) -> int:
        return sum(each.source == name for each in self.served)

    def ages_ms(self) -> np.ndarray:
        """From capture until taken."""
        return np.array([each.taken_ns - each.captured_ns for each in self.served]) / MS

    def share_of(self, size: int) -> float:
        """Of the rounds, those of that size."""
        return sum(each == size for _, each in self.sizes) / len(self.sizes)


def simulate(
    rounds: Rounds,
    sources: list[Source | File],
    lanes: int,
    service_ns: Callable[[int], int],
    until_ns: int,
    upstream_ns: int = 0,
) -> Log:
    """Everything that happens until `until_ns`. Items are put `upstream_ns` after their capture."""
    log, order, events = Log(), itertools.count(), []
    numbers = {source.name: itertools.count() for source in sources}
    files = {source.name for source in sources if isinstance(source, File)}

    def at(time_ns: int, happens: Callable[[int], None]) -> None:
        heapq.heappush(events, (time_ns, next(order), happens))

    def put(name: str) -> Callable[[int], None]:
        def happens(now_ns: int) -> None:
            item = (name, next(numbers[name]), now_ns - upstream_ns)
            log.dropped.extend(rounds.put(name, item, now_ns - upstream_ns, now_ns))

        return happens

    def done(size: int, took_ns: int, names: list[str]) -> Callable[[int], None]:
        def happens(now_ns: int) -> None:
            nonlocal free
            free += 1
            rounds.served(size, took_ns)
            for name in names:
                if name in files:
                    put(name)(now_ns)

        return happens

    def ask(now_ns: int) -> None:
        nonlocal free
        while True:
            taken, dropped = rounds.take(now_ns, free)
            log.dropped.extend(dropped)
            if not taken:
                break
            free -= 1
            took_ns = service_ns(len(taken))
            log.busy_ns += took_ns
            log.sizes.append((now_ns, len(taken)))
            log.served.extend(Served(*item, now_ns, now_ns + took_ns) for item in taken)
            at(now_ns + took_ns, done(len(taken), took_ns, [item[0] for item in taken]))
        if (wait_ns := rounds.wait_ns(now_ns)) is not None:
            at(now_ns + wait_ns, lambda now_ns: None)

    free = lanes
    for source in sources:
        rounds.open(source.name, "block" if isinstance(source, File) else "latest")
        times_ns = [0] * source.slots if isinstance(source, File) else source.times_ns(until_ns)
        for time_ns in times_ns:
            at(time_ns, put(source.name))
    while events and events[0][0] < until_ns:
        now_ns, _, happens = heapq.heappop(events)
        happens(now_ns)
        ask(now_ns)
    return log
