"""The queues between stages. The only file that knows ZeroMQ.

`Sender` → `Receiver` is one hop (PUSH/PULL), bounded by the slots that its frames hold. A sender does not notice when
its receiver is started anew: what was not read yet is sent to the next. `Hub` and `Spoke` are the control path.
`Replier` and `ask` are for words from outside, `Publisher` and `Subscriber` for whoever looks on.

Endpoints are `inproc://` within a process and `ipc://` in a private folder between processes of one host. Those speak
CURVE with the run's key (`RunKey`): who does not have it, even the same user, gets no message in and none out. Only for
a `Replier` the folder is lock enough: its words are for this user to say.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

import msgspec
import zmq

from pipeline.flow.frame import Parts

POLL_SECONDS = 0.1
LINGER_MS = 2000
# Small messages are bounded by the slots that their frames hold; this only keeps ZeroMQ from having a say.
HIGH_WATER_MARK = 1000
# A receiver that was started anew is found so soon; one that stays away is asked less and less often.
RECONNECT_MS, RECONNECT_MOST_MS = 10, 320
LARGEST_REQUEST_BYTES = 1 << 16
# Messages that wait for one who looks on; a slower one misses those that follow.
WAITING_MESSAGES = 64
LONGEST_TOPIC_BYTES = 1 << 10


Context = zmq.Context


class RunKey(msgspec.Struct, frozen=True):
    """The secret of one run: a CURVE key pair that all its sockets share. A worker learns it from its standard input.

    Who binds is the server, who connects must know the server's public key, and here that is a secret too: already the
    first word of the handshake is sealed for it, so without it no connection comes about, and nobody's name, message or
    byte reaches a socket. A squatter who binds in our place lacks the secret half, and is told nothing. Therefore the
    server need not look at the clients' keys (ZAP): who can knock has shown that it belongs to the run.
    """

    public: str
    secret: str

    @classmethod
    def new(cls) -> Self:
        public, secret = zmq.curve_keypair()
        return cls(public.decode(), secret.decode())

    def __repr__(self) -> str:
        return "RunKey(…)"


class Transport:
    """Opens the sockets of one process. `close` sends what is still queued, waiting at most `LINGER_MS`.

    Without a `key` everyone is let in; only inproc, which nobody else can reach, may do without.
    """

    def __init__(self, context: zmq.Context | None = None, key: RunKey | None = None) -> None:
        self._owns_context = context is None
        self._context = context or zmq.Context()
        self._key = key
        self._sockets: list[zmq.Socket] = []
        self._doors: dict[str, Door] = {}

    def _open(self, kind: int) -> zmq.Socket:
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, LINGER_MS)
        socket.set(zmq.SNDHWM, HIGH_WATER_MARK)
        socket.set(zmq.RCVHWM, HIGH_WATER_MARK)
        socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MOST_MS)
        if self._key:
            socket.set(zmq.CURVE_PUBLICKEY, self._key.public.encode())
            socket.set(zmq.CURVE_SECRETKEY, self._key.secret.encode())
        self._sockets.append(socket)
        return socket

    def _bind(self, kind: int, endpoint: str) -> zmq.Socket:
        socket = self._open(kind)
        if self._key:
            socket.set(zmq.CURVE_SERVER, 1)
            self._doors[endpoint.rpartition("/")[2]] = Door(socket)
        socket.bind(endpoint)
        return socket

    def _connect(self, socket: zmq.Socket, endpoint: str) -> None:
        if self._key:
            socket.set(zmq.CURVE_SERVERKEY, self._key.public.encode())
        socket.connect(endpoint)

    def sender(self, endpoint: str, is_mate: bool = False) -> "Sender":
        """`is_mate`: the receiver has mates, of which the caller is one."""
        socket = self._open(zmq.PUSH)
        self._connect(socket, _within(endpoint) if is_mate else endpoint)
        return Sender(socket)

    def receiver(self, endpoint: str, bell: "Bell | None" = None, has_mates: bool = False) -> "Receiver":
        """`has_mates`: others of this process send to it past the kernel, and unsealed."""
        socket = self._bind(zmq.PULL, endpoint)
        if has_mates:
            socket.bind(_within(endpoint))
        return Receiver(socket, bell)

    def hub(self, endpoint: str) -> "Hub":
        return Hub(self._bind(zmq.ROUTER, endpoint))

    def replier(self, endpoint: str) -> "Replier":
        """Open to everyone who can reach it."""
        socket = self._context.socket(zmq.REP)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.MAXMSGSIZE, LARGEST_REQUEST_BYTES)
        self._sockets.append(socket)
        socket.bind(endpoint)
        return Replier(socket)

    def spoke(self, endpoint: str, name: str, bell: "Bell | None" = None) -> "Spoke":
        socket = self._open(zmq.DEALER)
        socket.set(zmq.IDENTITY, name.encode())
        self._connect(socket, endpoint)
        return Spoke(socket, bell)

    def refused(self) -> Iterator[str]:
        """The queue's name for each connection that was refused since the last call; for one thread."""
        for queue, door in self._doors.items():
            yield from [queue] * door.refused()

    def close(self) -> None:
        for door in self._doors.values():
            door.close()
        for socket in self._sockets:
            socket.close()
        if self._owns_context:
            self._context.term()


def _within(endpoint: str) -> str:
    """The same queue for those that share its process, and its context."""
    return f"inproc://{endpoint.rpartition('/')[2]}"


class Bell:
    """Wakes the thread that waits at a socket, from any other. Once rung it stays so until it is hushed."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def ring(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def hush(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)


class _Ear:
    """Hears what comes to a socket, or the bell beside it."""

    def __init__(self, socket: zmq.Socket, bell: Bell | None = None) -> None:
        self._socket = socket
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        if bell:
            self._poller.register(bell.fileno(), zmq.POLLIN)

    def receive(self, timeout_seconds: float) -> Parts | None:
        """None when nothing came in time, or the bell rang first."""
        # Mostly there is a message, or time to wait for one: then no poll comes before it.
        if (parts := self._try()) is not None or not timeout_seconds:
            return parts
        self._poller.poll(int(timeout_seconds * 1000))
        return self._try()

    def _try(self) -> Parts | None:
        """Never waits: what a poll promises may be gone, with the connection that it came by."""
        if not self._socket.poll(0):
            return None  # without an exception, each of which imports in pyzmq what it says
        try:
            return self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None


class Door:
    """Counts who was turned away from a bound socket: connections that ended before they had shown the run's key."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        address = f"inproc://door-{socket.FD}"
        socket.monitor(address, zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._events = socket.context.socket(zmq.PAIR)
        self._events.set(zmq.RCVHWM, 0)  # full, it would hold up the whole process
        self._events.connect(address)
        self._ear = _Ear(self._events)
        self._shown = 0
        self._accepted: dict[int, int] = {}

    def refused(self) -> int:
        """How many since the last call.

        A handshake that succeeds does not say whose it is. One that came between a connection's begin and end is taken
        to be that connection's: rather one too few is counted than one of ours.
        """
        count = 0
        while (parts := self._ear.receive(0.0)) is not None:
            # As zmq_socket_monitor(3) has it; what pyzmq has to read it imports asyncio, in each process.
            event, connection = struct.unpack("=Hi", bytes(parts[0]))
            match event:
                case zmq.EVENT_ACCEPTED:
                    self._accepted[connection] = self._shown
                case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                    self._shown += 1
                case zmq.EVENT_DISCONNECTED:
                    count += self._accepted.pop(connection, None) == self._shown
        return count

    def close(self) -> None:
        self._socket.disable_monitor()
        self._events.close(linger=0)


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

    def __init__(self, socket: zmq.Socket, bell: Bell | None) -> None:
        self._ear = _Ear(socket, bell)

    def receive(self, timeout_seconds: float) -> Parts | None:
        """The parts of the next message; None when none came in time, or the bell rang."""
        return self._ear.receive(timeout_seconds)


class Hub:
    """The supervisor's end of the control path: one socket for all workers."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        self._ear = _Ear(socket)

    def receive(self, timeout_seconds: float) -> tuple[str, bytes] | None:
        """Who spoke, and what; of several parts the last."""
        parts = self._ear.receive(timeout_seconds)
        return (bytes(parts[0]).decode(errors="replace"), bytes(parts[-1])) if parts else None

    def send(self, name: str, body: bytes) -> None:
        self._socket.send_multipart([name.encode(), body])


class Spoke:
    """A worker's end of the control path; for one thread."""

    def __init__(self, socket: zmq.Socket, bell: Bell | None) -> None:
        self._socket = socket
        self._ear = _Ear(socket, bell)

    def send(self, body: bytes) -> None:
        self._socket.send(body)

    def receive(self, timeout_seconds: float) -> bytes | None:
        """None when nothing came in time, or the bell rang."""
        parts = self._ear.receive(timeout_seconds)
        return bytes(parts[0]) if parts else None


class Replier:
    """Hears requests, one after the other; each is answered before the next is heard."""

    def __init__(self, socket: zmq.Socket) -> None:
        self._socket = socket
        self._ear = _Ear(socket)

    def receive(self) -> bytes | None:
        """A request that has come; of several parts the last."""
        parts = self._ear.receive(0.0)
        return bytes(parts[-1]) if parts else None

    def answer(self, body: bytes) -> None:
        self._socket.send(body)


class Publisher:
    """Messages by topic, the first part of each, to whoever subscribed to a beginning of it. Nobody is waited for: who
    does not keep up misses some. For one thread.

    Raises OSError for an endpoint that cannot be bound.
    """

    def __init__(self, endpoint: str, comes: bool = False) -> None:
        """`comes`: the subscriber is the one to be found there, also one that is started anew; there may be several who
        publish to it."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.SNDHWM, WAITING_MESSAGES)
        self._socket.set(zmq.MAXMSGSIZE, LONGEST_TOPIC_BYTES)  # what comes in is subscriptions
        self._subscriptions: frozenset[bytes] = frozenset()
        if comes:
            self._socket.set(zmq.IMMEDIATE, 1)  # what a subscriber asked for goes with it
            self._socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
            self._socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MOST_MS)
            self._socket.connect(endpoint)
            return
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno or 0, str(error)) from None

    def subscriptions(self) -> frozenset[bytes]:
        """What is asked for now, by anybody; the same object as long as that is the same."""
        while int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:  # a `poll` takes ten times as long
            word: bytes = self._socket.recv()
            topic = {word[1:]}
            self._subscriptions = self._subscriptions | topic if word[:1] == b"\1" else self._subscriptions - topic
        return self._subscriptions

    def send(self, parts: Parts) -> None:
        self._socket.send_multipart(parts)

    def close(self) -> None:
        self._socket.close()
        self._context.term()


class Subscriber:
    """The far end of a `Publisher`, for an event loop. It finds a publisher that is started anew by itself."""

    def __init__(self, endpoint: str, come: bool = False) -> None:
        """`come`: it is the one to be found there, by publishers that come."""
        from zmq.asyncio import Context as AsyncContext  # here alone: no other process is to import asyncio

        self._context = AsyncContext()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.RCVHWM, WAITING_MESSAGES)
        self._socket.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        self._socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MOST_MS)
        self._topics: set[bytes] = set()
        (self._socket.bind if come else self._socket.connect)(endpoint)

    def subscribe(self, topics: set[bytes]) -> None:
        """To these from now on, and to no others."""
        for topic in topics - self._topics:
            self._socket.subscribe(topic)
        for topic in self._topics - topics:
            self._socket.unsubscribe(topic)
        self._topics = topics

    async def receive(self) -> Parts:
        parts: Parts = await self._socket.recv_multipart()
        return parts

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def ask(endpoint: str, body: bytes, timeout_seconds: float) -> bytes | None:
    """The answer of the `Replier` there; None when none came in time."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.set(zmq.LINGER, 0)
        socket.connect(endpoint)
        socket.send(body)
        parts = _Ear(socket).receive(timeout_seconds)
        return bytes(parts[-1]) if parts else None
