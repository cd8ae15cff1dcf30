"""Requests answered: a search, its stages as events, a vote; each as the JSON that is sent."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool

from mrl_search.errors import MrlSearchError
from mrl_search.index import Index
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.run import default_plan
from mrl_search.text import json_value
from mrl_search.web.asked import Asked, AskedVote, Query, find, query_of
from mrl_search.web.served import Sent, Served
from mrl_search.web.told import hits_of

__all__ = ["Emit", "events", "looked_for", "quick", "search_one", "staged", "vote"]

STAGE_HITS = 60  # hits that an event of a stage has
PAUSE = 0.2  # seconds between two events of progress, at least

Emit = Callable[[str, dict[str, Any]], None]  # sends an event: its kind and data


class _LeftError(Exception):
    """The client left: nobody waits for the answer."""


def _embedded(
    one: Served, index: Index, asked: Query, given: Sent | NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], list[int], dict[str, Any]]:
    """The query of a request, the rows of its items, and what was found out on the way."""
    start, own = time.perf_counter(), list[int]()
    if isinstance(given, Sent):
        row, embedded = one.embed(given), True
    elif given is not None:
        row, embedded = index.corpus.to_space(given)[0], False
    else:
        row, own, embedded = query_of(one, index, asked.parts())
    if not embedded:
        return row, own, {}
    ms = round((time.perf_counter() - start) * 1e3, 2)
    return row, own, {"query_id": one.remember(row), "embed_ms": ms}


def search_one(
    one: Served, asked: Asked, given: Sent | NDArray[np.float32] | None = None, whole: bool = False
) -> dict[str, Any]:
    """Answer a search; `given`, a picture or (dim,) numbers, is the query instead.

    `whole` tells paths of the machine, as the command line does.
    """
    index = one.now()
    row, own, told = _embedded(one, index, asked, given)
    start = time.perf_counter()
    hits = find(index, row, own if asked.not_itself else [], asked.whole_request)
    ms = (time.perf_counter() - start) * 1e3
    return {**told, **_told(index, hits, asked.k, ms, whole)}


def quick(one: Served, asked: Asked, given: NDArray[np.float32] | None = None) -> bool:
    """Whether the answer takes less time than handing the request to another thread does."""
    plain = given is not None or asked.vector is not None or asked.query_id is not None
    more = asked.plus or asked.minus or asked.where or asked.ids is not None
    if not plain or more or asked.cutoff is not None or asked.explain or asked.expected:
        return False
    ready = one.index.corpus.ready.get((asked.whole_request.plan, asked.k))
    return ready is not None and ready[2] is not None


def _told(index: Index, hits: BatchHits, k: int, ms: float, whole: bool = False) -> dict[str, Any]:
    found = hits_of(index, hits, whole)
    return {
        "plan": str(hits.plan), "k": k, "found": len(found), "ms": round(ms, 3),
        "generation": index.generation, "hits": found,
    }  # fmt: skip


def vote(one: Served, asked: AskedVote, picture: Sent | None) -> dict[str, Any]:
    """The label of a query, by its neighbours or by words."""
    from mrl_search.encoders.zero_shot import zero_shot
    from mrl_search.search.classify import classify, label_doubt

    index = one.now()
    row, _, told = _embedded(one, index, asked, picture)
    if asked.labels is not None:
        with one.turn():
            shares = zero_shot(row[None], asked.labels, index.encoder, "simple")[0]
        order = (-shares).argsort(kind="stable")
        every = {asked.labels[i]: round(float(shares[i]), 6) for i in order}
        label, share = next(iter(every.items()))
        return {**told, "label": label, "probability": share, "probabilities": every}
    request = asked.request()
    plan = request.plan
    plan = default_plan(index.corpus, request.k, "classify") if plan == Plan.AUTO else plan
    found = classify(index.corpus, row[None], request)[0]
    votes = {label: round(share, 6) for label, share in found.shares.items()}
    told |= {"plan": str(plan), "label": found.label, "confidence": round(found.confidence, 6)}
    return {**told, "votes": votes, "doubt": label_doubt(index.corpus)}


async def events(
    work: Callable[[Emit], dict[str, Any]], scrub: Callable[[str], str]
) -> AsyncIterator[bytes]:
    """What `work` emits, and then its answer or error, as server-sent events.

    If the client leaves, the next event that `work` emits ends it.
    """
    events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
    loop, left = asyncio.get_running_loop(), threading.Event()

    def emit(kind: str, data: dict[str, Any]) -> None:
        if left.is_set():
            raise _LeftError
        loop.call_soon_threadsafe(events.put_nowait, (kind, data))

    def whole() -> None:
        try:
            emit("answer", work(emit))
        except _LeftError:
            return
        except MrlSearchError as error:
            emit("error", {"error": scrub(error.message), "hint": scrub(error.hint)})
        except Exception:
            emit("error", {"error": "The server failed.", "hint": "Its own output says why."})
            raise

    task = asyncio.create_task(run_in_threadpool(whole))
    kind = ""
    try:
        while kind not in ("answer", "error"):
            kind, data = await events.get()
            yield f"event: {kind}\ndata: {json.dumps(data, default=json_value)}\n\n".encode()
    finally:
        left.set()
    await task


def looked_for(one: Served, level: str, emit: Emit) -> dict[str, Any]:
    """Groups of copies; events `progress` tell how far the look for them is."""
    last = 0.0

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last
        if (now := time.monotonic()) - last > PAUSE:
            last = now
            emit("progress", {"what": what, "done": done, "total": total})

    return one.duplicates(level, progress)


def staged(one: Served, asked: Asked, emit: Emit) -> dict[str, Any]:
    """Answer a search; events `stage` have the hits of every stage but the last."""
    index, request = one.now(), asked.whole_request
    row, own, told = _embedded(one, index, asked, None)
    own = own if asked.not_itself else []
    plan = request.plan
    if plan == Plan.AUTO:
        plan = default_plan(index.corpus, asked.k + len(own))
    start = [time.perf_counter()]

    def seen(number: int, stage: Stage, hits: BatchHits, _: NDArray[np.int64]) -> NDArray[np.bool_]:
        ms = (time.perf_counter() - start[-1]) * 1e3
        keep = np.flatnonzero(~np.isin(hits.rows[0], own))[:STAGE_HITS]
        shown = BatchHits(hits.rows[:, keep], hits.scores[:, keep], index.items)
        emit("stage", {
            "stage": number + 1, "stages": len(plan.stages), "dims": stage.dims,
            "keep": stage.keep, "ms": round(ms, 3), "hits": hits_of(index, shown),
        })  # fmt: skip
        start.append(time.perf_counter())
        return np.zeros(len(hits.rows), bool)

    hits = find(index, row, own, request, seen if len(plan.stages) > 1 else None)
    ms = (time.perf_counter() - start[-1]) * 1e3
    return {**told, **_told(index, hits, asked.k, ms)}
