"""The posts of a run: each a worker that should run, whether it does, and when it is started anew.

Starts them, speaks to them and buries them. Decides nothing: who is lost, and what becomes of the run then, is for the
supervisor.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from pipeline.control.runstate import RunState
from pipeline.flow import messages
from pipeline.flow.frame import to_parts
from pipeline.flow.messages import Lost, control_name
from pipeline.run.house import House
from pipeline.run.launch import Launched, ThreadWorker, WorkerProcess
from pipeline.run.nursery import Nursery
from pipeline.run.plan import Plan, WorkerPlan
from pipeline.run.reclaim import reclaim
from pipeline.run.worker import WorkerSpec
from pipeline.settings import Settings, SourceSettings
from pipeline.stage import CHAIN, COMPILED, FRAMES, SERVE

# In this order: the network takes longest, and nobody waits for Numba who does without.
STARTS = ("infer", "decode", "gather", "deliver", SERVE, *COMPILED)

# At once, but not more often than this; then ever more slowly.
MOST_RESTARTS, WITHIN_SECONDS = 5, 60.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
# Who dies so often in a row without ever having been ready does so for a reason that starting again will not change.
HOPELESS_DEATHS = 5

# How long a killed process may take to be gone, before it is looked at again later.
KILL_SECONDS = 2.0

# starting: launched, not ready; ready: waits for the start; running; dying: killed, not gone yet; waiting: to be
# started anew; over: finished, or down for good.
PostState = Literal["starting", "ready", "running", "dying", "waiting", "over"]


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
    how_lost     what it was lost by, the last time
    """

    plan: WorkerPlan
    state: PostState = "starting"
    incarnation: int = 0
    since: float = 0.0
    how_lost: str = ""
    launched: Launched | None = None
    restarts: Restarts = field(default_factory=Restarts)

    @property
    def id(self) -> str:
        return self.plan.id

    @property
    def is_alive(self) -> bool:
        """Whether there is something that runs, as far as we know."""
        return self.state in ("starting", "ready", "running")


class Crew:
    """All posts. Their states are changed here and by the supervisor."""

    def __init__(self, settings: Settings, plan: Plan, house: House, state: RunState, nursery: Nursery | None) -> None:
        """Without a nursery each is a thread of this process."""
        self.settings = settings
        self.posts: dict[str, Post] = {}
        self._plan, self._house, self._state, self._nursery = plan, house, state, nursery

    # -- who is there

    def running(self) -> list[Post]:
        """All that are not over: a run ends when there are none."""
        return [post for post in self.posts.values() if post.state != "over"]

    def alive(self) -> list[Post]:
        return [post for post in self.posts.values() if post.is_alive]

    def decoders(self) -> list[Post]:
        return [post for post in self.posts.values() if post.plan.source_id]

    def decoder(self, source_id: str) -> Post:
        return self.posts[f"{CHAIN[0]}:{source_id}"]

    def of_stage(self, stage: str) -> list[Post]:
        return [post for post in self.posts.values() if post.plan.stage == stage]

    # -- starting

    def launch_all(self) -> None:
        workers = sorted(self._plan.workers.values(), key=lambda worker: (*CHAIN, SERVE).index(worker.stage))
        posts = [self.hire(worker) for worker in workers]
        for post in sorted(posts, key=lambda post: STARTS.index(post.plan.stage)):
            self.launch(post)

    def hire(self, worker: WorkerPlan) -> Post:
        post = self.posts[worker.id] = Post(worker)
        return post

    def launch(self, post: Post) -> None:
        """With those who share its process: as soon as none of them is there, which is when the last of them asks."""
        posts = self.sharing(post)
        if any(mate.launched and mate.state != "waiting" for mate in posts):
            return
        for mate in posts:
            mate.state, mate.since = "starting", time.monotonic()
            self._state.statuses[mate.id] = "starting"
        launched = self._launched([self._spec(mate) for mate in posts])
        for mate in posts:
            mate.launched = launched

    def _launched(self, specs: list[WorkerSpec]) -> Launched:
        if self._nursery is None:
            return ThreadWorker(specs[0], self._house.context)
        return WorkerProcess(specs, self._house.descriptors, self._nursery.fork)

    def sharing(self, post: Post) -> list[Post]:
        """Who shares its process, itself among them; the first speaks for the process."""
        return [self.posts[worker] for worker in self.settings.run.group_of(post.id)]

    def _spec(self, post: Post) -> WorkerSpec:
        """What a worker is told; each decoder knows its own source's address, and nobody else any."""
        source = self._state.sources.get(post.plan.source_id)
        own: dict[str, SourceSettings] = {post.plan.source_id: source.settings} if source else {}
        is_alone = len(self._state.sources) == 1 and not self._state.started_at
        return WorkerSpec(
            plan=post.plan,
            incarnation=post.incarnation,
            is_patient=bool(source and not source.settings.required and not is_alone),
            settings=replace(self.settings, sources=own),
            endpoints=self._house.endpoints,
            key=self._house.key,
            pools=self._house.pool_specs,
            ledger=self._house.ledger_spec,
            numbers={worker.id: worker.number for worker in self._plan.workers.values() if not worker.source_id},
            mates=self.settings.run.group_of(post.id),
            owns_process=self._nursery is not None and post is self.sharing(post)[0],
        )

    # -- speaking

    def tell(self, word: messages.ToWorker, posts: Iterable[Post]) -> None:
        for post in posts:
            self._house.hub.send(control_name(post.id, post.incarnation), messages.encode(word))

    def tell_running(self, word: messages.ToWorker, posts: Iterable[Post]) -> None:
        """Others are told when they start."""
        self.tell(word, [post for post in posts if post.state == "running"])

    # -- burying

    def kill(self, post: Post) -> bool:
        """Whether it is gone: a process that waits for a disk may take its time."""
        post.state = "dying"
        assert post.launched
        post.launched.kill()
        return post.launched.join(KILL_SECONDS)

    def reclaim(self, post: Post) -> None:
        """What one that is gone had."""
        places = {source.place: source_id for source_id, source in self._state.sources.items()}
        goal = "deliver" if post.plan.stage == "deliver" else "track"
        for frame in reclaim(post.plan, self._house.pools, self._house.ledger, places.get):
            self._house.send(goal, to_parts(frame))
        others = {"gather": "infer", "infer": "gather"}
        if post.plan.stage in others:
            self.tell_running(Lost(post.plan.number), self.of_stage(others[post.plan.stage]))

    def still_has(self, post: Post) -> bool:
        """Whether its process is there, or a frame of it on its way: then its place is nobody else's yet."""
        is_over = post.launched is None or post.launched.join(0.0)
        return not is_over or self._house.pools[FRAMES].leased(post.plan.first_slot, post.plan.slots) > 0

    def have_ended(self) -> bool:
        """Whether nothing of them runs any more, whatever was made of them."""
        return all(post.launched.join(0.0) for post in self.posts.values() if post.launched)

    def end_all(self, patience_seconds: float) -> None:
        """Those that are over, or all once the run has started, may take so long."""
        if self._nursery:
            self._nursery.close()
        deadline = time.monotonic() + patience_seconds
        for post in self.posts.values():
            patience = deadline - time.monotonic() if post.state == "over" or self._state.started_at else 0.0
            if post.launched and not post.launched.join(max(0.0, patience)):
                post.launched.kill()
        for post in self.posts.values():
            if post.launched:
                post.launched.join(KILL_SECONDS)
