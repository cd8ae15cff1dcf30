"""Answers as JSON objects, the same for the command line, the API and the page."""

from typing import Any

from mrl_search.search.explain import Explanation
from mrl_search.search.results import Hits

__all__ = ["hit_records", "levels"]


def hit_records(
    hits: Hits, explanation: Explanation | None, query: int, own_vectors: bool, look: bool = True
) -> list[dict[str, Any]]:
    """The hits of one query, with rank and score of each at every prefix, if explained.

    Args:
        hits: of the query.
        explanation: of all queries.
        query: its number.
        own_vectors: whether paths are a user's own, and may name no files.
        look: whether to tell which files are gone.
    """
    records: list[dict[str, Any]] = []
    items, rows = hits.items, hits.rows.tolist()
    own = items.own_columns if items is not None else []
    for i, (id_, score, path, label) in enumerate(hits.values()):
        record: dict[str, Any] = {"rank": i + 1, "id": id_, "score": round(score, 6)}
        if hits.expected is not None:
            record["expected"] = float(f"{hits.expected[i]:.3g}")
        record["label"], record["path"] = label, path
        if look and path is not None and not own_vectors:
            from mrl_search.images.sources import is_gone  # slow, and vectors do not need it

            record["gone"] = is_gone(path)
        if items is not None and own:
            values = {name: items.value(name, rows[i]) for name in own}
            record["columns"] = {n: None if v != v else v for n, v in values.items()}  # no NaN
        if explanation is not None:
            record["explain"] = [
                {"dims": d, "rank": rank, "score": round(score, 6)}
                for d, rank, score in levels(explanation, query, i)
            ]
        records.append(record)
    return records


def levels(explanation: Explanation, query: int, hit: int) -> list[tuple[int, int, float]]:
    """Dims, rank and score of one hit at every prefix."""
    ranks, scores = explanation.ranks[query, hit].tolist(), explanation.scores[query, hit].tolist()
    return list(zip(explanation.dims, ranks, scores, strict=True))
