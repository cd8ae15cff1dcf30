"""Exact search that reads little: a sieve first, then longer prefixes of the vectors it keeps.

Of unit vectors q and x, cut after d dims, the inner product of the heads is a·b·c (their norms and
their cosine); that of the tails is at most the product of their norms s·r (Cauchy-Schwarz). So the
cosine is at most a·b·c + s·r. FAISS prunes with the same bound (Panorama, arXiv 2510.00566).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import kernels
from mrl_search.engines.base import Found, Mask
from mrl_search.engines.kernels import best, narrow, sift
from mrl_search.engines.scan import scan
from mrl_search.engines.spec import EXACT, SCAN
from mrl_search.search.corpus import Corpus
from mrl_search.search.exact.sieve import Sieve
from mrl_search.search.first import shortlist
from mrl_search.search.plan import Stage
from mrl_search.search.scoring import joined, pair_scores, rescore
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks, prefix, suffix_norms

__all__ = ["SLACK", "Bounds", "exact_pruned"]

SHORTLIST = 100  # candidates of the search that sets the score to beat: at least, or 4 k
SHORTEST, LONGEST = 32, 128  # dims of that search
HOPELESS = 0.5  # share of the corpus left by the sieve from which reading everything is cheaper
SLACK = np.float32(4e-6)  # more than the rounding of two float32 cosines and a norm
DOUBT = 4e-7  # more than the error of the square of a float32 norm


@dataclass(frozen=True, eq=False)
class Bounds:
    """Upper bounds on the cosines of some queries, of which the first dims were read.

    Attributes:
        head: (n, 1) float32, norm of each unit query's first dims.
        tail: (n, 1) float32, norm of the rest.
        norms: (corpus,) float32, norm of the rest of each stored vector.
    """

    head: NDArray[np.float32]
    tail: NDArray[np.float32]
    norms: NDArray[np.float32]

    @classmethod
    def of(cls, sieve: Sieve, queries: NDArray[np.float32], dims: int) -> "Bounds":
        """Bounds for a prefix of which the sieve has norms."""
        unit = prefix(queries, queries.shape[1])
        tail = suffix_norms(unit, (dims,))[0][:, None]
        head = np.linalg.norm(unit[:, :dims], axis=1, keepdims=True)
        return cls(head, tail, sieve.norms_at(dims))

    def upper(
        self, cosines: NDArray[np.float32], norms: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The largest possible full-length cosine.

        Args:
            cosines: (n, m) at the prefix.
            norms: (m,) or (n, m) norms of the tails.
        """
        doubt = np.where(cosines < 0, -np.float32(DOUBT), np.float32(DOUBT))
        heads = self.head * np.sqrt(np.maximum(1 - norms * norms + doubt, 0)) * cosines
        bound: NDArray[np.float32] = (heads + self.tail * norms).astype(np.float32)
        return bound


def exact_pruned(
    corpus: Corpus, queries: NDArray[np.float32], k: int, mask: Mask | None = None
) -> Found:
    """The true `k` nearest at full length, mostly without reading whole vectors.

    A short search gives k scores to beat. The sieve rules out every vector whose upper bound lies
    below them; of the rest, longer and longer prefixes are read. Without a sieve, or where it rules
    out too little, everything is compared. `k` is at most the number of rows allowed.
    """
    start, sieve = _start(corpus, k, mask), corpus.sieve
    if start is None or sieve is None:
        rows = None if mask is None else mask.ids
        return scan(corpus.vectors, prefix(queries, corpus.dim), k, rows)
    sieve.check()
    some = blocks(len(queries), len(corpus))
    return joined([_sifted(corpus, sieve, queries[s], k, start, mask) for s in some], k)


def _start(corpus: Corpus, k: int, mask: Mask | None) -> Stage | None:
    """The stage that finds scores to beat; None where no quick one exists."""
    if mask is not None and mask.count * 2 < len(corpus):
        return None
    kinds = {d: corpus.manifest.factory[str(d)] for d in corpus.dims}
    quick = [d for d in corpus.dims if d <= LONGEST and d < corpus.dim and kinds[d] != SCAN]
    exact = [d for d in quick if d >= SHORTEST and kinds[d] in EXACT]  # the shortest is fastest
    dims = exact[0] if exact else quick[-1] if quick else None
    return None if dims is None else Stage(dims, max(SHORTLIST, 4 * k))


def _sifted(
    corpus: Corpus, sieve: Sieve, queries: NDArray[np.float32], k: int, start: Stage,
    mask: Mask | None,
) -> Found:  # fmt: skip
    allowed = len(corpus) if mask is None else mask.count
    ids = shortlist(corpus, queries, start, min(start.keep or k, allowed), mask)
    found = rescore(corpus.vectors, queries, ids, corpus.dim, k)
    beat = found[0][:, k - 1 :] - SLACK  # the true k-th answer has at least this score
    kept = _sieve(sieve, queries, beat)
    hopeless = np.array([len(rows) > HOPELESS * len(corpus) for rows in kept])
    if hopeless.any():
        rows = None if mask is None else mask.ids
        unit = prefix(queries[hopeless], corpus.dim)
        found[0][hopeless], found[1][hopeless] = scan(corpus.vectors, unit, k, rows)
    for i in np.flatnonzero(~hopeless):
        rows = kept[i] if mask is None else kept[i][mask.allowed[kept[i]]]
        query = queries[i : i + 1]
        rows = _narrowed(corpus, sieve, query, rows, float(beat[i, 0]))
        one = best(pair_scores(corpus.vectors, query, rows[None], corpus.dim), rows[None], k)
        found[0][i], found[1][i] = one[0][0], one[1][0]
    return found


def _sieve(sieve: Sieve, queries: NDArray[np.float32], beat: NDArray[np.float32]) -> list[Ids]:
    """For each query, the rows whose upper bound reaches its score to beat."""
    dims = len(sieve.steps)
    bounds, unit = Bounds.of(sieve, queries, dims), prefix(queries, queries.shape[1])[:, :dims]
    least = (beat - SLACK - bounds.head * np.float32(sieve.error))[:, 0].tolist()
    tails = bounds.tail[:, 0].tolist()
    return [
        sift(sieve.codes, unit[i] * sieve.steps, bounds.norms, tails[i], least[i])
        for i in range(len(queries))
    ]


def _narrowed(
    corpus: Corpus, sieve: Sieve, query: NDArray[np.float32], rows: Ids, beat: float
) -> Ids:
    """Those of `rows` that longer prefixes do not rule out for a `query`, (1, dim)."""
    finer = [d for d in sieve.dims if len(sieve.steps) < d < corpus.dim]
    if not finer:
        return rows
    store = corpus.vectors
    if len(store.parts) == 1 and kernels.native is not None:
        unit, first = prefix(query, corpus.dim), sieve.dims.index(finer[0])
        norms, tails = sieve.norms[first : first + len(finer)], suffix_norms(unit, finer)[:, 0]
        left = [
            narrow(store.part(rows[some]), unit[0], rows[some], finer, tails, norms, DOUBT, beat)
            for some in store.in_turn(len(rows), 1)
        ]
        return np.concatenate(left)
    for d in finer:
        bounds = Bounds.of(sieve, query, d)
        cosines = pair_scores(store, query, rows[None], d)
        rows = rows[bounds.upper(cosines, bounds.norms[rows])[0] >= beat]
    return rows
