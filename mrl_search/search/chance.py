"""How many unrelated pictures would score as high: E-values, as those of BLAST, of the hits.

Scores mean different things for different queries: what is near for one is noise for another
(Bahri et al., "Surprise", arXiv 2010.09797; score normalisation in SSCD, arXiv 2202.10261). So each
query is compared with its own background: its scores with a sample of the items, from the rank
where items are hardly related to it. How far scores rise above such a background by chance is
learnt from items as queries, and continued by a Pareto tail (see `tail`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Mask
from mrl_search.errors import DataError
from mrl_search.search.corpus import Corpus
from mrl_search.search.results import BatchHits
from mrl_search.search.tail import Tail, fit_tail
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks, prefix, sample

__all__ = ["FEWEST_ITEMS", "UNLIKELY", "expected_by_chance"]

FEWEST_ITEMS = 1000  # a background of fewer says too little
UNLIKELY = 0.01  # unrelated pictures expected at the cut-off `auto`
SAMPLED = 1 << 13  # items that are a background
LEARNT = 1000  # items that are queries, to learn from
RANKS = (10, 100)  # of a query's scores with the sample that are its background
IN_TAIL = 0.02  # of the learnt scores
ROUNDING = 1e-6  # of a cosine in float32
SEEDS = (20, 21)  # of the sample and of the queries


@dataclass(frozen=True, eq=False, slots=True)
class Background:
    """What scores at one prefix are by chance.

    Attributes:
        rows: (s, dims) float32, sampled items, of unit norm.
        count: items that are searched.
        tail: of the best `RANKS[1]` scores of a query with the sample, standardised.
    """

    rows: NDArray[np.float32]
    count: int
    tail: Tail

    def expected(
        self, queries: NDArray[np.float32], scores: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Unrelated items expected to score at least `scores` (n, k), by the queries (n, dim)."""
        found = np.empty(scores.shape)
        most = self.count * RANKS[1] / len(self.rows)
        for some in blocks(len(queries), len(self.rows)):
            top = _highest(prefix(queries[some], self.rows.shape[1]) @ self.rows.T)
            z = _standardised(scores[some], top)
            found[some] = most * self.tail.chance(z)
        found[np.isneginf(scores)] = np.inf
        return found


def expected_by_chance(
    corpus: Corpus, queries: NDArray[np.float32], hits: BatchHits, mask: Mask | None = None
) -> NDArray[np.float64]:
    """How many unrelated items would score at least as high as each hit: (n, k) float64.

    Where it is 0.01, one query in a hundred without a related item has a hit this good. Hits below
    the background all get the same number, about 100 or more; an id of -1 gets infinity. Queries
    are (n, dim) float32 in the space of the stored vectors.

    Raises:
        DataError: under 1,000 items were searched, or most score alike.
    """
    plan = hits.plan
    dims = plan.dims[-1] if plan is not None and plan.stages else corpus.dim
    if mask is not None and mask is not corpus.alive:  # learnt each time: no filter is like another
        return _learn(corpus, dims, mask.ids).expected(queries, hits.scores)
    if dims not in corpus.backgrounds:
        corpus.backgrounds[dims] = _learn(corpus, dims, corpus.live_rows)
    found: Background = corpus.backgrounds[dims]
    return found.expected(queries, hits.scores)


def _learn(corpus: Corpus, dims: int, allowed: Ids) -> Background:
    """The background of the rows that may be answers."""
    if len(allowed) < FEWEST_ITEMS:
        message = f"{len(allowed):,} items are too few to tell what scores arise by chance"
        hint = "Give a cosine instead, such as --cutoff 0.8."
        raise DataError(f"{message}; it takes {FEWEST_ITEMS:,}.", hint)
    some = allowed[sample(len(allowed), SAMPLED, SEEDS[0])]
    own = allowed[sample(len(allowed), LEARNT, SEEDS[1])]
    rows, hashes = corpus.vectors.prefix(dims, some), corpus.collection.hashes
    z = []
    for part in blocks(len(own), len(some)):
        scores = corpus.vectors.prefix(dims, own[part]) @ rows.T
        scores[hashes[own[part], None] == hashes[some]] = -1  # itself, and equal files
        top = _highest(scores)
        z.append(_standardised(top, top))
    return Background(rows, len(allowed), fit_tail(np.concatenate(z), IN_TAIL))


def _highest(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The best scores of each query, (n, RANKS[1]), descending."""
    last = scores.shape[1] - RANKS[1]
    highest: NDArray[np.float32] = np.sort(np.partition(scores, last, axis=1)[:, last:], axis=1)
    return highest[:, ::-1]


def _nearness(cosines: NDArray[np.float32]) -> NDArray[np.float64]:
    """Fisher's z of the cosines, arctanh: float64. Near 1 it is a logarithm of the distance.

    Around a query within the corpus, the number of neighbours grows by a power of the distance
    (Levina and Bickel, "Maximum Likelihood Estimation of Intrinsic Dimension", NIPS 2004,
    section 3), so this has an exponential tail. The tails of cosines, which end at 1, differ
    between queries inside and outside the corpus.
    """
    return np.arctanh(np.clip(cosines.astype(np.float64), ROUNDING - 1, 1 - ROUNDING))


def _standardised(scores: NDArray[np.float32], top: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far `scores` (n, k) lie above the background, in units of its spread.

    The background is that of the best scores `top` of each query: its mean and how far its last
    score lies below. Where all are equal nothing stands out.
    """
    background = _nearness(top[:, RANKS[0] - 1 :])
    mean = background.mean(axis=1, keepdims=True)
    spread = mean - background[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        z: NDArray[np.float64] = (_nearness(scores) - mean) / spread
    return np.where(spread > ROUNDING, z, -1.0)
