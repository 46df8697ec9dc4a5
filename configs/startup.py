"""What a process of ours does before anything else. Knows no command, and imports nothing that has to be installed.

`settle` is for every process. To import any package of ours is to have called it (configs/__init__.py), so that no
command can forget it. `run` is how a command begins and ends.
"""

from __future__ import annotations  # run_pipeline.py may be started by an older Python, to go on in another

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, TextIO

from configs.folders import cache_dir

OUTPUT_FAILED = 4
INTERRUPTED = 130

# What others keep between runs goes into folders of our cache, unless the user has another place for it.
KEPT = {"NUMBA_CACHE_DIR": "numba", "TORCHINDUCTOR_CACHE_DIR": "torchinductor", "TRITON_CACHE_DIR": "triton"}


def settle() -> None:
    """The standard descriptors are open, nobody reports to third parties, and whatever is kept is kept in our cache."""
    _open_standard_descriptors()
    _report_to_nobody()
    _keep_in_our_cache()


def _open_standard_descriptors() -> None:
    """A closed one would be given to the next file or shared memory that is opened, and written into as if it were
    the terminal."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            os.set_inheritable(number, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8", closefd=False))


def standard_output_is_closed() -> bool:
    """Whether this process was started without one (`>&-`): what is written there goes nowhere."""
    return sys.__stdout__ is None


def _report_to_nobody() -> None:
    """Both runtimes look up a host and leave files in the user's folder as soon as they are imported."""
    if not (os.environ.get("LOGNAME") or os.environ.get("USER")):
        os.environ["LOGNAME"] = str(os.getuid())  # or torch asks the system who we are, which may ask a network
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime; heard only before the import
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # OpenVINO goes without when it is missing


def _keep_in_our_cache() -> None:
    with suppress(OSError):  # where there is no place at all, each says so itself when it needs one
        for name, folder in KEPT.items():
            _place(name, folder)
        # Beside the sources it may not be; or each start of each process would compile all that it imports.
        if sys.dont_write_bytecode and not _is_compiled():
            sys.dont_write_bytecode, sys.pycache_prefix = False, _place("PYTHONPYCACHEPREFIX", "python")
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Compiled headers go under the temporary folder, wherever the rest is (torch 2.15), and save little.
    os.environ.setdefault("TORCHINDUCTOR_CPP_CACHE_PRECOMPILE_HEADERS", "0")


def _is_compiled() -> bool:
    """Whether that was done where the sources lie, ours and those that were installed (`make setup`, pip)."""
    if sys.pycache_prefix:
        return False  # there nobody looks
    spec = find_spec("msgspec")
    origins = [__file__, spec.origin if spec else None]
    return all(origin and Path(origin).with_name("__pycache__").is_dir() for origin in origins)


def _place(name: str, folder: str) -> str:
    """Where the user wants it, or in our cache."""
    os.environ[name] = os.environ.get(name) or str(cache_dir() / folder)
    return os.environ[name]


def run(main: Callable[[], int | None], at_once: bool = False) -> NoReturn:
    """Runs a command, and ends the process with what `main` returns, None being 0.

    `at_once`: without Python's own tidying up, in which a signal would kill it, and threads that a library left behind.

    Ctrl-C is a quiet end. What is told on standard error never changes the outcome, whether or not it can be written.
    A reader of standard output that has gone has read enough; any other failure to write there is an error.
    """
    sys.stdout, sys.stderr = _replaced(sys.stdout, must_arrive=True), _replaced(sys.stderr, must_arrive=False)
    try:
        code = _code_of(main)
        sys.stdout.flush()
    except _OutputLost as lost:
        code = lost.tell()
    except KeyboardInterrupt:
        code = INTERRUPTED
    if at_once and isinstance(code, int):
        os._exit(code)
    sys.exit(code)


def _code_of(main: Callable[[], int | None]) -> Any:
    try:
        return main()
    except SystemExit as ending:  # of argparse
        return ending.code


def _replaced(stream: TextIO, must_arrive: bool) -> TextIO:
    """`stream` as it is, but for what happens when it cannot be written."""
    assert isinstance(stream, io.TextIOWrapper)
    stream.flush()
    outlet = _Outlet(stream.fileno(), must_arrive)
    return io.TextIOWrapper(
        outlet if stream.write_through else io.BufferedWriter(outlet),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _OutputLost(BaseException):
    """Standard output cannot be written. No OSError, for whoever handles those means files that have a name, and no
    Exception, for it is nobody's fault in between."""

    def tell(self) -> int:
        """Says so, unless whoever reads has read enough, as `head` does; the exit code."""
        if isinstance(self.__cause__, BrokenPipeError):
            return 0
        print(f"error: cannot write standard output: {self}", file=sys.stderr)
        return OUTPUT_FAILED


class _Outlet(io.FileIO):
    """Bytes on their way out. If they must arrive, the first failure raises _OutputLost, and no later one: Python tries
    again at the very end. All else that cannot be written is lost."""

    def __init__(self, descriptor: int, must_arrive: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._must_arrive = must_arrive

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError as error:
            if self._must_arrive:
                self._must_arrive = False
                raise _OutputLost(error.strerror) from error
            return memoryview(data).nbytes
        return written if self._must_arrive else written or memoryview(data).nbytes
