"""Asks all the checks there are, each in a process of its own and for a bounded time: first those of the machine, as
many at a time as there are cores, then the sources, whose times nothing else disturbs. Knows what there is to ask, and
not how it is found out.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, Self

import msgspec

from configs.uri import Uri
from pipeline.doctor.alone import REPORT
from pipeline.doctor.finding import Finding, Question, problem
from pipeline.run.start import start_module
from pipeline.settings import Settings, usable_cores

SOURCES_AT_A_TIME = 8
# What opening and the first key frame may take beside the seconds in which a source is heard.
OPENING_SECONDS = 40.0
GONE_SECONDS = 1.0
# After its time a check whose doctor was killed ends by itself.
LEFT_SECONDS = 10.0


class Check(NamedTuple):
    """A function of a module, and the most that it may take; `subject` is what it is about."""

    subject: str
    module: str
    function: str
    seconds: float = 20.0


CHECKS = (
    Check("Python", "pipeline.doctor.packages", "python"),
    Check("packages", "pipeline.doctor.packages", "packages"),
    Check("OpenCV", "pipeline.doctor.packages", "opencv"),
    Check("decoders", "pipeline.doctor.video", "decoders"),
    Check("encoders", "pipeline.doctor.video", "encoders", 60.0),
    Check("window", "pipeline.doctor.video", "window"),
    Check("weights", "pipeline.doctor.network", "weights"),
    Check("engines", "pipeline.doctor.network", "computing", 120.0),
    Check("processor", "pipeline.doctor.machine", "processor"),
    Check("memory", "pipeline.doctor.machine", "memory"),
    Check("open files", "pipeline.doctor.machine", "open_files"),
    Check("clock", "pipeline.doctor.machine", "clock"),
    Check("shared memory", "pipeline.doctor.places", "shared_memory"),
    Check("temporary folder", "pipeline.doctor.places", "temporary_folder"),
    Check("cache", "pipeline.doctor.places", "cache"),
    Check("port", "pipeline.doctor.ports", "port"),
)


class Examination:
    """Asks while it is gone through; left early, it ends what it has started."""

    def __init__(self, settings: Settings, seconds: float) -> None:
        """A source is heard for so many `seconds`."""
        self._settings, self._seconds = settings, seconds
        self._starting = threading.Lock()
        self._started: list[subprocess.Popen[bytes]] = []
        self._closed = False

    def of_machine(self, checks: tuple[Check, ...] = CHECKS) -> Iterator[Finding]:
        question = Question(self._settings)
        yield from self._all([(check, question) for check in checks], usable_cores())

    def of_sources(self) -> Iterator[Finding]:
        seconds = OPENING_SECONDS + 4 * self._seconds
        asked = [
            (
                Check(source_id, "pipeline.doctor.streams", "source", seconds + source.open_timeout_seconds),
                Question(
                    msgspec.structs.replace(self._settings, sources={source_id: source}), source_id, self._seconds
                ),
            )
            for source_id, source in self._settings.sources.items()
        ]
        yield from self._all(asked, SOURCES_AT_A_TIME)

    def _all(self, asked: list[tuple[Check, Question]], at_a_time: int) -> Iterator[Finding]:
        with ThreadPoolExecutor(at_a_time) as pool:
            try:
                for findings in pool.map(lambda pair: self._ask(*pair), asked):
                    yield from findings
            except BaseException:  # Ctrl-C, or nobody wants the rest: the pool waits for what runs
                self.close()
                raise

    def _ask(self, check: Check, question: Question) -> list[Finding]:
        process = self._start(check)
        if process is None:
            return []
        late = False
        try:
            told, _ = process.communicate(msgspec.json.encode(question, enc_hook=Uri.reveal), check.seconds)
        except subprocess.TimeoutExpired as slow:
            late, told = True, slow.output or b""
        finally:
            _end(process)
        return [*_read(told), *self._how_it_ended(check, process.returncode, late)]

    def _start(self, check: Check) -> "subprocess.Popen[bytes] | None":
        """None where nobody wants it any more."""
        words = (check.module, check.function, check.subject, str(int(check.seconds + LEFT_SECONDS)))
        with self._starting:
            if self._closed:
                return None
            process = start_module("pipeline.doctor.alone", *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self._started.append(process)
            return process

    def _how_it_ended(self, check: Check, code: int | None, late: bool) -> Iterator[Finding]:
        if self._closed:
            return
        if late:
            yield problem(
                check.subject, f"no answer within {check.seconds:g} s", "what it asks hangs, and may hang a run"
            )
        elif code:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            yield problem(check.subject, f"the check itself {how}", f"what it tries may end a run, too; {REPORT}")

    def close(self) -> None:
        with self._starting:
            self._closed = True
        for process in self._started:
            _end(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it has started; one that cannot be killed is left behind."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GONE_SECONDS)


def _read(lines: bytes) -> Iterator[Finding]:
    """Whole lines; the last may have been cut off."""
    for line in lines.split(b"\n")[:-1]:
        yield msgspec.json.decode(line, type=Finding)
