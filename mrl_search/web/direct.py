"""Searches by JSON, answered before FastAPI sees them: its part of a request takes longer."""

import json
import re
import struct
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from mrl_search.engines import kernels
from mrl_search.errors import MrlSearchError
from mrl_search.text import json_value
from mrl_search.web.answers import quick, search_one
from mrl_search.web.asked import MOST_DIMS, Asked, numbers
from mrl_search.web.guard import App, Receive, Scope, Send
from mrl_search.web.served import Served

__all__ = ["SEARCH", "Direct", "as_json", "is_json", "read"]

SEARCH = "/api/indexes/{name}/search"
JSON = (b"content-type", b"application/json")
PATH = re.compile("/api/indexes/([^/]+)/search")
VECTOR, REST = re.compile(rb'\s*\{\s*"vector"\s*:\s*(?=[\["])'), re.compile(rb'\}|,\s*"')
LIST = ord("[")
ENDS = {LIST: b"]", ord('"'): b'"'}
SHORT = 1000  # bytes of a request without its vector


class Direct:
    """ASGI: answers searches whose body is right JSON of an index that is here; else asks `app`.

    `app` has the same `route` for all other requests; `refused` answers one that raised an error.
    """

    def __init__(
        self, app: App, served: dict[str, Served], route: Any,  # noqa: ANN401
        refused: Callable[[Scope, Exception], Response],
    ) -> None:  # fmt: skip
        self.app, self.served, self.route, self.refused = app, served, route, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        one = self._asked(scope)
        if one is None:
            return await self.app(scope, receive, send)
        scope["route"] = self.route
        try:
            body = await _body(receive)
            if body is None:
                return  # the client left
            try:
                asked, vector = read(body) or (Asked.model_validate_json(body), None)
            except ValidationError:
                return await self.app(scope, _again(body, receive), send)  # it says what is wrong
            answered = partial(search_one, one, asked, vector, bool(scope.get("own")))
            if quick(one, asked, vector):
                told = answered()
            else:
                told = await run_in_threadpool(answered)  # of more threads than may wait
            text = as_json(told)
        except Exception as error:
            response = self.refused(scope, error)
            await response(scope, receive, send)
            if response.status_code == 500:
                raise  # the server's own output says why
            return
        headers = [JSON, (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    def _asked(self, scope: Scope) -> Served | None:
        """The index that a search by JSON asks."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        found = PATH.fullmatch(scope["path"])
        kind = next((v for n, v in scope["headers"] if n == b"content-type"), b"")
        return self.served.get(found[1]) if found and is_json(kind.decode("latin-1")) else None


def read(body: bytes) -> tuple[Asked, NDArray[np.float32]] | None:
    """A request that begins with a vector, which pydantic need not look at: all else, and it.

    The rest is read once for many requests that are alike. None: the request is of another form,
    or something is wrong with it.
    """
    start = VECTOR.match(body)
    if start is None:
        return None
    at = start.end()
    end = body.find(ENDS[body[at]], at + 1) + 1
    rest = body[end:].lstrip()
    if not end or len(rest) > SHORT or not REST.match(rest):
        return None
    try:
        asked = _without_vector(b"{" + rest.removeprefix(b","))
        vector = kernels.numbers(body[at:end]) if body[at] == LIST else None
        if vector is None:
            vector = numbers(from_json(body[at:end]))
        if asked is not None and 1 <= len(vector) <= MOST_DIMS:
            return asked, vector
    except (ValueError, TypeError, OverflowError, struct.error, MrlSearchError):
        pass  # it is read again, as a whole, to say what is wrong
    return None


@lru_cache(maxsize=1000)
def _without_vector(body: bytes) -> Asked | None:
    """A request that goes with a vector; None if it names what is searched with, too."""
    asked = Asked.model_validate_json(body)
    return None if "vector" in asked.model_fields_set or asked.parts() else asked


def is_json(kind: str) -> bool:
    """Whether a Content-Type is that of JSON."""
    return kind.partition(";")[0].strip() == "application/json"


def as_json(value: object) -> bytes:
    """An answer as JSON."""
    try:
        return to_json(value, fallback=json_value)
    except ValueError:  # a name that is no Unicode
        return json.dumps(value, separators=(",", ":"), default=json_value).encode()


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None if it does not come whole."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Receives a body that was read before."""
    first = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Any:  # noqa: ANN401
        return first.pop() if first else await receive()

    return received
