"""Every setting of a run, with its default, its range and what it means. `command.config` reads them from files.

Each struct is the configuration of one part; the part takes it as its only configuration. Unknown keys are refused.
"""

import os
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from configs.uri import Uri, shown
from pipeline.errors import UsageError
from pipeline.kinds import SINKS

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
FrameCount = Annotated[int, Meta(ge=1, le=1_000_000_000)]
VideoPath = Annotated[
    str, Meta(pattern=r"\.(mp4|m4v|mov|mkv)$", description="a path that ends in .mp4, .m4v, .mov or .mkv")
]
OutputPath = Annotated[str, Meta(min_length=1, description="a path, or - for standard output")]
Output = Annotated[
    str,
    Meta(
        pattern=rf"^({'|'.join(SINKS)}):",
        description=f"KIND:PATH with a kind of {', '.join(SINKS)}, for example jsonl:objects.jsonl",
    ),
]
MOST_THREADS = 64
Every = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0.0, le=3600.0)]
SecondsOrOff = Annotated[float, Meta(ge=0.0, le=3600.0)]
# Below it a busy machine's healthy worker would be taken for a dead one: it reports once a second.
Silence = Annotated[float, Meta(ge=3.0, le=3600.0)]


class SourceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where frames come from."""

    # A file, rtsp://…, http(s)://…, /dev/video0 or 0, an image folder or glob, lavfi:testsrc2
    uri: Annotated[Uri, Meta(description="text: a path or an address")]
    # How an RTSP camera sends
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    # Give up when a network source or camera does not answer for so long
    open_timeout_seconds: Seconds = 5.0
    # A live source that sends nothing for so long is lost
    read_timeout_seconds: Seconds = 5.0
    # A live source that is lost is opened again: at once, then ever more slowly; false: it has failed
    reconnect: bool = True
    # A source that stays lost for so long has failed; None: it is waited for without end
    give_up_seconds: Annotated[float, Meta(gt=0.0, le=31_536_000.0)] | None = None
    # A source that cannot be opened at the start ends the run
    required: bool = False
    # A live picture that has not changed for so long is told to be frozen; 0: never
    frozen_seconds: SecondsOrOff = 10.0
    # A live picture in which nothing is to be seen for so long is told to be grey; 0: never
    grey_seconds: SecondsOrOff = 3.0
    # Pace a file by its own clock as if it were live, and drop what comes too late
    realtime: bool = False
    # Look at so many frames a second at most; None: at all
    max_rate: Annotated[float, Meta(gt=0.0, le=1000.0)] | None = None
    # Look at one frame of so many
    every: Every = 1
    # Threads of the decoder; None: one for each core
    decoder_threads: Annotated[int, Meta(ge=1, le=MOST_THREADS)] | None = None
    # Stop after so many frames
    max_frames: FrameCount | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.uri, Uri):
            force_setattr(self, "uri", Uri(self.uri))


Size = Annotated[
    str, Meta(pattern=r"^[1-9][0-9]{1,3}x[1-9][0-9]{1,3}$", description="WIDTHxHEIGHT in pixels, as in 640x384")
]
USUAL_WORKERS = 8
# Each worker keeps memory of its own; with more threads any machine is slower, and libraries fail to start them.
MOST_WORKERS = 64
MOST_THREADS_IN_ALL = 512
LARGEST_INPUT_SIDE = 2048
LARGEST_BATCH = 16
# At the same time: each has a process, and a place in the ledger.
MOST_SOURCES = 128


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class InferSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The network and where it runs. Raises ValueError for an input or threads beyond the largest."""

    model: str = "mobilenetv3"
    # A checkpoint; None takes the weights that come with the model
    weights: str | None = None
    # What the network sees, as WIDTHxHEIGHT in pixels; None: what it was made for
    input_size: Size | None = None
    # How it is run; auto takes what measures best on this machine
    engine: Literal["auto", "eager", "compile", "cuda_graphs", "onnxruntime", "openvino"] = "auto"
    # auto takes CUDA when there is one
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$", description="auto, cpu, cuda or cuda:N")] = (
        "auto"
    )
    # Frames computed side by side; None: one for each core on a CPU, 8 at the most; 2 on CUDA
    workers: Annotated[int, Meta(ge=1, le=MOST_WORKERS)] | None = None
    # CPU threads inside one network step, for each worker; None: the cores shared among the workers
    threads: Annotated[int, Meta(ge=1, le=MOST_THREADS)] | None = None
    # Processes that compute, each with its own network and workers
    processes: Annotated[int, Meta(ge=1, le=16)] = 1
    # Frames in one step of the network at the most; None: what pays here (with engine auto), or 1
    batch: Annotated[int, Meta(ge=1, le=LARGEST_BATCH)] | None = None
    # In what it computes; auto takes lower precision where it is faster and finds the same objects
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    # Every so many frames are computed in fp32, too, and it is told how far the two part; 0: none
    shadow: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    # Objects below it are not reported
    score_threshold: Fraction = 0.3
    # A frame that looks as the last computed one takes over what was found there, so many in a row at most; None: never
    still: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    # One in so many of those frames is computed all the same, to tell what is missed; None: none
    still_audit: Annotated[int, Meta(ge=1, le=1_000_000)] | None = 100

    def __post_init__(self) -> None:
        if max(self.input_sides() or (0,)) > LARGEST_INPUT_SIDE:
            raise ValueError(f"input_size {self.input_size}: a side has at most {LARGEST_INPUT_SIDE} pixels")
        if self.workers and self.threads and self.workers * self.threads > MOST_THREADS_IN_ALL:
            counts = f"workers {self.workers} × threads {self.threads}"
            raise ValueError(f"{counts}: at most {MOST_THREADS_IN_ALL} threads in all")

    def check_model(self, known: list[str]) -> None:
        """Raises UsageError for a model that is none of the `known`."""
        if self.model not in known:
            raise UsageError(f"infer.model: got {shown(self.model)}, allowed is {' or '.join(known)}")

    def input_sides(self) -> tuple[int, int] | None:
        """Width and height of `input_size`."""
        if self.input_size is None:
            return None
        width, _, height = self.input_size.partition("x")
        return int(width), int(height)

    def cpu_workers(self) -> int:
        return self.workers or min(usable_cores(), USUAL_WORKERS)

    def cpu_threads(self) -> int:
        return self.threads or max(1, usable_cores() // self.cpu_workers())


class PostprocessSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """From heat maps to detections."""

    # Only these class names; empty means all
    classes: tuple[str, ...] = ()
    # The best so many peaks of a frame
    max_detections: Annotated[int, Meta(ge=1, le=1000)] = 100

    def class_ids(self, class_names: tuple[str, ...], classes: tuple[str, ...] | None = None) -> tuple[int, ...]:
        """Places of the wanted classes (those of the settings when None) among the network's; all for ().

        Raises UsageError for a name that it does not know.
        """
        classes = self.classes if classes is None else classes
        unknown = [name for name in classes if name not in class_names]
        if unknown:
            known = ", ".join(class_names)
            raise UsageError(f"postprocess.classes: the model knows no {shown(unknown[0])}; it knows {known}")
        wanted = classes or class_names
        return tuple(i for i, name in enumerate(class_names) if name in wanted)


class TrackerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """ByteTrack (arXiv 2110.06864). Raises ValueError where low_score > high_score."""

    # Detections from this score on are matched first, with all tracks
    high_score: Fraction = 0.35
    # Those from this score on are matched after them, with the tracks just seen; they continue a track, never start one
    low_score: Fraction = 0.1
    # A detection that found no track starts one from this score on (and from high_score on)
    new_score: Fraction = 0.5
    # A first match must overlap more than this (intersection over union)
    first_iou: Fraction = 0.1
    # A match with a low score must overlap more than this
    second_iou: Fraction = 0.5
    # Frames in a row in which an object must be found before its track counts and gets an id
    confirm_frames: Annotated[int, Meta(ge=1, le=100)] = 2
    # A track that has not been found for longer is given up
    lost_seconds: Annotated[float, Meta(ge=0.0, le=600.0)] = 1.0

    def __post_init__(self) -> None:
        if self.low_score > self.high_score:
            raise ValueError(f"low_score {self.low_score} must not exceed high_score {self.high_score}")


class EncoderSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How overlay videos are encoded, as H.264."""

    # On the CPU, or by a hardware encoder; auto takes the first of those that works here, else libx264
    codec: Literal["auto", "libx264", "h264_nvenc", "h264_qsv"] = "libx264"
    # Of libx264: a faster one costs less CPU and makes larger files
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = "ultrafast"
    # 1 is the best, 51 the worst; 6 less make a file about twice as large
    quality: Annotated[int, Meta(ge=1, le=51)] = 24


class DeliverSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of the results. A path of None means "not wanted"."""

    # Overlay video, H.264
    video: VideoPath | None = None
    # A live source's video goes on in a next file (`out.1.mp4`) after so long; None: never
    segment_minutes: Annotated[float, Meta(gt=0.0, le=44_640.0)] | None = 60.0
    # How the video is encoded
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    # JSON lines, one object a frame; "-" is standard output
    jsonl: OutputPath | None = None
    # MOTChallenge text of the confirmed tracks
    mot: OutputPath | None = None
    # A window
    show: bool = False
    # Draw boxes into the video and the window
    overlay: bool = True
    # More, of any kind, as kind:path
    also: tuple[Output, ...] = ()

    def outputs(self) -> dict[str, tuple[str, str]]:
        """Kind and path of each output, by its name: its key, or its text where it has none."""
        kinds = {"video": self.video, "jsonl": self.jsonl, "mot": self.mot, "window": "" if self.show else None}
        named = {kind: (kind, path) for kind, path in kinds.items() if path is not None}
        return named | {text: (text.partition(":")[0], text.partition(":")[2]) for text in self.also}

    def files(self) -> dict[str, str]:
        """The paths to be written, by name; "-" is standard output, {source} stands for each source."""
        return {name: path for name, (kind, path) in self.outputs().items() if SINKS[kind].is_file}

    def has_pictures(self) -> bool:
        return any(SINKS[kind].has_pictures for kind, _ in self.outputs().values())


class QueueSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The queues between stages."""

    # When the queue before inference is full: block (nothing is lost) or latest (the oldest waiting frame is dropped).
    # auto: latest for live sources. The queues after it always block
    policy: Literal["auto", "block", "latest"] = "auto"
    # Frames of a live source that may wait before the network
    capacity: Annotated[int, Meta(ge=1, le=64)] = 1
    # What is older is dropped before the network, then the rate of all sources is lowered evenly; None: no such goal
    max_age_ms: Annotated[float, Meta(gt=0.0, le=3_600_000.0)] | None = None


# Those with one worker each.
Groupable = Literal["gather", "postprocess", "track", "deliver"]


class RunSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the stages are run."""

    # Each stage its own process, or all in this one
    placement: Literal["processes", "threads"] = "processes"
    # Stages that share a process, such as [[postprocess, track, deliver]]: what ends one of them ends all
    groups: tuple[tuple[Groupable, ...], ...] = ()
    # How long a stop waits for frames on their way
    drain_seconds: Seconds = 5.0
    # How long a stage may take to load and compile
    start_seconds: Seconds = 120.0
    # A stage's process that is not heard for so long after the start has failed
    silent_seconds: Silence = 10.0
    # So has one that works on one frame for so long
    stuck_seconds: Silence = 60.0

    def __post_init__(self) -> None:
        grouped = [stage for group in self.groups for stage in group]
        twice = next((stage for stage in grouped if grouped.count(stage) > 1), None)
        if twice:
            raise ValueError(f"groups name {twice} twice; each stage has one process")
        if self.groups and self.placement == "threads":
            raise ValueError("groups are of processes; with placement threads all stages share one")

    def group_of(self, stage: str) -> tuple[str, ...]:
        """All that share its process."""
        return next((group for group in self.groups if stage in group), (stage,))


# Of a source; it is in every line of the results, so no address gets in here
SourceId = Annotated[
    str, Meta(pattern=r"^[\w-][\w -]{0,63}$", description="a name of up to 64 letters, digits, spaces, - and _")
]


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """One run. `sources` is keyed by source id."""

    sources: dict[SourceId, SourceSettings] = {}
    infer: InferSettings = field(default_factory=InferSettings)
    postprocess: PostprocessSettings = field(default_factory=PostprocessSettings)
    track: TrackerSettings = field(default_factory=TrackerSettings)
    deliver: DeliverSettings = field(default_factory=DeliverSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def lowest_score(self) -> float:
        """Below it nobody looks at a peak: the tracker continues tracks with less than what is reported."""
        return min(self.infer.score_threshold, self.track.low_score)
