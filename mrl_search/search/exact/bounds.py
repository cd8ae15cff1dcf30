"""Bounds on a full-length cosine of which only a prefix was read.

Of unit vectors q and x, cut after d dims, the inner product of the heads is a·b·c (their norms and
their cosine); that of the tails is at most the product of their norms s·r (Cauchy-Schwarz). So the
cosine is at most a·b·c + s·r. FAISS prunes with the same bound (Panorama, arXiv 2510.00566).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.search.exact.sieve import Sieve
from mrl_search.vectors import prefix, suffix_norms

__all__ = ["DOUBT", "SLACK", "Bounds"]

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
