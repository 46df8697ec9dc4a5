"""A real MQTT broker, Debian's mosquitto, as a process that a test may kill and start again; and who listens to it."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.harness import free_port, wait_until

MISSING = "install: apt-get install mosquitto, and pip install 'centerstream[mqtt]'"
USER, PASSWORD = "gate", "s3cr3t-pa55"


def require_broker() -> str:
    """The path of mosquitto; skips where it, or the library, is missing."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    try:
        import paho.mqtt.client  # noqa: F401
    except ImportError:
        found = None
    if not found and os.environ.get("CENTERSTREAM_REQUIRE_RTSP") == "1":
        pytest.fail(MISSING)
    if not found:
        pytest.skip(MISSING)
    return found or ""


class Broker:
    """mosquitto on a loopback port of its own. It keeps nothing over a restart: what is retained is gone with it."""

    def __init__(self, folder: Path, *, password: bool = False, certificate: tuple[Path, Path] | None = None) -> None:
        self._program, self.port = require_broker(), free_port()
        lines = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {'false' if password else 'true'}"]
        if password:
            passwords = folder / "passwords"
            subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, USER, PASSWORD], check=True, capture_output=True)
            passwords.chmod(0o644)
            lines.append(f"password_file {passwords}")
        if certificate:
            lines += [f"certfile {certificate[0]}", f"keyfile {certificate[1]}"]
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([*lines, "persistence false", "user root", ""]))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}/cs"

    def start(self) -> None:
        self._process = subprocess.Popen([self._program, "-c", self._config], stderr=subprocess.DEVNULL)
        wait_until(self._answers, 30, "the broker")

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def broker(folder: Path, **options) -> Iterator[Broker]:  # type: ignore[no-untyped-def]
    made = Broker(folder, **options)
    try:
        made.start()
        yield made
    finally:
        made.kill()


class Listener:
    """Subscribed to all topics; (topic, payload, retained) of each message, in order. It comes back with the broker."""

    def __init__(self, at: Broker, user: str | None = None, password: str | None = None) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.messages: list[tuple[str, bytes, bool]] = []
        self._subscribed = threading.Event()
        # The broker has no memory: what comes between its start and our subscription would be missed.
        self._client = Client(CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda client, data, message: self.messages.append(
            (message.topic, message.payload, message.retain)
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", at.port)
        self._client.loop_start()
        assert self._subscribed.wait(30)

    def of(self, topic: str) -> list[bytes]:
        return [payload for each, payload, _ in self.messages if each == topic]

    def last(self, topic: str) -> str | None:
        """What is known of a topic."""
        found = self.of(topic)
        return found[-1].decode() if found else None

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def listening(at: Broker, **who) -> Iterator[Listener]:  # type: ignore[no-untyped-def]
    listener = Listener(at, **who)
    try:
        yield listener
    finally:
        listener.close()


def settled(listener: Listener, seconds: float = 0.5) -> None:
    """Until nothing has come for so long."""
    seen, since = -1, time.monotonic()
    while time.monotonic() - since < seconds:
        if len(listener.messages) != seen:
            seen, since = len(listener.messages), time.monotonic()
        time.sleep(0.02)
