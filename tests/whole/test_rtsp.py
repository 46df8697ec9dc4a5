"""A real camera on a real network protocol: the whole command on an RTSP server, over TCP and UDP."""

import signal
import socket

import pytest

from tests.kit.account import account
from tests.kit.harness import (
    AS_FOUND,
    Leftovers,
    finish,
    json_lines,
    run,
    run_here,
    stage_pids,
    start,
    wait_until,
)
from tests.kit.places import CLIP

pytestmark = pytest.mark.thorough

CLIP_FRAMES = 130
ONCE = ("--set", "sources.127-0-0-1.reconnect=false")


@pytest.fixture(scope="module")
def from_file(tmp_path_factory):
    """seq → boxes, from the file itself."""
    path = tmp_path_factory.mktemp("file") / "f.jsonl"
    done = run_here(CLIP, *AS_FOUND, "--jsonl", path)
    assert done.returncode == 0, done.stderr
    return boxes_by_seq(path)


def boxes_by_seq(path) -> dict[int, list]:
    """Of the frames with a result."""
    return {
        line["seq"]: [(o["class"], o["score"], o["box_xyxy"]) for o in line["objects"]]
        for line in json_lines(path)
        if line["kind"] == "frame" and line["status"] == "ok"
    }


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_gives_the_same_boxes_as_the_file(rtsp_server, transport, from_file, tmp_path) -> None:
    # The server plays the clip once from its first frame and hangs up: a lost camera. Over UDP its goodbye may
    # overtake the last frames.
    server = rtsp_server(file=CLIP, speed=2)
    done = run(server.url, *ONCE, *AS_FOUND, "--rtsp-transport", transport, "--jsonl", tmp_path / "r.jsonl")
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    ledger, camera = account(done.stderr), boxes_by_seq(tmp_path / "r.jsonl")
    assert CLIP_FRAMES - 10 <= ledger.captured <= CLIP_FRAMES
    assert ledger.captured == ledger.delivered + ledger.dropped and ledger.in_flight == 0
    assert ledger.delivered == len(camera) >= CLIP_FRAMES // 5  # a busy machine drops many
    assert list(camera) == sorted(camera)
    assert camera == {seq: from_file[seq] for seq in camera}


@pytest.mark.parametrize(("user", "password", "code"), [("cam", "s3cret", 0), ("cam", "wr0ng", 3)])
def test_a_camera_with_a_password(rtsp_server, user, password, code, tmp_path) -> None:
    server = rtsp_server(file=CLIP, user="cam", password="s3cret", auth="digest")
    done = run(server.url_for(user, password), "--max-frames", 3, "--jsonl", tmp_path / "r.jsonl", "--verbose")
    assert done.returncode == code, done.stderr
    told = done.stdout + done.stderr
    if code == 0:  # a busy machine may drop one of the three
        delivered = len(boxes_by_seq(tmp_path / "r.jsonl"))
        assert account(done.stderr).captured == 3 and delivered == account(done.stderr).delivered > 0
        told += (tmp_path / "r.jsonl").read_text()
    else:
        assert not (tmp_path / "r.jsonl").exists()
    assert password not in told and "s3cret" not in told


def test_a_camera_that_dies_is_a_failed_source_after_what_it_sent(play_server, tmp_path) -> None:
    leftovers = Leftovers()
    server = play_server(file=CLIP, loop=True)
    process = start(server.url, *ONCE, "--jsonl", tmp_path / "r.jsonl", "--out", tmp_path / "r.mp4")
    wait_until(lambda: (tmp_path / "r.jsonl").exists() and (tmp_path / "r.jsonl").stat().st_size > 3000, what="frames")
    server.kill()
    code, errors = finish(process)
    assert code == 3 and account(errors).in_flight == 0, errors
    leftovers.assert_none()


def test_a_camera_that_freezes_is_noticed(play_server, tmp_path) -> None:
    server = play_server(file=CLIP, loop=True)
    waits = ("--set", "sources.127-0-0-1.read_timeout_seconds=1.5")
    process = start(server.url, *ONCE, *waits, "--jsonl", tmp_path / "r.jsonl")
    wait_until(lambda: (tmp_path / "r.jsonl").exists() and (tmp_path / "r.jsonl").stat().st_size > 3000, what="frames")
    server.freeze()
    code, errors = finish(process)
    assert code == 3 and "1.5 s" in errors, errors


def test_a_camera_that_dies_and_comes_back_is_one_run(play_server, tmp_path) -> None:
    server = play_server(file=CLIP, loop=True)
    process = start(server.url, "--jsonl", tmp_path / "r.jsonl")

    def grows(by: int) -> None:
        size = (tmp_path / "r.jsonl").stat().st_size if (tmp_path / "r.jsonl").exists() else 0
        wait_until(lambda: (tmp_path / "r.jsonl").exists() and (tmp_path / "r.jsonl").stat().st_size > size + by)

    grows(3000)
    server.kill()
    play_server(file=CLIP, loop=True, port=server.port)
    grows(3000)
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code == 0 and account(errors).in_flight == 0, errors
    lines = json_lines(tmp_path / "r.jsonl")
    frames = [line for line in lines if line["kind"] == "frame"]
    assert [line["seq"] for line in frames] == list(range(account(errors).captured))
    assert [line["pts_seconds"] for line in frames] == sorted({line["pts_seconds"] for line in frames})
    states = [line["state"] for line in lines if line["kind"] == "signal"]  # lost again where its cause is another one
    assert states[0] == "lost" and "live" in states and set(states) == {"lost", "live"}


@pytest.fixture
def silent_server():
    """Accepts connections and never says a word; `accept` waits for one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_while_a_camera_is_being_opened_is_a_normal_end(silent_server, number, tmp_path) -> None:
    leftovers = Leftovers()
    url = f"rtsp://127.0.0.1:{silent_server.getsockname()[1]}/a"
    process = start(url, "--set", "sources.127-0-0-1.open_timeout_seconds=100", "--jsonl", tmp_path / "r.jsonl")
    connection, _ = silent_server.accept()
    pids = stage_pids(process.pid)
    process.send_signal(number)
    code, errors = finish(process, seconds=20)
    connection.close()
    assert code == 0 and "stopped on request" in errors, errors
    assert "error" not in errors and "Traceback" not in errors, errors
    leftovers.assert_none(pids, seconds=5)


def test_a_stop_before_a_camera_is_opened_is_a_normal_end() -> None:
    process = start("rtsp://192.0.2.1/a")
    wait_until(lambda: "decode" in stage_pids(process.pid), what="the decoder")
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "stopped on request\n")


def test_a_camera_that_cannot_be_opened_still_ends_in_an_error(silent_server) -> None:
    url = f"rtsp://127.0.0.1:{silent_server.getsockname()[1]}/a"
    done = run(url, "--set", "sources.127-0-0-1.open_timeout_seconds=0.5")
    assert done.returncode == 3 and "did not answer within 0.5 s" in done.stderr


def test_ctrl_c_on_a_camera_is_a_normal_end(play_server, tmp_path) -> None:
    server = play_server(file=CLIP, loop=True)
    process = start(server.url, "--jsonl", tmp_path / "r.jsonl")
    wait_until(lambda: (tmp_path / "r.jsonl").exists() and (tmp_path / "r.jsonl").stat().st_size > 3000, what="frames")
    process.send_signal(signal.SIGINT)
    code, errors = finish(process)
    assert code == 0 and account(errors).in_flight == 0, errors
