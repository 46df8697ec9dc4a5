"""A host that could not be reached and now can be is noticed; one that was there all the time is not."""

import socket
import threading
import time

import pytest

from pipeline.sources import knock
from pipeline.sources.knock import ANSWER_SECONDS, TRIED_EVERY_SECONDS, Knocks, can_be_reached, wait_seconds
from tests.kit.harness import HANG_SECONDS


def listener(port: int = 0) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


def test_nobody_is_not_reached() -> None:
    server = listener()
    port = server.getsockname()[1]
    assert can_be_reached("127.0.0.1", port)
    server.close()
    assert not can_be_reached("127.0.0.1", port)
    assert not can_be_reached("no.such.host.invalid", 554)


def test_who_comes_back_is_noticed() -> None:
    server = listener()
    port = server.getsockname()[1]
    server.close()
    missed = threading.Event()

    def reach(host: str, port: int) -> bool:
        is_reached = can_be_reached(host, port)
        if not is_reached:
            missed.set()
        return is_reached

    knocks = Knocks("127.0.0.1", port, reach)
    assert missed.wait(HANG_SECONDS) and not knocks.answered.is_set()
    server = listener(port)
    assert knocks.answered.wait(HANG_SECONDS)
    server.close()


@pytest.mark.parametrize("drawn", TRIED_EVERY_SECONDS)
@pytest.mark.parametrize("asked", [0.0, 0.2, ANSWER_SECONDS])
def test_an_answer_that_was_waited_for_is_no_further_wait(asked: float, drawn: float) -> None:
    assert asked + wait_seconds(asked, lambda least, most: drawn) == max(asked, drawn)


def test_who_was_there_all_the_time_has_not_come_back(monkeypatch) -> None:
    monkeypatch.setattr(knock, "TRIED_EVERY_SECONDS", (0.01, 0.02))
    asked: list[str] = []

    def reach(host: str, port: int) -> bool:
        asked.append(host)
        return True

    knocks = Knocks("gate", 554, reach)
    assert not knocks.answered.wait(0.3) and asked == ["gate"]


def test_knocking_ends_when_it_is_closed(monkeypatch) -> None:
    monkeypatch.setattr(knock, "TRIED_EVERY_SECONDS", (0.01, 0.02))
    asked: list[float] = []

    def reach(host: str, port: int) -> bool:
        asked.append(time.monotonic())
        return False

    knocks = Knocks("gate", 554, reach)
    while len(asked) < 3:
        time.sleep(0.01)
    knocks.close()
    time.sleep(0.1)
    before = len(asked)
    time.sleep(0.2)
    assert len(asked) == before
