"""The first stage of a plan: what the index of its prefix proposes."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex
from mrl_search.engines.kernels import best
from mrl_search.engines.scan import scan
from mrl_search.engines.spec import SCAN
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Stage
from mrl_search.search.scoring import rescore
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks, prefix

__all__ = ["CANDIDATE", "candidates", "propose", "rescored", "scans", "shortlist"]

CANDIDATE = 4  # float32 values that one candidate takes while it is ranked
MARGIN = 8  # candidates that an index is asked for beyond those a stage keeps
TIE = 1e-6  # scores closer than float32 summation error count as ties
WIDEST = 1 << 16  # candidates; a longer tie is cut where the index cut it
READ = 32.0  # comparisons in an index that take as long as scoring one row from the store


def rescored(corpus: Corpus, queries: NDArray[np.float32], ids: Ids, dims: int, keep: int) -> Found:
    """The best `keep` of the candidates `ids` (n, m) of each query.

    A server of Milvus scores by the prefixes that it has; by others, the rows of the folder do.
    """
    if corpus.manifest.engine and dims in corpus.dims:
        index = corpus.prefix_index(dims)
        if index.rescores:
            return index.rescore(prefix(queries, dims), ids, keep)
    return rescore(corpus.vectors, queries, ids, dims, keep)


def scans(index: PrefixIndex, stage: Stage, mask: Mask | None) -> bool:
    """Whether to score all allowed rows rather than ask the index.

    An exact index elsewhere is asked: that it has lost rows must be seen.
    """
    if mask is None or (index.remote and (index.rescores or index.exact)):
        return index.kind == SCAN
    cost = index.cost(stage.effort, mask) or index.count
    return index.kind == SCAN or not index.filters or mask.count * READ < cost


def propose(
    corpus: Corpus, index: PrefixIndex, queries: NDArray[np.float32], stage: Stage, keep: int,
    mask: Mask | None, margin: int = MARGIN,
) -> Found:  # fmt: skip
    """The best `keep` of what the index finds, scored.

    Where the cut of an exact index falls among ties, it is asked again for four times as many.
    """
    unit, count = prefix(queries, stage.dims), len(corpus) if mask is None else mask.count
    if scans(index, stage, mask):
        return scan(corpus.vectors, unit, keep, None if mask is None else mask.ids)
    wide = min(keep + margin, count)
    coarse, ids = index.search(unit, wide, stage.effort, mask)
    if index.remote:
        return best(coarse, ids, keep)
    found = rescore(corpus.vectors, queries, ids, stage.dims, keep)
    if index.exact and keep < wide < min(count, WIDEST):
        ties = np.flatnonzero(coarse[:, keep - 1] - coarse[:, -1] <= TIE)
        for some in blocks(len(ties), 4 * CANDIDATE * wide):
            rows, more = ties[some], 4 * wide - keep
            wider = propose(corpus, index, queries[rows], stage, keep, mask, more)
            found[0][rows], found[1][rows] = wider
    return found


def candidates(
    corpus: Corpus, index: PrefixIndex, unit: NDArray[np.float32], depth: int, effort: int
) -> Found:
    """The best `depth` that an index proposes for prefixes `unit` (n, dims), in its own order.

    What an exact index elsewhere finds, a scan of the folder finds, too, and sooner.
    """
    if index.remote and index.exact:
        return scan(corpus.vectors, unit, depth, None if corpus.alive is None else corpus.alive.ids)
    return index.search(unit, depth, effort, corpus.alive)


def shortlist(
    corpus: Corpus, queries: NDArray[np.float32], stage: Stage, keep: int, mask: Mask | None
) -> Ids:
    """Candidates (n, keep) of a first stage, in no order: the index makes the cut.

    Where an exact index cannot order the scores at its cut, the candidates are scored; an
    approximate one decides itself.
    """
    index, count = corpus.prefix_index(stage.dims), len(corpus) if mask is None else mask.count
    if keep >= count or scans(index, stage, mask):
        return propose(corpus, index, queries, stage, keep, mask)[1]
    wide = min(keep + MARGIN, count)
    coarse, ids = index.search(prefix(queries, stage.dims), wide, stage.effort, mask)
    if not index.exact or index.remote:
        return best(coarse, ids, keep, nearly=True)[1]
    ties = np.flatnonzero(coarse[:, keep - 1] <= coarse[:, keep] + TIE)
    if len(ties):
        ids[ties, :keep] = propose(corpus, index, queries[ties], stage, keep, mask)[1]
    return ids[:, :keep]
