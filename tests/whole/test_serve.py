"""The run over HTTP: what it tells, what it shows, what it is told; and who is turned away."""

import asyncio
import json
import os
import re
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.control import PATTERN, running
from tests.kit.harness import QUICK, run, wait_until, worker_pids
from tests.kit.served import Page, served

TOKEN = "a-token-of-many-letters"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with served(PATTERN, PATTERN, "--name", "door", "--name", "gate", "--realtime") as page:
        wait_until(lambda: all(each["delivered"] > 5 for each in page.view()["sources"]), what="frames")
        yield page


def figures(text: str) -> dict[str, float]:
    """The metrics by their names and labels."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# -- what it tells


def test_figures_are_those_of_the_ledger(page: Page) -> None:
    assert page.say({"type": "hold", "source_id": "gate", "paused": True}).status == 200
    wait_until(lambda: (gate := page.source("gate")) and gate["state"] == "paused" and gate["in_flight"] == 0)
    metrics = page.get("/metrics")
    assert metrics.status == 200 and metrics.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    told, view = figures(metrics.text), page.source("gate")
    assert view
    lines = page.run.frames("gate")
    dropped = sum(
        value
        for name, value in told.items()
        if name.startswith("centerstream_frames_dropped_total{") and '"gate"' in name
    )
    assert view["captured"] == len(lines) == told['centerstream_frames_captured_total{source="gate"}']
    delivered = [line for line in lines if line["status"] == "ok"]
    assert view["delivered"] == len(delivered) == told['centerstream_frames_delivered_total{source="gate"}']
    assert view["captured"] == view["delivered"] + view["without_result"] + dropped
    # A worker's own figures come once a second.
    count = 'centerstream_frame_age_seconds_count{source="gate"}'
    wait_until(lambda: figures(page.get("/metrics").text).get(count) == len(delivered))
    told = figures(page.get("/metrics").text)
    ages = sum(line["latency_ms"] for line in delivered) / 1000
    assert told['centerstream_frame_age_seconds_sum{source="gate"}'] == pytest.approx(ages, rel=0.05, abs=0.05)
    states = {name for name, value in told.items() if name.startswith("centerstream_source_state") and value}
    assert 'centerstream_source_state{source="gate",state="paused"}' in states
    assert page.say({"type": "hold", "source_id": "gate", "paused": False}).status == 200
    wait_until(lambda: (gate := page.source("gate")) is not None and gate["state"] == "live")


def test_health_and_readiness(page: Page) -> None:
    assert page.get("/healthz").status == 200
    wait_until(lambda: page.get("/readyz").status == 200)
    for source_id in ("door", "gate"):
        page.say({"type": "hold", "source_id": source_id, "paused": True})
    wait_until(lambda: page.get("/readyz").status == 503)
    assert page.get("/readyz").text == "no frames from: door, gate\n"
    for source_id in ("door", "gate"):
        page.say({"type": "hold", "source_id": source_id, "paused": False})
    wait_until(lambda: page.get("/readyz").status == 200)


# -- what it shows


def test_a_picture_of_a_source(page: Page) -> None:
    for query in ("", "?overlay=0", "?overlay=1"):
        answer = page.get(f"/sources/door.jpg{query}")
        assert answer.status == 200 and answer.headers["Content-Type"] == "image/jpeg"
        image_bgr = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
        assert image_bgr.shape == (120, 160, 3) and image_bgr.std() > 10
    assert page.get("/sources/nowhere.jpg").status == 404
    assert page.get("/sources/..%2f..%2fetc.jpg").status == 404
    assert page.get("/sources/door.jpg?overlay=2").status == 400


def test_a_stream_of_pictures_for_an_img(page: Page) -> None:
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.sendall(b"GET /sources/gate.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        came = b""
        while came.count(b"Content-Type: image/jpeg") < 4:
            came += connection.recv(1 << 16)
    head, _, rest = came.partition(b"\r\n\r\n")
    boundary = re.search(rb"boundary=(\S+)", head)
    assert boundary and b" 200 " in head
    pictures = rest.split(b"--" + boundary[1])[1:4]
    for picture in pictures:
        jpeg = picture[picture.index(b"\xff\xd8") :]
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (120, 160, 3)
    assert len({bytes(picture) for picture in pictures}) == 3


async def next_picture(websocket: ClientWebSocketResponse) -> dict:
    """The line that comes with it."""
    while True:
        message = await websocket.receive(timeout=30)
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message
        if message.type == WSMsgType.BINARY:
            (length,) = struct.unpack(">I", message.data[:4])
            assert message.data[4 + length :].startswith(b"\xff\xd8")
            return json.loads(message.data[4 : 4 + length])


async def has_silence(websocket: ClientWebSocketResponse, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await next_picture(websocket)
    except TimeoutError:
        return True
    return False


def test_a_viewer_is_sent_what_it_looks_at_as_fast_as_it_shows_it(page: Page) -> None:
    async def story() -> None:
        async with ClientSession() as client, client.ws_connect(f"{page.url}/live") as websocket:
            view = json.loads((await websocket.receive(timeout=30)).data)
            assert view["type"] == "view" and str(view["you"]) in view["viewers"]
            assert await has_silence(websocket, 1.0)  # it looks at nothing yet
            await websocket.send_json({"type": "look", "pictures": {"gate": 300}})
            first, second = await next_picture(websocket), await next_picture(websocket)
            assert first["source"] == second["source"] == "gate" and first["seq"] < second["seq"]
            assert await has_silence(websocket, 1.0)  # for nothing of it was shown
            await websocket.send_json({"type": "shown", "source": "gate", "seq": second["seq"]})
            third = await next_picture(websocket)
            assert third["seq"] >= second["seq"] + 5  # those between were skipped, and this is the newest
            number, ages = view["you"], figures(page.get("/metrics").text)
            assert ages[f'centerstream_viewer_age_seconds_count{{viewer="{number}"}}'] == 1
            await websocket.send_json({"type": "look", "pictures": {"door": 4000}})
            while (line := await next_picture(websocket))["source"] != "door":
                pass
            assert line["width"] == 160

    asyncio.run(story())


def test_who_speaks_otherwise_is_shown_the_door(page: Page) -> None:
    async def close_code(said: str | bytes) -> int | None:
        async with ClientSession() as client, client.ws_connect(f"{page.url}/live") as websocket:
            await (websocket.send_str(said) if isinstance(said, str) else websocket.send_bytes(said))
            while (await websocket.receive(timeout=30)).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
            return websocket.close_code

    for said in (
        "",
        "{",
        "[]",
        '{"type":"burn"}',
        '{"type":"look"}',
        '{"type":"look","pictures":{"gate":"huge"}}',
        '{"type":"look","pictures":{"gate":0}}',
        '{"type":"look","pictures":{"gate":1%s}}' % (400 * "0"),
        b"\0\1",
    ):
        assert asyncio.run(close_code(said)) == 1003, said
    assert asyncio.run(close_code("x" * (1 << 17))) == 1009
    assert page.get("/healthz").status == 200


# -- what it is told


def test_sources_come_go_wait_and_change(page: Page) -> None:
    added = page.say({"type": "add", "source": {"uri": PATTERN, "realtime": True}, "source_id": "yard"})
    assert (added.status, json.loads(added.body)) == (200, {"text": "yard was added"})
    wait_until(lambda: (yard := page.source("yard")) is not None and yard["delivered"] > 2)
    change = {"type": "tune", "source_id": "yard", "score": 0.7, "classes": ["car"], "max_rate": 5.0, "every": 2}
    assert page.say(change).status == 200
    expected = {"score_threshold": 0.7, "classes": ["car"], "max_rate": 5.0, "every": 2}
    wait_until(lambda: {key: (page.source("yard") or {}).get(key) for key in expected} == expected)
    assert page.say({"type": "remove", "source_id": "yard"}).status == 200
    wait_until(lambda: page.source("yard") is None)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ({}, "that is no control word"),
        ({"type": "end"}, "that is no control word"),
        ({"type": "list"}, "that is no control word"),
        ({"type": "remove", "source_id": "nowhere"}, "the run has no source nowhere; those it has: door, gate"),
        ({"type": "remove", "source_id": "../etc"}, "that is no control word"),
        ({"type": "tune", "source_id": "gate", "classes": ["unicorn"]}, "the model knows no 'unicorn'"),
        ({"type": "tune", "source_id": "gate", "score": 7}, "that is no control word"),
        ({"type": "add", "source": {"uri": "no/such/file.mp4"}}, "no/such/file.mp4"),
        ({"type": "add", "source": {"uri": "rtsp://${HOME}:${PATH}@127.0.0.1/1"}}, "are filled in on the command line"),
        ({"type": "add", "source": {"uri": "x", "more": 1}}, "that is no control word"),
    ],
)
def test_what_cannot_be_is_one_line(page: Page, word: dict, told: str) -> None:
    answer = page.say(word)
    error = json.loads(answer.body)["error"]
    assert answer.status == 400 and told in error and "\n" not in error
    assert [each["source_id"] for each in page.view()["sources"]] == ["door", "gate"]


def test_a_password_is_shown_nowhere(page: Page) -> None:
    secret = "gaeheim-1234"
    word = {"type": "add", "source": {"uri": f"rtsp://admin:{secret}@127.0.0.1:9/{secret}"}, "source_id": "far"}
    told = [page.say(word).text]
    wait_until(lambda: (far := page.source("far")) is not None and far["state"] != "opening")
    told += [page.get(path).text for path in ("/view", "/metrics", "/readyz")]
    told += [page.say({"type": "add", "source": {"uri": f"rtsp://admin:{secret}@"}}).text]
    told += [page.say({"type": "add", "source": {"uri": 5, secret: secret}}).text]
    page.say({"type": "remove", "source_id": "far"})
    wait_until(lambda: page.source("far") is None, seconds=60)
    told += [page.run.errors.read_text(), page.run.lines.read_text()]
    assert not [text for text in told if secret in text]


# -- who breaks in, and what breaks

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=12), below, max_size=4),
    max_leaves=12,
)
WORDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["add", "remove", "hold", "tune", "end", "list", "look", "shown", ""]) | JSON},
    optional={
        "source_id": JSON | st.sampled_from(["gone", "\0", "a" * 100]),
        "source": JSON | st.fixed_dictionaries({"uri": JSON}),
        "paused": JSON,
        "score": JSON,
        "pictures": JSON,
        "seq": JSON,
    },
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200) | WORDS.map(lambda word: json.dumps(word).encode()))
def test_no_body_breaks_it_or_changes_what_runs(page: Page, body: bytes) -> None:
    answer = page.get("/words", body)
    assert answer.status == 400 and list(json.loads(answer.body)) == ["error"], answer


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40), climb=st.booleans())
def test_no_path_leads_out(page: Page, path: str, climb: bool) -> None:
    place = "/static/" + "../" * 8 * climb + path
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        connection.sendall(f"GET {place} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        connection.settimeout(30)
        came = b""
        while part := connection.recv(1 << 16):
            came += part
    status = int(came.split(b" ")[1])
    assert status in (200, 304, 400, 403, 404) and b"root:" not in came and b"Traceback" not in came


def test_its_process_is_started_anew_and_the_run_does_not_notice(page: Page) -> None:
    """Also for one who looks: it is sent pictures again, as soon as it asks the new one."""
    before = worker_pids(page.run.process.pid)
    os.kill(before["serve"], signal.SIGKILL)
    wait_until(lambda: worker_pids(page.run.process.pid).get("serve") not in (None, before["serve"]))
    wait_until(page.is_up)
    after = worker_pids(page.run.process.pid)
    assert {name: pid for name, pid in after.items() if name != "serve"} == {
        name: pid for name, pid in before.items() if name != "serve"
    }
    assert page.get("/sources/gate.jpg").status == page.get("/sources/gate.jpg?overlay=0").status == 200
    for lost in ("deliver", "decode:gate"):  # who publish: the one with the overlay, the other without
        os.kill(after[lost], signal.SIGKILL)
        wait_until(lambda lost=lost: worker_pids(page.run.process.pid).get(lost) not in (None, after[lost]))
        for picture in ("gate.jpg", "gate.jpg?overlay=0"):
            wait_until(lambda picture=picture: page.get(f"/sources/{picture}").status == 200)
    once = {"serve": 1, "deliver": 1, "decode:gate": 1}
    wait_until(lambda: restarts(page) == once, what="a view that tells of all")


def restarts(page: Page) -> dict[str, int]:
    """Of the workers that were started anew."""
    return {worker["id"]: worker["restarts"] for worker in page.view()["workers"] if worker["restarts"]}


def test_the_run_ends_cleanly_with_one_who_looks(page: Page) -> None:
    """The last of this page."""

    async def story() -> int | None:
        async with ClientSession() as client, client.ws_connect(f"{page.url}/live") as websocket:
            await websocket.send_json({"type": "look", "pictures": {"gate": 300}})
            await next_picture(websocket)
            page.run.process.send_signal(signal.SIGINT)
            while (await websocket.receive(timeout=60)).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
            return websocket.close_code

    assert asyncio.run(story()) == 1001
    code, errors = page.run.end()
    assert code == 0, errors
    assert "Traceback" not in errors


def test_beyond_this_machine_nothing_is_told_without_the_token() -> None:
    token = {"CAM_TOKEN": TOKEN}
    with served(PATTERN, "--realtime", "--set", "serve.token=${CAM_TOKEN}", host="0.0.0.0", env=token) as page:
        for path in (
            "/",
            "/view",
            "/metrics",
            "/healthz",
            "/readyz",
            "/static/index.html",
            "/sources/lavfi.jpg",
            "/live",
        ):
            answer = page.get(path)
            assert answer.status == 401 and TOKEN not in answer.text, path
        assert page.say({"type": "end"}).status == 401
        assert page.get("/healthz", Authorization=f"Bearer {TOKEN}").status == 200
        told = page.get("/view", Authorization=f"Bearer {TOKEN}").text
        lines = [Path(f"/proc/{pid}/cmdline").read_text() for pid in worker_pids(page.run.process.pid).values()]
        page.run.process.send_signal(signal.SIGINT)
        code, errors = page.run.end()
        assert code == 0 and TOKEN not in errors + told + "".join(lines) + page.run.lines.read_text()


def test_an_address_that_cannot_be_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(PATTERN, "--max-frames", 3, *QUICK, "--serve", f"127.0.0.1:{port}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        f"error: serve.at: cannot listen at 127.0.0.1:{port}: it is taken; give another port"
    )
    done = run(PATTERN, "--serve", "0.0.0.0:8080")
    assert done.returncode == 2 and "needs a token" in done.stderr and len(done.stderr.splitlines()) == 1
    done = run(PATTERN, "--serve", "0.0.0.0:8080", "--set", "serve.token=short")
    assert done.returncode == 2 and "can be guessed" in done.stderr and "short" not in done.stderr


def test_published_messages_reach_a_subscriber_of_any_program() -> None:
    """As in docs/serving.md: 20 lines of a program that knows nothing of ours."""
    import zmq

    port = 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with running(PATTERN, "--name", "door", "--realtime", "--also", f"tcp://127.0.0.1:{port}") as started:
        with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
            subscriber.connect(f"tcp://127.0.0.1:{port}")
            subscriber.subscribe("frame/door")
            subscriber.subscribe("full/door")
            subscriber.setsockopt(zmq.RCVTIMEO, 120_000)
            came: dict[bytes, list[list[bytes]]] = {b"frame/door": [], b"full/door": []}
            while not all(len(each) > 3 for each in came.values()):
                topic, *parts = subscriber.recv_multipart()
                came[topic].append(parts)
        started.process.send_signal(signal.SIGINT)
        code, errors = started.end()
        lines = started.frames("door")
    assert code == 0, errors
    told = [json.loads(parts[0]) for parts in came[b"frame/door"]]
    assert [line for line in lines if line["seq"] in {each["seq"] for each in told}] == told
    shown = {json.loads(line)["seq"] for line, _, _ in came[b"full/door"]}
    assert shown <= {line["seq"] for line in lines}
    assert all(jpeg.startswith(b"\xff\xd8") for _, _, jpeg in came[b"full/door"])
