"""One way to ask: what the command line, the page, Python, `bench` and `tune` all build."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np

from mrl_search.errors import ConfigError, require
from mrl_search.search.plan import Plan
from mrl_search.store.rows import Ids

__all__ = ["Cutoff", "SearchRequest", "conditions_of"]

Cutoff: TypeAlias = float | Literal["auto"] | None
"""The smallest cosine of an answer, or what unrelated items hardly reach; None: no cut-off."""


@dataclass(frozen=True, eq=False, slots=True)
class SearchRequest:
    """A search without its queries.

    Attributes:
        plan: how to search.
        k: answers wanted.
        where: conditions on columns, such as `label=cat` or `width>=200`; all must hold.
        ids: rows that may be answers; default: all.
        cutoff: smallest score of an answer; `auto`: the score that a hundredth of an unrelated item
            is expected to reach (see `chance`); default: none.
        explain: whether to add rank and score of each answer at every prefix.
        not_itself: whether to leave out items with the content of the query.
        expected: whether to add how many unrelated items would score as high as each answer;
            `auto` adds it, too. Under 1,000 items it is left out.

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
    cutoff: Cutoff = None
    explain: bool = False
    not_itself: bool = False
    expected: bool = False

    @classmethod
    def of(
        cls, plan: Plan | str | int, k: int, where: str | Sequence[str] = (),
        ids: Ids | None = None, cutoff: Cutoff = None,
        explain: bool = False, not_itself: bool = False, expected: bool = False,
    ) -> Self:  # fmt: skip
        """A request from a plan in any form (see `Plan.of`), and one condition or several."""
        of_all = (ids, cutoff, explain, not_itself, expected)
        return cls(Plan.of(plan), k, conditions_of(where), *of_all)

    def __post_init__(self) -> None:
        whole = isinstance(self.k, int | np.integer) and not isinstance(self.k, bool)
        require(whole and self.k >= 1, f"k is {self.k!r}; it must be a whole number of at least 1.")
        object.__setattr__(self, "k", int(self.k))
        cosine = self.cutoff if isinstance(self.cutoff, int | float | np.number) else np.nan
        fits = self.cutoff in (None, "auto") or bool(-1 <= cosine <= 1)
        allowed = "a cosine from -1 to 1, or auto"
        require(fits, f"The cutoff is {self.cutoff}; it must be {allowed}.")


def conditions_of(where: str | Sequence[str]) -> tuple[str, ...]:
    """One condition or several.

    Raises:
        ConfigError: something else than text.
    """
    several = (where,) if isinstance(where, str) else where
    if not isinstance(several, Iterable) or not all(isinstance(each, str) for each in several):
        raise ConfigError(f"where is {where!r}; it must be conditions such as 'label=cat'.")
    return tuple(several)
