"""Who may ask: hosts, origins, the token, and how much; and what every answer says about itself."""

import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import lru_cache
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

__all__ = ["COOKIE", "LOCAL", "Guard", "Rules"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "mrl-search-token"
LARGEST = 32 << 20  # bytes of a body
TOO_LARGE = "The request is larger than 32 MB."
LOCAL = ("127.0.0.1", "localhost", "::1")
OPEN = ("/healthz",)  # asked without a token
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.ASCII | re.IGNORECASE)
BEARER = re.compile("bearer +", re.IGNORECASE)  # as RFC 6750 writes it
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
SENT = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may ask.

    Attributes:
        hosts: names by which the server may be called; a request for another is one that another
            site's page sends by a name that it lets point here (DNS rebinding). `*`: any.
        token: what every request must show, as `Authorization: Bearer` or as the cookie; "": none.
        own: what programs of the same user show (see `beside`); they are told paths, too.
    """

    hosts: tuple[str, ...] = LOCAL
    token: str = ""
    own: str = ""


class Guard:
    """ASGI: lets a request through to `app`, or answers that it may not."""

    def __init__(self, app: App, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["method"] == "HEAD":  # as GET, of whose answer the head is sent
            scope, send = {**scope, "method": "GET"}, _without_body(send)

        async def send_marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                more = (header for header in SENT if header[0] not in present)
                message["headers"] = [*message["headers"], *more]
            await send(message)

        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        scope["own"] = bool(self.rules.own) and _same(_bearer(headers), self.rules.own)
        if refusal := self._refusal(scope, headers):
            status, error, hint = refusal
            answer = JSONResponse({"error": error, "hint": hint}, status)
            return await answer(scope, receive, send_marked)
        if (token := self._token_in_address(scope)) is not None:
            cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
            opened = Response(status_code=303, headers={"location": "/", "set-cookie": cookie})
            return await opened(scope, receive, send_marked)
        await self.app(scope, _limited(receive), send_marked)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str, str] | None:
        """Status, error and hint of a request that may not pass."""
        host = _host(headers.get("host", ""), sum(name == b"host" for name, _ in scope["headers"]))
        if "*" not in self.rules.hosts and host not in self.rules.hosts:
            hint = "Call it by the address that mrl-search serve printed."
            return 421, "This server is not called by that name.", hint
        origin = headers.get("origin")
        foreign = origin is not None and _netloc(origin) != headers.get("host")
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            # a link on another site may open the page itself
            opens = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
            if foreign or not (opens and scope["path"] == "/"):
                return 403, "Pages of other sites may not ask this server.", "Open its own page."
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and float(length) <= LARGEST):
            return 413, TOO_LARGE, "Send a smaller picture."
        known = scope["own"] or scope["path"] in OPEN or self._token_in_address(scope) is not None
        shown = _bearer(headers) or _cookie(headers)
        if self.rules.token and not (known or _same(shown, self.rules.token)):
            hint = "Open the address with ?token=…, or send Authorization: Bearer TOKEN."
            return 401, "This server wants its token.", hint
        return None

    def _token_in_address(self, scope: Scope) -> str | None:
        """The token, where the page is opened by an address with the right one."""
        if scope["path"] != "/" or scope["method"] != "GET" or not self.rules.token:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return given if given and _same(given, self.rules.token) else None


def _limited(receive: Receive) -> Receive:
    """Receives a body, but not more of it than is bearable (`server` limits the time)."""
    size, whole = 0, False

    async def received() -> MutableMapping[str, Any]:
        nonlocal size, whole
        message = await receive()
        if not whole and message["type"] == "http.request":  # then it waits for the client to leave
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > LARGEST:
                raise HTTPException(413, TOO_LARGE)
        return message

    return received


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no address at all
        return ""


def _same(given: str, token: str) -> bool:
    """Whether two tokens are the same, in a time that does not tell how much of them is."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


@lru_cache(maxsize=100)
def _host(value: str, count: int = 1) -> str:
    """The name in the only Host header, without the port; empty for anything else."""
    found = HOST.fullmatch(value) if count == 1 else None
    return found[1].strip("[]").lower() if found else ""


def _bearer(headers: dict[str, str]) -> str:
    """The token of `Authorization: Bearer TOKEN`; empty where there is none."""
    given = headers.get("authorization", "")
    scheme = BEARER.match(given)
    return given[scheme.end() :] if scheme else ""


def _cookie(headers: dict[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _without_body(send: Send) -> Send:
    async def sent(message: MutableMapping[str, Any]) -> None:
        body = message["type"] == "http.response.body"
        await send({**message, "body": b""} if body else message)

    return sent
