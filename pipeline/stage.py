"""What a stage is: a few methods that a worker calls, and the kit it works with.

A stage sees frames, never a socket, and neither knows nor cares whether it runs in a process or in a thread.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pipeline.errors import CenterStreamError
from pipeline.frame import Frame, Message
from pipeline.messages import EndOfStream, ModelCard, Slot, StreamStart
from pipeline.metrics import Meter
from pipeline.settings import Settings
from pipeline.sharedmem import Leases, Pool

# The path of every frame, and the order in which everything is listed.
CHAIN = ("decode", "infer", "postprocess", "track", "deliver")
# Pools of shared memory, by the stage that lends from them.
FRAMES, HEATMAPS = "frames", "heatmaps"
LENT_BY = {"decode": FRAMES, "infer": HEATMAPS}


@dataclass(frozen=True)
class Kit:
    """What a worker gives its stage.

    leases     free slots of the pool that this stage lends from
    give_back  returns slots to their lessors
    tell       says what the stage is busy with before the first frame
    ask_stop   asks for the whole run to stop; True: the user wants it to
    stopped    whether this stage was told to take no more frames
    """

    settings: Settings
    pools: Mapping[str, Pool]
    leases: Leases | None
    meter: Meter
    give_back: Callable[[Iterable[Slot]], None]
    tell: Callable[[str], None]
    ask_stop: Callable[[bool], None]
    stopped: Callable[[], bool]

    def end_frame(self, frame: Frame) -> None:
        """Nobody reads this frame any more."""
        self.give_back(frame.take_leases())


class Stage:
    """One stage. All methods but `process` are called by one thread; `process` by `lanes` threads at a time.

    problem      what went wrong although the stage could go on; it decides the exit code
    drops_late   the queue before this stage pushes out old frames of live sources
    """

    lanes = 1
    drops_late = False
    sees_failed_frames = False

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.problem: CenterStreamError | None = None

    def prepare(self) -> ModelCard | None:
        """Everything slow, before the first frame is taken: load, compile, open."""

    def begin(self, model: ModelCard) -> None:
        """All stages are ready, and this is the network."""

    def stream_started(self, start: StreamStart) -> None:
        """A source's first message."""

    def process(self, frame: Frame) -> None:
        """Change the frame from what the stage before made into what the next one needs."""
        raise NotImplementedError

    def stream_ended(self, end: EndOfStream) -> None:
        """A source's last message."""

    def close(self) -> None:
        """Close what is open; called once, whatever happened before."""


class SourceStage(Stage):
    """The first stage: nobody feeds it."""

    def run(self, emit: Callable[[Message], None]) -> None:
        """Emit a StreamStart, frames and an EndOfStream for each source, until it ends or `kit.stopped()`."""
        raise NotImplementedError
