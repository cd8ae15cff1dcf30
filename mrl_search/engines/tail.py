"""A prefix index, and the rows that were added after it was built: compared one by one."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex
from mrl_search.engines.kernels import best

__all__ = ["TailedIndex", "split_mask"]


class TailedIndex(PrefixIndex):
    """The first rows by a prefix index, the rest by an exact one.

    Args:
        base: the index of the first rows.
        tail: an exact index of the rows after them, numbered from 0.
    """

    def __init__(self, base: PrefixIndex, tail: PrefixIndex) -> None:
        count, ram = base.count + tail.count, base.ram_bytes + tail.ram_bytes
        super().__init__(base.dims, count, base.kind, ram)
        self.exact, self.filters = base.exact, base.filters
        self.widens, self.efforts = base.widens, base.efforts
        self._base, self._tail = base, tail

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        first, second = split_mask(mask, self._base.count)
        found = []
        for index, part, start in ((self._base, first, 0), (self._tail, second, self._base.count)):
            count = index.count if part is None else part.count
            if count:
                given = index.search(x, min(k, count), effort if index is self._base else 0, part)
                found.append((given[0], np.where(given[1] < 0, -1, given[1] + start)))
        if len(found) == 1 and found[0][1].shape[1] == k:
            return found[0]
        width = k - sum(ids.shape[1] for _, ids in found)
        if width > 0:
            nothing = np.full((len(x), width), -1)
            found.append((np.full(nothing.shape, -np.inf, np.float32), nothing))
        scores, ids = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        return best(scores, ids.astype(np.int64), k, nearly=True)

    def cost(self, effort: int = 0, mask: Mask | None = None) -> float | None:
        """Vectors that one query is compared with."""
        first, second = split_mask(mask, self._base.count)
        cost = self._base.cost(effort, first)
        return None if cost is None else cost + (second.count if second else self._tail.count)


def split_mask(mask: Mask | None, start: int) -> tuple[Mask | None, Mask | None]:
    """A mask of the rows before `start`, and one of those from there on."""
    if mask is None:
        return None, None

    def part(rows: slice) -> Mask | None:
        allowed = mask.allowed[rows]
        return None if allowed.all() else Mask(allowed)

    if ("split", start) not in mask.cache:
        mask.cache["split", start] = part(slice(start)), part(slice(start, None))
    found: tuple[Mask | None, Mask | None] = mask.cache["split", start]
    return found
