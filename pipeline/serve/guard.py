"""Who may ask: looked at before any handler is. Knows the address and the token, and nothing that is served.

On this machine alone any program of it may ask, but no page of another origin (a browser's user would not know), and
under no other name (a host that points here, DNS rebinding). Beyond it everything needs the token: as
`Authorization: Bearer`, as `?token=` of a GET, or in the cookie that the page is given for it.
"""

import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlsplit

from aiohttp import web

from pipeline.settings import LOOPBACK, ServeSettings

COOKIE = "centerstream_token"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """An aiohttp middleware."""

    def __init__(self, settings: ServeSettings) -> None:
        self._is_local = settings.is_local
        self._token = settings.token.reveal() if settings.token else None

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = self._refused(request)
        if refused:
            raise refused
        if self._token and request.path == "/" and "token" in request.query:
            return self._let_in()
        return await handler(request)

    def _refused(self, request: web.Request) -> web.HTTPException | None:
        """Why this request is not answered; None where it is."""
        if self._is_local and not LOOPBACK.fullmatch(_host_of(request.host)):
            return _refusal(web.HTTPMisdirectedRequest, "asked under a name that is not this machine's; use 127.0.0.1")
        if not self._is_of_our_page(request):
            return _refusal(web.HTTPForbidden, "asked by a page of another origin")
        if self._token and not self._knows_token(request):
            text = "a token is needed: open /?token=… once, or send Authorization: Bearer …"
            refusal = _refusal(web.HTTPUnauthorized, text)
            refusal.headers["WWW-Authenticate"] = 'Bearer realm="CenterStream"'
            return refusal
        return None

    @staticmethod
    def _is_of_our_page(request: web.Request) -> bool:
        """Browsers say where a request comes from; other programs say nothing."""
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
            return False
        is_foreign = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
        # Another page may show a picture, as home automation does: it cannot read it.
        shows = request.headers.get("Sec-Fetch-Dest") == "image" and request.path.startswith("/sources/")
        return not is_foreign or shows or request.headers.get("Sec-Fetch-Mode") == "navigate"

    def _knows_token(self, request: web.Request) -> bool:
        assert self._token
        given = [request.cookies.get(COOKIE, "")]
        kind, _, text = request.headers.get("Authorization", "").partition(" ")
        given += [text.strip()] if kind.lower() == "bearer" else []
        given += request.query.getall("token", []) if request.method == "GET" else []
        known = self._token.encode()
        # Each in a time that does not tell how much of it was right.
        right = [hmac.compare_digest(each.encode("utf-8", "surrogateescape"), known) for each in given]
        return any(right)

    def _let_in(self) -> web.Response:
        """To the page without the token in its address, where it would be kept and sent on."""
        assert self._token
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/"})
        response.set_cookie(COOKIE, self._token, httponly=True, samesite="Strict", path="/")
        return response


def _host_of(host: str) -> str:
    """Without the port."""
    return (host.partition("]")[0] if host.startswith("[") else host.partition(":")[0]).strip("[").lower()


def _refusal(kind: type[web.HTTPException], text: str) -> web.HTTPException:
    return kind(text=f"{text}\n")


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """To every answer."""
    response.headers["Server"] = "CenterStream"
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
