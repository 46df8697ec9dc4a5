"""Words from outside to a run, and back: which there are, where a run listens for them, and how it is asked.

A run of processes has a socket `ctl` in its folder of sockets, which only its user can enter: that is all the lock
there is, and who can enter could as well end the run. Requests and answers are typed structs, strictly decoded.
Knows no stage and nothing of what a run does with a word.
"""

import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from configs.uri import Uri
from pipeline.errors import StageError, UsageError
from pipeline.flow.messages import Gpu, Histogram, ModelCard, Outage, Quantiles
from pipeline.flow.transport import ask
from pipeline.settings import Every, Fraction, Lines, SourceId, SourceSettings, Zones
from pipeline.shapes import Line, Zone

FOLDER_PREFIX = "centerstream-"
SOCKET = "ctl"
ANSWER_SECONDS = 5.0
# A socket's path may have little more than 100 bytes.
LONGEST_FOLDER_BYTES = 60


class List(Struct, tag="list", frozen=True, forbid_unknown_fields=True):
    """How is each source doing?"""


class Add(Struct, tag="add", frozen=True, forbid_unknown_fields=True):
    """One more source; without an id it is called by its address."""

    source: SourceSettings
    source_id: SourceId | None = None


class Remove(Struct, tag="remove", frozen=True, forbid_unknown_fields=True):
    """Take no more of its frames; those on their way still arrive."""

    source_id: SourceId


class Hold(Struct, tag="hold", frozen=True, forbid_unknown_fields=True):
    """Pause a source, or let it go on."""

    source_id: SourceId
    paused: bool


class Tune(Struct, tag="tune", frozen=True, forbid_unknown_fields=True):
    """What is not None changes for a source from its next frame on; a `max_rate` of 0 is none."""

    source_id: SourceId
    score: Fraction | None = None
    classes: tuple[str, ...] | None = None
    max_rate: Annotated[float, Meta(ge=0.0, le=1000.0)] | None = None
    every: Every | None = None
    zones: Zones | None = None
    lines: Lines | None = None


class Save(Struct, tag="save", frozen=True, forbid_unknown_fields=True):
    """Write its zones and lines, as they are now, into the file that the run was started with."""

    source_id: SourceId


class End(Struct, tag="end", frozen=True, forbid_unknown_fields=True):
    """Stop, as by Ctrl-C."""


class Look(Struct, tag="look", frozen=True, forbid_unknown_fields=True):
    """All that the run knows of itself."""


class Row(Struct, frozen=True):
    """One source. `since_unix` it is in its `state`, `cause` says why; `address` is shown without secrets."""

    source_id: str
    state: str
    since_unix: float
    cause: str
    frames_per_second: float
    captured: int
    delivered: int
    dropped: int
    outages: int
    address: str


class Sources(Struct, tag="sources", frozen=True):
    """The answer to `List`."""

    rows: list[Row]


class Dropped(Struct, frozen=True):
    """Frames of a source that ended at a stage, and why."""

    stage: str
    reason: str
    frames: int


class SourceView(Row, frozen=True, kw_only=True):
    """One source, with all of its counts (`dropped` is the sum of `drops`), settings, the last outages and the ages at
    which its frames were delivered. Sizes are 0 while nothing is known of it."""

    without_result: int
    in_flight: int
    drops: list[Dropped]
    width: int
    height: int
    nominal_frames_per_second: float | None
    is_live: bool
    is_required: bool
    score_threshold: float
    classes: tuple[str, ...]
    max_rate: float | None
    every: int
    zones: dict[str, Zone] = {}
    lines: dict[str, Line] = {}
    last_outages: list[Outage]
    ages: Histogram | None


class WorkerView(Struct, frozen=True):
    """One worker; `working` in the last seconds, `waiting` and `work` since its start."""

    id: str
    status: str
    restarts: int
    frames: int
    frames_per_second: float
    queue_depth: int
    working: Quantiles
    waiting: Quantiles
    work: Histogram | None
    rounds: dict[int, int]
    cpu_seconds: float | None
    memory_bytes: int | None
    gpu: Gpu | None = None


class OutputView(Struct, frozen=True):
    name: str
    path: str
    frames: int
    missed: int
    problem: str | None


class View(Struct, tag="view", frozen=True):
    """The answer to `Look`: how all was `at_unix`, by this machine's clock. `latency` from capture to delivery in the
    last seconds, of all sources."""

    version: str
    at_unix: float
    uptime_seconds: float
    is_stopping: bool
    model: ModelCard | None
    sources: list[SourceView]
    workers: list[WorkerView]
    latency: Quantiles
    outputs: list[OutputView]
    warnings: list[str]
    problems: list[str]


class Done(Struct, tag="done", frozen=True):
    """It is done, or under way; `text` for whoever asked."""

    text: str


class Refused(Struct, tag="refused", frozen=True):
    """Nothing was changed, and why."""

    text: str


# What changes something of the sources.
Change = Add | Remove | Hold | Tune | Save
Request = List | Look | Change | End
Answer = Sources | View | Done | Refused


def encode(word: Request | Answer) -> bytes:
    return msgspec.msgpack.encode(word, enc_hook=Uri.reveal)


def decode_request(body: bytes) -> Request:
    """Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(body, type=Request, dec_hook=lambda kind, text: kind(text))


def decode_change(body: bytes) -> Change:
    """The same of JSON, for words that change a source. Raises msgspec.DecodeError."""
    return msgspec.json.decode(body, type=Change, dec_hook=lambda kind, text: kind(text))


_decode_answer = msgspec.msgpack.Decoder(Answer).decode


# -- where runs are


def folder_for_runs() -> str:
    """Where each run makes its folder of sockets."""
    place = tempfile.gettempdir()
    return place if len(os.fsencode(place)) < LONGEST_FOLDER_BYTES else "/tmp"


def runs() -> dict[int, Path]:
    """The socket of each run of this user that listens, by its process's id."""
    return dict(sorted(_listening()))


def _listening() -> Iterator[tuple[int, Path]]:
    for folder in Path(folder_for_runs()).glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):  # another user's, or of a run that was killed
            if folder.stat().st_uid == os.getuid() and (pid := _listener(folder / SOCKET)):
                yield pid, folder / SOCKET


def _listener(path: Path) -> int:
    """The process behind a socket, as the kernel knows it. Raises OSError where nobody listens."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(ANSWER_SECONDS)
        knock.connect(str(path))
        if sys.platform == "darwin":
            return knock.getsockopt(0, 2)  # SOL_LOCAL, LOCAL_PEERPID
        pid, _, _ = struct.unpack("3i", knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return int(pid)


def find_run(pid: int | None = None) -> Path:
    """The socket of the run `pid`, or of the only one. Raises UsageError where there is none, or no such one."""
    found = runs()
    if pid in found:
        return found[pid]
    listed = ", ".join(map(str, found))
    if not found:
        where = f"{folder_for_runs()} (TMPDIR)"
        raise UsageError(f"no run of yours listens under {where}; one with run.placement threads never does")
    if pid is not None:
        raise UsageError(f"there is no run {pid}; those that listen: {listed}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} runs listen: {listed}; say which with --run")
    return next(iter(found.values()))


def tell(run: Path, request: Request) -> Sources | View | Done:
    """The run's answer. Raises UsageError for what it refuses, StageError when none comes in time."""
    body = ask(f"ipc://{run}", encode(request), ANSWER_SECONDS)
    if body is None:
        raise StageError(
            f"the run did not answer within {ANSWER_SECONDS:g} s: it has ended, was stopped, or is too busy"
        )
    try:
        answer = _decode_answer(body)
    except msgspec.DecodeError:
        raise StageError("the run's answer cannot be read: it is of another version") from None
    if isinstance(answer, Refused):
        raise UsageError(answer.text)
    return answer
