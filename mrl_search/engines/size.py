"""How large the index is that `auto` builds for a prefix of a large corpus, before it is built."""

import re
from dataclasses import dataclass
from typing import Self

from mrl_search.engines.spec import CODED_FROM, CODED_UP_TO, FLAT_UP_TO, SCAN, IndexSpec

__all__ = ["Clusters"]

ID = 8  # bytes
BLOCK = 32  # codes that are stored together; the last block of a cluster is half empty on average
LINKS = 150  # bytes of a centroid in a graph


@dataclass(frozen=True, slots=True)
class Clusters:
    """The clusters of one prefix.

    Attributes:
        lists: how many there are.
        nbytes: of the file, and in memory.
    """

    lists: int
    nbytes: int

    @classmethod
    def of(cls, dims: int, count: int) -> Self:
        """Of `count` vectors, more than `FLAT_UP_TO`; without clusters, nothing.

        Example:
            >>> Clusters.of(64, 1_000_000)
            Clusters(lists=2048, nbytes=41589248)
        """
        assert count > FLAT_UP_TO
        kind = IndexSpec().factory_of(dims, count)
        if kind == SCAN:
            return cls(0, 0)
        match = re.search(r"IVF(\d+)", kind)
        assert match is not None
        lists, coded = int(match[1]), CODED_FROM <= dims <= CODED_UP_TO
        code = dims // 2 if coded else dims
        padding = lists * BLOCK // 2 * code if coded else 0
        rotation = 4 * dims * dims if coded else 0
        links = LINKS * lists if "HNSW" in kind else 0
        centroids = 4 * dims * lists
        return cls(lists, count * (code + ID) + padding + centroids + rotation + links)
