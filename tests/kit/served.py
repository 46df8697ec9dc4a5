"""A run with its page at a free port, and whoever asks there."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tests.kit.control import LIGHT, ControlledRun, running
from tests.kit.harness import free_port, wait_until

START_SECONDS = 120


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Page:
    """Of a run, by whom it is asked as a program does: no browser's headers but those given."""

    def __init__(self, run: ControlledRun, port: int) -> None:
        self.run, self.port = run, port
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=body, headers=named)
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            with opener.open(request, timeout=30) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, dict(error.headers), error.read())

    def say(self, word: dict, **headers: str) -> Answer:
        return self.get("/words", json.dumps(word).encode(), **headers)

    def view(self) -> dict:
        answer = self.get("/view")
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def source(self, source_id: str) -> dict | None:
        return next((each for each in self.view()["sources"] if each["source_id"] == source_id), None)

    def is_up(self) -> bool:
        try:
            return self.get("/healthz").status in (200, 401)
        except OSError:
            return False


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@contextmanager
def served(
    *arguments: object,
    host: str = "127.0.0.1",
    env: dict[str, str] | None = None,
    settings: Sequence[str] = LIGHT,
) -> Iterator[Page]:
    port = free_port()
    with running(*arguments, "--serve", f"{host}:{port}", env=env, settings=settings) as run:
        page = Page(run, port)
        wait_until(lambda: page.is_up() or run.process.poll() is not None, START_SECONDS, "the page")
        assert run.process.poll() is None, run.errors.read_text()
        yield page
