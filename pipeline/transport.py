"""The queues between stages. The only file that knows ZeroMQ.

`Sender` → `Receiver` is one hop (PUSH/PULL). An `Inbox` makes a bounded queue of a receiver. When full it reads no
further: nothing is lost, slots run out upstream, and decode waits. Only an inbox that may drop does what the source's
policy says: for `latest` it drops the source's oldest waiting frame and tells who asked. There a thread keeps the inbox
moving while its stage computes, so that a stage that stalls for ten seconds wakes to a fresh frame, not to an old one.

Endpoints are `inproc://` within a process and `ipc://` in a private folder between processes of one host.
"""

import threading
from collections import deque
from collections.abc import Callable

import zmq

from pipeline.frame import Frame, Message, Parts
from pipeline.messages import Slot, StreamStart

POLL_SECONDS = 0.1
LINGER_MS = 2000
# Small messages are bounded by the slots that their frames hold; this only keeps ZeroMQ from having a say.
HIGH_WATER_MARK = 1000


Context = zmq.Context


class Transport:
    """Opens the sockets of one process. `close` sends what is still queued, waiting at most `LINGER_MS`."""

    def __init__(self, context: zmq.Context | None = None) -> None:
        self._owns_context = context is None
        self._context = context or zmq.Context()
        self._sockets: list[zmq.Socket] = []

    def _open(self, kind: int) -> zmq.Socket:
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
        self._sockets.append(socket)
        return socket

    def sender(self, endpoint: str) -> "Sender":
        socket = self._open(zmq.PUSH)
        socket.connect(endpoint)
        return Sender(socket)

    def slot_returner(self, endpoint: str) -> "SlotReturner":
        socket = self._open(zmq.PUSH)
        socket.set(zmq.LINGER, 0)  # a lessor that has gone needs nothing back
        socket.connect(endpoint)
        return SlotReturner(Sender(socket))

    def slot_returns(self, endpoint: str, pool: str) -> "SlotReturns":
        return SlotReturns(self.receiver(endpoint), pool)

    def receiver(self, endpoint: str) -> "Receiver":
        socket = self._open(zmq.PULL)
        socket.bind(endpoint)
        return Receiver(socket)

    def hub(self, endpoint: str) -> "Hub":
        socket = self._open(zmq.ROUTER)
        socket.bind(endpoint)
        return Hub(socket)

    def spoke(self, endpoint: str, name: str) -> "Spoke":
        socket = self._open(zmq.DEALER)
        socket.set(zmq.IDENTITY, name.encode())
        socket.connect(endpoint)
        return Spoke(socket)

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
        if self._owns_context:
            self._context.term()


def _receive(socket: zmq.Socket, timeout_seconds: float) -> Parts | None:
    # Mostly there is a message, or time to wait for one: a try costs less than a poll each time.
    try:
        return socket.recv_multipart(zmq.NOBLOCK)
    except zmq.Again:
        if not timeout_seconds or not socket.poll(int(timeout_seconds * 1000)):
            return None
    return socket.recv_multipart()


class Sender:
    """The near end of a hop; several threads may use it."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        self._lock = threading.Lock()

    def send(self, parts: Parts, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Whether the parts were sent: waits while nobody takes them, until `given_up()`."""
        with self._lock:
            while True:
                try:
                    self._socket.send_multipart(parts, zmq.NOBLOCK)
                    return True
                except zmq.Again:
                    if given_up():
                        return False
                    self._socket.poll(int(POLL_SECONDS * 1000), zmq.POLLOUT)


class Receiver:
    """The far end of a hop."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket

    def receive(self, timeout_seconds: float) -> Parts | None:
        """The parts of the next message; None when none came in time."""
        return _receive(self._socket, timeout_seconds)


class SlotReturner:
    """Gives slots of one pool back to their lessor: four bytes of index and eight of generation each."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def give_back(self, slot: Slot) -> None:
        # A lessor that has gone takes nothing: then there is nothing to return to.
        self._sender.send(
            [slot.index.to_bytes(4, "little") + slot.generation.to_bytes(8, "little")], given_up=lambda: True
        )


class SlotReturns:
    """The lessor's end: slots as they come back."""

    def __init__(self, receiver: Receiver, pool: str) -> None:
        self._receiver, self._pool = receiver, pool

    def receive(self, timeout_seconds: float) -> Slot | None:
        parts = self._receiver.receive(timeout_seconds)
        if parts is None:
            return None
        index, generation = bytes(parts[0][:4]), bytes(parts[0][4:12])
        return Slot(self._pool, int.from_bytes(index, "little"), int.from_bytes(generation, "little"))


class Hub:
    """The supervisor's end of the control path: one socket for all workers."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket

    def receive(self, timeout_seconds: float) -> tuple[str, bytes] | None:
        """Who spoke, and what."""
        parts = _receive(self._socket, timeout_seconds)
        return (bytes(parts[0]).decode(), bytes(parts[1])) if parts else None

    def send(self, name: str, body: bytes) -> None:
        self._socket.send_multipart([name.encode(), body])


class Spoke:
    """A worker's end of the control path; for one thread."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket

    def send(self, body: bytes) -> None:
        self._socket.send(body)

    def receive(self, timeout_seconds: float) -> bytes | None:
        parts = _receive(self._socket, timeout_seconds)
        return bytes(parts[0]) if parts else None


class Inbox:
    """A bounded queue of messages; `take` is for one thread at a time.

    While all sources `block`, whoever takes reads the socket itself, up to `capacity` frames ahead. From the first live
    source on, a thread reads it, so that frames are pushed out while nobody takes any. `dropped(frame)` is called for
    each of those; where it is None all sources block. Starts and ends of streams are never dropped and do not count.
    """

    def __init__(
        self,
        receiver: Receiver,
        read: Callable[[Parts], Message],
        capacity: int,
        dropped: Callable[[Frame], None] | None,
    ) -> None:
        self._receiver, self._read, self._dropped = receiver, read, dropped
        self._capacity = capacity
        self._live: set[str] = set()
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    @property
    def depth(self) -> int:
        return len(self._waiting)

    def take(self, timeout_seconds: float) -> Message | None:
        """The oldest waiting message; None when none came in time. Raises ValueError for what is not a message."""
        if self._thread is None:
            message = self._take_directly(timeout_seconds)
            if self._live:
                self._thread = threading.Thread(target=self._fill, name="inbox", daemon=True)
                self._thread.start()
            return message
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._failure, timeout_seconds)
            if not self._waiting:
                if self._failure:
                    raise self._failure
                return None
            message = self._waiting.popleft()
            self._changed.notify_all()
            return message

    def _take_directly(self, timeout_seconds: float) -> Message | None:
        while len(self._waiting) <= self._capacity and (parts := self._receiver.receive(0.0)) is not None:
            self._waiting.append(self._open(parts))
        if not self._waiting and (parts := self._receiver.receive(timeout_seconds)) is not None:
            self._waiting.append(self._open(parts))
        return self._waiting.popleft() if self._waiting else None

    def _open(self, parts: Parts) -> Message:
        """The message in `parts`; whose frames may be pushed out is learned here, whoever reads."""
        message = self._read(parts)
        if self._dropped and isinstance(message, StreamStart) and message.policy == "latest":
            self._live.add(message.source_id)
        return message

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _fill(self) -> None:
        try:
            while not self._closed:
                parts = self._receiver.receive(POLL_SECONDS)
                if parts is not None:
                    self._admit(self._open(parts))
        except Exception as error:  # handed to the stage, which reports it
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _admit(self, message: Message) -> None:
        pushed_out: list[Frame] = []
        with self._changed:
            if isinstance(message, Frame):
                pushed_out = self._make_room(message.header.source_id)
            self._waiting.append(message)
            self._changed.notify_all()
        for frame in pushed_out:
            assert self._dropped
            self._dropped(frame)

    def _make_room(self, source_id: str) -> list[Frame]:
        """Wait for room (block), or take the oldest waiting frames of the source out of the queue (latest)."""
        if source_id not in self._live:
            self._changed.wait_for(lambda: len(self._frames(source_id)) < self._capacity or self._closed)
            return []
        waiting = self._frames(source_id)
        pushed_out = waiting[: max(0, len(waiting) + 1 - self._capacity)]
        for frame in pushed_out:
            self._waiting.remove(frame)
        return pushed_out

    def _frames(self, source_id: str) -> list[Frame]:
        return [m for m in self._waiting if isinstance(m, Frame) and m.header.source_id == source_id]
