"""Every setting of a run, with its default, its range and what it means. `command.config` reads them from files.

Each struct is the configuration of one part; the part takes it as its only configuration. Unknown keys are refused.
"""

import os
import re
from collections.abc import Collection, Iterator
from itertools import count
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from configs.uri import Network, Secret, Uri, shown
from pipeline import addresses
from pipeline.errors import UsageError
from pipeline.kinds import ALLOWED, SINKS, kind_and_target
from pipeline.shapes import MOST_SHAPES, Line, Zone

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
FrameCount = Annotated[int, Meta(ge=1, le=1_000_000_000)]
VideoPath = Annotated[
    str, Meta(pattern=r"\.(mp4|m4v|mov|mkv)$", description="a path that ends in .mp4, .m4v, .mov or .mkv")
]
OutputPath = Annotated[str, Meta(min_length=1, description="a path, or - for standard output")]
Output = Annotated[Uri, Meta(description=ALLOWED)]
MOST_THREADS = 64
LAST_PORT = 65535
Every = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(gt=0.0, le=3600.0)]
SecondsOrOff = Annotated[float, Meta(ge=0.0, le=3600.0)]
# Below it a busy machine's healthy worker would be taken for a dead one: it reports once a second.
Silence = Annotated[float, Meta(ge=3.0, le=3600.0)]
# Of a source, a zone or a line; it is in every line of the results, so no address gets in here
SourceId = Annotated[
    str, Meta(pattern=r"^[\w-][\w -]{0,63}$", description="a name of up to 64 letters, digits, spaces, - and _")
]
Zones = Annotated[
    dict[SourceId, Zone], Meta(max_length=MOST_SHAPES, description=f"a mapping of up to {MOST_SHAPES} zones by name")
]
Lines = Annotated[
    dict[SourceId, Line], Meta(max_length=MOST_SHAPES, description=f"a mapping of up to {MOST_SHAPES} lines by name")
]


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
    # Parts of the picture in which objects are counted, by name
    zones: Zones = {}
    # Lines across which they are, by name
    lines: Lines = {}

    def __post_init__(self) -> None:
        if not isinstance(self.uri, Uri):
            force_setattr(self, "uri", Uri(self.uri))

    def check_counted(self, source_id: str, looked_for: Collection[str]) -> None:
        """Raises UsageError for a zone or a line that counts another class than those that are looked for."""
        for key, name in self.counted():
            if name not in looked_for:
                known = ", ".join(looked_for)
                raise UsageError(
                    f"sources.{source_id}.{key}: {shown(name)} is not looked for; what is looked for: {known}"
                )

    def counted(self) -> Iterator[tuple[str, str]]:
        """The classes that zones and lines name, each with the key that does."""
        for kind, shapes in (("zones", self.zones), ("lines", self.lines)):
            for name, shape in shapes.items():
                yield from ((f"{kind}.{name}.classes", class_name) for class_name in shape.classes)


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


# Of a model that does not say from which score on its objects are best reported.
USUAL_SCORE = 0.3


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
    # Objects below it are not reported; None: what the checkpoint says is best, or 0.3
    score_threshold: Fraction | None = None
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

    def score(self) -> float:
        """The `score_threshold`, or the usual one."""
        return USUAL_SCORE if self.score_threshold is None else self.score_threshold

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
    """Whom tracks follow, and how long. Raises ValueError where low_score > high_score."""

    # Detections from this score on are matched first, and may start a track
    high_score: Fraction = 0.35
    # Those from this score on are matched after them; they continue a track, or find a lost one, but never start one
    low_score: Fraction = 0.1
    # A track that was ever found with this score is confirmed as soon as confirm_frames say; a steady weaker one later
    new_score: Fraction = 0.5
    # A first match must be more alike than this: intersection over union, times the overlap of heights
    first_overlap: Fraction = 0.2
    # A match with a low score must be more alike than this
    second_overlap: Fraction = 0.5
    # Looks in which an object must be found before its track counts and gets an id; in a first look one is enough
    confirm_frames: Annotated[int, Meta(ge=1, le=100)] = 2
    # A track that has not been found for longer is given up (or for half as long again as looks are apart)
    lost_seconds: Annotated[float, Meta(ge=0.0, le=600.0)] = 1.5
    # In so many looks in a row an object that is missed is told of where it should be, marked as predicted, where the
    # source flickers: at least half of those missed so often were found again in the next look. 0: never
    held_looks: Annotated[int, Meta(ge=0, le=100)] = 3
    # Classes that are taken for each other: a track keeps its id from one to another of a group, and has the class that
    # it was found as most. Names that the model does not know mean nothing
    confused: tuple[tuple[str, ...], ...] = (("car", "truck", "bus"), ("bicycle", "motorcycle"))

    def __post_init__(self) -> None:
        if self.low_score > self.high_score:
            raise ValueError(f"low_score {self.low_score} must not exceed high_score {self.high_score}")
        names = [name for group in self.confused for name in group]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"confused: {shown(twice)} stands in two groups; a class is in one at most")


class EncoderSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How overlay videos are encoded, as H.264."""

    # On the CPU, or by a hardware encoder; auto takes the first of those that works here, else libx264
    codec: Literal["auto", "libx264", "h264_nvenc", "h264_qsv"] = "libx264"
    # Of libx264: a faster one costs less CPU and makes larger files
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow"] = "ultrafast"
    # 1 is the best, 51 the worst; 6 less make a file about twice as large
    quality: Annotated[int, Meta(ge=1, le=51)] = 24


class RecordSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of the pictures in recordings (`record:FOLDER`), and for how long."""

    # Only while one of these classes is seen; empty: always
    classes: tuple[str, ...] = ()
    # From so long before it is seen
    pre_seconds: Annotated[float, Meta(ge=0.0, le=300.0)] = 5.0
    # Until so long after it was last seen
    post_seconds: SecondsOrOff = 10.0
    # A recording goes on in a next file after so long
    segment_minutes: Annotated[float, Meta(gt=0.0, le=1440.0)] = 10.0
    # Files that began longer ago are deleted; None: they are kept
    keep_days: Annotated[float, Meta(gt=0.0, le=36_500.0)] | None = None
    # The oldest are deleted while all in the folder, of all sources, take more; None: they are kept
    keep_gigabytes: Annotated[float, Meta(gt=0.0, le=1_000_000.0)] | None = None

    def check_classes(self, known: tuple[str, ...]) -> None:
        """Raises UsageError for a class that is none of those that are looked for."""
        unknown = [name for name in self.classes if name not in known]
        if unknown:
            raise UsageError(
                f"deliver.record.classes: nobody looks for {shown(unknown[0])}, only for {', '.join(known)}"
            )


class SpoolSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where results wait on the disk that are to go over a network, until whoever takes them has confirmed them."""

    # A folder; null: one in the cache
    folder: Annotated[str, Meta(min_length=1, description="a folder")] | None = None
    # So much may wait for each output; then the oldest is given up
    megabytes: Annotated[float, Meta(ge=0.1, le=1_000_000.0)] = 64.0


class DeliverSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What becomes of the results. A path of None means "not wanted"."""

    # Overlay video, H.264
    video: VideoPath | None = None
    # A live source's video goes on in a next file (`out.1.mp4`) after so long; None: never
    segment_minutes: Annotated[float, Meta(gt=0.0, le=44_640.0)] | None = 60.0
    # How the video is encoded
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    # What recordings keep
    record: RecordSettings = field(default_factory=RecordSettings)
    # JSON lines, one object a frame; "-" is standard output
    jsonl: OutputPath | None = None
    # JSON lines and CSV go on in a next file (`objects.1.jsonl`) before one is larger; None: never
    rotate_megabytes: Annotated[float, Meta(gt=0.0, le=1_000_000.0)] | None = None
    # Of those files only the newest so many are kept; None: all
    keep_files: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    # MOTChallenge text of the confirmed tracks
    mot: OutputPath | None = None
    # A window
    show: bool = False
    # Draw boxes into the video and the window
    overlay: bool = True
    # More, of any kind, as kind:path or, on a network, as scheme://address
    also: tuple[Output, ...] = ()
    # What waits for who is reached over a network and is not there
    spool: SpoolSettings = field(default_factory=SpoolSettings)

    def __post_init__(self) -> None:
        force_setattr(self, "also", tuple(each if isinstance(each, Uri) else Uri(each) for each in self.also))
        for address in self.also:
            self._check_address(address)
        if self.keep_files is not None and self.rotate_megabytes is None:
            raise ValueError("keep_files goes with rotate_megabytes: without it there is one file")

    @staticmethod
    def _check_address(address: Uri) -> None:
        found = kind_and_target(address.reveal())
        if found is None:
            raise ValueError(f"also has {shown(address)}, allowed is {ALLOWED}")
        kind = SINKS[found[0]]
        if kind.is_called and (problem := _no_server(address.network)):
            raise ValueError(f"also has {shown(address)}, which {problem}")
        if kind.options and "${" not in address.reveal():  # else it is looked at once what it names is in its place
            try:
                addresses.read(address, kind.options)
            except ValueError as error:
                raise ValueError(f"also has {shown(address)}: {error}") from None

    def outputs(self) -> dict[str, tuple[str, str]]:
        """Kind and target (a path, or an address with its secrets) of each output, by its name: its key, or how its
        address is shown where it has none."""
        kinds = {"video": self.video, "jsonl": self.jsonl, "mot": self.mot, "window": "" if self.show else None}
        outputs = {kind: (kind, path) for kind, path in kinds.items() if path is not None}
        for address in self.also:
            names = (f"{address.shown} {number}" if number > 1 else address.shown for number in count(1))
            outputs[next(name for name in names if name not in outputs)] = kind_and_target(address.reveal()) or ("", "")
        return outputs

    def files(self) -> dict[str, str]:
        """The paths to be written, by name; "-" is standard output, {source} stands for each source."""
        return {name: path for name, (kind, path) in self.outputs().items() if SINKS[kind].is_file}

    def folders(self) -> dict[str, str]:
        """The folders to be written into, by name, as `files`."""
        return {name: path for name, (kind, path) in self.outputs().items() if SINKS[kind].is_folder}

    def has_pictures(self) -> bool:
        """Of every frame; others may be asked for while the run goes on."""
        return any(SINKS[kind].has_pictures and not SINKS[kind].on_demand for kind, _ in self.outputs().values())

    def may_have_pictures(self) -> bool:
        return any(SINKS[kind].has_pictures for kind, _ in self.outputs().values())


def _no_server(network: Network | None) -> str | None:
    """Why none can be called there."""
    if network and not network.problem and int(network.port[1:] or 0) > LAST_PORT:
        return f"has a port beyond {LAST_PORT}"
    return network.problem if network else "has no form that can be read"


LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")
SHORTEST_TOKEN = 16


class ServeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The live page, its pictures and figures. Raises ValueError for an address beyond this machine without a token."""

    # HOST:PORT where the page is; None: nowhere
    at: (
        Annotated[
            str, Meta(pattern=r"^([\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$", description="HOST:PORT, as 127.0.0.1:8080")
        ]
        | None
    ) = None
    # Whoever asks has to give it; beyond this machine there must be one. ${NAME} and ${file:PATH} are filled in
    token: Annotated[Secret, Meta(description=f"text of {SHORTEST_TOKEN} letters or more")] | None = None

    def __post_init__(self) -> None:
        if self.token is not None and not isinstance(self.token, Secret):
            force_setattr(self, "token", Secret(self.token))
        if self.at and not self.is_local and not self.token:
            how = "--set 'serve.token=${CENTERSTREAM_TOKEN}' takes it from the environment"
            raise ValueError(f"at {self.at} others can reach the page, so it needs a token: {how}")
        if self.at and self.host_and_port()[1] > LAST_PORT:
            raise ValueError(f"at {self.at}: a port is {LAST_PORT} at the most")

    @property
    def is_local(self) -> bool:
        return self.at is not None and LOOPBACK.fullmatch(self.host_and_port()[0]) is not None

    def host_and_port(self) -> tuple[str, int]:
        host, _, port = (self.at or "").rpartition(":")
        return host.strip("[]"), int(port)


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
    # How the run tells of itself on standard error: for people, or a JSON object a line
    log: Literal["text", "json"] = "text"
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


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """One run. `sources` is keyed by source id."""

    sources: dict[SourceId, SourceSettings] = {}
    infer: InferSettings = field(default_factory=InferSettings)
    postprocess: PostprocessSettings = field(default_factory=PostprocessSettings)
    track: TrackerSettings = field(default_factory=TrackerSettings)
    deliver: DeliverSettings = field(default_factory=DeliverSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        if self.serve.at and self.run.placement == "threads":
            raise ValueError(
                "serve.at goes with run.placement processes: the page is one more, and asks the run by its socket"
            )

    def may_have_pictures(self) -> bool:
        """Full-size ones: of every frame, or of those that somebody looks at."""
        return self.serve.at is not None or self.deliver.may_have_pictures()

    def lowest_score(self) -> float:
        """Below it nobody looks at a peak: the tracker continues tracks with less than what is reported."""
        return min(self.infer.score(), self.track.low_score)
