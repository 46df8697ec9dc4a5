"""The posts of a run: each a worker that should run, whether it does, and when it is started anew. Knows no message and
no clock of its own.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from pipeline.launch import Launched
from pipeline.plan import WorkerPlan

# At once, but not more often than this; then ever more slowly.
MOST_RESTARTS, WITHIN_SECONDS = 5, 60.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
# Who dies so often in a row without ever having been ready does so for a reason that starting again will not change.
HOPELESS_DEATHS = 5

# starting: launched, not ready; ready: waits for the start; running; waiting: to be started anew; over: finished, or
# down for good.
PostState = Literal["starting", "ready", "running", "waiting", "over"]


class Restarts:
    """When a worker that died is started again."""

    def __init__(self) -> None:
        self.count = 0
        self.without_success = 0
        self._deaths_at: deque[float] = deque(maxlen=MOST_RESTARTS)
        self._wait_seconds = 0.0

    def was_ready(self) -> None:
        self.without_success = 0

    def died(self, now_seconds: float) -> float | None:
        """How long to wait before the next start; None when there is to be none."""
        self.without_success += 1
        if self.without_success >= HOPELESS_DEATHS:
            return None
        self.count += 1
        is_often = len(self._deaths_at) == MOST_RESTARTS and now_seconds - self._deaths_at[0] < WITHIN_SECONDS
        self._deaths_at.append(now_seconds)
        self._wait_seconds = (
            min(max(FIRST_WAIT_SECONDS, 2 * self._wait_seconds), LONGEST_WAIT_SECONDS) if is_often else 0.0
        )
        return self._wait_seconds


@dataclass
class Post:
    """One worker of the plan.

    incarnation  of the process that runs, or of the next
    since        when it was launched last, or (waiting) when it is to be launched
    """

    plan: WorkerPlan
    state: PostState = "starting"
    incarnation: int = 0
    since: float = 0.0
    launched: Launched | None = None
    restarts: Restarts = field(default_factory=Restarts)

    @property
    def id(self) -> str:
        return self.plan.id

    @property
    def is_alive(self) -> bool:
        """Whether there is something that runs, as far as we know."""
        return self.state in ("starting", "ready", "running")
