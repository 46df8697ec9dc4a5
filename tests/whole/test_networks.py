"""Runs whose results go over a network: to a real MQTT broker and a real HTTP server, which are away for a while.

CENTERSTREAM_AWAY_SECONDS=60 keeps both away for a minute.
"""

import json
import os
import signal
import time

from tests.kit.account import account
from tests.kit.broker import broker, listening
from tests.kit.harness import QUICK, finish, run_here, stage_pids, start, wait_until
from tests.kit.hook import hook
from tests.kit.places import CLIP
from tests.kit.wire import wire_to


def test_mqtt_gets_every_frame_though_it_was_away_and_the_outputs_process_was_killed(tmp_path, cache_folder) -> None:
    with broker(tmp_path) as at, listening(at) as told, wire_to(at.port) as wire:
        wire.cut()
        process = start(
            CLIP, "--realtime", "--name", "gate", "--max-frames", 80, "--classes", "person",
            *QUICK, "--set", "infer.workers=1",
            "--also", f"mqtt://us3r:s3cret@127.0.0.1:{wire.port}/cs?frames=all&discovery=homeassistant",
        )  # fmt: skip
        spool = cache_folder / "spool" / "mqtt-127-0-0-1"
        wait_until(lambda: any(file.stat().st_size > 5000 for file in spool.glob("lines.*")), what="lines that wait")
        before = stage_pids(process.pid)["deliver"]
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: stage_pids(process.pid).get("deliver", before) != before, what="another process")
        wire.heal()
        code, errors = finish(process, 240)
        wait_until(lambda: told.last("cs/availability") == "offline", what="the end")
    assert "s3cret" not in errors and "us3r" not in errors and "Traceback" not in errors, errors
    assert code in (0, 4) and "deliver was killed by SIGKILL" in errors, errors  # 4 where it had frames
    lines = [json.loads(payload) for payload in told.of("cs/gate/frame")]
    once = [line["seq"] for line in lines if "repeated" not in line]
    assert len(once) == len(set(once)) and {line["seq"] for line in lines} == set(range(account(errors).captured))
    assert told.last("cs/gate/state") == "ended" and told.last("cs/gate/count/person") is not None
    assert any(topic.startswith("homeassistant/sensor/cs_gate") for topic, _, _ in told.messages)
    assert "what is to be sent waits in the spool" in errors and not spool.exists()


def test_a_webhook_gets_what_waited_for_it_from_the_next_run(tmp_path, cache_folder) -> None:
    options = ("--name", "gate", *QUICK, "--max-frames", 10)
    with hook() as at:
        address = at.url.replace("//", "//us3r:s3cret@") + "?token=t0ken#frames=all"
        at.stop()
        first = run_here(CLIP, *options, "--also", address)
        at.start()
        second = run_here(CLIP, *options, "--also", address)
    for done in (first, second):
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert not [word for word in ("us3r", "s3cret", "t0ken") if word in done.stderr]
    spool = cache_folder / "spool" / "webhook-127-0-0-1"
    assert f"10 lines that were not taken wait in {spool}" in first.stderr, first.stderr
    assert "10 frames, 10 lines waiting to be sent" in first.stderr
    assert at.seqs() == [*range(10), *range(10)] and not spool.exists()
    assert all(line["source"] == "gate" for post in at.posts for line in post["lines"])


def test_from_a_camera_nothing_is_lost_or_doubled_while_both_are_away(tmp_path) -> None:
    with broker(tmp_path) as at, listening(at) as told, wire_to(at.port) as wire, hook() as page:
        process = start(
            "lavfi:testsrc2=size=320x240:rate=10", "--realtime", "--name", "gate", *QUICK,
            "--also", f"mqtt://127.0.0.1:{wire.port}/cs?frames=all", "--also", f"{page.url}#frames=all",
        )  # fmt: skip
        wait_until(lambda: told.of("cs/gate/frame") and page.posts, what="the first frames")
        wire.cut()
        page.stop()
        before = len(told.of("cs/gate/frame")), len(page.posts)
        time.sleep(float(os.environ.get("CENTERSTREAM_AWAY_SECONDS", "3")))
        assert (len(told.of("cs/gate/frame")), len(page.posts)) == before
        wire.heal()
        page.start()
        wait_until(lambda: (len(told.of("cs/gate/frame")), len(page.posts)) > before, what="what waited")
        process.send_signal(signal.SIGINT)
        code, errors = finish(process, 240)
    lines = [json.loads(payload) for payload in told.of("cs/gate/frame")]
    once = [line["seq"] for line in lines if "repeated" not in line]
    captured = list(range(account(errors).captured))
    assert code == 0 and once == sorted(set(once)) and sorted({line["seq"] for line in lines}) == captured, errors
    assert page.seqs() == captured and " waiting to be sent" not in errors, errors


def test_an_address_that_cannot_be_is_one_line_before_anything_starts() -> None:
    for address in ("mqtt://u:s3cret@h:99999/x", "https://u:s3cret@h/x#most=0"):
        done = run_here(CLIP, "--also", address)
        assert done.returncode == 2 and done.stderr.startswith("error: deliver: also has '"), done.stderr
        assert done.stderr.count("\n") == 1 and "s3cret" not in done.stderr
