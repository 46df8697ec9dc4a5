"""The server: what can be asked for, and who answers. `listen` takes the address, `serve` answers there until a stop.

Knows how an answer is written, and nothing of how a frame is made.
"""

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from pipeline.control.words import SOCKET, View
from pipeline.errors import CenterStreamError, UsageError, place_of
from pipeline.flow.topics import (
    DRAWN,
    FRAME,
    FULL,
    HEAT,
    MOST_WIDTH,
    PACKETS,
    decode_head,
    heat_topic,
    heat_wanted,
    picture_wanted,
    wide_topic,
)
from pipeline.serve import figures
from pipeline.serve.asking import Asking
from pipeline.serve.guard import Guard, add_headers
from pipeline.serve.pictures import CREDITS, Gallery, Viewer
from pipeline.settings import ServeSettings
from pipeline.stage import PUBLISHED, SHOWN

STATIC = Path(__file__).parent / "static"
LARGEST_BODY_BYTES = 1 << 16
MOST_VIEWERS = 64
VIEW_SECONDS = 1.0
STOP_LOOK_SECONDS = 0.1
CLOSE_SECONDS = 1.0
FIRST_PICTURE_SECONDS = 5.0
# Long and never in a JPEG: some readers look for it in the pictures.
BOUNDARY = "centerstream-0f7e9c1ab44d4be3a6a1"
# Each width is made by itself: so viewers with all sorts of windows make no more than a few. That a picture has a few
# pixels less than it fills is not seen.
WIDTH_STEP, WIDEST = 160, 2560
WIDE_ENOUGH = 0.95


class LookAt(msgspec.Struct, tag="look", forbid_unknown_fields=True):
    """A browser wants pictures of these sources and no others, for so many pixels across; of some of them the heat map
    of a class; of those in `packets` what the camera itself sends, if that can be shown, and the results."""

    pictures: dict[str, Annotated[int, msgspec.Meta(ge=1, le=MOST_WIDTH)]]
    heat: dict[str, str] = {}
    packets: list[str] = []

    def topics(self) -> list[bytes]:
        return [
            *(_picture_topic(source_id, pixels) for source_id, pixels in self.pictures.items()),
            *(heat_topic(source_id, class_name) for source_id, class_name in self.heat.items()),
            *(kind + source_id.encode() for source_id in self.packets for kind in (PACKETS, FRAME)),
        ]


def _picture_topic(source_id: str, pixels: int) -> bytes:
    width = WIDTH_STEP * math.ceil(WIDE_ENOUGH * pixels / WIDTH_STEP)
    return wide_topic(source_id, width) if width <= WIDEST else FULL + source_id.encode()


class Shown(msgspec.Struct, tag="shown", forbid_unknown_fields=True):
    """A picture is on its screen, of a JPEG or `of` packets."""

    source: str
    seq: int
    of: Literal["picture", "packets"] = "picture"

    def is_of(self, topic: bytes) -> bool:
        """A heat map is shown with its picture, whichever way that comes."""
        if topic.startswith(HEAT):
            return heat_wanted(topic)[0] == self.source
        if self.of == "packets":
            return topic == FRAME + self.source.encode()
        wanted = picture_wanted(topic)
        return wanted is not None and wanted.source_id == self.source


class Taken(msgspec.Struct, tag="taken", forbid_unknown_fields=True):
    """It has a packet."""

    source: str
    captured: int


class _Seq(msgspec.Struct):
    """Of a frame's line."""

    seq: int


_decode_seq = msgspec.json.Decoder(_Seq).decode
_decode_word = msgspec.json.Decoder(LookAt | Shown | Taken).decode


def listen(settings: ServeSettings) -> socket.socket:
    """Raises UsageError where that cannot be."""
    host, port = settings.host_and_port()
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        text = "it is taken; give another port" if error.errno == 98 else error.strerror
        raise UsageError(f"serve.at: cannot listen at {settings.at}: {text}") from None


async def serve(listener: socket.socket, settings: ServeSettings, endpoints: str, stopped: Callable[[], bool]) -> None:
    """Answer at `listener` until `stopped()`; `endpoints` is the prefix of the run's queues."""
    gallery = Gallery(f"{endpoints}/{PUBLISHED}", f"{endpoints}/{SHOWN}")
    server = Server(settings, Asking(Path(endpoints.removeprefix("ipc://")) / SOCKET), gallery)
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    tasks = [asyncio.create_task(work) for work in (server.gallery.share_out(), server.tell_views())]
    try:
        while not stopped():
            await asyncio.sleep(STOP_LOOK_SECONDS)
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.say_goodbye()
        await runner.cleanup()
        server.gallery.close()


class Server:
    """The handlers, and the viewers that hear how the run is."""

    def __init__(self, settings: ServeSettings, asking: Asking, gallery: Gallery) -> None:
        self._settings, self._asking, self.gallery = settings, asking, gallery
        self._sockets: set[web.WebSocketResponse] = set()

    def app(self) -> web.Application:
        guard = Guard(self._settings)
        app = web.Application(middlewares=[guard.middleware, _told_in_a_line], client_max_size=LARGEST_BODY_BYTES)
        app.on_response_prepare.append(add_headers)
        app.add_routes(
            [
                web.get("/", self._page),
                web.get("/view", self._view),
                web.get("/live", self._live),
                web.post("/words", self._words),
                web.get("/sources/{source}.jpg", self._snapshot),
                web.get("/sources/{source}.mjpeg", self._stream),
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._health),
                web.get("/readyz", self._readiness),
                web.static("/static", STATIC),
            ]
        )
        return app

    # -- what is asked once

    async def _page(self, request: web.Request) -> web.FileResponse:
        return web.FileResponse(STATIC / "index.html")

    async def _view(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(await self._asking.view()), content_type="application/json")

    async def _words(self, request: web.Request) -> web.Response:
        return web.json_response({"text": await self._asking.change(await request.read())})

    async def _metrics(self, request: web.Request) -> web.Response:
        text = figures.text_of(await self._asking.view(), self.gallery.viewers)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _health(self, request: web.Request) -> web.Response:
        await self._asking.view()
        return web.Response(text="the run answers\n")

    async def _readiness(self, request: web.Request) -> web.Response:
        missing = not_flowing(await self._asking.view())
        text = "frames flow\n" if not missing else f"no frames from: {', '.join(missing)}\n"
        return web.Response(text=text, status=503 if missing else 200)

    # -- pictures for who speaks no WebSocket

    async def _snapshot(self, request: web.Request) -> web.Response:
        viewer = self._enter([await self._topic_of(request)], credits=None)
        try:
            async with asyncio.timeout(FIRST_PICTURE_SECONDS):
                _, (_, _, jpeg) = await viewer.next()
        except TimeoutError:
            raise web.HTTPServiceUnavailable(text="no picture came; is the source live?\n") from None
        finally:
            self.gallery.leave(viewer)
        return web.Response(body=bytes(jpeg), content_type="image/jpeg")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """MJPEG, for `<img>`: the newest picture whenever the last has been taken."""
        topic = await self._topic_of(request)
        response = web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"})
        viewer = self._enter([topic], credits=None)
        try:
            await response.prepare(request)
            while True:
                _, (_, _, jpeg) = await viewer.next()
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                await response.write(head.encode() + bytes(jpeg) + b"\r\n")
        except ConnectionError:
            return response
        finally:
            self.gallery.leave(viewer)

    async def _topic_of(self, request: web.Request) -> bytes:
        """With the overlay, unless `?overlay=0`."""
        source = request.match_info["source"]
        if source not in [each.source_id for each in (await self._asking.view()).sources]:
            raise web.HTTPNotFound(text="the run has no such source\n")
        overlay = request.query.get("overlay", "1")
        if overlay not in ("0", "1"):
            raise web.HTTPBadRequest(text="overlay: allowed is 0 or 1\n")
        return (DRAWN if overlay == "1" else FULL) + source.encode()

    def _enter(self, topics: list[bytes], credits: int | None) -> Viewer:
        if len(self.gallery.viewers) >= MOST_VIEWERS:
            raise web.HTTPServiceUnavailable(text=f"{MOST_VIEWERS} look already; close a page first\n")
        return self.gallery.enter(topics, credits)

    # -- the page

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        viewer = self._enter([], CREDITS)
        websocket = web.WebSocketResponse(max_msg_size=LARGEST_BODY_BYTES, heartbeat=20.0, compress=False)
        self._sockets.add(websocket)
        sender: asyncio.Task[None] | None = None
        try:
            await websocket.prepare(request)
            with suppress(CenterStreamError):
                viewer.say(_view_for(viewer, self.gallery, await self._asking.view()))
            sender = asyncio.create_task(_send_all(websocket, viewer))
            await self._hear(websocket, viewer)
        finally:
            self._sockets.discard(websocket)
            self.gallery.leave(viewer)
            if sender:
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
        return websocket

    async def _hear(self, websocket: web.WebSocketResponse, viewer: Viewer) -> None:
        async for message in websocket:
            try:
                word = _decode_word(message.data) if message.type == WSMsgType.TEXT else None
            except msgspec.DecodeError:
                word = None
            match word:
                case LookAt():
                    self.gallery.look_at(viewer, word.topics())
                case Shown():
                    for topic in viewer.topics:
                        if word.is_of(topic):
                            viewer.shown(topic, word.seq)
                case Taken():
                    viewer.taken(PACKETS + word.source.encode(), word.captured)
                case None:
                    await websocket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"no word of this page")

    async def tell_views(self) -> None:
        """How the run is, once a second, to all who look."""
        while True:
            await asyncio.sleep(VIEW_SECONDS)
            if not any(viewer.hears for viewer in self.gallery.viewers):
                continue
            with suppress(CenterStreamError):  # it is busy, or ends
                view = await self._asking.view()
                for viewer in self.gallery.viewers:
                    if viewer.hears:
                        viewer.say(_view_for(viewer, self.gallery, view))

    async def say_goodbye(self) -> None:
        closing = [each.close(code=WSCloseCode.GOING_AWAY, message=b"the run ends") for each in self._sockets]
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*closing, return_exceptions=True)


async def _send_all(websocket: web.WebSocketResponse, viewer: Viewer) -> None:
    """Whatever there is for it, each when the last was taken."""
    with suppress(ConnectionError):
        while not websocket.closed:
            topic, parts = await viewer.next()
            if topic is None:
                await websocket.send_str(bytes(parts[0]).decode())
            elif topic.startswith(PACKETS):
                await _send_packet(websocket, viewer, topic, *map(bytes, parts))
            elif topic.startswith(FRAME):
                await _send_result(websocket, viewer, topic, *map(bytes, parts))
            else:
                await _send_picture(websocket, viewer, topic, *map(bytes, parts))


async def _send_picture(
    websocket: web.WebSocketResponse, viewer: Viewer, topic: bytes, line: bytes, captured: bytes, shown: bytes
) -> None:
    viewer.sent(topic, _decode_seq(line).seq, int(captured))
    # The length of the line, the line, and the picture or the heat map.
    await websocket.send_bytes(b"".join((struct.pack(">I", len(line)), line, shown)))


async def _send_packet(
    websocket: web.WebSocketResponse, viewer: Viewer, topic: bytes, head: bytes, data: bytes
) -> None:
    captured = decode_head(head).captured
    viewer.sent(topic, captured, 1000 * captured)
    text = b'{"kind":"packet","source":%s,"packet":%s}' % (
        msgspec.json.encode(topic.removeprefix(PACKETS).decode()),
        head,
    )
    await websocket.send_bytes(b"".join((struct.pack(">I", len(text)), text, data)))


async def _send_result(
    websocket: web.WebSocketResponse, viewer: Viewer, topic: bytes, line: bytes, captured: bytes
) -> None:
    viewer.sent(topic, _decode_seq(line).seq, int(captured))
    text = b'{"type":"result","captured":%d,"frame":%s}' % (int(captured) // 1000, line)
    await websocket.send_str(text.decode())


def _view_for(viewer: Viewer, gallery: Gallery, view: View) -> bytes:
    """With who looks, and how old what they see is."""
    ages = {each.number: each.ages.quantiles() for each in gallery.viewers if each.hears}
    facts = {name: getattr(view, name) for name in view.__struct_fields__}
    return msgspec.json.encode({"type": "view", **facts, "you": viewer.number, "viewers": ages})


def not_flowing(view: View) -> list[str]:
    """The required sources of which no frames come; where none is required, all of them if none of them flows."""
    flows = {each.source_id: each.state == "live" and each.frames_per_second > 0 for each in view.sources}
    required = [each.source_id for each in view.sources if each.is_required]
    if required:
        return [source_id for source_id in required if not flows[source_id]]
    return [] if any(flows.values()) else list(flows) or ["the run has no sources"]


@web.middleware
async def _told_in_a_line(request: web.Request, handler: Callable) -> web.StreamResponse:
    """What cannot be done is told so, and no traceback leaves this process."""
    try:
        response: web.StreamResponse = await handler(request)
        return response
    except UsageError as error:
        return web.json_response({"error": str(error)}, status=400)
    except CenterStreamError as error:
        return web.json_response({"error": str(error)}, status=503)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:
        text = f"a fault of CenterStream's own: {place_of(error)}; please report it"
        return web.json_response({"error": text}, status=500)
