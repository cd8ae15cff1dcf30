"""What a contest compares: one small protocol, and what every contestant shares.

A contestant is built in a process of its own, which writes a folder, and searches in others, which
open it. A first pass may see fewer dims: the first ones, or the first principal axes.
"""

import importlib.metadata
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from work import K, Rows, Work

__all__ = ["ALL", "KEEP", "Choice", "Contestant", "Ladder", "Setting", "View", "rising"]

Ids = NDArray[np.int64]
Setting = dict[str, int | str]
Choice = dict[str, object]  # target, setting, tuning_recall; or setting None and a reason


def rising(first: int, last: int, times: float = 1.1) -> tuple[int, ...]:
    """Whole numbers from `first` to `last`, each about `times` the one before."""
    steps = int(np.log(max(last, first) / first) / np.log(times)) + 1
    values = {round(first * times**i) for i in range(steps)} | {max(last, first)}
    return tuple(sorted(values))


KEEP = rising(K, 2000)  # lengths of shortlists


@dataclass(frozen=True)
class Ladder:
    """Settings that differ in one effort: recall rises along its `values`.

    Ladders that are harder than one another (`Contestant.harder`) are of one `group`.
    """

    fixed: Setting
    name: str
    values: tuple[int, ...]
    group: int = 0

    def at(self, rung: int) -> Setting:
        return {**self.fixed, self.name: self.values[rung]}


@dataclass(frozen=True)
class View:
    """What a first pass sees: the first `dims`, or principal axes if `turned`; unit length."""

    dims: int | None = None
    turned: bool = False

    def __str__(self) -> str:
        return "all dims" if self.dims is None else f"{self.dims} {'PCA ' * self.turned}dims"

    def matrix(self, work: Work) -> Rows | None:
        """(dims, dim) axes of a turned view, to be kept by whoever opens a contestant."""
        return work.axes(self.dims) if self.turned and self.dims else None

    def of(self, rows: Rows, matrix: Rows | None) -> Rows:
        """(n, dims) float32 of unit length."""
        if self.dims is None:
            return np.ascontiguousarray(rows, dtype=np.float32)
        part = rows[:, : self.dims] if matrix is None else rows @ matrix.T
        return part / np.sqrt(np.einsum("ij,ij->i", part, part))[:, None]


ALL = View()


class Contestant(ABC):
    """One way to search.

    Attributes:
        name: of the contestant.
        packages: distributions that must be installed.
        effort: what was spent on building, in words.
        coarse_bytes: of what the first pass reads; known once open, as are the next two.
        rows_bytes: of whole rows kept in memory beside that.
        mapped_bytes: of whole rows in a mapped file.
    """

    name: str
    packages: tuple[str, ...] = ("faiss-cpu",)
    exact = False
    harder = False  # whether each ladder looks harder than the one before
    effort = ""
    coarse_bytes = rows_bytes = mapped_bytes = 0
    _threads = 1

    @property
    def missing(self) -> str:
        """Packages that are not installed."""
        return ", ".join(p for p in self.packages if not installed(p))

    @abstractmethod
    def build(self, work: Work, folder: Path, cores: int) -> None:
        """Write what `open` needs into the empty `folder`."""

    @abstractmethod
    def open(self, work: Work, folder: Path) -> None:
        """Load what was built."""

    @abstractmethod
    def ladders(self, n: int) -> list[Ladder]:
        """Settings to try on `n` rows; of an exact contestant, none."""

    @abstractmethod
    def use(self, setting: Setting) -> None:
        """Search with this setting from now on; nothing of it is left to a query."""

    @abstractmethod
    def search(self, queries: Rows) -> Ids:
        """(n, dim) queries of unit length to (n, K) rows."""

    def use_threads(self, count: int) -> None:
        """Search with `count` threads from now on; it is open."""
        self._threads = count
        faiss.omp_set_num_threads(count)
        threadpool_limits(count)

    def choose(self, work: Work, targets: list[float]) -> list[Choice] | None:
        """Settings of its own tuner, as `sweep.choose` gives them; None: sweep the ladders."""
        return None


def installed(package: str) -> str:
    """Version of an installed distribution, or nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def lists_for(n: int) -> int:
    """Clusters for `n` rows: about 4·√n, FAISS's guideline, a power of two."""
    return 1 << round(float(np.log2(4 * np.sqrt(n))))


def blocks_of(n: int, size: int = 50_000) -> list[slice]:
    """Slices of at most `size` rows, so that a mapped file need not be in memory at once."""
    return [slice(a, b) for a, b in pairwise([*range(0, n, size), n])]


def bytes_in(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
