"""What the options of a query name: an index, a request and the queries. Imports no typer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mrl_search.cli.render import note, show_skipped
from mrl_search.errors import ConfigError, DataError, Skipped
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    from mrl_search.encoders.base import Access
    from mrl_search.encoders.words import Words
    from mrl_search.index import Index
    from mrl_search.search.request import Cutoff, SearchRequest
    from mrl_search.search.results import Queries

__all__ = ["check_readable", "open_index", "queries_of", "request_of"]


def open_index(
    folder: Path | None, model: str | None = None, access: "Access | None" = None
) -> "Index":
    """The index that `--index` names, or the newest."""
    from mrl_search.engines.milvus_client import Place
    from mrl_search.index import Index
    from mrl_search.store.manifest import newest_index

    if folder and Place.is_one(str(folder)):
        hint = f"Make an index of it: mrl-search copy '{folder}' --to FOLDER"
        raise ConfigError(f"{folder} is a collection, not an index folder.", hint)
    return Index.open(folder or newest_index(), model, access)


def request_of(
    index: "Index", dims: int | None, plan: str | None, k: int, where: list[str] | None,
    ids: Path | None, cutoff: "Cutoff" = None, explain: bool = False,
    not_itself: bool = False, expected: bool = False,
) -> "SearchRequest":  # fmt: skip
    """The request that the options describe; every stage is a prefix of the index."""
    from mrl_search.search.filters import read_ids
    from mrl_search.search.request import SearchRequest

    if dims is not None and plan is not None:
        raise ConfigError("--dims and --plan are both given.", "--dims 64 is short for --plan 64.")
    chosen = Plan.single(dims) if dims is not None else Plan.parse(plan or "auto")
    for d in chosen.dims:
        index.corpus.check_dims(d)
    rows = read_ids(ids) if ids else None
    conditions = tuple(where or ())
    return SearchRequest(chosen, k, conditions, rows, cutoff, explain, not_itself, expected)


def queries_of(
    index: "Index", asked: "Sequence[str | Words]", vector: str | None, model: str | None
) -> "Queries":
    """The pictures and words, embedded by the index's model, or the rows of `--vector`."""
    if not asked and vector is None:
        hint = "Name pictures, or --vector FILE."
        raise ConfigError("There is nothing to search with.", hint)
    if asked and vector is not None:
        raise ConfigError("--vector is given with pictures or words.", "Leave one of them out.")
    if vector is not None:
        if model is not None:
            raise ConfigError("--model is for pictures, and --vector is given.", "Drop one.")
        from mrl_search.search.results import Queries
        from mrl_search.store.vector_files import open_queries, read_queries

        source = open_queries(vector)
        for text in source.notes:
            note(text)
        rows = index.corpus.to_space(read_queries(source))
        names = [vector] if len(rows) == 1 else [f"{vector}[{i}]" for i in range(len(rows))]
        return Queries(names, rows)
    queries = index.embed(asked, skip_broken=True)
    check_readable(queries.names, queries.skipped)
    return queries


def check_readable(names: Sequence[str], skipped: Sequence[Skipped]) -> None:
    """Raise DataError if all pictures are skipped."""
    if not names:
        show_skipped(skipped)
        first = skipped[0]
        message = f"None of the pictures can be read; the first: {first.path}: {first.reason}."
        there = os.path.lexists(first.path)
        hint = "Name files in JPEG, PNG, WebP, GIF, BMP or TIFF." if there else "Check its name."
        raise DataError(message, hint)
