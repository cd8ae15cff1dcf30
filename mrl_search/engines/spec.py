"""Which prefix indexes to build, and of which kind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from mrl_search.errors import require
from mrl_search.vectors import DIMS

__all__ = ["IndexSpec"]

SCAN, FLAT_UP_TO, LONGEST_CODED = "Scan", 50_000, 128
GRAPH_FROM = (
    16_384  # clusters from which on a graph finds the nearest faster than comparing with all
)


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """Which indexes to build over the stored vectors.

    A factory string is FAISS's, for the inner product of unit prefixes (`Flat`, `SQ8`, `HNSW16,SQ8`, `RR128,IVF4096,PQ128x4fsr`), or
    `Scan`: no index of its own, the stored vectors are compared one after another. `auto` chooses by the size of the corpus: `Flat` up
    to 50,000 vectors; above that clusters of compressed prefixes up to 128 dims, and `Scan` for longer ones, whose indexes would take
    more memory and time to build than they save.

    Attributes:
        dims: prefix lengths that can begin a plan, ascending.
        factory: for every prefix, `auto` or a factory string.
        factories: factory strings for single prefixes, by their length.
        dtype: how the full-length vectors are stored, `float16` or `float32`.
    """

    dims: tuple[int, ...] = DIMS
    factory: str = "auto"
    factories: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float16"

    def __post_init__(self) -> None:
        known = self.dtype in ("float16", "float32")
        require(
            known,
            f"Vectors are stored as float16 or float32, not {self.dtype!r}.",
            "float16 is enough for nearly all.",
        )
        lost = sorted(set(self.factories) - set(map(str, self.dims)))
        require(
            not lost,
            f"A factory is given for {', '.join(lost)} dims, which get no index.",
            f"Dims: {', '.join(map(str, self.dims))}.",
        )

    def factory_of(self, dims: int, count: int) -> str:
        """The factory string of one prefix in a corpus of `count` vectors."""
        chosen = self.factories.get(str(dims), self.factory)
        if chosen != "auto":
            return chosen
        if count <= FLAT_UP_TO:
            return "Flat"
        if dims > LONGEST_CODED:
            return SCAN
        lists = 1 << round(
            math.log2(4 * math.sqrt(count))
        )  # about 4·√n clusters: FAISS's guideline for inverted files
        clusters = f"IVF{lists}" if lists < GRAPH_FROM else f"IVF{lists}_HNSW16"
        return f"RR{dims},{clusters},PQ{dims}x4fsr" if dims >= 32 else f"{clusters},SQ8"
