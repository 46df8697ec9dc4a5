"""MQTT, with a real broker: what is published, and that nothing is lost, or comes twice without saying so, when the
broker goes, the wire is cut, or the process that sends is killed."""

import json
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.flow.fates import NEWER
from pipeline.flow.messages import SignalChange
from pipeline.settings import SpoolSettings
from pipeline.sinks import Sink, Target, mqtt
from tests.kit.broker import PASSWORD, USER, Broker, Listener, broker, listening, settled
from tests.kit.certificate import self_signed
from tests.kit.harness import wait_until
from tests.kit.places import ROOT
from tests.kit.results import Row, result
from tests.kit.warned import Warned
from tests.kit.wire import wire_to

PERSON: Row = ((1.0, 2.0, 3.0, 4.0), 0.9, 0, 3)
DOG: Row = ((1.0, 2.0, 3.0, 4.0), 0.9, 1, 4)


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Broker]:
    with broker(tmp_path) as made:
        yield made


@pytest.fixture
def told(at: Broker) -> Iterator[Listener]:
    with listening(at) as listener:
        yield listener


def open_at(url: str, folder: Path, warn: Warned | None = None, **more) -> Sink:
    spool = SpoolSettings(folder=str(folder / "spool"), megabytes=more.pop("megabytes", 8.0))
    return mqtt.open_sink(Target(url, spool=spool, warn=warn or Warned(), **more))


def write(sink: Sink, *seqs: int, rows: tuple[Row, ...] = (PERSON,), source_id: str = "door") -> None:
    for seq in seqs:
        sink.write(result(list(rows), seq=seq, seconds=seq / 10, source_id=source_id), None)


def frames(told: Listener, topic: str = "cs/door/frame") -> list[dict]:
    return [json.loads(payload) for payload in told.of(topic)]


def seqs(told: Listener) -> list[int]:
    return [line["seq"] for line in frames(told)]


def came_once(told: Listener) -> list[int]:
    """The seqs of frames that do not say that they may have come before."""
    return [line["seq"] for line in frames(told) if "repeated" not in line]


# --- what is published -----------------------------------------------------------------------------------------------


def test_without_a_frame_there_is_availability_alone(at, told, tmp_path) -> None:
    open_at(at.url, tmp_path).close()
    settled(told)
    assert [(topic, payload) for topic, payload, _ in told.messages] == [
        ("cs/availability", b"online"), ("cs/availability", b"offline")
    ]  # fmt: skip


def test_frames_with_objects_are_published_as_json_lines_and_counts_and_states_are_retained(at, told, tmp_path) -> None:
    sink = open_at(at.url, tmp_path)
    write(sink, 0, rows=(PERSON, PERSON, DOG))
    write(sink, 1, rows=())
    sink.write(result(seq=2, failure="no answer"), None)
    sink.write(result(seq=3, dropped=NEWER), None)
    sink.record(SignalChange("door", 0, 4, "lost", "no data for 5 s", 1.0))
    wait_until(lambda: told.last("cs/door/state") == "lost", 30, "the state")
    with listening(at) as later:
        settled(later)
        retained = {topic: payload for topic, payload, is_retained in later.messages if is_retained}
    sink.close()
    assert seqs(told) == [0, 2]  # no result is not no objects
    assert [line["status"] for line in frames(told)] == ["ok", "failed"]
    assert [line["state"] for line in frames(told, "cs/door/signal")] == ["lost"]
    assert retained == {
        "cs/availability": b"online",
        "cs/door/state": b"lost",
        "cs/door/count/person": b"0",
        "cs/door/count/dog": b"0",
    }
    assert sink.sent == 3 and sink.way == "" and sink.lost == 0


def test_counts_change_when_they_change_and_a_failure_counts_nothing(at, told, tmp_path) -> None:
    sink = open_at(f"{at.url}?classes=person", tmp_path)
    for seq, count in enumerate([0, 1, 1, 2]):
        write(sink, seq, rows=(DOG, *[PERSON] * count))
        wait_until(lambda count=count: told.last("cs/door/count/person") == str(count), 30, "the count")
    sink.write(result(seq=9, failure="no answer"), None)
    sink.close()
    settled(told)
    assert told.of("cs/door/count/person") == [b"0", b"1", b"2"] and not told.of("cs/door/count/dog")


def test_a_class_that_the_model_does_not_know_is_told_of(at, told, tmp_path) -> None:
    warned = Warned()
    sink = open_at(f"{at.url}?classes=unicorn,%20dog", tmp_path, warned)
    write(sink, 0, 1, rows=(DOG,))
    sink.close()
    settled(told)
    assert (told.last("cs/door/count/unicorn"), told.last("cs/door/count/dog")) == ("0", "1")
    (line,) = warned.lines
    assert "classes: the model knows no 'unicorn', which is counted as 0; it knows person, dog" in line


def test_all_frames_on_request_and_each_source_under_its_own_topic(at, told, tmp_path) -> None:
    sink = open_at(f"{at.url}/?frames=all&qos=0", tmp_path)
    write(sink, 0, rows=())
    write(sink, 1, source_id="back yard")
    sink.write(result(seq=2, dropped=NEWER), None)
    sink.close()
    settled(told)
    assert seqs(told) == [0, 2]
    assert [line["seq"] for line in frames(told, "cs/back yard/frame")] == [1]
    assert told.last("cs/back yard/state") == "live"


def test_every_thins_frames_and_counts_by_the_sources_own_time(at, told, tmp_path) -> None:
    sink = open_at(f"{at.url}?every=1.0", tmp_path)
    write(sink, *range(35))
    sink.close()
    settled(told)
    assert seqs(told) == [0, 10, 20, 30]


def test_a_source_that_has_ended_says_so_and_may_come_again(at, told, tmp_path) -> None:
    sink = open_at(at.url, tmp_path)
    write(sink, 0)
    sink.end("door")
    wait_until(lambda: told.last("cs/door/state") == "ended", 30, "the end")
    write(sink, 1)
    wait_until(lambda: told.last("cs/door/state") == "live", 30, "the beginning")
    sink.close()


def test_home_assistant_finds_a_sensor_for_each_class_that_is_looked_for(at, told, tmp_path) -> None:
    sink = open_at(f"{at.url}?discovery=homeassistant", tmp_path, classes=("person", "traffic light"))
    frame = result([DOG])
    object.__setattr__(frame, "class_names", ("person", "dog", "traffic light"))
    sink.write(frame, None)
    sink.close()
    settled(told)
    configs = {topic: json.loads(text) for topic, text, _ in told.messages if topic.startswith("homeassistant/")}
    kinds = sorted(topic.split("/")[1] for topic in configs)
    assert kinds == ["binary_sensor", "sensor", "sensor"]
    assert all(topic.split("/")[2] == config["unique_id"] for topic, config in configs.items())
    assert len({config["unique_id"] for config in configs.values()}) == 3
    sensors = {config["name"]: config for topic, config in configs.items() if "/sensor/" in topic}
    for name in ("person", "traffic light"):
        assert sensors[name]["state_topic"] == f"cs/door/count/{name}" and told.last(f"cs/door/count/{name}") == "0"
        assert [each["topic"] for each in sensors[name]["availability"]] == ["cs/availability", "cs/door/state"]
    (connectivity,) = (config for topic, config in configs.items() if "binary" in topic)
    assert connectivity["device_class"] == "connectivity" and connectivity["state_topic"] == "cs/door/state"


# --- who goes away ---------------------------------------------------------------------------------------------------


def test_while_the_broker_is_away_results_wait_and_none_is_lost_or_doubled(at, tmp_path) -> None:
    """It is killed and forgets all; what is retained is published anew."""
    warned = Warned()
    with wire_to(at.port) as wire:
        sink = open_at(f"mqtt://127.0.0.1:{wire.port}/cs", tmp_path, warned)
        with listening(at) as before:
            write(sink, *range(30))
            wait_until(lambda: seqs(before) == list(range(30)), 30, "the first frames")
            wait_until(lambda: not sink.spool.waiting, 30, "their confirmation")
        wire.cut()
        at.kill()
        wait_until(lambda: warned.lines, 30, "that it is noticed")  # what is sent before may have come
        began = time.monotonic()
        write(sink, *range(30, 300))
        assert time.monotonic() - began < 30  # nobody waits for a network
        time.sleep(1.0)
        at.start()
        with listening(at) as after:
            wire.heal()
            wait_until(lambda: len(seqs(after)) == 270, 60, "the others")
            sink.close()
            settled(after)
            assert came_once(after) == seqs(after) == list(range(30, 300))
            assert after.last("cs/door/state") == "live" and after.last("cs/door/count/person") == "1"
    assert warned.lines and all("what is to be sent waits in the spool" in line for line in warned.lines)
    assert sink.lost == 0
    assert not list((tmp_path / "spool").iterdir())  # all is sent


def test_what_was_not_confirmed_comes_again_and_says_so(at, told, tmp_path) -> None:
    with wire_to(at.port) as wire:
        sink = open_at(f"mqtt://127.0.0.1:{wire.port}/cs", tmp_path)
        write(sink, 0)
        wait_until(lambda: sink.sent == 1, 30, "the first frame")
        wire.deafen()
        write(sink, *range(1, 6))
        wait_until(lambda: seqs(told) == list(range(6)), 30, "the others")
        wire.cut()
        write(sink, 6)
        wire.heal()
        wait_until(lambda: sink.sent == 7, 60, "all")
        sink.close()
    settled(told)
    once, again = came_once(told), sorted(line["seq"] for line in frames(told) if "repeated" in line)
    # The last may have been given to the wire when it was cut.
    assert (once, again) in (([*range(7)], [*range(1, 6)]), ([*range(6)], [*range(1, 7)]))
    assert all(line["repeated"] is True for line in frames(told) if "repeated" in line)


SENDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.pipeline.test_sinks_mqtt import open_at, write
sink = open_at(sys.argv[2], Path(sys.argv[3]))
write(sink, *range(int(sys.argv[4]), int(sys.argv[5])))
print("written", flush=True)
sys.stdin.read()
sink.close()
"""


def sender(url: str, folder: Path, first: int, end: int) -> "subprocess.Popen[str]":
    """A process that writes these frames, and is closed with its standard input."""
    command = [sys.executable, "-c", SENDER, str(ROOT), url, str(folder), str(first), str(end)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    return process


def test_a_process_that_is_killed_leaves_what_waits_to_the_next(at, told, tmp_path) -> None:
    """First while the broker is away, then while it answers; the last will says that the process has gone."""
    with wire_to(at.port) as wire:
        url = f"mqtt://127.0.0.1:{wire.port}/cs"
        wire.cut()
        for life in range(3):
            process = sender(url, tmp_path, 100 * life, 100 * life + 100)
            if life == 1:
                wire.heal()
            if life:
                wait_until(lambda life=life: len(seqs(told)) > 100 * life, 60, "some frames")
            process.send_signal(signal.SIGKILL)
            process.wait()
        wait_until(lambda: told.last("cs/availability") == "offline", 60, "the last will")
        sink = open_at(url, tmp_path)
        wait_until(lambda: sorted(set(seqs(told))) == list(range(300)), 60, "all")
        sink.close()
    once = came_once(told)
    assert len(once) == len(set(once)) and sorted(once) == once
    assert set(once) | {line["seq"] for line in frames(told) if "repeated" in line} == set(range(300))


def test_where_too_much_waits_the_oldest_is_given_up_and_counted(tmp_path) -> None:
    warned = Warned()
    with broker(tmp_path) as at:
        port = at.port
    sink = open_at(f"mqtt://127.0.0.1:{port}/cs", tmp_path, warned, megabytes=0.1)
    write(sink, *range(2000))
    assert 0 < sink.lost < 2000
    folder = next((tmp_path / "spool").iterdir())
    assert sum(file.stat().st_size for file in folder.glob("lines.*")) <= 100_000
    lost = sink.lost
    sink.close()
    assert [line for line in warned.lines if "the oldest is given up, and counted as missed" in line]
    assert [line for line in warned.lines if f"{2000 - lost} lines that were not taken wait in {folder}" in line]
    at.start()
    try:
        with listening(at) as told:
            sink = open_at(at.url, tmp_path)
            wait_until(lambda: len(seqs(told)) == 2000 - lost, 60, "what is left")
            sink.close()
            assert seqs(told) == list(range(lost, 2000))
    finally:
        at.kill()


# --- who is let in ---------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_one_line_without_it_and_the_right_one_finds_what_waits(tmp_path) -> None:
    warned = Warned()
    with broker(tmp_path, password=True) as at, listening(at, user=USER, password=PASSWORD) as told:
        address = f"mqtt://{USER}:{{}}@127.0.0.1:{at.port}/cs"
        sink = open_at(address.format("wr0ng-pa55"), tmp_path, warned)
        write(sink, 0, 1)
        wait_until(lambda: warned.lines, 30, "a warning")
        time.sleep(1.0)  # and further attempts
        (line,) = warned.lines
        sink.close()
        assert line == (
            f"mqtt://***@127.0.0.1:{at.port}/…: it refused: Not authorized; what is to be sent waits in the spool"
        )
        sink = open_at(address.format(PASSWORD), tmp_path, warned)
        wait_until(lambda: seqs(told) == [0, 1], 30, "the frames")
        sink.close()
    told_all = "\n".join(warned.lines) + sink.way
    names = [str(path) for path in (tmp_path / "spool").rglob("*")]
    assert not [secret for secret in (USER, PASSWORD, "wr0ng") if secret in told_all or secret in str(names)]


def test_nothing_in_a_spool_tells_a_password(tmp_path) -> None:
    sink = open_at("mqtt://u5er:s3cret@127.0.0.1:1/t0ken?frames=all", tmp_path)
    write(sink, *range(3))
    sink.close()
    files = [path for path in (tmp_path / "spool").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    assert len(files) == 2 and b'"seq":2' in content
    assert not [word for word in (b"u5er", b"s3cret", b"t0ken") if word in content or word.decode() in str(files)]


def test_a_broker_is_trusted_by_its_certificate(tmp_path, monkeypatch) -> None:
    warned, certificate = Warned(), self_signed(tmp_path)
    with broker(tmp_path, certificate=certificate) as at:
        url = f"mqtts://127.0.0.1:{at.port}/cs"
        sink = open_at(url, tmp_path, warned)
        write(sink, *range(50))
        wait_until(lambda: warned.lines, 30, "a warning")
        sink.close()
        assert "its certificate is not trusted" in warned.lines[0] and sink.sent == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        sink = open_at(url, tmp_path, warned)
        wait_until(lambda: sink.sent == 50, 30, "the frames")
        sink.close()


def test_what_speaks_no_mqtt_is_waited_for(tmp_path) -> None:
    class Other(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    warned = Warned()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sink = open_at(f"mqtt://127.0.0.1:{server.server_address[1]}/cs", tmp_path, warned)
        write(sink, 0)
        wait_until(lambda: warned.lines, 30, "a warning")
        sink.close()
        server.shutdown()
    assert "waits in the spool" in warned.lines[0] and sink.sent == 0


def test_without_the_library_it_is_one_line_that_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(UsageError, match=r"need paho-mqtt; run `pip install 'centerstream\[mqtt\]'`"):
        mqtt.check_library()
