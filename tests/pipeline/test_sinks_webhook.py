"""Webhooks, with a real HTTP server: what is posted, what becomes of each answer, and nothing is lost, or comes twice
without its batch saying so, when the server goes, an answer is lost, or the process that sends is killed."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.flow.fates import LOST, NEWER
from pipeline.flow.messages import SignalChange
from pipeline.settings import SpoolSettings
from pipeline.sinks import Sink, Target, webhook
from tests.kit.certificate import self_signed
from tests.kit.harness import wait_until
from tests.kit.hook import Hook, hook
from tests.kit.places import ROOT
from tests.kit.results import Row, result
from tests.kit.warned import Warned
from tests.kit.wire import wire_to

PERSON: Row = ((1.0, 2.0, 3.0, 4.0), 0.9, 0, 3)


@pytest.fixture
def at() -> Iterator[Hook]:
    with hook() as made:
        yield made


def open_at(url: str, folder: Path, warn: Warned | None = None, megabytes: float = 8.0, goes_on: bool = False) -> Sink:
    spool = SpoolSettings(folder=str(folder / "spool"), megabytes=megabytes)
    return webhook.open_sink(Target(url, goes_on=goes_on, spool=spool, warn=warn or Warned()))


def write(sink: Sink, *seqs: int) -> None:
    for seq in seqs:
        sink.write(result([PERSON], seq=seq, seconds=seq / 10), None)


# --- what is posted --------------------------------------------------------------------------------------------------


def test_without_a_line_nothing_is_posted(at, tmp_path) -> None:
    open_at(at.url, tmp_path).close()
    assert not at.posts and not list((tmp_path / "spool").iterdir())


def test_lines_are_posted_in_batches_with_an_id_each(at, tmp_path) -> None:
    sink = open_at(f"{at.url}?token=a b#gather=0.2&most=10", tmp_path)
    sink.write(result(seq=0), None)
    write(sink, *range(1, 26))
    sink.write(result(seq=26, failure="no answer"), None)
    sink.write(result(seq=27, dropped=NEWER), None)
    sink.record(SignalChange("door", 0, 28, "lost", "no data for 5 s", 1.0))
    sink.close()
    assert at.seqs() == [*range(1, 27), 28]  # no result is not no objects
    assert [post["lines"][0]["kind"] for post in at.posts[:1]] == ["frame"]
    assert max(len(post["lines"]) for post in at.posts) == 10
    assert all(list(post) == ["schema", "id", "repeated", "lines", "status"] for post in at.posts)
    assert all(post["schema"] == 1 and post["repeated"] is False for post in at.posts)
    assert [headers["Idempotency-Key"] for headers in at.headers] == [post["id"] for post in at.posts]
    assert len({post["id"] for post in at.posts}) == len(at.posts)
    assert set(at.paths) == {"/hook?token=a%20b"} and at.headers[0]["Content-Type"] == "application/json"
    assert sink.sent == 27 and sink.way == ""


def test_a_user_and_a_password_are_given_and_not_told(at, tmp_path) -> None:
    warned = Warned()
    at.answers = [401]
    sink = open_at(at.url.replace("//", "//us%40er:pa%3Ass@"), tmp_path, warned)
    write(sink, 0)
    sink.close()
    assert at.headers[0]["Authorization"] == "Basic dXNAZXI6cGE6c3M="
    (line,) = warned.lines
    assert line == (
        f"http://***@127.0.0.1:{at.port}/… refused lines for ever (401 Unauthorized); they are counted as missed"
    )
    assert sink.lost == 1 and sink.way == "1 lines refused"


# --- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 408, 429, 500, 503])
def test_what_may_be_taken_later_is_posted_again_with_its_id(at, tmp_path, status: int) -> None:
    warned = Warned()
    at.answers = [status, status]
    sink = open_at(f"{at.url}#gather=0", tmp_path, warned)
    write(sink, 0, 1)
    wait_until(lambda: sink.spool.waiting == 0, 30, "the lines")
    sink.close()
    first = [post for post in at.posts if post["id"] == at.posts[0]["id"]]
    assert [(post["status"], post["repeated"]) for post in first] == [(status, False), (status, True), (204, True)]
    assert len({json.dumps(post["lines"]) for post in first}) == 1
    assert at.seqs() == [0, 1] and set(at.paths) == {"/hook"}
    assert any(f"it answered {status}" in line for line in warned.lines) and sink.lost == 0


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_is_refused_is_dropped_and_counted_and_the_next_goes_on(at, tmp_path, status: int) -> None:
    at.answers = [status]
    sink = open_at(f"{at.url}#gather=0&most=1", tmp_path)
    write(sink, 0, 1, 2)
    sink.close()
    assert at.seqs() == [1, 2] and sink.lost == 1 and len(at.posts) == 3


def test_a_server_that_says_when_is_asked_no_sooner(at, tmp_path) -> None:
    at.answers, at.retry_after = [503], "2"
    sink = open_at(f"{at.url}#gather=0", tmp_path)
    began = time.monotonic()
    write(sink, 0)
    wait_until(lambda: sink.spool.waiting == 0, 30, "the line")
    assert time.monotonic() - began > 1.9
    sink.close()


# --- who goes away ---------------------------------------------------------------------------------------------------


def test_while_the_server_is_away_lines_wait_and_none_is_lost_or_doubled(at, tmp_path) -> None:
    sink = open_at(f"{at.url}#gather=0&most=7", tmp_path)
    write(sink, *range(20))
    wait_until(lambda: sink.spool.waiting == 0, 30, "the first")
    at.stop()
    write(sink, *range(20, 100))
    time.sleep(2.0)
    at.start()
    wait_until(lambda: sink.spool.waiting == 0, 60, "the others")
    sink.close()
    assert at.seqs() == list(range(100)) and sink.lost == 0
    assert len(at.posts) == len(at.taken())


def test_a_batch_whose_answer_was_lost_comes_again_as_it_was(at, tmp_path) -> None:
    with wire_to(at.port) as wire:
        sink = open_at(f"http://127.0.0.1:{wire.port}/#gather=0", tmp_path)
        wire.deafen()
        write(sink, 0, 1, 2)
        wait_until(lambda: at.posts, 30, "a post")
        wire.cut()
        write(sink, 3, 4)
        wire.heal()
        wait_until(lambda: sink.spool.waiting == 0, 60, "all")
        sink.close()
    assert at.seqs() == [0, 1, 2, 3, 4]
    again = [post for post in at.posts if post["id"] == at.posts[0]["id"]]
    assert [post["repeated"] for post in again] == [False, True] and again[0]["lines"] == again[1]["lines"]


SENDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.pipeline.test_sinks_webhook import open_at, write
sink = open_at(sys.argv[2], Path(sys.argv[3]))
write(sink, *range(int(sys.argv[4]), int(sys.argv[5])))
print("written", flush=True)
sys.stdin.read()
"""


def killed_after(url: str, folder: Path, first: int, end: int, condition) -> None:  # type: ignore[no-untyped-def]
    """A process that writes these frames, and is killed when it has, and the condition holds."""
    command = [sys.executable, "-c", SENDER, str(ROOT), url, str(folder), str(first), str(end)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "written\n"
        wait_until(condition, 60, "the moment")
        process.send_signal(signal.SIGKILL)


def test_a_process_that_is_killed_leaves_what_waits_to_the_next(at, tmp_path) -> None:
    """First while nobody is there, then between a post and its answer: that batch comes again as it was."""
    with wire_to(at.port) as wire:
        url = f"http://127.0.0.1:{wire.port}/#gather=0&most=10"
        wire.cut()
        killed_after(url, tmp_path, 0, 25, lambda: True)
        wire.heal()
        wire.deafen()
        killed_after(url, tmp_path, 25, 50, lambda: at.posts)
        wire.cut()
        wire.heal()
        sink = open_at(url, tmp_path)
        write(sink, *range(50, 60))
        wait_until(lambda: sink.spool.waiting == 0, 60, "all")
        sink.close()
    assert at.seqs() == list(range(60))
    again = [post for post in at.posts if post["id"] == at.posts[0]["id"]]
    assert len(again) == 2 and again[1]["repeated"] and again[0]["lines"] == again[1]["lines"]
    assert all(post["repeated"] is False for post in at.posts if post["lines"][0]["seq"] >= 50)


@pytest.mark.parametrize("goes_on", [True, False], ids=["the same run", "the next run"])
def test_a_frame_of_a_process_that_was_lost_before_it_told_of_it_has_one_line(at, tmp_path, goes_on: bool) -> None:
    """It had put the line there; that the frame was lost with it is what the next process is told."""
    with wire_to(at.port) as wire:
        url = f"http://127.0.0.1:{wire.port}/#gather=0&frames=all"
        wire.cut()
        killed_after(url, tmp_path, 0, 8, lambda: True)
        wire.heal()
        sink = open_at(url, tmp_path, goes_on=goes_on)
        for source_id, seq in (("door", 7), ("door", 6), ("yard", 7), ("door", 8)):
            sink.write(result(source_id=source_id, seq=seq, seconds=seq / 10, dropped=LOST["deliver"]))
        sink.write(result(seq=7, seconds=0.7, dropped=NEWER))
        wait_until(lambda: sink.spool.waiting == 0, 60, "all")
        sink.close()
    told = [(line["source"], line["seq"], line["status"]) for post in at.posts for line in post["lines"]]
    assert told[:8] == [("door", seq, "ok") for seq in range(8)]
    lost = [("door", 7), ("door", 6), ("yard", 7), ("door", 8), ("door", 7)]
    assert told[8:] == [(*frame, "dropped") for frame in (lost[1:] if goes_on else lost)]


def test_where_too_much_waits_the_oldest_is_given_up_and_counted(at, tmp_path) -> None:
    at.stop()
    warned = Warned()
    sink = open_at(f"{at.url}#gather=0", tmp_path, warned, megabytes=0.1)
    write(sink, *range(2000))
    assert 0 < sink.lost < 2000 and any("counted as missed" in line for line in warned.lines)
    at.start()
    wait_until(lambda: sink.spool.waiting == 0, 60, "what is left")
    sink.close()
    kept = at.seqs()
    assert len(kept) == 2000 - sink.lost == len(set(kept)) and kept == sorted(kept) and kept[-1] == 1999


def test_a_server_is_trusted_by_its_certificate(tmp_path, monkeypatch) -> None:
    warned, certificate = Warned(), self_signed(tmp_path)
    with hook(certificate) as at:
        sink = open_at(at.url, tmp_path, warned)
        write(sink, 0)
        wait_until(lambda: warned.lines, 30, "a warning")
        assert "its certificate is not trusted" in warned.lines[0]
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        wait_until(lambda: at.seqs() == [0], 60, "the line")
        sink.close()


def test_what_answers_no_http_is_waited_for(tmp_path) -> None:
    import socketserver
    import threading

    class Other(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            self.request.recv(1000)

    warned = Warned()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sink = open_at(f"http://127.0.0.1:{server.server_address[1]}/x?token=s3cret", tmp_path, warned)
        write(sink, 0)
        wait_until(lambda: warned.lines, 30, "a warning")
        sink.close()
        server.shutdown()
    assert "waits in the spool" in warned.lines[0] and "s3cret" not in "".join(warned.lines)
