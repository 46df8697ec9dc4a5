"""What waits before the network, of many sources: who goes next, in rounds of how many, and what is given up.

A free lane is given a *round*: the next of each source in turn, as many as the network takes at a time. Whether it is
better to wait for a fuller one is told by how fast items come and how long rounds take.

Knows no frame, no socket, no thread and no clock: items are whatever they are, and times are nanoseconds of the
monotonic clock, read by whoever calls.
"""

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from pipeline.flow.messages import Policy

Item = TypeVar("Item")
Reason = Literal["newer", "too old", "rate"]

NEWER: Reason = "newer"  # a newer one of its source took its place
TOO_OLD: Reason = "too old"  # it was older than the goal before its turn came
RATE: Reason = "rate"  # fewer of each source are let in, so that those that are do not get too old

# A lane is held back for a fuller round only where rounds of what waits would be so full by themselves: below, lanes
# keep up with small rounds, and waiting would only make older what is served at once. It ends lower than it begins,
# for to change between the two is worse than either.
BEGINS, ENDS = 0.6, 0.5
# Windows that did not fill their rounds are given up, but for one chance in so many.
LEAST_EARNED = 0.5
SECOND_CHANCE = 16
# The age goal: looked at so often; missed where more than one in so many was too old, with room where none was older
# than half of it.
LOOK_NS = 1_000_000_000
ONE_IN = 100
LOWER, RAISE, LEAST_SHARE = 0.8, 1.1, 0.01
RECENT_WINDOWS = 1000
GOLDEN = 0.618034
FOREVER_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Dropped(Generic[Item]):
    """What will not be given to the network, and why."""

    item: Item
    reason: Reason


@dataclass(frozen=True, slots=True)
class Figures:
    """How the rounds were, since the start where nothing else is said.

    rounds         by size
    full           share of the full rounds (as many as the network takes, or one of each source that sends) among those
                   that arrivals allowed to be full: these, and those a lane waited for in vain; 1 while there were none
    window_p50_ns, window_p95_ns, window_max_ns
                   what a lane that was free waited for a fuller round, of the last thousand rounds
    admitted       share of a live source's items that is let in now, to keep the age goal; the same for all
    goal_is_kept   in the last second at most one item in a hundred was too old; None without a goal
    """

    rounds: dict[int, int]
    full: float
    window_p50_ns: int
    window_p95_ns: int
    window_max_ns: int
    admitted: float
    goal_is_kept: bool | None


@dataclass(slots=True)
class _Waiting(Generic[Item]):
    item: Item
    captured_ns: int
    came_ns: int


class _Source(Generic[Item]):
    """One source's queue. `recent` of the last arrivals were its own, `credit` is what it may still let in."""

    __slots__ = ("credit", "policy", "recent", "waiting")

    def __init__(self, policy: Policy, credit: float) -> None:
        self.policy = policy
        self.waiting: deque[_Waiting[Item]] = deque()
        self.recent = 0
        self.credit = credit


class Rounds(Generic[Item]):
    """Bounded queues of all sources, and the rounds made of them; each call takes the same time for any number of them.

    most        items a round at the most
    capacity    items of a `latest` source that may wait: the oldest goes for a newer one. Those of a `block` source are
                never dropped, and whoever puts them bounds them
    max_age_ns  from the capture; what is older when its turn comes is dropped (`latest` only). None: no matter how old
    lanes       that there are, free or not. It grows by itself to the most that were ever free; who loses one says so

    A source's items leave in the order in which they came, also where the newest would be the freshest: its results
    have to be told in order, so one that overtakes would only wait after the network instead of before it.
    """

    def __init__(self, most: int, capacity: int, max_age_ns: int | None = None) -> None:
        if most < 1 or capacity < 1 or (max_age_ns is not None and max_age_ns < 1):
            raise ValueError(f"most {most}, capacity {capacity}, max_age_ns {max_age_ns}: give 1 or more")
        self.lanes = 1
        self._most = most
        self._capacity = capacity
        self._sources: dict[str, _Source[Item]] = {}
        self._turns: OrderedDict[str, _Source[Item]] = OrderedDict()  # those that wait, the next one first
        self._depth = self._opened = 0
        self._pace = _Pace(most)
        self._service = _Service()
        self._window = _Window()
        self._goal = _AgeGoal(max_age_ns)
        self._rounds: Counter[int] = Counter()
        self._fills_up = False

    @property
    def depth(self) -> int:
        """Items that wait."""
        return self._depth

    def open(self, source_id: str, policy: Policy) -> None:
        """A source that will put items; for one that is open already, its policy from its next item on."""
        source = self._sources.get(source_id)
        if source:
            source.policy = policy
        else:
            self._sources[source_id] = _Source(policy, self._opened * GOLDEN % 1)
            self._opened += 1

    def close(self, source_id: str) -> list[Item]:
        """The source is forgotten. What still waited, oldest first; nothing of a source that is not open."""
        source = self._sources.pop(source_id, None)
        if source is None:
            return []
        self._turns.pop(source_id, None)
        self._pace.gone(source)
        self._depth -= len(source.waiting)
        return [waiting.item for waiting in source.waiting]

    def put(self, source_id: str, item: Item, captured_ns: int, now_ns: int) -> list[Dropped[Item]]:
        """The source's next item. What goes for it, itself perhaps. Raises KeyError for a source that is not open."""
        source = self._sources[source_id]
        self._goal.look(now_ns)
        if source.policy == "latest" and (reason := self._goal.refuses(source, captured_ns, now_ns)):
            return [Dropped(item, reason)]
        self._pace.came(source, now_ns)
        source.waiting.append(_Waiting(item, captured_ns, now_ns))
        self._turns.setdefault(source_id, source)
        self._depth += 1
        return self._make_room(source) if source.policy == "latest" else []

    def _make_room(self, source: _Source[Item]) -> list[Dropped[Item]]:
        dropped = []
        while len(source.waiting) > self._capacity:
            dropped.append(Dropped(source.waiting.popleft().item, NEWER))
        self._depth -= len(dropped)
        return dropped

    def take(self, now_ns: int, lanes_free: int) -> tuple[list[Item], list[Dropped[Item]]]:
        """A round for one of the lanes that are free, and what was too old for it; no round where it is better to wait
        (`wait_ns` says how long), where nothing waits, and where no lane is free."""
        self.lanes = max(self.lanes, lanes_free)
        if lanes_free < 1 or not self._depth:
            self._window.shut()
            return [], []
        fullest = min(self._most, self._pace.senders)
        if self._depth < fullest and self._waits(fullest, now_ns):
            return [], []
        taken, dropped = self._next_round(now_ns)
        if taken:
            self._rounds[len(taken)] += 1
            self._window.closed(len(taken) >= fullest > 1, now_ns)
        else:
            self._window.shut()
        return taken, dropped

    def _next_round(self, now_ns: int) -> tuple[list[Item], list[Dropped[Item]]]:
        taken: list[Item] = []
        dropped: list[Dropped[Item]] = []
        while self._turns and len(taken) < self._most:
            source_id, source = self._turns.popitem(last=False)
            first = source.waiting.popleft()
            self._depth -= 1
            is_too_old = source.policy == "latest" and self._goal.is_too_old(first.captured_ns, now_ns)
            if is_too_old:
                dropped.append(Dropped(first.item, TOO_OLD))
            else:
                taken.append(first.item)
            if source.waiting:
                self._turns[source_id] = source
                self._turns.move_to_end(source_id, last=not is_too_old)  # its turn is not over
        return taken, dropped

    def wait_ns(self, now_ns: int) -> int | None:
        """When to ask `take` again although nothing was put and no lane came free; None: no need."""
        return None if self._window.until_ns is None else max(0, self._window.until_ns - now_ns)

    def served(self, size: int, busy_ns: int) -> None:
        """A lane took so long for a round of so many, 1 or more."""
        self._service.took(size, busy_ns)

    def _waits(self, fullest: int, now_ns: int) -> bool:
        """Is a free lane held back for a round of `fullest`?"""
        if not self._window.is_open and not (self._is_nearly_full(fullest, now_ns) and self._window.is_worth_it()):
            return False
        return self._window.holds(now_ns, self._until_ns(now_ns))

    def _is_nearly_full(self, fullest: int, now_ns: int) -> bool:
        """Would rounds be nearly full where a lane that comes free took at once what came while it was busy?

        Of such a size b that arrivals * (fixed + each * b) = lanes * b; of any where the part for each is too much.
        """
        per_ns, service = self._pace.per_ns(now_ns), self._service
        least = fullest * (ENDS if self._fills_up else BEGINS)
        self._fills_up = per_ns > 0 and per_ns * service.fixed_ns >= least * (self.lanes - per_ns * service.each_ns)
        return self._fills_up

    def _until_ns(self, now_ns: int) -> int:
        """When the first of those that wait should have been followed by the next of its source, had that been a little
        late: all that send have had their chance, and a live source's would be pushed out before the eyes of a free
        lane. Fewer than a round wait here."""
        ends_ns = []
        for source in self._turns.values():
            first = source.waiting[0]
            ends_ns.append(first.came_ns + self._pace.interval_ns(source, now_ns) * 9 // 8)
            if source.policy == "latest":
                ends_ns.append(self._goal.patience_until_ns(first.captured_ns))
        return min(ends_ns)

    @property
    def figures(self) -> Figures:
        p50_ns, p95_ns, max_ns = self._window.quantiles_ns()
        return Figures(
            dict(self._rounds), self._window.full, p50_ns, p95_ns, max_ns, self._goal.share, self._goal.is_kept
        )


class _Pace:
    """The last arrivals: how fast they come, and of how many sources."""

    def __init__(self, most: int) -> None:
        self.senders = 0
        self._last: deque[tuple[_Source, int]] = deque()
        self._enough = 16 * most

    def came(self, source: _Source, now_ns: int) -> None:
        self.senders += source.recent == 0
        source.recent += 1
        self._last.append((source, now_ns))
        if len(self._last) > self._enough:
            oldest, _ = self._last.popleft()
            oldest.recent -= 1
            self.senders -= oldest.recent == 0

    def gone(self, source: _Source) -> None:
        """It counts no longer; its arrivals that are remembered make its own count negative."""
        self.senders -= source.recent > 0
        source.recent = 0

    def _span_ns(self, now_ns: int) -> int:
        return max(now_ns - self._last[0][1], 1)

    def per_ns(self, now_ns: int) -> float:
        """0 until enough have come to tell."""
        return len(self._last) / self._span_ns(now_ns) if len(self._last) == self._enough else 0.0

    def interval_ns(self, source: _Source, now_ns: int) -> int:
        """From one item of the source to its next; of one that came rarely, what was looked at in all."""
        return self._span_ns(now_ns) // max(source.recent, 1)


class _Service:
    """How long a round takes: a part for each round and one for each item, a line through the last rounds.

    Where all were of one size the line goes through nothing: then the rounds that are made on that account are of other
    sizes, and tell.
    """

    FADE = 0.98  # what a round counts when the next has come
    DOUBT = 0.05  # variance of the sizes below which they do not tell much

    def __init__(self) -> None:
        self._sums: tuple[float, ...] = (0.0,) * 5
        self.fixed_ns = self.each_ns = 0.0  # until a round has been served

    def took(self, size: int, busy_ns: int) -> None:
        new = (1.0, size, busy_ns, size * size, size * busy_ns)
        self._sums = tuple(self.FADE * old + now for old, now in zip(self._sums, new, strict=True))
        count = self._sums[0]
        mean_size, mean_ns, square, product = (total / count for total in self._sums[1:])
        spread, together = square - mean_size**2, product - mean_size * mean_ns
        each_ns = (together + self.DOUBT * mean_ns / mean_size) / (spread + self.DOUBT)
        self.each_ns = min(max(each_ns, 0.0), mean_ns / mean_size)
        self.fixed_ns = mean_ns - self.each_ns * mean_size


class _Window:
    """A lane held back for a fuller round: since when, until when, and whether that has been worth it."""

    def __init__(self) -> None:
        self.until_ns: int | None = None
        self._since_ns: int | None = None
        self._earned = 1.0
        self._chances = 0
        self._full = self._in_vain = 0
        self._recent_ns: deque[int] = deque(maxlen=RECENT_WINDOWS)

    @property
    def is_open(self) -> bool:
        return self._since_ns is not None

    def is_worth_it(self) -> bool:
        """Most were, lately; or it is time to try again."""
        self._chances += 1
        return self._earned >= LEAST_EARNED or self._chances % SECOND_CHANCE == 0

    def holds(self, now_ns: int, until_ns: int) -> bool:
        """Is the lane still held back? What was pushed out meanwhile moves no end further away."""
        self.until_ns = until_ns if self.until_ns is None else min(self.until_ns, until_ns)
        if self.until_ns > now_ns and self._since_ns is None:
            self._since_ns = now_ns
        return self.until_ns > now_ns

    def closed(self, is_full: bool, now_ns: int) -> None:
        """A round was taken."""
        self._full += is_full
        if self._since_ns is not None:
            self._in_vain += not is_full
            self._earned += (is_full - self._earned) / 8
        self._recent_ns.append(now_ns - self._since_ns if self._since_ns is not None else 0)
        self.shut()

    def shut(self) -> None:
        self._since_ns = self.until_ns = None

    @property
    def full(self) -> float:
        """Share of the full rounds among those that arrivals allowed to be full."""
        allowed = self._full + self._in_vain
        return self._full / allowed if allowed else 1.0

    def quantiles_ns(self) -> tuple[int, int, int]:
        """Median, 95th percentile and longest of the last windows."""
        windows_ns = sorted(self._recent_ns) or [0]
        p50_ns, p95_ns = (windows_ns[int(share * (len(windows_ns) - 1))] for share in (0.5, 0.95))
        return p50_ns, p95_ns, windows_ns[-1]


class _AgeGoal:
    """No live item is to be older than that when its turn comes. What gets too old while it waits, again and again,
    lowers the share of all sources' items that are let in, until the rest has its turn in time."""

    def __init__(self, max_age_ns: int | None) -> None:
        self._max_age_ns = max_age_ns
        self.share = 1.0
        self.is_kept = None if max_age_ns is None else True
        self._look_ns: int | None = None
        self._in_time = self._too_old = self._oldest_ns = 0

    def refuses(self, source: _Source, captured_ns: int, now_ns: int) -> Reason | None:
        """Why an item is not let in. One that comes too old is nobody's fault here, and says nothing of the rate."""
        if self._max_age_ns is None:
            return None
        if now_ns - captured_ns > self._max_age_ns:
            return TOO_OLD
        source.credit += self.share
        if source.credit < 1:
            return RATE
        source.credit -= 1
        return None

    def is_too_old(self, captured_ns: int, now_ns: int) -> bool:
        """And is counted as such."""
        if self._max_age_ns is None:
            return False
        age_ns = now_ns - captured_ns
        self._oldest_ns = max(self._oldest_ns, age_ns)
        self._too_old += age_ns > self._max_age_ns
        self._in_time += age_ns <= self._max_age_ns
        return age_ns > self._max_age_ns

    def patience_until_ns(self, captured_ns: int) -> int:
        """An item may wait for company until it has half the age that is too old."""
        return FOREVER_NS if self._max_age_ns is None else captured_ns + self._max_age_ns // 2

    def look(self, now_ns: int) -> None:
        """Once in a while: lower the share where the goal was missed, raise it where there was room."""
        if self._max_age_ns is None:
            return
        if self._look_ns is None:
            self._look_ns = now_ns
        if now_ns - self._look_ns < LOOK_NS:
            return
        self.is_kept = self._too_old * ONE_IN <= self._in_time + self._too_old
        if not self.is_kept:
            self.share = max(self.share * LOWER, LEAST_SHARE)
        elif self._oldest_ns < self._max_age_ns * 3 // 4:
            self.share = min(self.share * RAISE, 1.0)
        self._look_ns = now_ns
        self._in_time = self._too_old = self._oldest_ns = 0
