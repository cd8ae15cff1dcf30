"""Generated vectors with Matryoshka structure, for corpora larger than any data set here.

`easy` and `hard`: a tree of 10, 100, 1,000 classes and 20,000 topics: coarse levels have their
energy in the first dims, fine ones in later dims, and every vector adds noise. The first
8/16/32/64/128 dims hold .61/.71/.79/.84/.88 of the energy of `easy` vectors, and
.24/.33/.43/.54/.64 of `hard` ones.

`spread`: no tree. A vector is mostly a random point of SPREAD_DIMS dims that lie in random
directions, so that each dim holds the same energy; a weak topic and noise are added. Its neighbours
come from many topics and many clusters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mrl_search.search.corpus import Corpus

__all__ = ["DIM", "Kind", "Tree", "blocks_of_rows", "noisy_items", "some_items"]

DIM = 1024
LEVELS = (10, 100, 1_000, 20_000)
BLOCK = 50_000
SPREAD_DIMS, DECAY = 16, 0.2  # standard deviation falls with the number of the dim to this power
TOPIC, NOISE = 0.32, 0.05  # shares of the energy of a `spread` vector


class Kind(StrEnum):
    """Where the energy is: in the first dims, in later ones as well, or even over all."""

    EASY = "easy"
    HARD = "hard"
    SPREAD = "spread"


@dataclass(frozen=True, eq=False)
class Tree:
    """What all vectors of a kind have in common.

    Attributes:
        means: one (nodes, DIM) float32 array a level, coarse to fine.
        noise: (DIM,) float32, standard deviation of a vector's own part.
        share: (topics,) frequency of each topic, a little skewed; adds up to 1.
        offset: (DIM,) float32, added to every vector.
        basis: (SPREAD_DIMS, DIM) float32, directions of a vector's own point; (0, DIM): none.
    """

    means: tuple[NDArray[np.float32], ...]
    noise: NDArray[np.float32]
    share: NDArray[np.float64]
    offset: NDArray[np.float32]
    basis: NDArray[np.float32]

    @classmethod
    def of(cls, kind: Kind) -> "Tree":
        """The tree of a kind; always the same."""
        rng, i = np.random.default_rng(1), np.arange(1, DIM + 1)
        if kind is Kind.SPREAD:
            return cls._spread(rng)
        if kind is Kind.EASY:
            profiles = [
                np.exp(-i / 6),
                np.exp(-i / 20) + 0.02 * i**-0.5,
                i**-0.6 * np.exp(-i / 200) + 0.01,
                i**-0.45,
                i**-0.6,
            ]
            energy = [0.28, 0.20, 0.14, 0.16, 0.22]
        else:
            profiles = [
                np.exp(-i / 16) + 0.03,
                np.exp(-i / 64) + 0.03,
                np.exp(-i / 200) + 0.03,
                i**-0.25,
                i**-0.35,
            ]
            energy = [0.20, 0.16, 0.14, 0.20, 0.30]
        *levels, noise = [
            (p / np.linalg.norm(p) * np.sqrt(e)).astype(np.float32)
            for p, e in zip(profiles, energy, strict=True)
        ]
        means = tuple(
            rng.standard_normal((n, DIM), dtype=np.float32) * p
            for n, p in zip(LEVELS, levels, strict=True)
        )
        share = _shares(rng)
        offset = rng.standard_normal(DIM) * i**-0.3
        return cls(
            means,
            noise,
            share,
            (offset / np.linalg.norm(offset) * 0.25).astype(np.float32),
            np.empty((0, DIM), np.float32),
        )

    @classmethod
    def _spread(cls, rng: np.random.Generator) -> "Tree":
        directions = np.linalg.qr(rng.standard_normal((DIM, SPREAD_DIMS)))[0].T
        own = np.arange(1, SPREAD_DIMS + 1) ** -DECAY
        own *= np.sqrt(1 - TOPIC - NOISE) / np.linalg.norm(own)
        topics = rng.standard_normal((LEVELS[-1], DIM), dtype=np.float32)
        return cls(
            (topics * np.float32(np.sqrt(TOPIC / DIM)),),
            np.full(DIM, np.sqrt(NOISE / DIM), np.float32),
            _shares(rng),
            np.zeros(DIM, np.float32),
            (directions * own[:, None]).astype(np.float32),
        )

    def topics(self, n: int, seed: int) -> NDArray[np.int64]:
        """(n,) topics of the rows of this seed."""
        return np.random.default_rng(seed).choice(LEVELS[-1], size=n, p=self.share)

    def rows(self, n: int, seed: int) -> NDArray[np.float32]:
        """(n, DIM) float32, rows of unit length; queries are rows of another seed."""
        rng = np.random.default_rng(seed)
        topic = rng.choice(LEVELS[-1], size=n, p=self.share)
        x = rng.standard_normal((n, DIM), dtype=np.float32) * self.noise
        x *= np.exp(0.25 * rng.standard_normal((n, 1), dtype=np.float32))
        for mean in self.means:
            x += mean[topic // (LEVELS[-1] // len(mean))]
        x += self.offset
        if len(self.basis):
            x += rng.standard_normal((n, len(self.basis)), dtype=np.float32) @ self.basis
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x


def _shares(rng: np.random.Generator) -> NDArray[np.float64]:
    """(topics,) frequencies, a little skewed, in random order; they add up to 1."""
    share = np.arange(1, LEVELS[-1] + 1) ** -0.4
    rng.shuffle(share)
    return share / share.sum()


def blocks_of_rows(tree: Tree, n: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """`n` rows of `tree` in blocks of at most 50,000, so that ten million need not be in memory."""
    for number, start in enumerate(range(0, n, BLOCK)):
        yield tree.rows(min(BLOCK, n - start), seed + number)


def some_items(corpus: Corpus, count: int) -> NDArray[np.int64]:
    """Rows of `count` items at most, drawn with a fixed seed."""
    return _drawn(corpus, count)[1]


def noisy_items(corpus: Corpus, count: int) -> NDArray[np.float32]:
    """Queries from `some_items`, with noise as strong as the vectors are in each dim."""
    rng, chosen = _drawn(corpus, count)
    rows = corpus.vectors.prefix(corpus.dim, chosen)
    noise = rng.standard_normal(rows.shape).astype(np.float32) * np.abs(rows).mean(axis=0)
    return rows + np.float32(0.2) * noise


def _drawn(corpus: Corpus, count: int) -> tuple[np.random.Generator, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    return rng, rng.choice(len(corpus), min(count, len(corpus)), replace=False)
