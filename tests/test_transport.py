"""Queues: `block` loses nothing, `latest` keeps the newest, and neither loses the start or the end of a stream."""

import threading
import time

import pytest

from pipeline.frame import Frame, from_parts, to_parts
from pipeline.messages import EndOfStream, FrameHeader, StreamStart
from pipeline.transport import Inbox, Transport


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
