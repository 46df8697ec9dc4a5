"""A wire between a client and a server on this machine that a test may cut, heal, and make deaf for answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Wire:
    """Passes on what comes at `port`. Cut, nobody is there; deaf, what the server answers is lost."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._deaf = False
        self._ends: list[socket.socket] = []
        self._place = self._listen(0)
        self.port = self._place.getsockname()[1]

    def _listen(self, port: int) -> socket.socket:
        place = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(place,), daemon=True).start()
        return place

    def _accept(self, place: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = place.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._server_port), 5)
                except OSError:
                    near.close()
                    continue
                self._ends += [near, far]
                for one, other, answers in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=(one, other, answers), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if not (answers and self._deaf):
                    other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def deafen(self) -> None:
        self._deaf = True

    def cut(self) -> None:
        for end in [self._place, *self._ends]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends = []

    def heal(self) -> None:
        self._deaf = False
        self._place = self._listen(self.port)


@contextmanager
def wire_to(server_port: int) -> Iterator[Wire]:
    wire = Wire(server_port)
    try:
        yield wire
    finally:
        wire.cut()
