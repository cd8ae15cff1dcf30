"""Which prefix indexes to build, and of which kind."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from mrl_search.engines.milvus_client import Place
from mrl_search.errors import require
from mrl_search.vectors import check_dims

__all__ = ["CLUSTERED_FROM", "EXACT", "FLAT_UP_TO", "PANORAMA", "SCAN", "Clusters", "IndexSpec"]

SCAN, PANORAMA = "Scan", "Panorama"  # kinds that no FAISS factory string names
EXACT = ("Flat", PANORAMA, SCAN)  # kinds that find the true nearest of their prefix
FLAT_UP_TO = 50_000  # vectors
CLUSTERED_FROM = 10_000  # vectors from which clusters pay, and the sieve of exact search
CODED_FROM, CODED_UP_TO = 32, 128  # dims whose clusters hold 4-bit codes
PANORAMA_FROM = 5_000  # vectors and dims from which pruning pays
PANORAMA_DIMS = 512
GRAPH_FROM = 16_384  # clusters from which a graph finds the nearest faster than comparing with all
ID = 8  # bytes
BLOCK = 32  # codes that are stored together; the last block of a cluster is half empty on average
LINKS = 150  # bytes of a centroid in a graph


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """Which indexes to build over the stored vectors.

    A kind is a FAISS factory string for the inner product of unit prefixes (`Flat`, `SQ8`,
    `HNSW16,SQ8`, `RR128,IVF4096,PQ128x4fsr`), or a word:

    - `Scan`: no index; the stored vectors are compared one after another.
    - `Panorama`: exact search that skips the rest of a vector when a prefix rules it out
      (Panorama, arXiv 2510.00566).
    - `auto`: by the size of the corpus. From 10,000 vectors on, compressed clusters for 32 to 128
      dims. Others are `Flat` up to 50,000 vectors, with `Panorama` for 512 dims or more of at least
      5,000 vectors; beyond, clusters up to 128 dims, and `Scan`.

    Attributes:
        dims: prefix lengths that can begin a plan, ascending; default: all of the model, or
            8, 16, 32, … for vectors.
        factory: kind for every prefix.
        factories: kinds for single prefixes, by their length.
        dtype: of the stored vectors, `float16` or `float32`.
        engine: where the rows are searched, as `milvus:URI#NAME`, whose file becomes absolute;
            empty: here, by FAISS.

    Example:
        >>> spec = IndexSpec(dims=(8, 64, 1024), factories={"64": "HNSW16,SQ8"})
        >>> [spec.factory_of(d, count=1_000) for d in spec.dims]
        ['Flat', 'HNSW16,SQ8', 'Flat']
    """

    dims: tuple[int, ...] = ()
    factory: str = "auto"
    factories: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float16"
    engine: str = ""

    def __post_init__(self) -> None:
        known = self.dtype in ("float16", "float32")
        require(known, f"dtype is {self.dtype!r}; it must be float16 or float32.")
        if self.engine:
            object.__setattr__(self, "engine", str(Place.parse(self.engine)))

    def over(self, default: tuple[int, ...]) -> "IndexSpec":
        """The same spec with its dims, or the `default` ones, and always the last of these."""
        full = default[-1]
        dims = check_dims({*(self.dims or default), full}, full)
        lost = sorted(set(self.factories) - set(map(str, dims)))
        message = f"--factory names {', '.join(lost)} dims, which get no index."
        require(not lost, message, f"Dims: {', '.join(map(str, dims))}.")
        return replace(self, dims=dims)

    def factory_of(self, dims: int, count: int) -> str:
        """The kind of index for one prefix of a corpus of `count` vectors."""
        chosen = self.factories.get(str(dims), self.factory)
        if self.engine:
            from mrl_search.engines.milvus import milvus_kind

            return milvus_kind(chosen, count, dims == max(self.dims))
        if chosen != "auto":
            return chosen
        coded = CODED_FROM <= dims <= CODED_UP_TO
        if count <= FLAT_UP_TO and not (coded and count >= CLUSTERED_FROM):
            return PANORAMA if dims >= PANORAMA_DIMS and count >= PANORAMA_FROM else "Flat"
        if dims > CODED_UP_TO:
            return SCAN
        lists = 1 << round(math.log2(2 * math.sqrt(count)))  # as measured: codes are read fast
        clusters = f"IVF{lists}" if lists < GRAPH_FROM else f"IVF{lists}_HNSW16"
        return f"RR{dims},{clusters},PQ{dims}x4fsr" if coded else f"{clusters},SQ8"


@dataclass(frozen=True, slots=True)
class Clusters:
    """How large the clusters are that `auto` builds for a prefix of a large corpus.

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
