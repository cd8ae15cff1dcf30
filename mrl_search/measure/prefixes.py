"""What each prefix of stored vectors keeps, before and after a PCA rotation: energy and neighbours.

Reranking at full length finds every true neighbour of the shortlist, so recall is the share of
them in the shortlist of the prefix.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.metrics import recall_at_k
from mrl_search.progress import Progress, silent
from mrl_search.search.corpus import Corpus
from mrl_search.search.nearest import Change, row_neighbours
from mrl_search.store.transform import LARGEST, principal_axes, rows_to_fit
from mrl_search.vectors import blocks, sample

__all__ = ["PrefixCheck", "PrefixShare", "advice", "check_prefixes"]

QUERIES, K, SHORTLIST = 200, 10, 100
GOOD = 0.95  # recall of a good shortlist
GAIN = 0.02  # recall that makes a rotation worth a new build


@dataclass(frozen=True, slots=True)
class PrefixShare:
    """One prefix; shares from 0 to 1.

    Attributes:
        dims: length of the prefix.
        energy: mean share of a vector's squared norm.
        recall: share of the true neighbours in the shortlist.
        pca_energy: `energy` after a PCA rotation; None where vectors have too many dims for one.
        pca_recall: `recall` after a PCA rotation, or None.
    """

    dims: int
    energy: float
    recall: float
    pca_energy: float | None
    pca_recall: float | None


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

    Raises:
        DataError: there are fewer than two vectors.
    """
    if len(corpus) < 2:
        hint = "Build an index of at least two."
        raise DataError(f"{corpus.folder} holds one vector, which has no neighbour.", hint)
    rows = sample(len(corpus), QUERIES)
    k, shortlist = min(K, len(corpus) - 1), min(SHORTLIST, len(corpus) - 1)
    truth = row_neighbours(corpus.vectors, rows, k, lambda x: x)
    moment = _moment(corpus)
    rotation = principal_axes(moment) if corpus.dim <= LARGEST else None
    dims = sorted({*corpus.dims, corpus.dim})
    done, total = 0, len(dims) * (1 if rotation is None else 2)

    def recall(change: Change) -> float:
        nonlocal done
        found = row_neighbours(corpus.vectors, rows, shortlist, change)
        done += 1
        progress("searching", done, total)
        return recall_at_k(found, truth)

    def share(d: int) -> PrefixShare:
        plain = recall(lambda x: x[:, :d])
        energy = _energy(moment, np.eye(corpus.dim)[:d])
        if rotation is None:
            return PrefixShare(d, energy, plain, None, None)
        axes = rotation[:d]
        rotated = recall(lambda x: x @ axes.T)
        return PrefixShare(d, energy, plain, _energy(moment, axes), rotated)

    return PrefixCheck(tuple(map(share, dims)), len(rows), len(corpus), k, shortlist)


def advice(check: PrefixCheck, own_vectors: bool, rotated: bool) -> str:
    """The meaning of the figures, in a sentence or two.

    Args:
        check: the figures.
        own_vectors: whether the vectors can be built again with a rotation.
        rotated: whether they are rotated already.
    """
    short = check.prefixes[:-1]
    if not short:
        return "There is no shorter prefix: build again with --dims to compare some."
    best = next((p for p in short if p.recall >= GOOD), short[-1])
    text = f"{best.dims} dims keep {best.recall:.0%} of the neighbours"
    text += f" in a shortlist of {check.shortlist}"
    if check.corpus <= 10 * check.shortlist:
        text += f" (of only {check.corpus - 1:,} others: the shares are flattering)"
    if rotated:
        return f"{text}. The vectors are rotated already."
    turned = next((p for p in short if (p.pca_recall or 0) >= GOOD), None) or best
    if turned.pca_recall is None or turned.pca_recall - turned.recall < GAIN:
        text += "." if turned.pca_recall is None else ". A PCA rotation would change little."
        longer = " Keep more in the shortlist, or index longer prefixes."
        return text if best.recall >= GOOD else text + longer
    if turned is best:
        text += f"; PCA would make it {turned.pca_recall:.0%}"
    else:
        text += f"; after PCA {turned.dims} dims would keep {turned.pca_recall:.0%}"
    if own_vectors:
        return f"{text}: build again with --rotate pca."
    return f"{text}, but only vectors of your own can be rotated."


def _energy(moment: NDArray[np.float64], axes: NDArray[np.floating]) -> float:
    """Share of the energy along some orthonormal `axes` (d, dim)."""
    return float(np.einsum("ij,ij->", axes @ moment, axes) / moment.trace())


def _moment(corpus: Corpus) -> NDArray[np.float64]:
    """Sum of the outer products of stored rows with themselves, (dim, dim)."""
    moment = np.zeros((corpus.dim, corpus.dim))
    chosen = rows_to_fit(len(corpus))
    for some in blocks(len(chosen), corpus.dim):
        unit = corpus.vectors.prefix(corpus.dim, chosen[some]).astype(np.float64)
        moment += unit.T @ unit
    return moment
