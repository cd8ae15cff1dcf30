"""Answers as JSON, or as tables for people, from the same records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrl_search.cli.render import json_line, note, show_table

if TYPE_CHECKING:
    from mrl_search.encoders.words import Words

__all__ = ["by_chance", "conclude", "show_answer"]

NOTHING_FOUND = 3  # exit code, where a cut-off was given
SHOWN, WIDTH = 4, 24  # own columns in a table, and characters of a value
UNSHOWN = ("folder", "latitude", "longitude", "bytes", "modified", "inode")  # of pictures


def show_answer(query: "str | Words", answer: Mapping[str, Any], as_json: bool) -> None:
    """Print the answer to a query, with `hits` as `hit_records` gives them."""
    if not as_json:
        return _show_hits(answer["hits"], f"{query}  ·  plan {answer['plan']}")
    about = {name: answer[name] for name in ("plan", "k", "found", "ms", "hits")}
    if isinstance(query, str):
        json_line({"image": query, **about})
    else:
        words = {"text": query.text, "minus": query.minus}
        json_line({"image": query.picture, **words, **about})


def _show_hits(hits: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the hits of one query with their first columns, then their ranks at every prefix."""
    pictures = any("gone" in hit for hit in hits)
    columns = hits[0].get("columns", ()) if hits else ()
    own = [name for name in columns if not (pictures and name in UNSHOWN)]
    chance = any("expected" in hit for hit in hits)
    rows = []
    for hit in hits:
        path = hit["path"] or f"item {hit['id']}"
        if hit.get("gone"):
            path += "  (gone)"
        values = (hit["columns"][name] for name in own[:SHOWN])
        cells = ("" if value is None else str(value) for value in values)
        short = (cell if len(cell) <= WIDTH else f"{cell[: WIDTH - 1]}…" for cell in cells)
        expected = (by_chance(hit["expected"]),) if chance else ()
        score = f"{hit['score']:.4f}"
        rows.append((str(hit["rank"]), score, *expected, hit["label"] or "", *short, path))
    added = ("expected by chance",) if chance else ()
    show_table(("rank", "score", *added, "label", *own[:SHOWN], "path"), rows, title)
    if hits and "explain" in hits[0]:
        _show_explanation(hits)


def by_chance(expected: float) -> str:
    """`0.02`, `3`, or `<0.001` unrelated items."""
    return (
        "<0.001" if expected < 0.001 else f"{expected:.1g}" if expected < 1 else f"{expected:,.0f}"
    )


def _show_explanation(hits: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of rank and score of each hit at every prefix."""
    rows = []
    for hit in hits:
        cells = [f"{level['rank']:,} ({level['score']:.2f})" for level in hit["explain"]]
        rows.append((str(hit["rank"]), *cells, Path(hit["path"] or str(hit["id"])).name))
    dims = (f"{level['dims']} dims" for level in hits[0]["explain"])
    show_table(("rank", *dims, "path"), rows, "rank (score) of each hit at every prefix")


def conclude(counts: Sequence[int], k: int, cutoff: object, more: str = "") -> int:
    """Say where fewer hits were found than the `k` asked for, and what helps.

    Returns:
        The exit code: 3 if a cut-off left none.
    """
    fewest = min(counts, default=0)
    nothing = cutoff is not None and not any(counts)
    if nothing or (cutoff is None and fewest < k):
        cosine = f"No item has a cosine of at least {cutoff}."
        none = "Nothing here looks like this." if cutoff == "auto" else cosine
        note(none if nothing else f"Only {fewest:,} of the {k:,} asked for were found.{more}")
    return NOTHING_FOUND if nothing else 0
