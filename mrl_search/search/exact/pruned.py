"""Exact search that reads little: a sieve first, then longer prefixes of the vectors it keeps.

Of unit vectors q and x, cut after d dims, the inner product of the heads is a·b·c (their norms and
their cosine); that of the tails is at most the product of their norms s·r (Cauchy-Schwarz). So the
cosine is at most a·b·c + s·r. FAISS prunes with the same bound (Panorama, arXiv 2510.00566).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import kernels
from mrl_search.engines.base import Found, Mask
from mrl_search.engines.kernels import best, nearest, sift
from mrl_search.engines.scan import scan
from mrl_search.engines.spec import EXACT, SCAN
from mrl_search.search.corpus import Corpus
from mrl_search.search.exact.sieve import Sieve
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.scoring import joined, pair_scores
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks, prefix, suffix_norms

__all__ = ["SLACK", "Find", "exact_pruned", "prunes", "upper_bounds"]

Find = Callable[[Corpus, NDArray[np.floating], Plan, int, Mask | None], BatchHits]
"""What searches: (corpus, queries, plan, k, mask), as `search` in `mrl_search.search.run` does."""

SHORTLIST = 100  # candidates of the search that sets the score to beat: at least, or 4 k
SHORTEST, LONGEST = 32, 128  # dims of that search
HOPELESS = 0.5  # share of the corpus left by the sieve from which reading everything is cheaper
SLACK = np.float32(4e-6)  # more than the rounding of two float32 cosines and a norm
DOUBT = 4e-7  # more than the error of the square of a float32 norm


def exact_pruned(
    corpus: Corpus, queries: NDArray[np.float32], k: int, mask: Mask | None, find: Find
) -> Found:
    """The true `k` nearest at full length, mostly without reading whole vectors.

    A plan gives k scores to beat. The sieve rules out every vector whose upper bound lies below
    them; of the rest, longer and longer prefixes are read. Without a sieve everything is compared.
    Queries are (n, dim) float32 of any norm but zero; `k` is at most the number of allowed rows.
    """
    sieve, first = corpus.sieve, _first(corpus)
    allowed = len(corpus) if mask is None else mask.count
    if sieve is None or first is None or allowed * 2 < len(corpus):
        rows = None if mask is None else mask.ids
        return scan(corpus.vectors, prefix(queries, corpus.dim), k, rows)
    plan = Plan.of(f"{first}:{min(max(SHORTLIST, 4 * k), allowed)},{corpus.dim}")
    sieve.check()
    some = blocks(len(queries), len(corpus))
    return joined([_sifted(corpus, sieve, queries[s], k, plan, mask, find) for s in some], k)


def prunes(corpus: Corpus) -> bool:
    """Whether exact search need not read whole vectors: there are a sieve and a quick prefix."""
    return corpus.sieve is not None and _first(corpus) is not None


def _first(corpus: Corpus) -> int | None:
    """The prefix that finds scores to beat; None where no quick one exists."""
    kinds = {d: corpus.manifest.factory[str(d)] for d in corpus.dims}
    quick = [d for d in corpus.dims if d <= LONGEST and d < corpus.dim and kinds[d] != SCAN]
    exact = [d for d in quick if d >= SHORTEST and kinds[d] in EXACT]  # the shortest is fastest
    return exact[0] if exact else quick[-1] if quick else None


def _sifted(
    corpus: Corpus, sieve: Sieve, queries: NDArray[np.float32], k: int, plan: Plan,
    mask: Mask | None, find: Find,
) -> Found:  # fmt: skip
    seen = find(corpus, queries, plan, k, mask)
    scores, ids = seen.scores, seen.rows
    beat = scores[:, -1] - SLACK  # the true k-th answer has at least this score
    unit, coded = prefix(queries, corpus.dim), len(sieve.steps)
    finer = [d for d in sieve.dims if coded < d < corpus.dim]  # they tell more than the sieve
    tails = suffix_norms(unit, [coded, *finer]).T
    heads = np.linalg.norm(unit[:, :coded], axis=1)
    least = (beat - SLACK - heads * np.float32(sieve.error)).tolist()
    weights, norms = unit[:, :coded] * sieve.steps, sieve.norms_at(coded)
    for i in range(len(queries)):
        rows = sift(sieve.codes, weights[i], norms, float(tails[i, 0]), least[i])
        hopeless = len(rows) > HOPELESS * len(corpus)
        rows = rows if mask is None else rows[mask.allowed[rows]]
        if kernels.native is not None:
            one = _nearest(corpus, sieve, unit[i], rows, finer, tails[i, 1:], float(beat[i]), k)
        elif hopeless:
            one = scan(corpus.vectors, unit[i : i + 1], k, None if mask is None else mask.ids)
        else:
            rows = _narrowed(corpus, sieve, unit[i : i + 1], rows, finer, beat[i])
            one = best(
                pair_scores(corpus.vectors, unit[i : i + 1], rows[None], corpus.dim), rows[None], k
            )
        scores[i], ids[i] = one[0][0], one[1][0]
    return scores, ids


def _nearest(
    corpus: Corpus, sieve: Sieve, unit: NDArray[np.float32], rows: Ids, dims: list[int],
    tails: NDArray[np.float32], beat: float, k: int,
) -> Found:  # fmt: skip
    """The best `k` of `rows` for a query (dim,): prefixes `dims` rule rows out. Compiled only."""
    store = corpus.vectors
    first = sieve.dims.index(dims[0]) if dims else 0
    norms = sieve.norms[first : first + len(dims)]
    found = [(np.empty(0, np.float32), np.empty(0, np.int64))]
    for some in store.in_turn(len(rows), 1):
        start = 0
        for vectors, local, inside in store.by_part(rows[some]):
            stop = start + len(vectors)
            scores, ids = nearest(
                vectors, unit, local[inside], dims, tails, norms[:, start:stop], DOUBT, beat, k
            )
            found.append((scores, ids + start))
            start = stop
    scores, ids = (np.concatenate(column)[None] for column in zip(*found, strict=True))
    return best(scores, ids, k)


def _narrowed(
    corpus: Corpus, sieve: Sieve, unit: NDArray[np.float32], rows: Ids, dims: list[int],
    beat: np.float32,
) -> Ids:  # fmt: skip
    """Those of `rows` that prefixes `dims` do not rule out for a query, (1, dim)."""
    for d in dims:
        cosines = pair_scores(corpus.vectors, unit, rows[None], d)
        rows = rows[upper_bounds(unit, d, cosines, sieve.norms_at(d)[rows])[0] >= beat]
    return rows


def upper_bounds(
    unit: NDArray[np.float32], dims: int, cosines: NDArray[np.float32], norms: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The largest possible full-length cosines, (n, m) float32, when `dims` were read.

    Args:
        unit: (n, dim) queries of unit norm.
        dims: a prefix length.
        cosines: (n, m) at this prefix.
        norms: (m,) or (n, m) norms of the tails of the vectors.
    """
    heads = np.linalg.norm(unit[:, :dims], axis=1, keepdims=True)
    doubt = np.where(cosines < 0, -np.float32(DOUBT), np.float32(DOUBT))
    near = heads * np.sqrt(np.maximum(1 - norms * norms + doubt, 0)) * cosines
    return np.asarray(near + suffix_norms(unit, (dims,))[0][:, None] * norms, np.float32)
