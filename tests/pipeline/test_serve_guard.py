"""Who may ask: a real server with nothing behind it but the guard, asked by a real client."""

import asyncio
import socket

import pytest
from aiohttp import ClientSession, DummyCookieJar, web

from configs.uri import Secret
from pipeline.serve.guard import COOKIE, Guard, add_headers
from pipeline.settings import ServeSettings

TOKEN = "a-token-of-many-letters"
LOCAL = ServeSettings(at="127.0.0.1:8080")
OPEN = ServeSettings(at="0.0.0.0:8080", token=Secret(TOKEN))
LOCKED = ServeSettings(at="127.0.0.1:8080", token=Secret(TOKEN))


def asked(settings: ServeSettings, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict, str]:
    """Status, headers and body; HERE in a header stands for the server's own host and port."""

    async def ask() -> tuple[int, dict, str]:
        app = web.Application(middlewares=[Guard(settings).middleware])
        app.on_response_prepare.append(add_headers)
        app.router.add_route("*", "/{any:.*}", _answer)
        runner = web.AppRunner(app)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        here = f"127.0.0.1:{listener.getsockname()[1]}"
        await web.SockSite(runner, listener).start()
        named = {name.replace("_", "-"): value.replace("HERE", here) for name, value in headers.items()}
        try:
            async with (
                ClientSession(cookie_jar=DummyCookieJar()) as client,
                client.request(method, f"http://{here}{path}", headers=named, allow_redirects=False) as answer,
            ):
                return answer.status, dict(answer.headers), await answer.text()
        finally:
            await runner.cleanup()

    return asyncio.run(ask())


async def _answer(request: web.Request) -> web.Response:
    return web.Response(text="what is behind it")


FOREIGN = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}


@pytest.mark.parametrize(
    ("settings", "path", "method", "headers", "status"),
    [
        (LOCAL, "/", "GET", {}, 200),
        (LOCAL, "/words", "POST", {}, 200),
        (LOCAL, "/", "GET", {"Host": "localhost:1"}, 200),
        (LOCAL, "/", "GET", {"Host": "[::1]:8080"}, 200),
        (LOCAL, "/", "GET", {"Host": "127.0.0.2"}, 200),
        # another name that points here
        (LOCAL, "/", "GET", {"Host": "evil.example:8080"}, 421),
        (LOCAL, "/", "GET", {"Host": "127.0.0.1.evil.example"}, 421),
        (LOCAL, "/", "GET", {"Host": "localhost.evil.example"}, 421),
        (LOCAL, "/", "GET", {"Host": ""}, 421),
        # another page
        (LOCAL, "/words", "POST", {"Origin": "http://HERE"}, 200),
        (LOCAL, "/words", "POST", {"Origin": "http://evil.example"}, 403),
        (LOCAL, "/words", "POST", {"Origin": "null"}, 403),
        (LOCAL, "/live", "GET", {"Origin": "http://127.0.0.1:1"}, 403),
        (LOCAL, "/view", "GET", FOREIGN, 403),
        (LOCAL, "/view", "GET", FOREIGN | {"Sec_Fetch_Site": "same-site"}, 403),
        (LOCAL, "/view", "GET", FOREIGN | {"Sec_Fetch_Site": "same-origin"}, 200),
        (LOCAL, "/", "GET", FOREIGN | {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}, 200),
        (LOCAL, "/sources/gate.mjpeg", "GET", FOREIGN | {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}, 200),
        (LOCAL, "/view", "GET", FOREIGN | {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "image"}, 403),
        # the token
        (OPEN, "/", "GET", {}, 401),
        (OPEN, "/", "GET", {"Host": "cams.example"}, 401),
        (OPEN, "/healthz", "GET", {}, 401),
        (OPEN, "/static/app.js", "GET", {}, 401),
        (OPEN, "/view", "GET", {"Authorization": f"Bearer {TOKEN}"}, 200),
        (OPEN, "/view", "GET", {"Authorization": f"bearer  {TOKEN}", "Host": "cams.example"}, 200),
        (OPEN, "/view", "GET", {"Authorization": f"Basic {TOKEN}"}, 401),
        (OPEN, "/view", "GET", {"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        (OPEN, "/view", "GET", {"Authorization": f"Bearer {TOKEN}x"}, 401),
        (OPEN, "/view", "GET", {"Authorization": "Bearer"}, 401),
        (OPEN, "/view", "GET", {"Cookie": f"{COOKIE}={TOKEN}"}, 200),
        (OPEN, "/view", "GET", {"Cookie": f"{COOKIE}=wrong"}, 401),
        (OPEN, f"/view?token={TOKEN}", "GET", {}, 200),
        (OPEN, "/view?token=", "GET", {}, 401),
        (OPEN, f"/view?token=wrong&token={TOKEN}", "GET", {}, 200),
        (OPEN, f"/words?token={TOKEN}", "POST", {}, 401),
        (OPEN, "/words", "POST", {"Authorization": f"Bearer {TOKEN}"}, 200),
        (OPEN, "/words", "POST", {"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}, 403),
        (LOCKED, "/", "GET", {}, 401),
        (LOCKED, "/", "GET", {"Authorization": f"Bearer {TOKEN}", "Host": "evil.example"}, 421),
    ],
)
def test_who_may_ask(settings: ServeSettings, path: str, method: str, headers: dict[str, str], status: int) -> None:
    told, answered, text = asked(settings, path, method, **headers)
    assert told == status, text
    assert (text == "what is behind it") == (status == 200)
    assert TOKEN not in text and TOKEN not in str(answered)
    assert "default-src 'self'" in answered["Content-Security-Policy"]
    assert answered["Cache-Control"] == "no-store" and "aiohttp" not in answered["Server"]


def test_the_page_is_given_the_token_as_a_cookie_and_its_address_loses_it() -> None:
    status, headers, _ = asked(OPEN, f"/?token={TOKEN}")
    assert status == 303 and headers["Location"] == "/"
    cookie = headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}={TOKEN};") and "HttpOnly" in cookie and "SameSite=Strict" in cookie
    status, headers, _ = asked(OPEN, "/?token=wrong")
    assert status == 401 and "Set-Cookie" not in headers
