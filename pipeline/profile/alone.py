"""The bench in a process of its own, which has a worker's environment: `python -m pipeline.profile.alone`. What is to
be measured comes by standard input, one `Request` a line, and what was found goes out the same way.
"""

import os
import subprocess
import sys

import msgspec

from configs import startup
from configs.uri import Uri
from pipeline.errors import CenterStreamError, SourceError, StageError, UsageError, place_of
from pipeline.profile.bench import measure
from pipeline.profile.parts import Measured, Request
from pipeline.run.start import start_module


class Apart:
    """The process that measures; it is started with the first request."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def measure(self, request: Request) -> Measured:
        """Raises what the stage raised; StageError where the process dies."""
        if request.settings.run.placement == "threads":
            return _or_raise(measure_or_say(request))
        process = self._process = self._process or start_module("pipeline.profile.alone", stdout=subprocess.PIPE)
        assert process.stdin and process.stdout
        try:
            process.stdin.write(msgspec.json.encode(request, enc_hook=Uri.reveal) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # there will be no answer
        line = process.stdout.readline()
        if not line:
            self.close()
            raise StageError("the process that measured a stage has died")
        return _or_raise(msgspec.json.decode(line, type=Measured))

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _or_raise(measured: Measured) -> Measured:
    if measured.exit_code:
        kinds: dict[int, type[CenterStreamError]] = {k.exit_code: k for k in (UsageError, SourceError, StageError)}
        raise kinds.get(measured.exit_code, StageError)(measured.problem)
    return measured


def measure_or_say(request: Request) -> Measured:
    try:
        return measure(request)
    except CenterStreamError as error:
        return Measured(problem=str(error), exit_code=error.exit_code)
    except Exception as error:
        return Measured(problem=f"a stage failed alone: {place_of(error)}", exit_code=StageError.exit_code)


def main() -> None:
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    for line in sys.stdin.buffer:
        request = msgspec.json.decode(line, type=Request, dec_hook=lambda kind, text: kind(text))
        os.write(answers, msgspec.json.encode(measure_or_say(request)) + b"\n")


if __name__ == "__main__":
    startup.run(main)
