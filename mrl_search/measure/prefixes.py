"""What each prefix of stored vectors keeps, as they are and after a PCA rotation: energy, and neighbours through a shortlist.

Re-ranking at full length finds every true neighbour that is in the shortlist, so recall is the share of them that is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.measure.neighbours import changed, drawn, neighbours
from mrl_search.metrics import recall_at_k
from mrl_search.store.rows import blocks
from mrl_search.store.transform import LARGEST, principal_axes, rotate, rows_to_fit

__all__ = ["PrefixCheck", "PrefixShare", "advice", "check_prefixes"]

K, SHORTLIST = 10, 100
GOOD = 0.95  # recall at which a shortlist is called good
GAIN = 0.02  # recall that a rotation must add to be worth a new build


@dataclass(frozen=True, slots=True)
class PrefixShare:
    """One prefix: shares between 0 and 1. The last two are of the vectors after a PCA rotation; None where that is not to be had.

    Attributes:
        dims: prefix length.
        energy: mean share of a vector's squared length.
        recall: of the true neighbours, the share in the shortlist of the prefix.
        pca_energy: as `energy`.
        pca_recall: as `recall`.
    """

    dims: int
    energy: float
    recall: float
    pca_energy: float | None
    pca_recall: float | None


@dataclass(frozen=True, slots=True)
class PrefixCheck:
    """What every prefix keeps: `queries` rows asked for their `k` nearest among `corpus`, through a shortlist of `shortlist`."""

    prefixes: tuple[PrefixShare, ...]
    queries: int
    corpus: int
    k: int
    shortlist: int


def check_prefixes(
    index: Index, progress: Callable[[str, int, int], None] | None = None
) -> PrefixCheck:
    """Measure every prefix of `index` and its full length; rows drawn with a fixed seed are the queries, each left out of its answer.

    The rotation is fitted on at most 50,000 rows of the index.

    Raises:
        DataError: there are fewer than two vectors.
    """
    rows = drawn(index)
    moment = _moment(index)
    energy = moment.diagonal().cumsum() / moment.trace()
    dims = sorted({*index.dims, index.dim})
    fits = index.dim <= LARGEST
    done, total = 0, len(dims) * (2 if fits else 1)

    def tell() -> None:
        nonlocal done
        done += 1
        if progress:
            progress("searching", done, total)

    queries = index.embeddings.vectors[rows].astype(np.float32)
    k, shortlist = min(K, len(index) - 1), min(SHORTLIST, len(index) - 1)
    truth = neighbours(index, rows, queries, k)

    def recall(where: Index, asked: NDArray[np.float32], d: int) -> float:
        share = recall_at_k(neighbours(where, rows, asked, shortlist, d), truth)
        tell()
        return share

    plain = {d: recall(index, queries, d) for d in dims}
    pca: dict[int, float] = {}
    pca_energy = energy
    if fits:
        rotation = principal_axes(moment)
        pca_energy = np.einsum("ij,ij->i", rotation @ moment, rotation).cumsum() / moment.trace()
        rotated = changed(index, lambda x, d: rotate(x, rotation[:d]))
        asked = rotate(queries, rotation)
        pca = {d: recall(rotated, asked, d) for d in dims}
    shares = [
        PrefixShare(
            d,
            float(energy[d - 1]),
            plain[d],
            float(pca_energy[d - 1]) if fits else None,
            pca.get(d),
        )
        for d in dims
    ]
    return PrefixCheck(tuple(shares), len(rows), len(index), k, shortlist)


def advice(check: PrefixCheck, own_vectors: bool, rotated: bool) -> str:
    """What the figures mean, in a sentence or two.

    Args:
        check: the figures.
        own_vectors: whether the vectors can be built again with a rotation.
        rotated: whether they are rotated already.
    """
    short = check.prefixes[:-1]
    if not short:
        return "There is no shorter prefix: build again with --dims to compare some."
    best = next((p for p in short if p.recall >= GOOD), short[-1])
    said = f"{best.dims} dims keep {best.recall:.0%} of the neighbours in a shortlist of {check.shortlist}"
    if check.corpus <= 10 * check.shortlist:
        said += f" (of only {check.corpus - 1:,} others: the shares are flattering)"
    if rotated:
        return f"{said}. The vectors are rotated already."
    turned = next((p for p in short if (p.pca_recall or 0) >= GOOD), None) or best
    gain = (turned.pca_recall or 0) - turned.recall
    if gain < GAIN:
        more = (
            "" if best.recall >= GOOD else " Keep more in the shortlist, or index longer prefixes."
        )
        return (
            f"{said}."
            + (" A PCA rotation would change little." if turned.pca_recall is not None else "")
            + more
        )
    would = (
        f"PCA would make it {turned.pca_recall:.0%}"
        if turned is best
        else f"after PCA {turned.dims} dims would keep {turned.pca_recall:.0%}"
    )
    return f"{said}; {would}" + (
        ": build again with --rotate pca."
        if own_vectors
        else ", but only vectors of your own can be rotated."
    )


def _moment(index: Index) -> NDArray[np.float64]:
    """The sum of the outer products of stored rows with themselves: (dim, dim), of the rows that a rotation is fitted on."""
    moment = np.zeros((index.dim, index.dim))
    chosen = rows_to_fit(len(index))
    for some in blocks(len(chosen), index.dim):
        unit = index.embeddings.prefix(index.dim, chosen[some]).astype(np.float64)
        moment += unit.T @ unit
    return moment
