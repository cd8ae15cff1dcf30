"""One way to ask: what the command line, the page, Python, `bench` and `tune` all build."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from mrl_search.errors import require
from mrl_search.search.plan import Plan
from mrl_search.store.rows import Ids

__all__ = ["SearchRequest"]


@dataclass(frozen=True, eq=False, slots=True)
class SearchRequest:
    """A search without its queries.

    Attributes:
        plan: how to search.
        k: answers wanted.
        where: conditions on columns, such as `label=cat` or `width>=200`; all must hold.
        ids: rows that may be answers; default: all.
        cutoff: smallest score of an answer; default: none.
        explain: whether to add rank and score of each answer at every prefix.
        not_itself: whether to leave out items with the content of the query.

    Raises:
        ConfigError: k below 1, or a cutoff that is not a cosine.

    Example:
        >>> SearchRequest(Plan.parse("64:200,1024"), k=5, where=["label=cat"]).k
        5
    """

    plan: Plan = Plan.AUTO
    k: int = 10
    where: Sequence[str] = ()
    ids: Ids | None = None
    cutoff: float | None = None
    explain: bool = False
    not_itself: bool = False

    @classmethod
    def of(
        cls, plan: Plan | str | int, k: int, where: str | Sequence[str] = (),
        ids: Ids | None = None, cutoff: float | None = None, explain: bool = False,
        not_itself: bool = False,
    ) -> Self:  # fmt: skip
        """A request from a plan in any form (see `Plan.of`), and one condition or several."""
        conditions = (where,) if isinstance(where, str) else tuple(where)
        return cls(Plan.of(plan), k, conditions, ids, cutoff, explain, not_itself)

    def __post_init__(self) -> None:
        whole = isinstance(self.k, int | np.integer) and not isinstance(self.k, bool)
        require(whole and self.k >= 1, f"k is {self.k!r}; it must be a whole number of at least 1.")
        object.__setattr__(self, "k", int(self.k))
        fits = self.cutoff is None or -1 <= self.cutoff <= 1
        require(fits, f"The cutoff is {self.cutoff}; it must be a cosine from -1 to 1.")
