"""Answering a request: the one walk through the stages of a plan.

A prefix index proposes candidates for the first stage; every stage scores and keeps its best. Ties
go to the lower id, at the cut of a stage too unless an approximate index makes it. A batch is
answered as its queries are singly. Compiled code answers usual plans in one call (`prepared`).
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import kernels
from mrl_search.engines.base import Found, Mask
from mrl_search.engines.kernels import best
from mrl_search.engines.scan import scan, split_mask
from mrl_search.engines.spec import SCAN
from mrl_search.errors import ConfigError, IndexFolderError
from mrl_search.search.chance import FEWEST_ITEMS, UNLIKELY, expected_by_chance
from mrl_search.search.corpus import Corpus
from mrl_search.search.exact.pruned import Find, exact_pruned, prunes
from mrl_search.search.explain import explain
from mrl_search.search.filters import mask_of
from mrl_search.search.first import CANDIDATE, propose, rescored, shortlist
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.prepared import Prepared
from mrl_search.search.request import SearchRequest
from mrl_search.search.results import BatchHits
from mrl_search.search.scoring import joined
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks, prefix, query_rows

__all__ = ["Find", "StopRule", "answer", "default_plan", "exact_search", "search"]

MOST_PREPARED = 1000  # plans

StopRule = Callable[[int, Stage, BatchHits, Ids], NDArray[np.bool_]]
"""Which queries are done: (number of the stage, stage, its hits, positions of the queries)."""


def search(
    corpus: Corpus,
    queries: NDArray[np.floating],
    plan: Plan,
    k: int,
    mask: Mask | None = None,
    stop: StopRule | None = None,
) -> BatchHits:
    """Search `corpus` for the `k` nearest neighbours of each query.

    Args:
        corpus: what is searched.
        queries: (n, dim) numbers in the space of the stored vectors, of any norm but zero.
        plan: how to search.
        k: answers wanted.
        mask: rows that may be answers; default: all that are not deleted.
        stop: ends the search of some queries after a stage; they keep the hits of that stage.

    Returns:
        (n, min(k, rows allowed)) ids and cosines at the prefix of the last stage, best first.
        Where an approximate index found fewer, rows end with id -1.

    Raises:
        ConfigError: the corpus has no index for the first stage, or it takes no effort; a stage
            has more dims than the vectors; or a shortlist is smaller than `k`.
        DataError: queries that are zero, not finite, or of other dims than the vectors.
    """
    plan, prepared = _prepared(corpus, plan, k)
    mask = corpus.alive if mask is None else mask
    allowed = len(corpus) if mask is None else mask.count
    width = min(k, allowed)
    if prepared is not None and stop is None and prepared.fits(queries, allowed, mask):
        scores, ids = prepared.search(queries, width, mask)
        return BatchHits(ids, scores, corpus.items, plan)
    queries = query_rows(queries, corpus.dim)
    if not width:
        nothing = np.empty((len(queries), 0), np.int64)
        return BatchHits(nothing, nothing.astype(np.float32), corpus.items, plan)
    if plan == Plan.EXACT:
        scores, ids = exact_search(corpus, queries, width, mask)
        return BatchHits(ids, scores, corpus.items, plan)
    ids = np.empty((len(queries), width), np.int64)
    scores = np.empty((len(queries), width), np.float32)
    dims = np.full(len(queries), plan.dims[-1]) if stop else None
    for block in blocks(len(queries), CANDIDATE * (plan.stages[0].keep or k)):
        part, going = queries[block], np.arange(len(queries))[block] if stop else block
        candidates: Ids | None = None
        for number, stage in enumerate(plan.stages):
            keep, last = min(stage.keep or k, allowed), stage is plan.stages[-1]
            if candidates is not None:
                hits = rescored(corpus, part, candidates, stage.dims, keep)
            elif last:
                index = corpus.prefix_index(stage.dims)
                hits = propose(corpus, index, part, stage, keep, mask)
            else:
                candidates = shortlist(corpus, part, stage, keep, mask)
                if not stop:  # the next stage scores them: their order does not matter
                    continue
                hits = rescored(corpus, part, candidates, stage.dims, keep)
            candidates = hits[1]
            if last:
                scores[going], ids[going] = hits[0][:, :width], hits[1][:, :width]
            elif stop and dims is not None and not isinstance(going, slice):
                ends = stop(number, stage, BatchHits(hits[1], hits[0]), going)
                at = going[ends]
                scores[at], ids[at] = hits[0][ends, :width], hits[1][ends, :width]
                dims[at] = stage.dims
                going, part, candidates = going[~ends], part[~ends], candidates[~ends]
                if not len(going):
                    break
    return BatchHits(ids, scores, corpus.items, plan, dims)


def answer(
    corpus: Corpus, queries: NDArray[np.floating], request: SearchRequest, find: Find = search
) -> BatchHits:
    """Answer a request for `queries` (n, dim): filter, search, cut off, explain."""
    mask = mask_of(corpus.items, request.where, request.ids, corpus.alive)
    hits = find(corpus, queries, request.plan, request.k, mask)
    enough = (len(corpus) if mask is None else mask.count) >= FEWEST_ITEMS
    if request.cutoff == "auto" or (request.expected and enough):
        checked = query_rows(queries, corpus.dim)
        hits = replace(hits, expected=expected_by_chance(corpus, checked, hits, mask))
    if request.cutoff is not None:
        low = hits.rows < 0
        if request.cutoff != "auto":
            low = hits.scores < request.cutoff
        elif hits.expected is not None:
            low = hits.expected >= UNLIKELY
        hits.rows[low], hits.scores[low] = -1, -np.inf
        if hits.expected is not None:
            hits.expected[low] = np.inf
    if request.explain:
        return replace(hits, explanation=explain(corpus, queries, hits.rows, mask))
    return hits


def default_plan(corpus: Corpus, k: int, use: str = "query") -> Plan:
    """The plan that was tuned for `use` and at least `k` answers, or `exact`."""
    tuned = corpus.manifest.plans.get(use)
    if isinstance(tuned, dict) and isinstance(tuned.get("plan"), str):
        *early, last = str(tuned["plan"]).split(",")
        last, _, keep = last.partition(":")  # version 0.1 wrote the number of answers there
        effort = keep.partition("@")[2]
        try:
            plan = Plan.parse(",".join([*early, last + (f"@{effort}" if effort else "")]))
            for_k = int(tuned.get("k") or keep.partition("@")[0] or 0)
        except (ConfigError, ValueError, TypeError, OverflowError) as error:
            message = f"{corpus.folder} has a damaged plan for {use}: {tuned['plan']!r}."
            raise IndexFolderError(message, f"Run: mrl-search tune {corpus.folder}") from error
        if plan.stages and for_k >= k and set(plan.dims) <= set(corpus.dims):
            first, *others = plan.stages
            if first.effort and not corpus.prefix_index(first.dims).efforts:
                return Plan((replace(first, effort=0), *others))  # trained as another kind since
            return plan
    return Plan.EXACT


def exact_search(
    corpus: Corpus, queries: NDArray[np.float32], k: int, mask: Mask | None = None
) -> Found:
    """The true `k` nearest at full length, in the fastest way that this corpus has."""
    remote = bool(corpus.manifest.engine)
    if mask is not None and mask.count * 2 < len(corpus) and not remote:
        return scan(corpus.vectors, prefix(queries, corpus.dim), k, mask.ids)
    base = corpus.base
    if corpus.dim in corpus.dims and (kernels.native is None or not prunes(base)):
        index = corpus.prefix_index(corpus.dim)
        if index.exact and index.kind != SCAN:
            stage, some = Stage(corpus.dim), blocks(len(queries), CANDIDATE * k)
            return joined([propose(corpus, index, queries[s], stage, k, mask) for s in some], k)
    if base is corpus:
        return exact_pruned(corpus, queries, k, mask, search)
    first, second = split_mask(mask, len(base))
    added = np.arange(len(base), len(corpus)) if second is None else len(base) + second.ids
    found = [scan(corpus.vectors, prefix(queries, corpus.dim), k, added)]
    if width := min(k, len(base) if first is None else first.count):
        found.append(exact_search(base, queries, width, first))
    scores, ids = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    return best(scores, ids, k)


def _prepared(corpus: Corpus, plan: Plan, k: int) -> tuple[Plan, Prepared | None]:
    """The plan to run, checked once, and what runs it in one call, if anything does."""
    found = corpus.ready.get((plan, k))
    if found is None or found[0] is not corpus.manifest:  # tuning stores plans there
        chosen = default_plan(corpus, k) if plan == Plan.AUTO else plan
        if chosen != Plan.EXACT and len(corpus):
            _check(corpus, chosen, k)
        found = corpus.manifest, chosen, Prepared.of(corpus, chosen)
        if len(corpus.ready) >= MOST_PREPARED:
            corpus.ready.clear()
        corpus.ready[plan, k] = found
    return found[1], found[2]


def _check(corpus: Corpus, plan: Plan, k: int) -> None:
    """Raise ConfigError for a plan that this corpus cannot run."""
    corpus.check_dims(plan.dims[0])
    if plan.dims[-1] > corpus.dim:
        message = f"Plan {plan} has {plan.dims[-1]} dims; the vectors have {corpus.dim}."
        raise ConfigError(message, f"End it with at most {corpus.dim} dims.")
    if (plan.shortest or k) < k:
        short = f"a shortlist of {plan.shortest}, fewer than the {k} answers wanted"
        hint = f"Keep at least {k} in every stage, or ask for fewer with -k."
        raise ConfigError(f"Plan {plan} has {short}.", hint)
    first = plan.stages[0]
    if first.effort and not corpus.prefix_index(first.dims).efforts:
        kind = corpus.prefix_index(first.dims).kind
        message = f"Plan {plan} has an effort at {first.dims} dims, but {kind} takes none."
        raise ConfigError(message, f"Leave @{first.effort} out.")
