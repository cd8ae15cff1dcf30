"""What is added to an index and removed from it by hand: vectors, and items of any kind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.living import Added, Edit, maintain
from mrl_search.progress import Progress, silent
from mrl_search.store.collection import Collection as Rows
from mrl_search.store.collection import LeftOut, left_out_of
from mrl_search.store.generations import changing
from mrl_search.store.own_vectors import inspect, item_columns, item_table, stored_rows
from mrl_search.store.rows import Ids
from mrl_search.store.vector_files import VectorSource, open_vectors
from mrl_search.sync import applied
from mrl_search.synced import Synced

__all__ = ["add_vectors", "remove_rows"]


def remove_rows(
    folder: Path, choose: Callable[[Rows], Ids], progress: Progress = silent
) -> int:  # fmt: skip
    """Remove the rows that `choose` gives of the newest generation: how many.

    A later sync does not take their pictures again.
    """
    with changing(folder, "remove") as change:
        rows = Rows.open(folder)
        chosen = choose(rows)
        if not len(chosen):
            return 0
        left_out = left_out_of(folder, rows.manifest)
        known = "bytes" in rows.items.column_names
        sizes = rows.items.column("bytes")[chosen] if known else [None] * len(chosen)
        facts = zip(rows.paths[chosen], rows.hashes[chosen], sizes, strict=True)
        left_out |= {path: LeftOut(content, size) for path, content, size in facts if path}
        applied(change, rows, Edit(chosen, left_out=left_out))
    maintain(folder, progress)
    return len(chosen)


def add_vectors(
    folder: Path, vectors: VectorSource | NDArray[np.floating] | str | Path,
    items: str | Path | None = None, progress: Progress = silent,
) -> Synced:  # fmt: skip
    """Add vectors of a user's own, as `Index.from_vectors` takes them.

    Those whose path an item has, or without a path its vector, are `copied`: the items stay.

    Raises:
        ConfigError: an index of pictures.
        DataError: vectors of other dims, or items that cannot be used.
    """
    if items is not None and not isinstance(items, str | Path):
        raise ConfigError(f"items is {items!r}; it must be the path of a Parquet file.")
    source = open_vectors(vectors)
    columns = item_columns(source, items)
    found = inspect(source, False, progress)
    with changing(folder, "add") as change:
        rows = Rows.open(folder)
        if not rows.manifest.own_vectors:
            raise ConfigError(f"{folder} holds pictures.", "Add pictures to it, not vectors.")
        if source.dim != rows.transform.rows_dim:
            wanted = rows.transform.rows_dim
            message = f"{source.name} has {source.dim} dims; {folder} takes {wanted}."
            raise DataError(message, "Add vectors of the model that made the others.")
        table = item_table(columns, found)
        table = table.set_column(0, "id", pa.nulls(len(table), pa.int64()))
        names = [path or "" for path in table["path"].to_pylist()]
        again = _known(rows, table)
        new = Added(table, stored_rows(source, rows.transform))
        applied(change, rows, Edit(added=new), progress)
    m = maintain(folder, progress)
    twice = tuple(name for name, known in zip(names, again, strict=True) if known)
    once = tuple(name for name, known in zip(names, again, strict=True) if not known)
    return Synced(added=once, copied=twice, generation=m.generation, items=m.alive)


def _known(rows: Rows, new: pa.Table) -> list[bool]:
    """Which new items have the path of an item, or without a path its vector."""
    live = rows.live_rows
    paths = set(rows.paths[live].tolist()) - {None}
    vectors = {h for h, path in zip(rows.hashes[live], rows.paths[live], strict=True) if not path}
    return [
        path in paths if path else content in vectors
        for path, content in zip(new["path"].to_pylist(), new["hash"].to_pylist(), strict=True)
    ]
