"""What travels between stages, and between a stage and the supervisor: typed headers, MessagePack on the wire.

On the data path, per source: a `StreamStart` (again when its settings change), a `FrameHeader` for each frame,
`SignalChange`s, one `EndOfStream`; nothing at all of a source that was never opened. Each says with its `seq` where it
belongs among the frames. From gather to inference go `Round`s, and back `Free`.
On the control path: a worker sends `Status`, `Ready`, `Report`s, what its source is told of, and `Finished` or
`Failed`; it is told `Start`, then `Stop` and whatever concerns it.

Decoding is strict: a message of another shape raises `msgspec.ValidationError`; nothing in it can run.
Knows no socket and no shared memory: arrays are described here (`ArrayRef`), not carried.
"""

from typing import Literal

import msgspec

from pipeline.flow.events import Counts
from pipeline.flow.fates import Drop
from pipeline.shapes import Line, Zone

Policy = Literal["block", "latest"]
Clock = Literal["sender", "arrival", "due"]
SignalState = Literal["live", "lost", "frozen", "grey", "paused"]


class Hop(msgspec.Struct, array_like=True, frozen=True):
    """One stage's part of a frame's life, on the host's monotonic clock."""

    stage: str
    entered_ns: int
    left_ns: int


class Slot(msgspec.Struct, array_like=True, frozen=True):
    """A place in a pool of shared memory, for one frame. Whoever ends its use gives it back.

    generation  which of the place's leases this is; with another one the place holds another frame, or none
    """

    pool: str
    index: int
    generation: int


Dtype = Literal["uint8", "int32", "float32"]


class ArrayRef(msgspec.Struct, array_like=True, frozen=True):
    """Where an array of a frame lies: in a slot at `offset_bytes`, or (slot None) as the next raw buffer."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    slot: Slot | None = None
    offset_bytes: int = 0


class StreamStart(msgspec.Struct, tag="start", frozen=True):
    """A source was opened, or its settings changed. `frames_per_second`, `frame_count` are None where the source does
    not tell.

    place            of the source in the ledger
    seq              of the first frame after this
    policy           what the queue before inference does with this source's frames when full; those after it block
    score_threshold  objects from this score on are reported
    classes          only these class names; empty means all
    zones, lines     where objects are counted, by name
    """

    source_id: str
    place: int
    seq: int
    is_live: bool
    policy: Policy
    width: int
    height: int
    frames_per_second: float | None
    frame_count: int | None
    score_threshold: float
    classes: tuple[str, ...] = ()
    zones: dict[str, Zone] = {}
    lines: dict[str, Line] = {}


class Audit(msgspec.Struct, array_like=True, frozen=True):
    """Of a frame that could have taken over another's detections (`infer.still`) and was computed all the same: the
    objects that were found in it, and how many of them it would have missed."""

    objects: int
    missed: int


class FrameHeader(msgspec.Struct, tag="frame"):
    """Who a frame is and when it was taken.

    seq            gapless per source, from 0
    pts_seconds    the source's own time
    captured_ns    monotonic, when the frame's packet came, or the frame was due; `captured_unix` is the wall clock then
    clock          whose clock `captured_unix` is: the sender's, ours at arrival, or when the frame was due
    width, height  of the upright source picture in pixels
    may_wait       its source is no live one: nothing is gained by waiting for a newer frame
    watched        somebody looks at it as it comes: several at a time would be a jerk
    unseen         not for the network (`every`): its tracks are predicted
    same_as        not for the network (`infer.still`): it looks as that frame does, and takes over what was found there
    audits         it could have taken over from that frame, and was computed to see what would be missed: the `audit`
    failure        why there is no result for this frame; None is "so far so good", never "nothing seen"
    dropped        where and why it ended; then it has neither slots nor arrays and only travels on to be counted
    reclaimed      dropped by the supervisor, who alone knows of it: nobody else tells of this frame
    counts         what its source's zones and lines have to tell, where it has any and the frame has a result (track)
    leases         the slots this frame holds
    """

    source_id: str
    place: int
    seq: int
    pts_seconds: float
    captured_ns: int
    captured_unix: float
    width: int
    height: int
    clock: Clock = "arrival"
    may_wait: bool = False
    watched: bool = False
    unseen: bool = False
    same_as: int | None = None
    audits: int | None = None
    audit: Audit | None = None
    failure: str | None = None
    dropped: Drop | None = None
    reclaimed: bool = False
    counts: Counts | None = None
    trace: list[Hop] = []
    leases: list[Slot] = []
    arrays: list[ArrayRef] = []

    @property
    def is_for_network(self) -> bool:
        return not self.unseen and self.same_as is None and self.dropped is None


class Outage(msgspec.Struct, frozen=True):
    """A time without a sound signal, once it is over. `attempts` to open the source anew."""

    state: str
    cause: str
    start_unix: float
    end_unix: float
    attempts: int


class SignalChange(msgspec.Struct, tag="signal", frozen=True):
    """What a source sends now: "live", or why what it sends is not to be trusted. `outage` is the one that is over."""

    source_id: str
    place: int
    seq: int
    state: SignalState
    cause: str
    at_unix: float
    outage: Outage | None = None


class EndOfStream(msgspec.Struct, tag="end", frozen=True):
    """No frame of this source follows; `seq` were captured. `failure` says why if the end was not a clean one."""

    source_id: str
    place: int
    seq: int
    failure: str | None = None


class Free(msgspec.Struct, tag="free", frozen=True):
    """An inference worker can be given one more round. The last that ended had `size` frames and took `busy_ns`."""

    worker: int
    size: int = 0
    busy_ns: int = 0


class Round(msgspec.Struct, tag="round"):
    """Frames for one step of the network."""

    frames: list[FrameHeader]


SourceWord = StreamStart | SignalChange | EndOfStream
DataHeader = StreamStart | FrameHeader | SignalChange | EndOfStream | Free | Round


class ModelCard(msgspec.Struct, frozen=True):
    """What the stages around inference must know of the network, and what the summary says of it.

    input_*, padded_*  the picture's part of the network's input, and all of it: padding lies to the right and below
    batch              frames in one step at the most
    channels           the class of each heat map: only those that are wanted are computed
    on_precision       a line on how it was chosen; empty where there was no choice
    engine_speeds      images a second of the engines among which this one was chosen; {} where none were measured
    """

    name: str
    weights: str
    class_names: tuple[str, ...]
    input_width: int
    input_height: int
    padded_width: int
    padded_height: int
    stride: int
    resize: Literal["stretch", "letterbox"]
    device: str
    engine: str
    engine_speeds: dict[str, float]
    precision: str
    workers: int
    threads: int
    batch: int = 1
    on_precision: str = ""
    channels: tuple[int, ...] = ()

    def class_of(self) -> tuple[int, ...]:
        """The class id of each heat map."""
        return self.channels or tuple(range(len(self.class_names)))


class Quantiles(msgspec.Struct, frozen=True):
    """A distribution of durations in milliseconds; all zero while `count` is 0."""

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Histogram(msgspec.Struct, frozen=True):
    """A distribution of durations since the start: how many were at most each of `pipeline.flow.metrics.BOUNDS_MS`,
    and of all of them the count and the sum."""

    at_most: tuple[int, ...]
    count: int
    sum_ms: float


class OutputCounts(msgspec.Struct):
    """One output.

    path, segments  its first file, and how many came after that
    way             how it is written, where there is a choice
    frames, missed  those that it took, and those that it missed: too slow, its server away, or taken and not passed on
    problem         why it takes no more
    is_gone         its (last) file is not there any longer
    """

    path: str
    segments: int = 0
    frames: int = 0
    missed: int = 0
    problem: str | None = None
    is_gone: bool = False
    way: str = ""


class Gpu(msgspec.Struct, frozen=True):
    """A CUDA device, as a worker that computes there sees it.

    allocated_bytes, reserved_bytes  what torch has there for this worker's arrays, and what it keeps for more
    used_bytes, total_bytes          of the device, whoever uses it
    utilization                      share of the last moments in which it computed, whoever's; None where NVIDIA's
                                     library to ask for it (pynvml) is not installed
    """

    device: str
    allocated_bytes: int
    reserved_bytes: int
    used_bytes: int
    total_bytes: int
    utilization: float | None = None


class Report(msgspec.Struct, tag="report"):
    """How a worker is doing: totals since its start, and `recent_*` over the last seconds.

    busy_seconds        for how long the lane that has worked longest on its frame has done so
    cpu_seconds, peak_memory_bytes  of its process (CPU since the first frame could come); None where stages share one
    working             time inside the stage, `waiting` in the queue before it, `latency` from capture to delivery
                        (deliver only)
    rounds              rounds by their size (gather only)
    figures             of the source (decode, see pipeline.sources), of the rounds (gather, see pipeline.flow.rounds),
                        of the shadow (infer, see models.shadow)
    outputs             by their name, once they were opened (deliver only)
    ages                of each source's frames when they were delivered (deliver only)
    work                as `working`, since the start
    memory_bytes        that the process has resident now
    gpu                 the device that it computes on, if that is one
    """

    frames: int
    frames_per_second: float
    queue_depth: int
    busy_seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    working: Quantiles
    waiting: Quantiles
    recent_working: Quantiles
    latency: Quantiles
    recent_latency: Quantiles
    rounds: dict[int, int] = {}
    figures: dict[str, float] = {}
    outputs: dict[str, OutputCounts] = {}
    warnings: list[str] = []
    ages: dict[str, Histogram] = {}
    work: Histogram | None = None
    memory_bytes: int | None = None
    gpu: Gpu | None = None


class Status(msgspec.Struct, tag="status"):
    """What a worker is busy with before the first frame ("loading the network", "compiling kernels")."""

    doing: str


class Ready(msgspec.Struct, tag="ready"):
    """Everything slow is done. The inference worker says which model it holds."""

    model: ModelCard | None = None


class ModelChange(msgspec.Struct, tag="model-change", frozen=True):
    """The inference worker computes otherwise, or knows more of it, than when it was ready."""

    model: ModelCard


class Finished(msgspec.Struct, tag="finished"):
    """The last word of a worker: its stream ended or it was told to stop; outputs are closed.

    exit_code, problem  what went wrong although the worker went on to the end, as in `pipeline.errors`; 0 and ""
    """

    report: Report
    exit_code: int = 0
    problem: str = ""


class Failed(msgspec.Struct, tag="failed"):
    """The worker cannot go on. `exit_code` as in `pipeline.errors`; `detail` is a traceback for --verbose."""

    exit_code: int
    message: str
    detail: str = ""


class AskStop(msgspec.Struct, tag="ask-stop", frozen=True):
    """Stop as if Ctrl-C had been pressed: the user closed the window or, `by_user` false, no output is left."""

    by_user: bool


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """The fate of the last frame of this source was told (deliver). `outputs` were its own, and are closed."""

    source_id: str
    outputs: dict[str, OutputCounts] = {}


class WantPixels(msgspec.Struct, tag="want-pixels", frozen=True):
    """Somebody looks at these sources, and at no others: their frames are to have full-size pictures (deliver).

    heat  (source, class) of the heat maps that somebody looks at
    """

    source_ids: frozenset[str] = frozenset()
    heat: frozenset[tuple[str, str]] = frozenset()

    def __or__(self, other: "WantPixels") -> "WantPixels":
        return WantPixels(self.source_ids | other.source_ids, self.heat | other.heat)


class Limits(msgspec.Struct, frozen=True):
    """Frames at the same time.

    ahead       given to inference and not delivered yet, of all sources together
    of_source   on their way of one source, from its decoder to the end
    waiting     of a live source before inference
    lanes       of each inference worker
    round       for one step of the network
    spare       of `ahead` and `of_source`, for sources that may wait: while one is live there are so many less
    """

    ahead: int
    of_source: int
    waiting: int
    lanes: int
    round: int
    spare: int = 0


class Start(msgspec.Struct, tag="start-work", frozen=True):
    """Take frames. `model` is the network; `told` what a worker that is started anew has missed of the sources."""

    model: ModelCard
    limits: Limits
    told: list[SourceWord]


class Lost(msgspec.Struct, tag="lost", frozen=True):
    """A worker has gone, with all that it had promised."""

    worker: int


class Pause(msgspec.Struct, tag="pause", frozen=True):
    """To a decoder: take no frames until it is paused no longer."""

    paused: bool


class Pixels(msgspec.Struct, tag="pixels", frozen=True):
    """To a decoder: whether frames are to have full-size pictures, where nothing takes them anyway."""

    wanted: bool


class Heat(msgspec.Struct, tag="heat", frozen=True):
    """To postprocess: the (source, class) of the heat maps that are to travel with the results, and no others."""

    wanted: frozenset[tuple[str, str]]


class Retune(msgspec.Struct, tag="retune", frozen=True):
    """To a decoder: what is not None changes for its source; a `max_rate` of 0 is none."""

    score_threshold: float | None = None
    classes: tuple[str, ...] | None = None
    max_rate: float | None = None
    every: int | None = None
    zones: dict[str, Zone] | None = None
    lines: dict[str, Line] | None = None


class Stop(msgspec.Struct, tag="stop", frozen=True):
    """Take no more frames; finish with what has arrived. `drained`: nothing is on its way to anyone any more."""

    drained: bool = False


FromWorker = (
    Status
    | Ready
    | ModelChange
    | Report
    | AskStop
    | Finished
    | Failed
    | Ended
    | WantPixels
    | StreamStart
    | SignalChange
    | EndOfStream
)
ToWorker = Start | Stop | Lost | Pause | Pixels | Retune | Heat


def control_name(worker_id: str, incarnation: int) -> str:
    """What a worker is called on the control path; another one each time it is started."""
    return f"{worker_id}#{incarnation}"


encode = msgspec.msgpack.Encoder().encode
decode_data_header = msgspec.msgpack.Decoder(DataHeader).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
