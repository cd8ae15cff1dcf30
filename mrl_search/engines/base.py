"""What every kind of prefix index is: a search, and the traits that others ask for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError
from mrl_search.store.rows import Ids

if TYPE_CHECKING:
    from mrl_search.engines.lists import CodeLists

__all__ = ["KNOWN", "Found", "Mask", "PrefixIndex", "Visits", "chosen", "explained", "padded"]

KNOWN = "For example Flat, SQ8, HNSW32 or IVF256,SQ8."

Found = tuple[NDArray[np.float32], Ids]  # scores and ids, each (n, k)
Visits = tuple[int, int, float]
"""Which clusters a query visits: the number of the anchor, from 1; how many at most; and up to
which squared distance, as a ratio to that of the anchor."""


@contextmanager
def explained(message: str, hint: str) -> Iterator[None]:
    """Turn an exception of FAISS into a ConfigError with its last words."""
    try:
        yield
    except RuntimeError as error:
        raise refusal(message, hint, error) from error


def refusal(message: str, hint: str, error: RuntimeError) -> ConfigError:
    """A ConfigError with the last words of an exception of FAISS."""
    reason = str(error).rpartition(": ")[2].strip()  # after C++ signatures and paths
    return ConfigError(f"{message}: {reason}.", hint)


def padded(found: Found, k: int) -> Found:
    """`found` with `k` columns: the missing ones have id -1 and score -inf."""
    scores, ids = found
    wider = ((0, 0), (0, k - ids.shape[1]))
    return np.pad(scores, wider, constant_values=-np.inf), np.pad(ids, wider, constant_values=-1)


def chosen(found: Found, good: NDArray[np.bool_], k: int) -> Found:
    """The first `k` of each query that are `good`, (n, m); what is missing has id -1."""
    order = np.argsort(~good, axis=1, kind="stable")[:, :k]
    kept, scores, ids = (np.take_along_axis(a, order, axis=1) for a in (good, *found))
    return np.where(kept, scores, np.float32(-np.inf)), np.where(kept, ids, -1)


class Mask:
    """Which rows may be answers, (n,) bool: how deleted rows and filters reach an index.

    `conditions` are those that the allowed rows, and no other living ones, meet; None: not known.
    """

    def __init__(
        self, allowed: NDArray[np.bool_], conditions: tuple[str, ...] | None = None
    ) -> None:
        self.allowed, self.conditions = allowed, conditions
        self.cache: dict[Any, Any] = {}  # of search parameters that an index made from this mask

    def __len__(self) -> int:
        return len(self.allowed)

    @cached_property
    def ids(self) -> Ids:
        """The allowed rows, ascending."""
        return np.flatnonzero(self.allowed)

    @cached_property
    def count(self) -> int:
        """Number of allowed rows."""
        return int(np.count_nonzero(self.allowed))

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """One bit a row, the lowest first."""
        return np.packbits(self.allowed, bitorder="little")


class PrefixIndex(ABC):
    """An index of one prefix length; row i of the corpus has id i. Safe for concurrent searches.

    Attributes:
        dims: prefix length.
        count: number of rows.
        kind: factory string, or a word of `IndexSpec`.
        exact: whether a search finds the true nearest, up to float32 rounding of scores.
        filters: whether `search` takes a mask.
        efforts: efforts worth trying, ascending; empty where the index takes none.
        remote: whether another engine has the rows.
        rescores: whether it scores candidates, too (`rescore`); else the rows of the folder do.
        widens: whether a larger k makes an approximate search look at more.
        ram_bytes: bytes that searching keeps in memory.
        lists: what compiled code searches, where it can search this index.
        check: raises an error if a mapped file was cut short; called before every search.
    """

    exact = False
    filters = True
    remote = False
    rescores = False
    widens = False
    efforts: tuple[int, ...] = ()
    lists: "CodeLists | None" = None
    check: Callable[[], None] | None = None

    def __init__(self, dims: int, count: int, kind: str, ram_bytes: int) -> None:
        self.dims, self.count, self.kind, self.ram_bytes = dims, count, kind, ram_bytes

    def search(
        self, x: NDArray[np.float32], k: int, effort: int = 0, mask: Mask | None = None
    ) -> Found:
        """The best `k` rows by inner product, in the index's own order.

        Args:
            x: (n, dims) float32 queries of unit norm.
            k: answers wanted; a row with fewer ends with id -1 and score -inf.
            effort: how much an approximate index looks at: clusters to visit on average (nprobe),
                or candidates to hold (efSearch). 0: the default of the kind.
            mask: the rows that may be answers; default: all.

        Raises:
            ConfigError: FAISS refuses the search.
            IndexFolderError: the file of the index was cut short while it was open.
        """
        if self.check is not None:
            self.check()
        try:
            return self._search(x, k, effort, mask)
        except RuntimeError as error:
            message = f"FAISS cannot search the index {self.kind!r} of {self.dims} dims"
            raise refusal(message, KNOWN, error) from error

    @abstractmethod
    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        """As `search`; FAISS may raise RuntimeError."""

    def rescore(self, x: NDArray[np.float32], rows: Ids, keep: int) -> Found:
        """The best `keep` of the candidates (n, m) of each query (n, dims), where it is remote."""
        raise NotImplementedError

    def visits(self, effort: int, mask: Mask | None) -> Visits:
        """The clusters that a query visits, for `lists`."""
        raise NotImplementedError

    def cost(self, effort: int = 0, mask: Mask | None = None) -> float | None:
        """Vectors that one query is compared with; None where that is unknown."""
        return float(self.count)
