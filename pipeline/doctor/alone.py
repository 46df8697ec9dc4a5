"""One check in a process of its own: `python -m pipeline.doctor.alone MODULE FUNCTION SUBJECT SECONDS` reads a question
from standard input and writes each finding as a line of JSON, so that those before a crash are known. Knows no check.
"""

import os
import signal
import sys
from importlib import import_module

import msgspec

from configs import startup
from pipeline.doctor.finding import Finding, Question, problem
from pipeline.errors import place_of

REPORT = "please report it"


def main() -> None:
    module, function, subject, seconds = sys.argv[1:]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(seconds))  # it ends also where whoever asked was killed
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no finding
    try:
        question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question, dec_hook=lambda kind, text: kind(text))
        for finding in getattr(import_module(module), function)(question):
            _write(answers, finding)
    except Exception as error:
        _write(answers, problem(subject, f"the check itself failed: {place_of(error)}", REPORT))


def _write(descriptor: int, finding: Finding) -> None:
    os.write(descriptor, msgspec.json.encode(finding) + b"\n")


if __name__ == "__main__":
    startup.run(main, at_once=True)
