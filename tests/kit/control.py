"""A run of the real command that is told words while it goes on."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

from pipeline.control import words
from pipeline.errors import CenterStreamError
from tests.kit.harness import QUICK, command, json_lines, wait_until

LIGHT = (*QUICK, "--set", "queue.capacity=8")
PATTERN = "lavfi:testsrc2=size=160x120:rate=10"


class ControlledRun:
    """The command, in a temporary folder of its own, which FOLDER stands for in its arguments."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None, settings: Sequence[str] = LIGHT) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ctl", dir="/tmp"))
        self.env = os.environ | {"TMPDIR": str(self.folder)} | (env or {})
        self.lines, self.told, self.errors = (self.folder / name for name in ("lines.jsonl", "told", "errors"))
        self.process = subprocess.Popen(
            command(
                *(str(word).replace("FOLDER", str(self.folder)) for word in arguments), "--jsonl", self.lines, *settings
            ),
            stdout=self.told.open("w"),
            stderr=self.errors.open("w"),
            text=True,
            process_group=0,
            env=self.env,
        )

    def ctl(self, *words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command("ctl", *words), capture_output=True, text=True, timeout=60, env=self.env | (env or {})
        )

    def say(self, *words: object) -> str:
        """A word that is heard; the answer."""
        done = self.ctl(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def rows(self) -> dict[str, dict[str, str]]:
        """What `ctl list` prints, by source: cells by their titles."""
        lines = self.say("list").splitlines()
        titles = lines[0].split()
        starts = [lines[0].index(title) for title in titles]
        return {row["source"]: row for row in (_cells(line, lines, titles, starts) for line in lines[1:])}

    def wait_for(self, source_id: str, state: str, seconds: float = 60) -> None:
        wait_until(lambda: self._state_of(source_id) == state, seconds, f"{source_id} {state}")

    def _state_of(self, source_id: str) -> str | None:
        """As `ctl list` has it, without a process for each time one asks."""
        assert self.process.poll() is None, self.errors.read_text()
        with mock.patch.object(tempfile, "tempdir", str(self.folder)), suppress(CenterStreamError):
            answer = words.tell(words.find_run(), words.List())
            assert isinstance(answer, words.Sources)
            return next((row.state for row in answer.rows if row.source_id == source_id), None)
        return None

    def wait_until_frames(self, source_id: str, more: int, seconds: float = 60) -> None:
        """Until so many more of its frames have been written."""
        before = len(self.frames(source_id))
        wait_until(lambda: len(self.frames(source_id)) >= before + more, seconds, f"{more} frames of {source_id}")

    def wait_for_error(self, said: str, seconds: float = 60) -> str:
        """The line on standard error that says it."""
        wait_until(lambda: said in self.errors.read_text(), seconds, f"the words {said!r}")
        return next(line for line in self.errors.read_text().splitlines() if said in line)

    def frames(self, source_id: str) -> list[dict]:
        if not self.lines.exists():
            return []
        return self._lines(source_id, "frame")

    def signals(self, source_id: str) -> list[str]:
        return [line["state"] for line in self._lines(source_id, "signal")]

    def _lines(self, source_id: str, kind: str) -> list[dict]:
        lines = json_lines(self.lines, is_growing=self.process.poll() is None)
        return [line for line in lines if line["source"] == source_id and line["kind"] == kind]

    def end(self) -> tuple[int, str]:
        """Exit code and all that it said on standard error."""
        wait_until(lambda: self.process.poll() is not None, what="the end of the run")
        return self.process.returncode, self.errors.read_text()


def _cells(line: str, lines: list[str], titles: list[str], starts: list[int]) -> dict[str, str]:
    """Numbers stand to the right under their titles, the others to the left."""
    words = line.split()
    numbers = titles.index("address") - titles.index("since") - 1
    address, counts = words[-1], words[-1 - numbers : -1]
    state = line[starts[1] : starts[2]].strip()
    since = " ".join(words[-3 - numbers : -1 - numbers])
    return dict(zip(titles, [words[0], state, since, *counts, address], strict=True))


@contextmanager
def running(
    *arguments: object, env: dict[str, str] | None = None, settings: Sequence[str] = LIGHT
) -> Iterator[ControlledRun]:
    run = ControlledRun(*arguments, env=env, settings=settings)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
        shutil.rmtree(run.folder, ignore_errors=True)
