"""The routes of the HTTP API and the files of the page."""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import mrl_search
from mrl_search.errors import (
    BrokenImage,
    DataError,
    EngineError,
    FileError,
    IndexFolderError,
    MrlSearchError,
)
from mrl_search.images.decode import opened, quiet
from mrl_search.index import Index
from mrl_search.text import plain
from mrl_search.web.answers import events, looked_for, search_one, staged, vote
from mrl_search.web.asked import Asked, AskedBatch, AskedMap, AskedVote, CopyLevel, ItemId, first_of
from mrl_search.web.direct import SEARCH, Direct, as_json, is_json
from mrl_search.web.guard import Guard, Rules, Scope
from mrl_search.web.measured import Measured
from mrl_search.web.served import Busy, Sent, Served, rows_of
from mrl_search.web.thumbs import read_item, thumbnail
from mrl_search.web.told import about, item, without_folders
from mrl_search.web.writing import writing_routes

__all__ = ["make_app"]

NAME = 80  # characters of the name of a picture, at most, that errors tell
SIDES = (64, 128, 192, 320, 640)  # of thumbnails, in pixels
PAGE_TYPES = {
    "": "text/html", ".html": "text/html", ".js": "text/javascript", ".css": "text/css",
    ".svg": "image/svg+xml",
}  # fmt: skip


class Refused(BaseModel):
    """An error."""

    error: str
    hint: str = ""


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": text}
    for status, text in {
        400: "A request that cannot work.", 404: "No such index or item.",
        409: "The index cannot do this.", 429: "Too many pictures wait for the model.",
        503: "A file cannot be read, or Milvus does not answer.",
    }.items()
}  # fmt: skip
STATUSES = {
    BrokenImage: 422, Busy: 429, EngineError: 503, FileError: 503, IndexFolderError: 409,
}  # fmt: skip


def make_app(
    served: dict[str, Served],
    rules: Rules | None = None,
    *,
    write: bool = False,
    show_paths: bool = False,
    report: Callable[[str], dict[str, Any] | None] = lambda name: None,
) -> Any:  # noqa: ANN401 - an ASGI app
    """The application.

    Args:
        served: the indexes by name.
        rules: who may ask; default: this machine, by its local names.
        write: whether requests may change an index.
        show_paths: whether answers may name paths of this machine.
        report: the tables of an index's benchmark, by its name; None where it has none.
    """
    version = mrl_search.__version__
    app = FastAPI(title="mrl-search", version=version, docs_url=None, redoc_url=None)
    scrub = without_folders([one.index for one in served.values()])

    def scrub_for(scope: Scope) -> Callable[[str], str]:
        return str if show_paths or scope.get("own") else scrub

    def refused(scope: Scope, error: Exception) -> JSONResponse:
        status, message, hint, headers = refusal(error)
        clean = scrub_for(scope)
        return JSONResponse({"error": clean(message), "hint": clean(hint)}, status, headers)

    async def handled(request: Request, error: Exception) -> JSONResponse:
        return refused(request.scope, error)

    for kind in (MrlSearchError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, handled)

    def named(name: str) -> Served:
        if name not in served:
            raise HTTPException(404, f"There is no index {name!r} here.")
        return served[name]

    @app.get("/healthz", tags=["server"])
    def healthz() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok", "version": version}

    @app.get("/api/indexes", tags=["indexes"])
    def indexes() -> list[dict[str, Any]]:
        """The indexes that are served."""
        return [{"name": name, "items": len(one.now())} for name, one in served.items()]

    routes = APIRouter(prefix="/api/indexes/{name}", responses=REFUSALS)

    @routes.get("", tags=["indexes"])
    def info(name: str) -> dict[str, Any]:
        """What an index holds and can do."""
        one = named(name)
        embeds, words = one.reads()
        can = {"embeds": embeds, "words": words, "write": write}
        return {**about(one.now()), **can, "name": name}

    @routes.post(
        "/search", tags=["search"], response_model=dict[str, Any], openapi_extra=_either(Asked)
    )
    async def search_(name: str, request: Request) -> Response:
        """The items most like a picture, words, an item or a vector.

        JSON, or a form with the file `image` and the same fields.
        """
        one = named(name)
        asked, picture = await _read(request)
        own = bool(request.scope.get("own"))
        told = await run_in_threadpool(search_one, one, asked, picture, own)
        return Response(as_json(told), media_type="application/json")

    @routes.post("/search/batch", tags=["search"])
    def batch(name: str, asked: AskedBatch) -> list[dict[str, Any]]:
        """Several searches; the answers in their order."""
        one = named(name)
        how = asked.model_dump(exclude={"queries"})
        return [search_one(one, Asked(**how, **query.model_dump())) for query in asked.queries]

    @routes.post("/search/stream", tags=["search"])
    async def stream(request: Request, name: str, asked: Asked) -> StreamingResponse:
        """Server-sent events: `stage` for each stage of the plan, then `answer`, or `error`."""
        work = partial(staged, named(name), asked)
        return _streamed(events(work, scrub_for(request.scope)))

    @routes.post("/classify", tags=["search"], openapi_extra=_either(AskedVote))
    async def classify(name: str, request: Request) -> dict[str, Any]:
        """The label that the nearest items vote for; with `labels`, the words that fit best."""
        one = named(name)
        asked, picture = await _read(request, AskedVote)
        return await run_in_threadpool(vote, one, asked, picture)

    @routes.get("/items/{id}", tags=["items"])
    def item_(name: str, id: ItemId) -> dict[str, Any]:
        """An item with all its columns."""
        index = named(name).now()
        return item(index, _row(index, id))

    @routes.get("/thumbs/{id}", tags=["items"], response_class=Response)
    def thumbs(
        request: Request, name: str, id: ItemId, size: Annotated[int, Query(ge=16, le=640)] = 192
    ) -> Response:
        """A small picture of an item: JPEG."""
        index = named(name).now()
        row = _row(index, id)
        side = next(side for side in SIDES if side >= size)
        jpeg = partial(thumbnail, index, row, side)
        return _picture(request, index, row, lambda: (jpeg(), "image/jpeg"), side)

    @routes.get("/pictures/{id}", tags=["items"], response_class=Response)
    def pictures(request: Request, name: str, id: ItemId) -> Response:
        """The picture of an item, as its file has it."""
        index = named(name).now()
        row = _row(index, id)
        return _picture(request, index, row, lambda: _typed(read_item(index, row)))

    @routes.get("/map", tags=["map"], response_class=Response)
    def map_(name: str, dims: Annotated[int, Query(ge=1, le=65_536)] = 8) -> Response:
        """All items as points: their two principal axes by the first `dims` dims.

        Little endian: uint32 n and generation, n int64 ids, n x 2 float32 from -1 to 1, n uint16
        places in the list of labels, which is the header X-Labels; 65535: none of them.
        """
        return _map(*named(name).map(dims))

    @routes.post("/map", tags=["map"], response_class=Response)
    def map_of(name: str, asked: AskedMap) -> Response:
        """Some items as points, by axes of their own."""
        return _map(*named(name).map(asked.dims, asked.ids))

    @routes.get("/duplicates", tags=["duplicates"])
    def duplicates_(name: str, level: CopyLevel = "copy") -> dict[str, Any]:
        """Groups of copies of one picture."""
        return named(name).duplicates(level)

    @routes.get("/duplicates/stream", tags=["duplicates"])
    async def duplicates_stream(
        request: Request, name: str, level: CopyLevel = "copy"
    ) -> StreamingResponse:
        """Server-sent events: `progress` while it looks, then `answer`, or `error`."""
        work = partial(looked_for, named(name), level)
        return _streamed(events(work, scrub_for(request.scope)))

    @routes.get("/report", tags=["indexes"])
    def report_(name: str) -> dict[str, Any]:
        """What `mrl-search bench` measured on this index, as tables; none before it ran."""
        named(name)
        return report(name) or {"tables": []}

    for some in (routes, writing_routes(named, write, REFUSALS)):
        app.include_router(some)
    route = next(route for route in routes.routes if getattr(route, "path", "") == SEARCH)
    measured = Measured(Direct(app, served, route, refused), served)

    @app.get("/metrics", tags=["server"], response_class=Response)
    def metrics() -> Response:
        """Requests and their times, for Prometheus."""
        return Response(measured.text(), media_type="text/plain; version=0.0.4")

    page = {
        file.name: file.read_bytes()
        for file in (files("mrl_search.web") / "page").iterdir()
        if file.is_file()
    }
    page |= {"data.js": b"", "docs": page["docs.html"]}  # only an exported page has data

    @app.get("/{name}", include_in_schema=False)
    def page_(name: str) -> Response:
        if name not in page:
            raise HTTPException(404, f"There is no {name!r} here.")
        kind, headers = PAGE_TYPES[Path(name).suffix], {"cache-control": "no-cache"}
        return Response(page[name], media_type=kind, headers=headers)

    @app.get("/", include_in_schema=False)
    def start() -> Response:
        return page_("index.html")

    return Guard(measured, rules or Rules())


def refusal(error: Exception) -> tuple[int, str, str, dict[str, str]]:
    """Status, error, hint and headers of the answer to a request that raised an error."""
    match error:
        case MrlSearchError():
            codes = (code for kind, code in STATUSES.items() if isinstance(error, kind))
            status = next(codes, 400)
            later = {"retry-after": "2"} if status == 429 else {}
            return status, error.message, error.hint, later
        case HTTPException():
            return error.status_code, str(error.detail), "GET /docs lists what there is.", {}
        case RequestValidationError():
            return 422, first_of(error.errors()), "GET /docs shows what a request may say.", {}
        case _:
            return 500, "The server failed.", "Its own output says why.", {}


def _either(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI of a body that is JSON, or a form with the picture as a file."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    image = {"image": {"type": "string", "format": "binary"}}
    form = {"type": "object", "properties": image, "required": ["image"]}
    content = {
        "application/json": {"schema": schema, "example": {"id": 3, "k": 5}},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


async def _read(request: Request, model: type[Any] = Asked) -> tuple[Any, Sent | None]:
    """A request as JSON, or as a form with a picture."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    try:
        if kind == "multipart/form-data":
            async with request.form(max_files=1, max_fields=100) as form:
                picture = form.get("image")
                if picture is None or isinstance(picture, str):
                    raise DataError("The form has no picture.", "Send it as the file `image`.")
                sent = Sent(await picture.read(), _called(picture.filename))
                lists = ("where", "ids", "labels")
                fields = {n: form.getlist(n) if n in lists else form[n] for n in form}
                del fields["image"]
            return model.model_validate(fields), sent
        if not is_json(kind):
            raise HTTPException(415, "Send application/json, or a form with the file `image`.")
        return model.model_validate_json(await request.body()), None
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RequestValidationError(found) from error


def _called(name: str | None) -> str:
    """What errors call a picture of this name."""
    last = plain((name or "").replace("\\", "/").rpartition("/")[2]).strip()
    return (last if len(last) <= NAME else f"…{last[-NAME:]}") or "The picture"


def _row(index: Index, id: int) -> int:
    try:
        return int(rows_of(index, [id])[0])
    except DataError as error:
        raise HTTPException(404, error.message) from error


def _picture(
    request: Request, index: Index, row: int, read: Callable[[], tuple[bytes, str]], side: int = 0
) -> Response:
    """A picture that browsers may keep as long as its content is the same."""
    content = index.items["hash"][row].as_py()
    tag = f'"{content}-{side}"'
    headers = {"cache-control": "private, max-age=60", "etag": tag, "content-disposition": "inline"}
    if content and request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    try:
        data, kind = read()
    except BrokenImage as error:
        raise HTTPException(404, error.message) from error
    return Response(data, media_type=kind, headers=headers)


def _typed(data: bytes) -> tuple[bytes, str]:
    """A picture and its type; what browsers do not show is told as bytes to save."""
    try:
        with quiet(), opened(data) as image:
            kind = Image.MIME.get(image.format or "", "")
    except Exception as error:  # a decoder may raise anything
        raise BrokenImage("The file is no picture any more.") from error
    shown = kind.startswith("image/") and "svg" not in kind
    return data, kind if shown else "application/octet-stream"


def _streamed(events: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(events, media_type="text/event-stream")


def _map(points: bytes, labels: list[str]) -> Response:
    headers = {"x-labels": json.dumps(labels)}
    return Response(points, media_type="application/octet-stream", headers=headers)
