"""What a prefix proves about the whole: bounds on a full-length cosine of which only the first numbers were read.

Of unit vectors q and x, cut after d numbers, the inner product of the heads is a·b·c (their lengths and their cosine), and that of the
tails is at most the product of their lengths s·r (Cauchy-Schwarz). So the cosine lies within a·b·c ± s·r. FAISS prunes exact search
with the same bound (IndexFlatIPPanorama; Panorama, arXiv 2510.00566).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.vectors import prefix, suffix_norms

__all__ = ["DOUBT", "SLACK", "Bounds"]

SLACK = np.float32(4e-6)  # more than the roundings of two float32 cosines and a norm can come to
DOUBT = 4e-7  # and more than the square of a float32 norm is wrong by


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds on the cosines of some queries, of which the first `dims` numbers were read.

    Attributes:
        head: (n, 1) float32, length of each query's first `dims` numbers when the whole has unit length.
        tail: (n, 1) float32, length of the rest.
        norms: (corpus,) float32, length of the rest of each stored vector.
    """

    head: NDArray[np.float32]
    tail: NDArray[np.float32]
    norms: NDArray[np.float32]

    @classmethod
    def of(cls, index: Index, queries: NDArray[np.float32], dims: int) -> "Bounds":
        """For the prefix of `dims` numbers; an index has them at its own dims, and at full length, where nothing is left out.

        Raises:
            ConfigError: at other dims.
        """
        unit = prefix(queries, index.dim)
        tail = suffix_norms(unit, (dims,))[0][:, None]
        if dims < index.dim:
            index.check_dims(dims)  # of others no lengths are stored
        norms = (
            index.sieve.norms_at(dims)
            if dims < index.dim
            else np.zeros(len(index), dtype=np.float32)
        )
        return cls(np.linalg.norm(unit[:, :dims], axis=1, keepdims=True), tail, norms)

    def upper(
        self, cosines: NDArray[np.float32], norms: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The most that vectors with these `cosines` (n, m) at the prefix and tails of these `norms` (m,) or (n, m) can score."""
        return self._heads(cosines, norms, np.float32(DOUBT)) + self.tail * norms

    def lower(
        self, cosines: NDArray[np.float32], norms: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The least that they can score."""
        return self._heads(cosines, norms, np.float32(-DOUBT)) - self.tail * norms

    def beyond(self, cut: NDArray[np.float32]) -> NDArray[np.float32]:
        """The most that any vector can score whose cosine at the prefix is at most `cut` (n, 1): (n, 1) float32.

        As the tail of the vector grows, a·b·c + s·r rises and then falls: it is the cosine of two angles, highest where they meet.
        """
        low, high = (
            float(self.norms.min()) * (1 - DOUBT / 2),
            float(self.norms.max()) * (1 + DOUBT / 2),
        )
        low, high = np.arcsin(min(1.0, low)), np.arcsin(min(1.0, high))
        angle = np.clip(np.arctan2(self.tail, self.head * cut), low, high)
        highest: NDArray[np.float32] = (
            self.head * cut * np.cos(angle) + self.tail * np.sin(angle)
        ).astype(np.float32)
        return highest

    def _heads(
        self, cosines: NDArray[np.float32], norms: NDArray[np.float32], doubt: np.float32
    ) -> NDArray[np.float32]:
        """a·b·c with b² = 1 - r², which is as uncertain as r is: `doubt` moves it to the side that is asked for."""
        signed = np.where(cosines < 0, -doubt, doubt)
        heads: NDArray[np.float32] = (
            self.head * np.sqrt(np.maximum(1 - norms * norms + signed, 0)) * cosines
        )
        return heads
