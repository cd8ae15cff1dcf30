"""A prefix index in Milvus: rows of the corpus by the ids of their items."""

import json
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex, chosen, padded
from mrl_search.engines.milvus import Remote, default_effort
from mrl_search.engines.milvus_made import KINDS, MOST_FOUND
from mrl_search.store.items import Items
from mrl_search.store.rows import Ids

__all__ = ["RemoteIndex", "expression_of"]

LISTED = 10_000  # ids that a filter names
CONDITION = re.compile(r"([^=!<>]+)(<=|>=|==|=|<|>)(.*)")


class RemoteIndex(PrefixIndex):
    """A field of a collection.

    Args:
        remote: the collection.
        dims: prefix length.
        items: of the corpus; row i has the i-th id. An item that was changed has its id twice: of
            a deleted row, and of a later one.
        check: raises an error if the collection lost rows; called where a search finds too few.
    """

    remote = True

    def __init__(self, remote: Remote, dims: int, items: Items, check: Callable[[], None]) -> None:
        kind = remote.kinds[dims]
        super().__init__(dims, items.num_rows, kind, 0)
        self.exact, self.widens, self.efforts = kind == "FLAT", kind == "HNSW", KINDS[kind][2]
        self.rescores = not remote.place.is_file  # Milvus Lite goes through all rows for it
        self._remote, self._items, self._check = remote, items, check
        self._order = np.argsort(items.all_ids, kind="stable")
        self._sorted = items.all_ids[self._order]

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        found = self._asked(x, k, effort, mask)
        there = min(k, MOST_FOUND, self.count if mask is None else mask.count)
        least = there if self.exact else min(there, 1)
        if least and (found[1][:, least - 1] < 0).any():
            self._check()
        return found

    def _asked(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        where = "" if mask is None else expression_of(mask, self._items)
        if where is not None:
            wide = min(k, MOST_FOUND)
            return self._rows(self._remote.search(self.dims, x, wide, effort, where), k, mask)
        wide = min(MOST_FOUND, max(2 * k, 64))
        while True:  # no filter says which rows: more are asked for, and some of them left out
            scores, ids = self._remote.search(self.dims, x, wide, effort)
            found = self._rows((scores, ids), k, mask)
            if wide >= min(MOST_FOUND, self.count) or (found[1] >= 0).all():
                return found
            wide = min(MOST_FOUND, 4 * wide)

    def rescore(self, x: NDArray[np.float32], rows: Ids, keep: int) -> Found:
        known = self._items.all_ids
        scores = np.full((len(x), keep), -np.inf, np.float32)
        best = np.full((len(x), keep), -1, np.int64)
        for i, own in enumerate(rows):
            listed = known[own[own >= 0]].tolist()
            if listed:
                found = self._remote.search(self.dims, x[i : i + 1], keep, 0, f"id in {listed}")
                scores[i], best[i] = (part[0] for part in self._rows(found, keep, None))
        return scores, best

    def cost(self, effort: int = 0, mask: Mask | None = None) -> float | None:
        built, wanted = KINDS[self.kind][0], effort or default_effort(self.kind)
        if "M" in built:
            return float(min(self.count, wanted * built["M"]))
        if "nlist" in built:
            lists = built["nlist"]
            return lists + self.count * min(1.0, wanted / lists)
        return float(self.count)

    def _rows(self, found: Found, k: int, mask: Mask | None) -> Found:
        """What was found, by rows of the corpus; what it does not have is left out."""
        scores, ids = found
        places = np.searchsorted(self._sorted, ids, side="right") - 1  # the latest
        rows, good = self._order[places], (places >= 0) & (self._sorted[places] == ids)
        if mask is not None:
            good &= mask.allowed[rows]
        return padded(chosen((scores, rows), good, k), k)


def expression_of(mask: Mask, items: Items) -> str | None:
    """A filter of Milvus for the rows of a mask; None where it has none.

    Deleted rows are not in the collection, so no filter has to name them.
    """
    if mask.conditions is not None:
        parts = [_condition(condition, items) for condition in mask.conditions]
        if None not in parts:
            return " and ".join(part for part in parts if part)
    if mask.count <= LISTED:
        return f"id in {items.all_ids[mask.ids].tolist()}"
    if len(mask) - mask.count <= LISTED:
        without = np.setdiff1d(items.all_ids[~mask.allowed], items.all_ids[mask.ids])
        return f"id not in {without.tolist()}"
    return None


def _condition(condition: str, items: Items) -> str | None:
    """A condition on numbers or text, as Milvus writes it; None for any other."""
    match = CONDITION.fullmatch(condition)
    if match is None or match[1] not in items.column_names or match[1] == "id":
        return None
    name, sign, text = match[1], "==" if match[2] == "=" else match[2], match[3]
    if condition != match[1] + match[2] + text.strip() or not text.isascii():
        return None
    kind = items.schema.field(name).type
    field = f"item[{json.dumps(name, ensure_ascii=False)}]"
    try:
        if pa.types.is_integer(kind):
            return f"{field} {sign} {int(text)}"
        if pa.types.is_float64(kind):
            return f"{field} {sign} {float(text)!r}" if np.isfinite(float(text)) else None
    except ValueError:
        return None
    if pa.types.is_string(kind) and sign == "==" and "*" not in text and text.isprintable():
        return f"{field} == {json.dumps(text, ensure_ascii=False)}"
    return None
