"""What each prefix of stored vectors keeps, before and after a PCA rotation: energy and neighbours.

Reranking at full length finds every true neighbour of the shortlist, so recall is the share of
them in the shortlist of the prefix.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.metrics import recall_at_k
from mrl_search.progress import Progress, silent
from mrl_search.search.corpus import Corpus
from mrl_search.search.nearest import Change, row_neighbours
from mrl_search.store.transform import LARGEST, moment_of, principal_axes, rows_to_fit
from mrl_search.vectors import sample

__all__ = ["PrefixCheck", "PrefixShare", "advice", "check_prefixes"]

QUERIES, K, SHORTLIST = 200, 10, 100
GOOD = 0.95  # recall of a good shortlist
GAIN = 0.02  # recall that makes a rotation worth a new build


@dataclass(frozen=True, slots=True)
class PrefixShare:
    """One prefix; shares from 0 to 1, and those after a PCA rotation if vectors allow one."""

    dims: int
    energy: float  # mean share of a vector's squared norm
    recall: float  # share of the true neighbours in the shortlist
    pca_energy: float | None = None
    pca_recall: float | None = None


@dataclass(frozen=True, slots=True)
class PrefixCheck:
    """Every prefix: `queries` rows, their `k` nearest in `corpus`, shortlists of `shortlist`."""

    prefixes: tuple[PrefixShare, ...]
    queries: int
    corpus: int
    k: int
    shortlist: int


def check_prefixes(corpus: Corpus, progress: Progress = silent) -> PrefixCheck:
    """Measure every prefix of `index` and its full length with a seeded sample of its rows.

    A query is not its own neighbour. The rotation is fitted to at most 50,000 rows.
    """
    corpus.check_neighbours()
    live = corpus.live_rows
    rows = live[sample(len(live), QUERIES)]
    k = min(K, len(live) - 1)
    shortlist = max(k, min(SHORTLIST, len(live) // 10))  # of few rows, most would be in it
    truth = row_neighbours(corpus.vectors, rows, k, lambda x: x, live)
    moment = moment_of(corpus.vectors, live[rows_to_fit(len(live))])
    rotation = principal_axes(moment) if corpus.dim <= LARGEST else None
    dims = sorted({*corpus.dims, corpus.dim})

    def recall(change: Change) -> float:
        return recall_at_k(row_neighbours(corpus.vectors, rows, shortlist, change, live), truth)

    def share(d: int) -> PrefixShare:
        energy, plain = _energy(moment, np.eye(corpus.dim)[:d]), recall(lambda x: x[:, :d])
        if rotation is None:
            return PrefixShare(d, energy, plain)
        axes = rotation[:d]
        return PrefixShare(d, energy, plain, _energy(moment, axes), recall(lambda x: x @ axes.T))

    prefixes = []
    for done, d in enumerate(dims, 1):
        prefixes.append(share(d))
        progress("searching", done, len(dims))
    return PrefixCheck(tuple(prefixes), len(rows), len(live), k, shortlist)


def advice(check: PrefixCheck, own_vectors: bool, rotated: bool) -> str:
    """The meaning of the figures in a few sentences."""
    short = check.prefixes[:-1]
    if not short:
        return "There is no shorter prefix: build again with --dims to compare some."
    best = next((p for p in short if p.recall >= GOOD), short[-1])
    turned = next((p for p in short if (p.pca_recall or 0) >= GOOD), best)
    kept = f"{best.dims} dims keep {best.recall:.0%} of the neighbours"
    kept += f" in a shortlist of {check.shortlist}"
    if check.corpus <= 10 * check.shortlist:
        kept += f" (of only {check.corpus - 1:,} others: the shares are flattering)"
    if rotated:
        return f"{kept}. The vectors are rotated already."
    if turned.pca_recall is not None and turned.pca_recall - turned.recall >= GAIN:
        gain = f"After a PCA rotation, {turned.dims} dims would keep {turned.pca_recall:.0%}"
        return f"{kept}. {gain}: build again with --{'rotate' if own_vectors else 'axes'} pca."
    little = "" if turned.pca_recall is None else " A PCA rotation would change little."
    more = "" if best.recall >= GOOD else " Keep more in the shortlist, or index longer prefixes."
    return f"{kept}.{little}{more}"


def _energy(moment: NDArray[np.float64], axes: NDArray[np.floating]) -> float:
    """Share of the energy along some orthonormal `axes` (d, dim)."""
    return float(np.einsum("ij,ij->", axes @ moment, axes) / moment.trace())
