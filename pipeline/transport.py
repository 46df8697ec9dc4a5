"""The queues between stages. The only file that knows ZeroMQ.

`Sender` → `Receiver` is one hop (PUSH/PULL). An `Inbox` makes a bounded queue of a receiver, and does when full what
the source's policy says: `block` reads no further (nothing is lost; slots run out upstream, and decode waits),
`latest` drops the source's oldest waiting frame and tells who asked. A thread of its own keeps an inbox moving while
its stage computes, so in `latest` a stage that stalls for ten seconds wakes to a fresh frame, not to an old one.

Endpoints are `inproc://` within a process and `ipc://` in a private folder between processes of one host.
"""

import threading
from collections import deque
from collections.abc import Callable

import zmq

from pipeline.frame import Frame, Message, Parts
from pipeline.messages import StreamStart

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

    def slot_returns(self, endpoint: str) -> "SlotReturns":
        return SlotReturns(self.receiver(endpoint))

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


class Sender:
    """The near end of a hop; several threads may use it."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        self._lock = threading.Lock()

    def send(self, parts: Parts, given_up: Callable[[], bool] = lambda: False) -> bool:
        """Whether the parts were sent: waits while nobody takes them, until `given_up()`."""
        with self._lock:
            while not self._socket.poll(0, zmq.POLLOUT):
                if given_up():
                    return False
                self._socket.poll(int(POLL_SECONDS * 1000), zmq.POLLOUT)
            self._socket.send_multipart(parts)
            return True


class Receiver:
    """The far end of a hop."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket

    def receive(self, timeout_seconds: float) -> Parts | None:
        """The parts of the next message; None when none came in time."""
        if not self._socket.poll(int(timeout_seconds * 1000)):
            return None
        return self._socket.recv_multipart()  # type: ignore[no-any-return]


class SlotReturner:
    """Gives slots back to their lessor: four bytes each."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def give_back(self, index: int) -> None:
        # A lessor that has gone takes nothing: then there is nothing to return to.
        self._sender.send([index.to_bytes(4, "little")], given_up=lambda: True)


class SlotReturns:
    """The lessor's end: slots as they come back."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def receive(self, timeout_seconds: float) -> int | None:
        parts = self._receiver.receive(timeout_seconds)
        return None if parts is None else int.from_bytes(parts[0], "little")


class Hub:
    """The supervisor's end of the control path: one socket for all workers."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket

    def receive(self, timeout_seconds: float) -> tuple[str, bytes] | None:
        """Who spoke, and what."""
        if not self._socket.poll(int(timeout_seconds * 1000)):
            return None
        name, body = self._socket.recv_multipart()[:2]
        return name.decode(), body

    def send(self, name: str, body: bytes) -> None:
        self._socket.send_multipart([name.encode(), body])


class Spoke:
    """A worker's end of the control path; for one thread."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket

    def send(self, body: bytes) -> None:
        self._socket.send(body)

    def receive(self, timeout_seconds: float) -> bytes | None:
        if not self._socket.poll(int(timeout_seconds * 1000)):
            return None
        return self._socket.recv()  # type: ignore[no-any-return]


class Inbox:
    """A bounded queue of messages, filled by a thread.

    `dropped(frame)` is called, from that thread, for each frame that a newer one pushed out. Starts and ends of
    streams are never dropped and do not count.
    """

    def __init__(
        self,
        receiver: Receiver,
        read: Callable[[Parts], Message],
        capacity: int,
        dropped: Callable[[Frame], None],
    ) -> None:
        self._receiver, self._read, self._dropped = receiver, read, dropped
        self._capacity = capacity
        self._live: set[str] = set()
        self._waiting: deque[Message] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._fill, name="inbox", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        return len(self._waiting)

    def take(self, timeout_seconds: float) -> Message | None:
        """The oldest waiting message; None when none came in time. Raises what broke the inbox, if anything did."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.failure, timeout_seconds)
            if not self._waiting:
                if self.failure:
                    raise self.failure
                return None
            message = self._waiting.popleft()
            self._changed.notify_all()
            return message

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _fill(self) -> None:
        try:
            while not self._closed:
                parts = self._receiver.receive(POLL_SECONDS)
                if parts is not None:
                    self._admit(self._read(parts))
        except Exception as error:  # handed to the stage, which reports it
            with self._changed:
                self.failure = error
                self._changed.notify_all()

    def _admit(self, message: Message) -> None:
        if isinstance(message, StreamStart) and message.policy == "latest":
            self._live.add(message.source_id)
        pushed_out: list[Frame] = []
        with self._changed:
            if isinstance(message, Frame):
                pushed_out = self._make_room(message.header.source_id)
            self._waiting.append(message)
            self._changed.notify_all()
        for frame in pushed_out:
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
