"""MQTT: results for whoever has subscribed. Knows no stage and no pixels.

    PREFIX/availability        online or offline, retained; offline also when this process has gone without a word
    PREFIX/SOURCE/state        live, lost, frozen, grey, paused or ended, retained
    PREFIX/SOURCE/count/CLASS  objects of that class in the last frame that has a result, retained
    PREFIX/SOURCE/frame        a line of the JSON lines
    PREFIX/SOURCE/signal       the same, of a signal

Frames and signals are events: they wait in the spool while the broker is away. What may have come before has
"repeated":true as its last key, also after a restart. What is retained is a state: only the last one counts, and all
are published anew with each connection, for a broker may have lost them.
"""

import select
import socket
import ssl
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from configs.uri import Uri, shown
from pipeline.addresses import MqttOptions, Place, read, topic_prefix
from pipeline.errors import UsageError
from pipeline.flow.messages import SignalChange
from pipeline.flow.results import FrameResult
from pipeline.sinks import Image, Sink, Target, homeassistant
from pipeline.sinks.network import ANSWER_SECONDS, AwayError, NetworkSink, decode_whose, is_due, why
from pipeline.sinks.spool import Batch

if TYPE_CHECKING:
    from paho.mqtt.client import Client

PORTS = {"mqtt": 1883, "mqtts": 8883}
KEEPALIVE_SECONDS = 30
# Lines that are published and not confirmed at any time.
WINDOW = 20
ONLINE, OFFLINE = b"online", b"offline"
_IDLE_SECONDS = 1.0
_NOT_IN_A_LEVEL = str.maketrans(dict.fromkeys("+#/\0", "_"))


def open_sink(target: Target) -> Sink:
    check_library()
    address = Uri(target.path)
    return MqttSink(target, read(address, MqttOptions), f"mqtt-{address.name}")


def check_library() -> None:
    """Raises UsageError where it is not installed."""
    try:
        import paho.mqtt.client  # noqa: F401
    except ImportError:
        raise UsageError("mqtt:// and mqtts:// need paho-mqtt; run `pip install 'centerstream[mqtt]'`") from None


class _Flying:
    """Lines up to `end` are published, and confirmed once the message `mid` is."""

    def __init__(self, mid: int, end: int) -> None:
        self.mid, self.end, self.is_confirmed = mid, end, False


class _States:
    """What is retained, by its topic: the last of each, and which of them are to be published. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[bytes, str]] = {}  # with whose it is
        self._due: dict[str, None] = {}
        self._over: set[str] = set()

    def put(self, topic: str, payload: bytes, source_id: str = "") -> None:
        with self._lock:
            self._over.discard(topic)
            if self._last.get(topic) != (payload, source_id):
                self._last[topic] = payload, source_id
                self._due[topic] = None

    def knows(self, topic: str) -> bool:
        with self._lock:
            return topic in self._last and topic not in self._over

    def end(self, topic: str, payload: bytes, source_id: str) -> None:
        """Of all of a source nothing is kept but this last word, and that until it was confirmed."""
        self.put(topic, payload, source_id)
        with self._lock:
            self._over.add(topic)
            self._last = {each: last for each, last in self._last.items() if last[1] != source_id or each == topic}

    def all_due(self) -> None:
        with self._lock:
            self._due = dict.fromkeys(self._last)

    def take(self) -> list[tuple[str, bytes]]:
        with self._lock:
            due, self._due = self._due, {}
            return [(topic, self._last[topic][0]) for topic in due if topic in self._last]

    def confirmed(self, topic: str) -> None:
        with self._lock:
            if topic in self._over and topic not in self._due:
                self._over.discard(topic)
                self._last.pop(topic, None)

    @property
    def are_due(self) -> bool:
        with self._lock:
            return bool(self._due)


class MqttSink(NetworkSink[MqttOptions]):
    """Publishes to the broker of a mqtt:// or mqtts:// address, which is trusted by the certificates of this machine
    (others: $SSL_CERT_FILE). Raises UsageError without the library."""

    def __init__(self, target: Target, place: Place[MqttOptions], name: str) -> None:
        super().__init__(target, place, name)
        self._prefix = topic_prefix(place.path)
        self.online_topic = f"{self._prefix}/availability"
        names = (name.strip() for name in place.options.classes.split(","))
        self._wanted = tuple(filter(None, names)) or target.classes
        self.states = _States()
        self.states.put(self.online_topic, ONLINE)
        self._counted: dict[str, set[str]] = {}
        self._counted_seconds: dict[str, float] = {}
        self._waker, self.woken = socket.socketpair()
        for end in (self._waker, self.woken):
            end.setblocking(False)
        self._thread.start()

    # -- the output's thread

    def write(self, frame: FrameResult, image_bgr: Image | None = None) -> None:
        self._meet(frame.source_id, "live")
        has_result = not (frame.dropped or frame.failure)
        if has_result and is_due(self._counted_seconds, frame, self.place.options.every):
            self._count(frame)
        super().write(frame)

    def record(self, signal: SignalChange) -> None:
        self._meet(signal.source_id, signal.state)
        self._put_state(signal.source_id, signal.state)
        super().record(signal)

    def end(self, source_id: str) -> None:
        super().end(source_id)
        self._counted.pop(source_id, None)
        self._counted_seconds.pop(source_id, None)
        self.states.end(self.topic(source_id, "state"), b"ended", source_id)
        self._wake()

    def close(self) -> None:
        super().close()
        if not self._thread.is_alive():
            self._waker.close()
            self.woken.close()

    def topic(self, source_id: str, *levels: str) -> str:
        return "/".join((self._prefix, source_id, *(level.translate(_NOT_IN_A_LEVEL) for level in levels)))

    def _put_state(self, source_id: str, state: str) -> None:
        self.states.put(self.topic(source_id, "state"), state.encode(), source_id)

    def _meet(self, source_id: str, state: str) -> None:
        """What there is to say when a source is heard of first."""
        if self.states.knows(self.topic(source_id, "state")):
            return
        self._put_state(source_id, state)
        if self.place.options.discovery == "homeassistant":
            self.states.put(*homeassistant.connectivity(self._prefix, source_id), source_id)

    def _count(self, frame: FrameResult) -> None:
        names = Counter(frame.class_names[class_id] for class_id in frame.objects().class_ids.tolist())
        if frame.source_id not in self._counted:
            self._check_wanted(frame.class_names)
        known = self._counted.setdefault(frame.source_id, set())
        for name in self._wanted or {*known, *names}:
            topic = self.topic(frame.source_id, "count", name)
            if name not in known and self.place.options.discovery == "homeassistant":
                config = homeassistant.class_count(self._prefix, frame.source_id, name, topic)
                self.states.put(*config, frame.source_id)
            known.add(name)
            self.states.put(topic, str(names[name]).encode(), frame.source_id)
        if self.states.are_due:
            self._wake()

    def _check_wanted(self, class_names: tuple[str, ...]) -> None:
        if unknown := [name for name in self._wanted if name not in class_names]:
            what = f"classes: the model knows no {shown(unknown[0])}, which is counted as 0"
            self._warn(f"{self.place.shown}: {what}; it knows {', '.join(class_names)}")

    def _wake(self) -> None:
        with suppress(OSError):  # full: it is awake
            self._waker.send(b"\0")

    # -- the thread that sends

    def _converse(self) -> None:
        _Talk(self).go_on()

    def sleep(self) -> None:
        """Until it is woken again."""
        with suppress(BlockingIOError):
            self.woken.recv(4096)


class _Talk:
    """One connection, from its begin to its end: what was not confirmed in it is published anew in the next."""

    def __init__(self, sink: MqttSink) -> None:
        self._sink, self._options = sink, sink.place.options
        self._client = self._make_client()
        self._is_open = False
        self._problem = ""
        self._lines: deque[_Flying] = deque()
        self._topics: dict[int, str] = {}
        self._confirmed: set[int] = set()

    def _make_client(self) -> "Client":
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        place = self._sink.place
        # Always the same: a broker that has not noticed the end of the last connection ends it now, and not later.
        client = Client(CallbackAPIVersion.VERSION2, f"centerstream-{self._sink.spool.token[:10]}")
        if place.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        if place.user or place.password is not None:
            client.username_pw_set(place.user, place.password)
        client.will_set(self._sink.online_topic, OFFLINE, self._options.qos, retain=True)
        client.connect_timeout = ANSWER_SECONDS
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._is_open = not reason.is_failure
        self._problem = f"it refused: {reason}" if reason.is_failure else ""

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._is_open = False
        self._problem = self._problem or "it closed the connection"

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._confirmed.add(mid)

    def go_on(self) -> None:
        """Until the sink is closed. Raises AwayError."""
        place = self._sink.place
        try:
            self._client.connect(place.host, place.port or PORTS[place.scheme], KEEPALIVE_SECONDS)
            self._await_welcome()
            self._sink.states.all_due()
            while not self._is_done:
                self._publish()
                self._turn()
                self._settle()
            self._say_goodbye()
        except OSError as error:
            raise AwayError(why(error)) from None
        finally:
            if connection := self._client.socket():
                connection.close()

    def _await_welcome(self) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self._is_open:
            if time.monotonic() > min(deadline, self._sink.until):
                raise AwayError("no answer in time")
            self._turn()
        self._sink.goes_well()

    def _say_goodbye(self) -> None:
        """The last will is for who goes without a word."""
        self._topics[self._send(self._sink.online_topic, OFFLINE, retain=True)] = self._sink.online_topic
        while self._topics and time.monotonic() < self._sink.until:
            self._turn()
            self._settle()
        self._client.disconnect()

    @property
    def _is_done(self) -> bool:
        nothing_flies = not (self._lines or self._topics or self._sink.states.are_due)
        return self._sink.is_over and (nothing_flies or time.monotonic() > self._sink.until)

    def _publish(self) -> None:
        for topic, payload in self._sink.states.take():
            self._topics[self._send(topic, payload, retain=True)] = topic
        while len(self._lines) < WINDOW and (batch := self._sink.spool.take(1)):
            topic, payload = self._message(batch)
            self._lines.append(_Flying(self._send(topic, payload), batch.end))

    def _send(self, topic: str, payload: bytes, retain: bool = False) -> int:
        return self._client.publish(topic, payload, self._options.qos, retain).mid

    def _message(self, batch: Batch) -> tuple[str, bytes]:
        (line,) = batch.lines
        whose = decode_whose(line)
        payload = line[:-1] + b',"repeated":true}' if batch.repeated else line
        return self._sink.topic(whose.source, whose.kind), payload

    def _turn(self) -> None:
        """Wait for the network or the spool, and do what there is to do. Raises AwayError."""
        connection = self._client.socket()
        if connection is None or self._problem:
            raise AwayError(self._problem or "it closed the connection")
        has_read = getattr(connection, "pending", lambda: 0)() > 0  # TLS has more than the socket shows
        poll = select.poll()
        poll.register(connection, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        if self._is_open and len(self._lines) < WINDOW:
            poll.register(self._sink.woken, select.POLLIN)
        ready = dict(poll.poll(0 if has_read else _IDLE_SECONDS * 1000))
        if self._sink.woken.fileno() in ready:
            self._sink.sleep()
        if has_read or ready.get(connection.fileno(), 0) & ~select.POLLOUT:
            self._client.loop_read()
        if self._client.want_write():
            self._client.loop_write()
        self._client.loop_misc()

    def _settle(self) -> None:
        for mid in [mid for mid in self._topics if mid in self._confirmed]:
            self._sink.states.confirmed(self._topics.pop(mid))
        for flying in self._lines:
            flying.is_confirmed = flying.is_confirmed or flying.mid in self._confirmed
        self._confirmed.clear()
        while self._lines and self._lines[0].is_confirmed:
            self._sink.spool.done(self._lines.popleft().end)
            self._sink.sent += 1
