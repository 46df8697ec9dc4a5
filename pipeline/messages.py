"""What travels between stages, and between a stage and the supervisor: typed headers, MessagePack on the wire.

On the data path, per source and in this order: one `StreamStart`, a `FrameHeader` for each frame, one `EndOfStream`;
nothing at all of a source that was never opened.
On the control path: a worker sends `Ready`, `Report`s, and `Finished` or `Failed`; it is told `Start` and `Stop`.

Decoding is strict: a message of another shape raises `msgspec.ValidationError`; nothing in it can run.
Knows no socket and no shared memory: arrays are described here (`ArrayRef`), not carried.
"""

from typing import Literal

import msgspec

Policy = Literal["block", "latest"]


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


class ArrayRef(msgspec.Struct, array_like=True, frozen=True):
    """Where an array of a frame lies: in a slot at `offset_bytes`, or (slot None) as the next raw buffer."""

    name: str
    dtype: Literal["uint8", "int32", "float32"]
    shape: tuple[int, ...]
    slot: Slot | None = None
    offset_bytes: int = 0


class StreamStart(msgspec.Struct, tag="start", frozen=True):
    """A source was opened. `frames_per_second`, `frame_count` are None where the source does not tell.

    policy  what the queue before inference does with this source's frames when full; those after it block
    """

    source_id: str
    is_live: bool
    policy: Policy
    width: int
    height: int
    frames_per_second: float | None
    frame_count: int | None


class FrameHeader(msgspec.Struct, tag="frame"):
    """Who a frame is and when it was taken.

    seq            gapless per source, from 0
    pts_seconds    the source's own time
    captured_ns    monotonic, when the frame's packet came, or the frame was due; `captured_unix` is the wall clock then
    width, height  of the upright source picture in pixels
    failure        why there is no result for this frame; None is "so far so good", never "nothing seen"
    leases         the slots this frame holds
    """

    source_id: str
    seq: int
    pts_seconds: float
    captured_ns: int
    captured_unix: float
    width: int
    height: int
    failure: str | None = None
    trace: list[Hop] = []
    leases: list[Slot] = []
    arrays: list[ArrayRef] = []


class EndOfStream(msgspec.Struct, tag="end", frozen=True):
    """No frame of this source follows. `captured` were taken; `failure` says why if the end was not a clean one."""

    source_id: str
    captured: int
    failure: str | None = None


DataHeader = StreamStart | FrameHeader | EndOfStream


class ModelCard(msgspec.Struct, frozen=True):
    """What the stages around inference must know of the network, and what the summary says of it.

    input_*, padded_*  the picture's part of the network's input, and all of it: padding lies to the right and below
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


class Quantiles(msgspec.Struct, frozen=True):
    """A distribution of durations in milliseconds; all zero while `count` is 0."""

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class SourceCounts(msgspec.Struct):
    """One stage's page of the ledger for one source.

    captured   frames taken (decode only)
    highest    the highest seq that this stage saw, -1 for none
    delivered  frames handed to the outputs with a result, `failed` those handed over without one (deliver only)
    dropped    frames that ended here, by reason
    """

    captured: int = 0
    highest: int = -1
    delivered: int = 0
    failed: int = 0
    dropped: dict[str, int] = {}


class OutputCounts(msgspec.Struct):
    """One output: frames that it took, why it takes no more, if it failed, and whether its file is there no longer."""

    frames: int = 0
    problem: str | None = None
    is_gone: bool = False


class Report(msgspec.Struct, tag="report"):
    """How a stage is doing: totals since its start, and `recent_*` over the last seconds.

    outputs      by their key in the settings, once they were opened (deliver only)

    cpu_seconds  of the stage's process since the first frame could come; None where stages share one
    working  time inside the stage, `waiting` in the queue before it, `latency` from capture to delivery (deliver only)
    """

    stage: str
    frames: int
    frames_per_second: float
    queue_depth: int
    cpu_seconds: float | None
    working: Quantiles
    waiting: Quantiles
    recent_working: Quantiles
    latency: Quantiles
    recent_latency: Quantiles
    sources: dict[str, SourceCounts]
    streams: dict[str, StreamStart]
    outputs: dict[str, OutputCounts] = {}
    warnings: list[str] = []


class Status(msgspec.Struct, tag="status"):
    """What a worker is busy with before the first frame ("loading the network", "compiling kernels")."""

    stage: str
    doing: str


class Ready(msgspec.Struct, tag="ready"):
    """Everything slow is done. The inference worker says which model it holds."""

    stage: str
    model: ModelCard | None = None


class Finished(msgspec.Struct, tag="finished"):
    """The last word of a worker: every stream ended or it was told to stop; outputs are closed.

    exit_code, problem  what went wrong although the worker went on to the end, as in `pipeline.errors`; 0 and ""
    """

    report: Report
    exit_code: int = 0
    problem: str = ""


class Failed(msgspec.Struct, tag="failed"):
    """The worker cannot go on. `exit_code` as in `pipeline.errors`; `detail` is a traceback for --verbose."""

    stage: str
    exit_code: int
    message: str
    detail: str = ""


class AskStop(msgspec.Struct, tag="ask-stop", frozen=True):
    """Stop as if Ctrl-C had been pressed: the user closed the window or, `by_user` false, no output is left."""

    stage: str
    by_user: bool


class Start(msgspec.Struct, tag="start"):
    """All workers are ready: take the first frame."""

    model: ModelCard


class Stop(msgspec.Struct, tag="stop"):
    """Take no more frames; finish with what has arrived."""


FromWorker = Status | Ready | Report | AskStop | Finished | Failed
ToWorker = Start | Stop

encode = msgspec.msgpack.Encoder().encode
decode_data_header = msgspec.msgpack.Decoder(DataHeader).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
