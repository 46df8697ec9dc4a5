"""A site of cameras (`publish`) as a process of its own, for tests to command, freeze, kill and begin again."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kit.places import ROOT


class Site:
    """Keeps its port over restarts, so that its cameras can be found again."""

    def __init__(self, sent: Path, *options: object, host: str = "127.0.0.1", before: Sequence[str] = ()) -> None:
        """`options` are those of `publish`; `before` its command, another that runs it."""
        self.sent = sent
        self._command = [*before, sys.executable, "-m", "tests.whole.witness.publish", "--host", host]
        self._command += ["--port", str(_free_port(host, before)), "--sent", str(sent), *map(str, options)]
        self.begin()

    def begin(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, process_group=0
        )
        ready, _, self.url = self._answer().partition(" ")
        assert ready == "ready", "the site did not begin"

    def url_of(self, camera: int) -> str:
        return f"{self.url}/cam{camera}"

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        assert answer == "done", f"{command}: {answer}"

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def numbers(self, source: int) -> list[int]:
        """Of all pictures that were made, in their order."""
        lines = map(json.loads, self.sent.read_text().splitlines())
        return [line["number"] for line in lines if line["source"] == source]

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _free_port(host: str, before: Sequence[str]) -> int:
    if before:  # in a network of its own
        return 8554
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running_site(sent: Path, *options: object, host: str = "127.0.0.1", before: Sequence[str] = ()) -> Iterator[Site]:
    site = Site(sent, *options, host=host, before=before)
    try:
        yield site
    finally:
        site.kill()
