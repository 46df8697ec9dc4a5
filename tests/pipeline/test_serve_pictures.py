"""Who looks at what: real messages over a real socket, shared out among viewers with credits."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.topics import PacketHead, encode_head
from pipeline.flow.transport import Publisher
from pipeline.serve.pictures import CREDITS, PACKET_CREDITS, Gallery, Viewer
from tests.kit.harness import wait_until

GATE, YARD = b"wide/480/gate", b"full/yard"
PACKETS, LINES = b"packets/gate", b"frame/gate"
DRAWN, HEAT = b"drawn/gate", b"heat/gate/person"


@pytest.fixture
def endpoint() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield f"ipc://{Path(folder, 'published')}"


def looking(endpoint: str, story: Callable[[Gallery], Awaitable[None]]) -> None:
    """`story` with a gallery at work."""

    async def tell() -> None:
        gallery = Gallery(endpoint, coming(endpoint))
        sharing = asyncio.create_task(gallery.share_out())
        try:
            async with asyncio.timeout(30):
                await story(gallery)
        finally:
            sharing.cancel()
            await asyncio.gather(sharing, return_exceptions=True)
            gallery.close()

    asyncio.run(tell())


def coming(endpoint: str) -> str:
    """Where decoders come to."""
    return f"{endpoint}-shown"


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def picture(topic: bytes, seq: int) -> list[bytes]:
    return [topic, b'{"seq":%d,"status":"ok"}' % seq, b"%d" % seq, b"jpeg"]


def test_nothing_is_asked_for_while_nobody_looks(endpoint: str) -> None:
    """And of each only what it makes: deliver lines, and what is drawn on them; decoders what is not."""
    with closing(Publisher(endpoint)) as deliver, closing(Publisher(coming(endpoint), comes=True)) as decoder:

        async def story(gallery: Gallery) -> None:
            def asked(of_deliver: set[bytes], of_decoder: set[bytes]) -> Callable[[], bool]:
                return lambda: deliver.subscriptions() == of_deliver and decoder.subscriptions() == of_decoder

            await asyncio.sleep(0.2)
            assert asked(set(), set())()
            one, other = gallery.enter([GATE]), gallery.enter([GATE, YARD, DRAWN, HEAT])
            lines = {b"frame/gate", b"frame/yard"}
            await until(asked({b"signal/", DRAWN, HEAT} | lines, {GATE, YARD}))
            gallery.leave(other)
            await until(asked({b"signal/", b"frame/gate"}, {GATE}))
            gallery.look_at(one, [PACKETS])
            await until(asked({b"signal/"}, {PACKETS}))
            gallery.leave(one)
            await until(asked(set(), set()))

        looking(endpoint, story)


def test_each_gets_what_it_looks_at_and_words_go_to_all_who_hear(endpoint: str) -> None:
    publisher, decoder = Publisher(endpoint), Publisher(coming(endpoint), comes=True)

    def publish(topic: bytes, seq: int) -> None:
        """A picture without the overlay, as it comes."""
        _, line, captured, jpeg = picture(topic, seq)
        decoder.send([topic, captured, jpeg])
        publisher.send([b"frame/" + topic.rpartition(b"/")[2], line, captured])

    async def story(gallery: Gallery) -> None:
        gate, yard, image = gallery.enter([GATE]), gallery.enter([YARD]), gallery.enter([YARD], credits=None)
        await until(lambda: publisher.subscriptions() >= {b"frame/gate", b"frame/yard", b"signal/"})
        await until(lambda: decoder.subscriptions() >= {GATE, YARD})
        publish(GATE, 1)
        publish(b"wide/480/gate2", 1)  # begins as the one that is looked at does
        publish(YARD, 2)
        publisher.send([b"signal/yard", b'{"kind":"signal"}'])
        signal = (None, [b'{"kind":"signal"}'])
        heard = [await each.next() for each in (gate, gate, yard, yard, image)]
        assert sorted(heard[:2], key=str) == sorted([(GATE, picture(GATE, 1)[1:]), signal], key=str)
        assert sorted(heard[2:4], key=str) == sorted([(YARD, picture(YARD, 2)[1:]), signal], key=str)
        assert heard[4] == (YARD, picture(YARD, 2)[1:])
        assert [each.take() for each in (gate, yard, image)] == [None, None, None]

    looking(endpoint, story)
    publisher.close()
    decoder.close()


def test_a_frame_that_was_dropped_is_not_shown(endpoint: str) -> None:
    """Without a result it would look like an empty scene."""
    with closing(Publisher(endpoint)) as deliver, closing(Publisher(coming(endpoint), comes=True)) as decoder:

        async def story(gallery: Gallery) -> None:
            viewer = gallery.enter([GATE, LINES], credits=None)
            await until(lambda: deliver.subscriptions() == {LINES} and decoder.subscriptions() == {GATE})
            for captured, status in enumerate((b"dropped", b"failed", b"dropped", b"ok")):
                stamp, line = b"%d" % captured, b'{"seq":%d,"status":"%s"}' % (captured, status)
                decoder.send([GATE, stamp, b"jpeg"])
                await asyncio.sleep(0.05)  # that it is there before its line
                deliver.send([LINES, line, stamp])
                assert await viewer.next() == (LINES, [line, stamp])
                if status != b"dropped":
                    assert await viewer.next() == (GATE, [line, stamp, b"jpeg"])

        looking(endpoint, story)


def test_a_publisher_that_is_started_anew_is_found_and_told_what_is_looked_at(endpoint: str) -> None:
    first = Publisher(endpoint)

    async def story(gallery: Gallery) -> None:
        gallery.enter([DRAWN])
        await until(lambda: DRAWN in first.subscriptions())
        first.close()
        second = Publisher(endpoint)
        await until(lambda: DRAWN in second.subscriptions())
        second.close()

    looking(endpoint, story)


def test_decoders_come_and_are_told_what_is_looked_at(endpoint: str) -> None:
    """Whoever is started anew, also the one who asks: a request goes with who made it."""

    def decoder() -> closing[Publisher]:
        return closing(Publisher(coming(endpoint), comes=True))

    with decoder() as gate, decoder() as yard:

        async def look(gallery: Gallery) -> None:
            viewer = gallery.enter([PACKETS])
            await until(lambda: all(PACKETS in each.subscriptions() for each in (gate, yard)))
            gate.send([PACKETS, *packet(1, is_key=True)])
            assert await viewer.next() == (PACKETS, packet(1, is_key=True))
            with decoder() as again:
                await until(lambda: PACKETS in again.subscriptions())
                again.send([PACKETS, *packet(2, follows=1)])
                assert await viewer.next() == (PACKETS, packet(2, follows=1))

        looking(endpoint, look)
        wait_until(lambda: not gate.subscriptions() and not yard.subscriptions(), what="a request that has gone")
        looking(endpoint, look)


# -- packets


def packet(captured: int, follows: int | None = None, is_key: bool = False) -> list[bytes]:
    return [encode_head(PacketHead("avc1.64001F", is_key, captured, follows)), b"data"]


def packets_taken(viewer: Viewer) -> list[int]:
    """When those were captured that it is sent now."""
    heads = [parts[0] for topic, parts in iter(viewer.take, None) if topic == PACKETS]
    captured = [int(msgspec.json.decode(head)["captured"]) for head in heads]
    for each in captured:
        viewer.sent(PACKETS, each, 1000 * each)
    return captured


def test_packets_begin_with_a_key_frame_and_after_a_gap_with_the_next() -> None:
    viewer = Viewer(1)
    viewer.look_at([PACKETS])
    for captured, follows, is_key in (
        (1, None, False),
        (2, 1, False),
        (3, 2, True),
        (4, 3, False),
        (6, 5, False),  # one is missing
        (7, 6, False),
        (8, None, False),  # some were left out
        (9, 8, False),
        (10, 9, True),
        (11, 10, False),
    ):
        viewer.offer(PACKETS, packet(captured, follows, is_key))
    assert packets_taken(viewer) == [3, 4, 10, 11]
    viewer.look_at([])
    viewer.look_at([PACKETS])
    viewer.offer(PACKETS, packet(12, 11))
    assert packets_taken(viewer) == []


def test_one_who_takes_nothing_is_sent_so_many_and_goes_on_with_a_key_frame() -> None:
    viewer = Viewer(1)
    viewer.look_at([PACKETS])
    sent = []
    for captured in range(100):
        viewer.offer(PACKETS, packet(captured, captured - 1, is_key=captured % 10 == 0))
        sent += packets_taken(viewer)
    assert sent == list(range(PACKET_CREDITS))
    viewer.taken(PACKETS, PACKET_CREDITS - 1)
    for captured in range(100, 115):
        viewer.offer(PACKETS, packet(captured, captured - 1, is_key=captured == 110))
    assert packets_taken(viewer) == [110, 111, 112, 113, 114]
    assert viewer.ages.quantiles().count == 0  # taken is not shown


@given(st.lists(st.sampled_from(["delta", "key", "lost", "take", "taken"]), max_size=120))
def test_whatever_comes_packets_are_an_unbroken_row_from_a_key_frame_on(happens: list[str]) -> None:
    viewer = Viewer(1)
    viewer.look_at([PACKETS])
    sent: list[int] = []
    keys: set[int] = set()
    captured = acknowledged = 0
    for each in happens:
        match each:
            case "delta" | "key" | "lost":
                captured += 1
                if each != "lost":
                    keys |= {captured} if each == "key" else set()
                    viewer.offer(PACKETS, packet(captured, captured - 1, is_key=each == "key"))
            case "take":
                sent += packets_taken(viewer)
            case "taken" if sent:
                viewer.taken(PACKETS, sent[-1])
                acknowledged = len(sent)
        assert len(sent) - acknowledged <= PACKET_CREDITS
    assert all(number in keys or number - 1 in sent for number in sent)


def test_results_wait_for_no_credit_and_tell_an_age_once_shown() -> None:
    viewer = Viewer(1)
    viewer.look_at([LINES])
    for seq in range(5):
        viewer.offer(LINES, [b'{"seq":%d}' % seq, b"0"])
    assert [seq for _, seq in taken(viewer)] == [0, 1, 2, 3, 4]
    viewer.shown(LINES, 3)
    assert viewer.ages.quantiles().count == 1


# -- credits


def taken(viewer: Viewer) -> list[tuple[bytes, int]]:
    """All that it would be sent now: topics and numbers."""
    found = []
    while (each := viewer.take()) is not None:
        topic, parts = each
        assert topic is not None
        seq = msgspec.json.decode(parts[0])["seq"]
        viewer.sent(topic, seq, time.monotonic_ns())
        found.append((topic, seq))
    return found


def test_one_who_shows_nothing_is_sent_so_many_and_then_the_newest() -> None:
    viewer = Viewer(1)
    viewer.look_at([GATE, YARD])
    sent = []
    for seq in range(10):
        viewer.offer(GATE, picture(GATE, seq)[1:])
        sent += taken(viewer)
    assert sent == [(GATE, seq) for seq in range(CREDITS)]
    viewer.offer(YARD, picture(YARD, 0)[1:])
    assert taken(viewer) == [(YARD, 0)]  # each source has credits of its own
    viewer.shown(GATE, 0)
    assert taken(viewer) == [(GATE, 9)]
    assert viewer.ages.quantiles().count == 1


def test_a_picture_that_was_never_shown_has_no_age_and_gives_its_credit_back_with_the_next() -> None:
    viewer = Viewer(1)
    viewer.look_at([GATE])
    for seq in range(4):
        viewer.offer(GATE, picture(GATE, seq)[1:])
        taken(viewer)
    viewer.shown(GATE, 1)
    assert viewer.ages.quantiles().count == 1
    viewer.offer(GATE, picture(GATE, 4)[1:])
    assert taken(viewer) == [(GATE, 4)]
    viewer.offer(GATE, picture(GATE, 5)[1:])
    assert taken(viewer) == [(GATE, 5)]


def test_what_it_says_of_pictures_it_was_not_sent_changes_nothing() -> None:
    viewer = Viewer(1)
    viewer.look_at([GATE])
    viewer.shown(GATE, 5)
    viewer.shown(b"nowhere", 5)
    for seq in range(5):
        viewer.offer(GATE, picture(GATE, seq)[1:])
        taken(viewer)
    viewer.shown(GATE, 0)
    viewer.shown(GATE, 0)
    assert viewer.ages.quantiles().count == 1
    viewer.look_at([])
    viewer.shown(GATE, 1)
    assert taken(viewer) == []


@given(st.lists(st.sampled_from(["gate", "yard", "shown gate", "shown yard"]), max_size=60))
def test_whatever_comes_and_is_shown_credits_hold_and_pictures_are_in_order(happens: list[str]) -> None:
    viewer = Viewer(1)
    viewer.look_at([GATE, YARD])
    numbers = itertools.count()
    sent: dict[bytes, list[int]] = {GATE: [], YARD: []}
    shown = {GATE: 0, YARD: 0}
    for each in happens:
        topic = GATE if each.endswith("gate") else YARD
        if each.startswith("shown"):
            if shown[topic] < len(sent[topic]):
                viewer.shown(topic, sent[topic][shown[topic]])
                shown[topic] += 1
        else:
            viewer.offer(topic, picture(topic, next(numbers))[1:])
        for which, seq in taken(viewer):
            sent[which].append(seq)
        for which, seqs in sent.items():
            assert seqs == sorted(set(seqs))
            assert len(seqs) - shown[which] <= CREDITS
    assert viewer.ages.quantiles().count == sum(shown.values())
