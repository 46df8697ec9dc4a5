"""A real HTTP server that takes posts: what came, and what it answers, as a test wishes. A test may stop it."""

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit.harness import free_port


class Hook:
    """`posts` are the bodies that came, `headers` and `paths` those of each; `answers` are statuses for the next posts,
    then 204; `retry_after` goes with those that are no 2xx."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.port = free_port()
        self.posts: list[dict] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answers: list[int] = []
        self.retry_after: str | None = None
        self._certificate = certificate
        self._server: http.server.ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._certificate else ''}://127.0.0.1:{self.port}/hook"

    def start(self) -> None:
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.answers.pop(0) if hook.answers else 204
                hook.posts.append(json.loads(body) | {"status": status})
                hook.headers.append(dict(self.headers))
                hook.paths.append(self.path)
                self.send_response(status)
                if status >= 300 and hook.retry_after:
                    self.send_header("Retry-After", hook.retry_after)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if self._certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def taken(self) -> list[dict]:
        """The batches that were answered with 2xx, in order, each id once."""
        return list({post["id"]: post for post in self.posts if 200 <= post["status"] < 300}.values())

    def seqs(self) -> list[int]:
        return [line["seq"] for post in self.taken() for line in post["lines"]]


@contextmanager
def hook(certificate: tuple[Path, Path] | None = None) -> Iterator[Hook]:
    made = Hook(certificate)
    made.start()
    try:
        yield made
    finally:
        made.stop()
