"""Queues between workers: they lose nothing, also where a receiver is started anew, and nobody gets in without the
run's key."""

import socket
import threading
import time

import pytest
import zmq

from pipeline.flow.transport import HIGH_WATER_MARK, Bell, Context, RunKey, Transport
from tests.kit.harness import wait_until


@pytest.fixture
def transport():
    transport = Transport()
    yield transport
    transport.close()


def received(receiver, count: int) -> list[bytes]:
    """The next messages, each of one part."""
    parts = [receiver.receive(5.0) for _ in range(count)]
    return [bytes(each[0]) for each in parts if each]


def numbered(first: int, count: int) -> list[bytes]:
    return [str(number).encode() for number in range(first, first + count)]


def test_an_empty_queue_gives_none(transport) -> None:
    assert transport.receiver("inproc://queue").receive(0.01) is None


def test_a_queue_keeps_order_and_loses_nothing(transport) -> None:
    receiver, sender = transport.receiver("inproc://queue"), transport.sender("inproc://queue")
    assert all(sender.send([text]) for text in numbered(0, 500))
    assert received(receiver, 500) == numbered(0, 500)
    assert receiver.receive(0.05) is None


def test_who_shares_a_process_sends_past_the_kernel_and_others_do_as_ever(tmp_path) -> None:
    endpoint, key = f"ipc://{tmp_path}/queue", RunKey.new()
    context = Context()
    here, beside, elsewhere = Transport(context, key), Transport(context, key), Transport(key=key)
    receiver = here.receiver(endpoint, has_mates=True)
    for transport, is_mate in ((beside, True), (elsewhere, False)):
        sender = transport.sender(endpoint, is_mate=is_mate)
        assert all(sender.send([text]) for text in numbered(0, 50))
        assert received(receiver, 50) == numbered(0, 50)
    for transport in (elsewhere, beside, here):
        transport.close()
    context.term()


def test_the_parts_of_a_message_stay_together_whoever_sends(transport) -> None:
    receiver, sender = transport.receiver("inproc://queue"), transport.sender("inproc://queue")
    names = [str(number).encode() for number in range(4)]
    threads = [
        threading.Thread(target=lambda name=name: [sender.send([name, name * 2, name * 3]) for _ in range(50)])
        for name in names
    ]
    for thread in threads:
        thread.start()
    came = [[bytes(part) for part in receiver.receive(5.0)] for _ in range(200)]
    for thread in threads:
        thread.join()
    assert sorted(came) == sorted([name, name * 2, name * 3] for name in names for _ in range(50))


def test_a_bell_ends_the_wait_until_it_is_hushed(transport) -> None:
    bell = Bell()
    receiver = transport.receiver("inproc://belled", bell)
    sender = transport.sender("inproc://belled")
    began = time.monotonic()
    threading.Timer(0.1, bell.ring).start()
    assert receiver.receive(60.0) is None and receiver.receive(60.0) is None
    assert time.monotonic() - began < 30
    sender.send([b"one"])
    assert [bytes(part) for part in receiver.receive(60.0)] == [b"one"]
    bell.hush()
    bell.hush()
    began = time.monotonic()
    assert receiver.receive(0.2) is None and time.monotonic() - began > 0.1


def test_a_sender_to_nobody_waits_and_gives_up_when_it_is_told_to(transport) -> None:
    sender = transport.sender("inproc://nobody")
    sent = 0
    while sender.send([b"x"], lambda: True):
        sent += 1
        assert sent <= 2 * HIGH_WATER_MARK, "a queue without an end"
    assert sent > 0


def test_what_a_receiver_that_is_gone_had_not_read_is_sent_to_the_next(tmp_path) -> None:
    """A worker that is started anew: its predecessor was killed before it had read anything."""
    key, endpoint = RunKey.new(), f"ipc://{tmp_path}/queue"
    ours, first = Transport(key=key), Transport(key=key)
    sender = ours.sender(endpoint)
    receiver = first.receiver(endpoint)
    sender.send([b"before"])
    assert received(receiver, 1) == [b"before"]
    first.close()
    for text in numbered(0, 20):
        sender.send([text])
    again = Transport(key=key)
    receiver = again.receiver(endpoint)
    assert received(receiver, 20) == numbered(0, 20)
    again.close()
    ours.close()


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
        ours.sender(f"ipc://{tmp_path}/track").send([b"a frame"], lambda: True)
        assert not squatter.poll(500)
        ours.close()


def test_the_key_is_not_shown() -> None:
    key = RunKey.new()
    assert key.secret not in f"{key} {key!r}" and key.public not in f"{key} {key!r}"
