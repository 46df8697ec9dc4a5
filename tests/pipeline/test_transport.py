"""Queues: `block` loses nothing, `latest` keeps the newest, and neither loses the start or the end of a stream; and
nobody gets in without the run's key."""

import socket
import threading
import time

import pytest
import zmq

from pipeline.frame import Frame, from_parts, to_parts
from pipeline.messages import EndOfStream, FrameHeader, StreamStart
from pipeline.transport import Inbox, RunKey, Transport
from tests.kit.harness import wait_until


@pytest.fixture
def transport():
    transport = Transport()
    yield transport
    transport.close()


def frame(seq: int, source_id: str = "door") -> Frame:
    return Frame(FrameHeader(source_id, seq, seq / 25, 0, 0.0, 640, 480), {})


def start(policy: str, source_id: str = "door") -> StreamStart:
    return StreamStart(source_id, policy == "latest", policy, 640, 480, 25.0, None)


class Queue:
    """A sender, an inbox, and the frames that the inbox dropped."""

    def __init__(self, transport: Transport, capacity: int, may_drop: bool = True) -> None:
        self.capacity = capacity
        self.dropped: list[int] = []
        receiver = transport.receiver("inproc://queue")
        drop = (lambda f: self.dropped.append(f.header.seq)) if may_drop else None
        self.inbox = Inbox(receiver, lambda parts: from_parts(parts, {}), capacity, drop)
        self._sender = transport.sender("inproc://queue")

    def send(self, *messages) -> None:
        for message in messages:
            self._sender.send(to_parts(message))

    def open(self, *starts: StreamStart) -> None:
        """A stage takes the start of a stream before anything of it can pile up."""
        self.send(*starts)
        assert [self.inbox.take(5.0) for _ in starts] == list(starts)

    def settle(self) -> None:
        """Wait until the inbox's thread has nothing more to do."""
        before = None
        while (now := (self.inbox.depth, len(self.dropped))) != before:
            before = now
            time.sleep(0.1)

    def take_all(self) -> list:
        taken = []
        while (message := self.inbox.take(0.3)) is not None:
            taken.append(message.header.seq if isinstance(message, Frame) else type(message).__name__)
        return taken


@pytest.fixture(params=[1, 3])
def queue(request, transport):
    queue = Queue(transport, request.param)
    yield queue
    queue.inbox.close()


def test_an_empty_queue_gives_none(queue) -> None:
    assert queue.inbox.take(0.01) is None and queue.inbox.depth == 0


def test_block_keeps_order_and_loses_nothing(queue) -> None:
    queue.open(start("block"))
    queue.send(*map(frame, range(50)))
    depths = []
    for seq in range(50):
        assert queue.inbox.take(5.0).header.seq == seq
        depths.append(queue.inbox.depth)
    assert max(depths) == queue.capacity  # the reader looks so far ahead, and no further
    queue.send(EndOfStream("door", 50))
    assert queue.take_all() == ["EndOfStream"]
    assert queue.dropped == []


def test_block_waits_for_room_also_where_a_thread_reads_for_a_live_source(queue) -> None:
    queue.open(start("latest", "camera"), start("block", "file"))
    queue.send(*[frame(seq, "file") for seq in range(50)], EndOfStream("file", 50))
    queue.settle()
    assert queue.inbox.depth == queue.capacity
    assert queue.take_all() == [*range(50), "EndOfStream"]
    assert queue.dropped == []


def test_latest_drops_the_oldest_waiting_and_says_which(transport) -> None:
    queue = Queue(transport, capacity=2)
    queue.open(start("latest"))
    queue.send(*map(frame, range(10)), EndOfStream("door", 10))
    queue.settle()
    assert queue.take_all() == [8, 9, "EndOfStream"]
    assert queue.dropped == list(range(8))
    queue.inbox.close()


def test_a_queue_that_may_not_drop_blocks_live_sources_too(transport) -> None:
    queue = Queue(transport, capacity=2, may_drop=False)
    queue.open(start("latest"))
    queue.send(*map(frame, range(10)), EndOfStream("door", 10))
    queue.settle()
    assert queue.take_all() == [*range(10), "EndOfStream"]
    queue.inbox.close()


def test_a_live_source_does_not_push_out_a_file(transport) -> None:
    queue = Queue(transport, capacity=1)
    queue.open(start("latest", "camera"), start("block", "file"))
    queue.send(frame(0, "file"), frame(0, "camera"), frame(1, "camera"), frame(2, "camera"))
    queue.settle()
    assert queue.dropped == [0, 1]
    assert queue.take_all() == [0, 2]
    queue.inbox.close()


def test_two_live_sources_that_start_together_are_both_live(transport) -> None:
    queue = Queue(transport, capacity=1)
    queue.send(start("latest", "door"), start("latest", "gate"))
    time.sleep(0.2)  # both starts wait before the first is taken
    assert [queue.inbox.take(5.0) for _ in range(2)] == [start("latest", "door"), start("latest", "gate")]
    queue.send(*[frame(seq, name) for seq in range(3) for name in ("door", "gate")])
    queue.settle()
    assert queue.dropped == [0, 0, 1, 1]
    assert queue.take_all() == [2, 2]
    queue.inbox.close()


def test_a_stalled_reader_wakes_to_the_newest_frame(transport) -> None:
    queue = Queue(transport, capacity=1)
    queue.open(start("latest"))
    sender = threading.Thread(target=lambda: [(queue.send(frame(seq)), time.sleep(0.01)) for seq in range(40)])
    sender.start()
    sender.join()
    queue.settle()
    assert queue.take_all() == [39]
    assert queue.dropped == list(range(39))
    queue.inbox.close()


def test_what_cannot_be_read_reaches_the_reader_as_an_error(transport) -> None:
    queue = Queue(transport, capacity=1)
    queue._sender.send([b"\xc1 not a message"])
    with pytest.raises(ValueError):
        queue.inbox.take(5.0)
    queue.inbox.close()


def test_closing_does_not_wait_for_a_reader_that_is_gone(transport) -> None:
    queue = Queue(transport, capacity=1)
    queue.send(start("block"), *map(frame, range(5)))
    queue.settle()
    queue.inbox.close()


def zeromq(kind: int, **options):
    """A ZeroMQ socket of somebody else, which sends a message as if it were `infer`."""

    def knock(path: str) -> None:
        with zmq.Context() as context, context.socket(kind) as stranger:
            for name, value in ({"linger": 0, "identity": b"infer"} | options).items():
                setattr(stranger, name, value)
            stranger.connect(f"ipc://{path}")
            stranger.send(b"let me in")
            time.sleep(0.3)

    return knock


def raw(greeting: bytes):
    """Bytes on the socket, without ZeroMQ."""

    def knock(path: str) -> None:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(path)
            stranger.sendall(greeting)
            time.sleep(0.3)

    return knock


def curve(server_key: bytes) -> dict[str, bytes]:
    public, secret = zmq.curve_keypair()
    return {"curve_serverkey": server_key, "curve_publickey": public, "curve_secretkey": secret}


SIGNATURE = b"\xff" + bytes(7) + b"\x01\x7f"
STRANGERS = {
    "without a mechanism": zeromq(zmq.DEALER),
    "without a mechanism, in the queue": zeromq(zmq.PUSH),
    "a key that was made up": zeromq(zmq.DEALER, **curve(zmq.curve_keypair()[0])),
    "a user and a password": zeromq(zmq.DEALER, plain_username=b"infer", plain_password=b"infer"),
    "nothing": raw(b""),
    "noise": raw(bytes(range(256)) * 4),
    "a web browser": raw(b"GET / HTTP/1.1\r\n\r\n" * 10),
    "the first protocol": raw(b"\x06\x00infer\x0a\x00let me in"),
    "the second protocol": raw(SIGNATURE + b"\x01\x05\x00\x05infer\x00\x09let me in"),
    "the third without a mechanism": raw(
        SIGNATURE + b"\x03\x00NULL" + bytes(48) + b"\x04\x19\x05READY" + bytes(19) + b"\x00\x09let me in"
    ),
    "a forged first word": raw(SIGNATURE + b"\x03\x00CURVE" + bytes(47) + b"\x04\xc8\x05HELLO\x01\x00" + bytes(192)),
}


@pytest.fixture
def locked(tmp_path):
    """The two ends of a run that has a key: the supervisor's hub and a queue in a folder, and who is one of us."""
    key = RunKey.new()
    run, ours = Transport(key=key), Transport(key=key)
    hub, receiver = run.hub(f"ipc://{tmp_path}/control"), run.receiver(f"ipc://{tmp_path}/track")
    yield tmp_path, run, hub, receiver, ours
    ours.close()
    run.close()


@pytest.mark.parametrize("knock", STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("queue", ["control", "track"])
def test_a_stranger_gets_nothing_in_and_is_counted(queue: str, knock, locked) -> None:
    folder, run, hub, receiver, ours = locked
    knock(f"{folder}/{queue}")
    counted: list[str] = []
    wait_until(lambda: counted.extend(run.refused()) or counted, what="a count")
    # Neither its message nor its name came in: the one whose name it took is heard and answered.
    spoke = ours.spoke(f"ipc://{folder}/control", "infer")
    spoke.send(b"it is me")
    ours.sender(f"ipc://{folder}/track").send([b"a frame"])
    assert hub.receive(5.0) == ("infer", b"it is me") and receiver.receive(5.0) == [b"a frame"]
    hub.send("infer", b"start")
    assert spoke.receive(5.0) == b"start"
    assert hub.receive(0.0) is None and receiver.receive(0.0) is None
    assert {*counted, *run.refused()} == {queue}


def test_who_sits_in_a_sockets_place_is_told_nothing(tmp_path) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as squatter:
        public, secret = zmq.curve_keypair()
        squatter.set(zmq.CURVE_SERVER, 1)
        squatter.set(zmq.CURVE_PUBLICKEY, public)
        squatter.set(zmq.CURVE_SECRETKEY, secret)
        squatter.bind(f"ipc://{tmp_path}/track")
        ours = Transport(key=RunKey.new())
        ours.slot_returner(f"ipc://{tmp_path}/track")._sender.send([b"a frame"])
        assert not squatter.poll(500)
        ours.close()


def test_the_key_is_not_shown() -> None:
    key = RunKey.new()
    assert key.secret not in f"{key} {key!r}" and key.public not in f"{key} {key!r}"
