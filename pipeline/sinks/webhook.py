"""Webhooks: JSON lines in batches, posted to an address until it has taken them. Knows no stage and no pixels.

    POST /path HTTP/1.1
    Idempotency-Key: 5f0c1d2e3a4b5c6d-120-145

    {"schema":1,"id":"5f0c1d2e3a4b5c6d-120-145","repeated":false,"lines":[{"schema":2,"kind":"frame",…},…]}

The lines are those of the JSON lines. A batch that was not answered comes again with the same id, and with
"repeated":true, also after a restart. 2xx is taken; 4xx is refused for ever, but 408 and 429, which as all else are
tried again. No redirect is followed.
"""

import base64
import http.client
import ssl
from http import HTTPStatus
from urllib.parse import quote

from configs.uri import Uri
from pipeline.addresses import Place, WebhookOptions, read
from pipeline.sinks import Sink, Target
from pipeline.sinks.network import ANSWER_SECONDS, AwayError, NetworkSink, why
from pipeline.sinks.spool import Batch

SCHEMA = 1
_TRY_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_LONGEST_PAUSE_SECONDS = 300.0
_READ_BYTES = 1 << 16
_IDLE_SECONDS = 1.0


def open_sink(target: Target) -> Sink:
    address = Uri(target.path)
    return WebhookSink(target, read(address, WebhookOptions), f"webhook-{address.name}")


class WebhookSink(NetworkSink[WebhookOptions]):
    """Posts to an http:// or https:// address, which is trusted by the certificates of this machine (another one:
    $SSL_CERT_FILE)."""

    def __init__(self, target: Target, place: Place[WebhookOptions], name: str) -> None:
        super().__init__(target, place, name)
        self._was_full = False
        self._thread.start()

    def _converse(self) -> None:
        while not self.is_over:
            if batch := self._next():
                self._post(batch)
                self.spool.done(batch.end)

    def _next(self) -> Batch | None:
        """After a batch that was not full, what comes meanwhile is gathered."""
        self.spool.wait(_IDLE_SECONDS)
        if not self._was_full and self.spool.waiting:
            self._closing.wait(self.place.options.gather)
        batch = self.spool.take(self.place.options.most)
        self._was_full = batch is not None and len(batch.lines) >= self.place.options.most
        return batch

    def _post(self, batch: Batch) -> None:
        """Raises AwayError."""
        try:
            status, after_seconds = self._answer(f"{self.spool.token}-{batch.first}-{batch.end}", batch)
        except (OSError, http.client.HTTPException) as error:
            raise AwayError(why(error)) from None
        if 200 <= status < 300:
            self.goes_well()
            self.sent += len(batch.lines)
        elif 400 <= status < 500 and status not in _TRY_AGAIN:
            self.goes_well()
            self._refused += len(batch.lines)
            self._warn(f"{self.place.shown} refused lines for ever ({_words(status)}); they are counted as missed")
        else:
            raise AwayError(f"it answered {_words(status)}", after_seconds)

    def _answer(self, batch_id: str, batch: Batch) -> tuple[int, float]:
        """The status, and after how many seconds to try again."""
        connection = self._connection()
        try:
            connection.request("POST", _target(self.place.path), _body(batch_id, batch), self._headers(batch_id))
            answer = connection.getresponse()
            answer.read(_READ_BYTES)
            after = answer.headers.get("Retry-After", "")
            return answer.status, min(float(after), _LONGEST_PAUSE_SECONDS) if after.isdecimal() else 0.0
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        place = self.place
        if place.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(place.host, place.port, timeout=ANSWER_SECONDS, context=context)
        return http.client.HTTPConnection(place.host, place.port, timeout=ANSWER_SECONDS)

    def _headers(self, batch_id: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": batch_id, "User-Agent": "CenterStream"}
        if self.place.user or self.place.password:
            who = f"{self.place.user}:{self.place.password or ''}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(who).decode()}"
        return headers


def _body(batch_id: str, batch: Batch) -> bytes:
    repeated = b"true" if batch.repeated else b"false"
    head = b'{"schema":%d,"id":"%s","repeated":%s,"lines":[' % (SCHEMA, batch_id.encode(), repeated)
    return head + b",".join(batch.lines) + b"]}"


def _target(path: str) -> str:
    """As it stands in a request: what cannot stand there is encoded."""
    return quote(path if path.startswith("/") else f"/{path}", safe="/?%:@!$&'()*+,;=[]~")


def _words(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
