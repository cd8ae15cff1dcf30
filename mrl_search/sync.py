"""Keeping an index as its pictures are: what is added, removed, moved and edited.

Every function changes the index folder by generations of its own (see `mrl_search.living`).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.living import Added, Edit, apply, maintain
from mrl_search.progress import Progress, silent
from mrl_search.store.collection import Collection
from mrl_search.store.generations import changing
from mrl_search.store.own_vectors import inspect, item_columns, item_table, stored_rows
from mrl_search.store.rows import Ids
from mrl_search.store.vector_files import VectorSource, open_vectors
from mrl_search.store.writer import CollectionWriter

__all__ = ["add_vectors", "remove_rows"]


def add_vectors(
    folder: Path, vectors: VectorSource | NDArray[np.floating] | str | Path,
    items: str | Path | None = None, progress: Progress = silent,
) -> int:  # fmt: skip
    """Add vectors of a user's own, as `Index.from_vectors` takes them: how many.

    Raises:
        ConfigError: an index of pictures.
        DataError: vectors of other dims, or items that cannot be used.
    """
    source = open_vectors(vectors)
    columns = item_columns(source, items)
    found = inspect(source, False, progress)
    with changing(folder) as change:
        collection = Collection.open(folder)
        if not collection.manifest.own_vectors:
            raise ConfigError(f"{folder} holds pictures.", "Add pictures to it, not vectors.")
        transform = collection.transform
        if source.dim != transform.rows_dim:
            message = f"{source.name} has {source.dim} dims; {folder} takes {transform.rows_dim}."
            raise DataError(message, "Add vectors of the model that made the others.")
        table = item_table(columns, found)
        table = table.set_column(0, "id", pa.nulls(table.num_rows, pa.int64()))
        rows = stored_rows(source, transform, progress)
        m = collection.manifest
        with CollectionWriter.open(change.out, m.dim, m.dtype) as writer:
            apply(change, collection, writer, Edit(added=Added(table, rows)))
    maintain(folder, progress)
    return source.count


def remove_rows(
    folder: Path, choose: Callable[[Collection], Ids], progress: Progress = silent
) -> int:  # fmt: skip
    """Remove items of an index: how many.

    Args:
        folder: the index folder.
        choose: gives the rows to remove, of the newest generation.
        progress: called with what is being done, how far, and of how much.
    """
    with changing(folder) as change:
        collection = Collection.open(folder)
        rows = choose(collection)
        if collection.alive is not None:
            rows = rows[collection.alive[rows]]
        if not len(rows):
            return 0
        m = collection.manifest
        with CollectionWriter.open(change.out, m.dim, m.dtype) as writer:
            apply(change, collection, writer, Edit(deleted=rows))
    maintain(folder, progress)
    return len(rows)
