"""What a stage is: a few methods that a worker calls, and the kit it works with.

A stage sees frames, never a socket, and neither knows nor cares whether it runs in a process or in a thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.errors import CenterStreamError
from pipeline.flow.frame import Frame, Message
from pipeline.flow.ledger import Ledger
from pipeline.flow.messages import (
    EndOfStream,
    Free,
    Heat,
    ModelCard,
    Pause,
    Pixels,
    Retune,
    SignalChange,
    Start,
    StreamStart,
    WantPixels,
)
from pipeline.flow.metrics import Meter
from pipeline.flow.sharedmem import Lessor, Pool
from pipeline.settings import Settings

# The path of every frame, and the order in which everything is listed.
CHAIN = ("decode", "gather", "infer", "postprocess", "track", "deliver")
# The worker with the live page: no frame comes to it.
SERVE = "serve"
# Those that begin with Numba, which takes longer to load than all else.
COMPILED = ("postprocess", "track")
# What deliver publishes for it, among the run's queues, and where decoders come to with what they show to it.
PUBLISHED, SHOWN = "published", "shown"
# Who gets what a stage sends on. What is said of a source goes past inference; a frame that needs no network has
# nothing to be searched for peaks, either.
NEXT = {"decode": "gather", "gather": "postprocess", "infer": "postprocess", "postprocess": "track", "track": "deliver"}
PAST_NETWORK = "track"
# Pools of shared memory: pixels, leased by decoders, and raw heads, leased by inference.
FRAMES, HEATMAPS = "frames", "heatmaps"
# Lanes of inference on a device, where nobody asked for another number: one computes while the other copies.
DEVICE_LANES = 2

Emit = Callable[[Message], None]


@dataclass(frozen=True)
class Kit:
    """What a worker gives its stage.

    source_id, place  of its source (decode only)
    is_patient        a source that cannot be opened is waited for (decode only)
    incarnation       how often the worker was started before
    endpoints         the prefix of every queue's name
    lessor            free slots of the pool that this stage leases from
    tell              says what the stage is busy with before the first frame
    say_model         the network computes otherwise, or more is known of it, than `prepare` said (infer)
    say_ended         a source's last frame has met its fate (deliver)
    want_pictures     asks for full-size pictures of sources, beside those that are taken anyway, and for heat maps
                      (deliver)
    ask_stop          asks for the whole run to stop; True: the user wants it to
    stopped           whether this stage was told to take no more frames
    """

    settings: Settings
    source_id: str
    place: int
    is_patient: bool
    incarnation: int
    endpoints: str
    pools: Mapping[str, Pool]
    lessor: Lessor | None
    ledger: Ledger
    meter: Meter
    tell: Callable[[str], None]
    say_model: Callable[[ModelCard], None]
    say_ended: Callable[[str], None]
    want_pictures: Callable[[WantPixels], None]
    ask_stop: Callable[[bool], None]
    stopped: Callable[[], bool]


class Stage:
    """One stage. All methods but `process` are called by one thread; `process` by `lanes` threads at a time.

    problem            what went wrong although the stage could go on; it decides the exit code
    in_order           frames of a source come in order, each seq once
    sees_all           also frames without a result, or dropped, are for `process`
    """

    lanes = 1
    in_order = False
    sees_all = False

    def __init__(self, kit: Kit) -> None:
        self.kit = kit
        self.problem: CenterStreamError | None = None

    @classmethod
    def preload(cls) -> None:
        """What can be done once for all processes that are forked from this one, and starts no thread."""

    def prepare(self) -> ModelCard | None:
        """Everything slow, before the first frame is taken: load, compile, open."""

    def begin(self, start: Start) -> None:
        """All stages are ready."""

    def stream_started(self, start: StreamStart) -> None:
        """A source's first message, and again when its settings change, or after this worker was started anew."""

    def signal_changed(self, signal: SignalChange) -> None:
        """What a source sends from here on, or no longer sends."""

    def process(self, frame: Frame) -> None:
        """Change the frame from what the stage before made into what the next one needs."""
        raise NotImplementedError

    def show_heat(self, heat: Heat) -> None:
        """Whose heat maps somebody looks at (postprocess). From another thread than `process`'s."""

    def idle(self) -> None:
        """A few times a second, between frames."""

    def stream_ended(self, end: EndOfStream) -> None:
        """A source's last message."""

    def close(self) -> None:
        """Close what is open; called once, whatever happened before."""


class SourceStage(Stage):
    """The first stage: nobody feeds it."""

    def run(self, emit: Emit) -> None:
        """Emit a StreamStart, frames and an EndOfStream, until the source ends or `kit.stopped()`."""
        raise NotImplementedError

    def hear(self, word: Pause | Pixels | Retune) -> None:
        """From another thread than `run`'s."""


class RoundStage(Stage):
    """Takes rounds of frames: each lane asks gather for one when it is free."""

    def settle(self) -> None:
        """What is done with the first frames alone is over."""

    def process_round(self, frames: list[Frame]) -> None:
        """The same for all frames of a round."""
        raise NotImplementedError


class QueueStage(Stage):
    """The stage before inference: it decides what goes to which lane, and when."""

    def take(self, message: Message | Free) -> None:
        """One more message."""
        raise NotImplementedError

    def lost(self, worker: int) -> None:
        """An inference worker has gone, with its free lanes."""

    def rounds(self) -> list[tuple[int, list[Frame]]]:
        """What is to go to which inference worker now."""
        raise NotImplementedError

    def passing(self) -> list[Message]:
        """What goes past inference now."""
        raise NotImplementedError

    def wait_seconds(self) -> float:
        """How long nothing is to be done if nothing comes."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """Frames that wait."""
        raise NotImplementedError
